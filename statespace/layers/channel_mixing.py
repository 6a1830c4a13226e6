"""RWKV's channel mixing: the feed-forward half of its block, with a token shift and a gate (Peng et al. 2023, "RWKV:
Reinventing RNNs for the Transformer Era", section 3.1).

    r_k = W_r (μ_r ⊙ u_k + (1 - μ_r) ⊙ u_{k-1}),    κ_k = W_k (μ_k ⊙ u_k + (1 - μ_k) ⊙ u_{k-1})
    y_k = σ(r_k) ⊙ W_v max(κ_k, 0)²

u, y    (B, L, D)
κ       (B, L, E)     hidden features
state   (B, D)        the last sample
"""

import torch
from torch.nn.functional import relu

from statespace.kernels import token_shift
from statespace.layers.selective import SelectiveMixer, product
from statespace.layers.token_shift import check_position, last_sample, orthogonal_, starting_mix


class ChannelMixing(SelectiveMixer):
    """RWKV's channel mixing: a squared-ReLU feed-forward layer that sees the sample before, behind a gate.

        y_k = σ(W_r x^r_k) ⊙ W_v max(W_k x^k_k, 0)²,    x_k = μ ⊙ u_k + (1 - μ) ⊙ u_{k-1}

    It looks one sample back and no further; gaps do not enter, but a padded step (gap 0) is no sample. The paper's
    block is :class:`RWKV` and this layer, each behind a norm and in a residual: :class:`RWKVBlock`.

    Parameters
    ----------
    d_model : int
        Number of channels.
    d_hidden : int, optional
        Hidden features E. None is 4 ``d_model``, as in the paper.
    position : (int, int), default (0, 1)
        Which layer of how many this one is, counted from 0: the starting μ depend on it as in the authors' code.
    zero_init : bool, default True
        W_r and W_v start at zero, as in the paper, so that a residual block starts as the identity. False draws them
        orthogonal, as W_k.
    bidirectional : bool, default False
        Add a second layer that looks one sample ahead; the two share W_k, W_r and W_v. Such a layer has neither
        ``step`` nor a state to pass on.
    backend : str, optional
        Backend of :func:`statespace.kernels.token_shift`; None takes the best one.

    Raises
    ------
    ValueError
        Unknown options, wrong shapes, negative gaps.

    References
    ----------
    B. Peng et al. (2023). RWKV: Reinventing RNNs for the Transformer Era. Section 3.1; the start is
    that of the authors' code.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import ChannelMixing
    >>> layer = ChannelMixing(d_model=4, zero_init=False)
    >>> y, state = layer(torch.randn(2, 100, 4))
    >>> y.shape, state.shape
    (torch.Size([2, 100, 4]), torch.Size([2, 4]))
    >>> y_next, state = layer.step(torch.randn(2, 4), state)
    """

    kernels = ("token_shift",)
    gated_unit = False
    shared = ("in_proj", "gate", "out_proj")

    def __init__(self, d_model, *, d_hidden=None, position=(0, 1), zero_init=True, bidirectional=False, backend=None):
        super().__init__(d_model, bidirectional=bidirectional, backend=backend)
        if d_hidden is not None and d_hidden < 1:
            raise ValueError(f"d_hidden must be a positive integer, or None for 4 d_model. Got {d_hidden!r} instead.")
        check_position(position)
        self.d_hidden, self.position, self.zero_init = d_hidden or 4 * d_model, tuple(position), zero_init
        self.mix_r = torch.nn.Parameter(starting_mix(d_model, position))
        self.mix_k = torch.nn.Parameter(starting_mix(d_model, position))
        self.in_proj = torch.nn.Linear(d_model, self.d_hidden, bias=False)
        self.gate = torch.nn.Linear(d_model, d_model, bias=False)
        self.out_proj = torch.nn.Linear(self.d_hidden, d_model, bias=False)
        orthogonal_(self.in_proj.weight)
        for layer in (self.gate, self.out_proj):
            torch.nn.init.zeros_(layer.weight) if zero_init else orthogonal_(layer.weight)
        self._complete(d_hidden=d_hidden, position=position, zero_init=zero_init)

    def extra_repr(self):
        return f"{self.d_model}, d_hidden={self.d_hidden}, bidirectional={self.bidirectional}"

    def _state_shapes(self, batch_size):
        return batch_size, self.d_model

    def _read(self, u, dt, lengths, state):
        mixes = token_shift(u, self._mixes(), state, backend=self._backend("token_shift"))
        return self._gated(*mixes), last_sample(u, state, lengths)

    def _advance(self, u_t, dt, state):
        return self._gated(*torch.lerp(state.to(u_t.dtype), u_t, self._mixes().unsqueeze(1))), u_t

    def _selection(self, u, dt):
        of_gate, _ = token_shift(u, self._mixes(), None, backend=self._backend("token_shift"))
        return {"gate": torch.sigmoid(product(of_gate, self.gate.weight))}

    def _mixes(self):
        return torch.stack([self.mix_r, self.mix_k])

    def _gated(self, of_gate, of_key):
        features = relu(product(of_key, self.in_proj.weight))
        return torch.sigmoid(product(of_gate, self.gate.weight)) * product(features * features, self.out_proj.weight)
