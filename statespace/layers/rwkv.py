"""RWKV-4: attention as a recurrence, a decaying average of values behind a gate (Peng et al. 2023, "RWKV: Reinventing
RNNs for the Transformer Era").

    x^□_n = μ_□ ⊙ u_n + (1 - μ_□) ⊙ u_{n-1}                     token shift, for □ = r, k, v
    r_n, k_n, v_n = W_r x^r_n, W_k x^k_n, W_v x^v_n
    a_n = Σ_{i<n} p_i v_i,  b_n = Σ_{i<n} p_i                    p_i = exp(k_i - w (t_n - t_i - 1))
    y_n = W_o (σ(r_n) ⊙ (a_n + e^{u + k_n} v_n) / (b_n + e^{u + k_n}))

u_n, y_n    (B, L, D)
w, u        (D,)         rate of decay, exp(log_decay) > 0, and the bonus of the current sample
t_n         (B, L)       Δ_1 + … + Δ_n: weights decay with the time that really went by
state       the last sample (B, D), and the sums with their exponent (B, D, 3)
"""

import math

import torch

from statespace.kernels import token_shift, wkv
from statespace.kernels.wkv.step import advance
from statespace.layers.base import SequenceMixer
from statespace.layers.channel_mixing import ChannelMixing
from statespace.layers.selective import SelectiveMixer, product
from statespace.layers.token_shift import check_position, last_sample, orthogonal_, starting_mix


class RWKV(SelectiveMixer):
    """RWKV's time mixing: an average of all values before, whose weights decay with time, behind a gate.

        y_n = W_o (σ(r_n) ⊙ wkv_n),    wkv_n = (Σ_{i<n} p_i v_i + e^{u + k_n} v_n) / (Σ_{i<n} p_i + e^{u + k_n}),
        p_i = e^{k_i - w (t_n - t_i - 1)},    r, k, v from a mix of u_n and u_{n-1}

    Each channel has a rate w, and decays by exp(-w Δ_n) over the gap Δ_n that a sample really has; with all gaps 1 this
    is the paper's layer. The token shift counts samples: it mixes in the one before, however long ago it came.

    Parameters
    ----------
    d_model : int
        Number of channels.
    position : (int, int), default (0, 1)
        Which layer of how many this one is, counted from 0. The paper starts deeper layers with more slow channels and
        less of the sample before; the default is its first layer.
    zero_init : bool, default True
        W_r, W_k and W_o start at zero, as in the paper: the layer's first outputs are zero, a residual block around it
        starts as the identity, and the first average weighs all keys alike. False draws them orthogonal, as W_v.
    gated_unit : bool, default True
        Whether a residual stack gives the outputs a gated linear unit, in the place of the paper's channel mixing.
        False has them added as they are, for stacks in which :class:`ChannelMixing` follows.
    bidirectional : bool, default False
        Add a second layer run backwards in time, with the gaps shifted by one; the two share W_r, W_k, W_v and W_o.
        Such a layer has neither ``step`` nor a state to pass on.
    backend : str, optional
        Backend of :func:`statespace.kernels.wkv`; None takes the best one.

    Raises
    ------
    ValueError
        Unknown options, wrong shapes, negative gaps.

    Notes
    -----
    The starting values of channel i of d in layer l of L are those of the authors' code: log w =
    -5 + 8 (i/(d-1))^(0.7 + 1.3 l/(L-1)), u = log 0.3 + ((i+1) mod 3 - 1)/2, μ_k = (i/d)^(1 - l/L), μ_v = μ_k +
    0.3 l/(L-1), and μ_r = (i/d)^((1 - l/L)/2). The fastest rate is 20 per unit of time. log w carries
    ``_optim = {"group": "ssm"}``.

    The paper's block is :class:`RWKVBlock`. An estimator has it as the pattern ``layer=["rwkv", "channel_mixing"]``
    with ``layer_options={"rwkv": {"gated_unit": False}}``.

    References
    ----------
    B. Peng et al. (2023). RWKV: Reinventing RNNs for the Transformer Era. Section 3; the start follows the code, https://github.com/BlinkDL/RWKV-LM.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import RWKV
    >>> layer = RWKV(d_model=4)
    >>> u, dt = torch.randn(2, 100, 4), torch.rand(2, 100)
    >>> y, (last, sums) = layer(u, dt)
    >>> y.shape, last.shape, sums.shape
    (torch.Size([2, 100, 4]), torch.Size([2, 4]), torch.Size([2, 4, 3]))
    >>> y_next, state = layer.step(torch.randn(2, 4), (last, sums), dt=torch.tensor([0.3, 2.0]))
    >>> y_next.shape
    torch.Size([2, 4])
    """

    kernels = ("wkv", "token_shift")
    slow_parameters = {"log_decay": "A"}

    def __init__(self, d_model, *, position=(0, 1), zero_init=True, gated_unit=True, bidirectional=False, backend=None):
        super().__init__(d_model, bidirectional=bidirectional, backend=backend)
        check_position(position)
        self.position, self.zero_init, self.gated_unit = tuple(position), zero_init, gated_unit
        index, count = position
        channel = torch.arange(d_model)
        ratio = (channel / max(d_model - 1, 1)) ** (0.7 + 1.3 * index / max(count - 1, 1))
        self.log_decay = torch.nn.Parameter(-5 + 8 * ratio)
        self.bonus = torch.nn.Parameter(math.log(0.3) + ((channel + 1) % 3 - 1) / 2)
        self.mix_r = torch.nn.Parameter(starting_mix(d_model, position, power=0.5))
        self.mix_k = torch.nn.Parameter(starting_mix(d_model, position))
        self.mix_v = torch.nn.Parameter(starting_mix(d_model, position, rise=0.3))
        self.in_proj = torch.nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = torch.nn.Linear(d_model, d_model, bias=False)
        with torch.no_grad():
            for weight in (*self.in_proj.weight.chunk(3), self.out_proj.weight):
                orthogonal_(weight)
            if zero_init:
                self.in_proj.weight[: 2 * d_model] = 0
                self.out_proj.weight.zero_()
        self._complete(position=position, zero_init=zero_init, gated_unit=gated_unit)

    def extra_repr(self):
        return f"{self.d_model}, position={self.position}, bidirectional={self.bidirectional}"

    def _state_shapes(self, batch_size):
        return (batch_size, self.d_model), (batch_size, self.d_model, 3)

    def _read(self, u, dt, lengths, state):
        register, sums = (None, None) if state is None else state
        r, k, v = self._projected(token_shift(u, self._mixes(), register, backend=self._backend("token_shift")))
        average, sums = wkv(self._rate(), self.bonus, k, v, sums, dt, backend=self._backend("wkv"))
        return product(torch.sigmoid(r) * average, self.out_proj.weight), (last_sample(u, register, lengths), sums)

    def _advance(self, u_t, dt, state):
        register, sums = state
        r, k, v = self._projected(torch.lerp(register.to(u_t.dtype), u_t, self._mixes().unsqueeze(1)))
        gap = None if dt is None else dt.unsqueeze(1)
        average, sums = advance(self._rate(), self.bonus, k, v, sums, gap)
        return self.out_proj(torch.sigmoid(r) * average.to(r.dtype)), (u_t, sums)

    def _selection(self, u, dt):
        r, k, _ = self._projected(token_shift(u, self._mixes(), None, backend=self._backend("token_shift")))
        gaps = torch.ones_like(k[..., :1]) if dt is None else dt.unsqueeze(-1)
        return {"kept": torch.exp(-self._rate() * gaps), "key": k, "gate": torch.sigmoid(r)}

    def _rate(self):
        return torch.exp(self.log_decay.to(torch.promote_types(self.log_decay.dtype, torch.float32)))

    def _mixes(self):
        return torch.stack([self.mix_r, self.mix_k, self.mix_v])

    def _projected(self, x):
        """r, k and v, each by itself in memory, as the kernel reads them."""
        return (product(mix, weight) for mix, weight in zip(x, self.in_proj.weight.chunk(3), strict=True))


class RWKVBlock(SequenceMixer):
    """The paper's residual block: time mixing and channel mixing, each behind a norm.

        h = u + RWKV(norm₁(u)),    y = h + ChannelMixing(norm₂(h))

    It is a sequence mixer like the layers it is made of. A model of the paper is an embedding with a norm, a number of
    blocks with ``position=(l, n_blocks)``, a norm and a head.

    Parameters
    ----------
    d_model : int
        Number of channels.
    d_hidden, position, zero_init, bidirectional, backend
        As in :class:`RWKV` and :class:`ChannelMixing`.

    References
    ----------
    B. Peng et al. (2023). RWKV: Reinventing RNNs for the Transformer Era. Figure 2.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import RWKVBlock
    >>> blocks = [RWKVBlock(8, position=(i, 3)) for i in range(3)]
    >>> h = torch.randn(2, 50, 8)
    >>> for block in blocks:
    ...     h, state = block(h, dt=torch.rand(2, 50))
    >>> h.shape
    torch.Size([2, 50, 8])
    """

    def __init__(self, d_model, *, d_hidden=None, position=(0, 1), zero_init=True, bidirectional=False, backend=None):
        super().__init__()
        self.d_model, self.bidirectional = d_model, bidirectional
        options = {"position": position, "zero_init": zero_init, "bidirectional": bidirectional, "backend": backend}
        self.time_norm, self.channel_norm = torch.nn.LayerNorm(d_model), torch.nn.LayerNorm(d_model)
        self.time_mixing = RWKV(d_model, **options)
        self.channel_mixing = ChannelMixing(d_model, d_hidden=d_hidden, **options)

    def forward(self, u, dt=None, state=None):
        """u (batch, length, d_model) -> (y of that shape, state); see :meth:`SequenceMixer.forward`.

        A padded step adds nothing to its u.
        """
        of_time, of_channels = (None, None) if state is None else state
        y, of_time = self.time_mixing(self.time_norm(u), dt, of_time)
        h = u + y
        y, of_channels = self.channel_mixing(self.channel_norm(h), dt, of_channels)
        return h + y, (None if self.bidirectional else (of_time, of_channels))

    def step(self, u_t, state, dt=None):
        """One sample: ``u_t`` (batch, d_model), gaps ``dt`` (batch,) or None for 1; returns (y_t, state)."""
        of_time, of_channels = (None, None) if state is None else state
        y, of_time = self.time_mixing.step(self.time_norm(u_t), of_time, dt)
        h = u_t + y
        y, of_channels = self.channel_mixing.step(self.channel_norm(h), of_channels, dt)
        return h + y, (of_time, of_channels)

    def initial_state(self, batch_size):
        """The states at rest of both halves."""
        return self.time_mixing.initial_state(batch_size), self.channel_mixing.initial_state(batch_size)
