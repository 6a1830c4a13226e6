"""Mamba-2: a selective system whose decay is one number for a head (Dao & Gu 2024, "Transformers are SSMs: Generalized
Models and Efficient Algorithms Through Structured State Space Duality").

    (z, x, B, C, δ)_k = W_in u_k,    x, B, C ← SiLU(conv(x, B, C))
    h_k = exp(Δ_k A) h_{k-1} + Δ_k x_k B_kᵀ,    y_k = h_k C_k + D x_k,    Δ_k = softplus(δ_k + b) · gap_k
    output_k = W_out RMSNorm(y_k · SiLU(z_k))

E       expand · d_model       inner channels, in H heads of P
z, x    (E,)                   gate, and what is written
B, C    (G, N)                 input and read-out of the heads of a group
δ, Δ    (H,)                   the input's say on how fast time passes for a head, and its step
A       (H,)                   = -exp(A_log)
D, b    (H,)                   skip, bias of the step
conv    (E + 2 G N, W)         taps of each channel of x, B and C
h       (batch, H, P, N)
"""

import torch
from torch.nn.functional import linear, silu, softplus

from statespace.kernels import causal_conv1d, rms_norm, ssd
from statespace.layers.linear import log_uniform_steps
from statespace.layers.selective import SelectiveMixer, product

LARGEST_HEAD = 64


class Mamba2(SelectiveMixer):
    """Mamba-2: heads with one selective decay each, read by products of matrices or in one loop, on irregular gaps.

        h_k = exp(Δ_k A) h_{k-1} + Δ_k x_k B_kᵀ,    y_k = h_k C_k + D x_k,    Δ_k = softplus(δ_k + b) · gap_k

    x, B, C, δ and a gate z are projections of the input, x, B and C behind a short convolution: the input sets how fast
    time passes for a head, the gap how much time has passed. The gated output is normalised and projected back.

    Parameters
    ----------
    d_model : int
        Number of channels.
    d_state : int, default 64
        Size N of the state of each inner channel.
    d_conv : int, default 4
        Taps of the convolution.
    expand : int, default 2
        There are expand · d_model inner channels.
    head_dim : int, optional
        Channels P of a head, a divisor of the inner channels. None is 64, or the largest power of two below that
        divides the inner channels: 128 of them are two heads, 8 are one, 20 are five of four.
    n_groups : int, default 1
        Groups of heads; each has a B and a C of its own, and is normalised on its own.
    chunk_size : int, optional
        See :func:`statespace.kernels.ssd`.
    dt_min, dt_max : float, default 1e-3 and 1e-1
        softplus(b) starts log-uniformly in this range.
    bidirectional : bool, default False
        Add a second layer of this kind that runs backwards in time, with the gaps shifted by one; ``in_proj`` and
        ``out_proj`` belong to both. Such a layer has neither ``step`` nor a state to pass on.
    backend : str, optional
        Backend of the kernels that have it; None takes the best one of each.

    Raises
    ------
    ValueError
        Options that are no positive integers, heads or groups that do not divide, wrong shapes, negative gaps.

    Notes
    -----
    The state is a pair: the last d_conv - 1 samples of x, B and C, shape (batch, E + 2 G N, d_conv - 1), and h, shape
    (batch, heads, P, N). With all gaps 1 this is the paper's block, with the names and shapes of mamba_ssm's
    ``Mamba2``, whose weights ``load_state_dict`` takes as they are. The convolution's register counts samples, however
    far apart they are; a padded step (gap 0) is no sample and enters neither of the two.

    A starts uniformly in -[1, 16] and D at 1. A and the step's bias carry ``_optim = {"group": "ssm"}``; no vector is
    pulled to zero. A step takes time and memory independent of the number of samples before.

    References
    ----------
    T. Dao, A. Gu (2024). Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State
    Space Duality. Sections 6 and 7.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import Mamba2
    >>> layer = Mamba2(d_model=4, d_state=16)
    >>> u, dt = torch.randn(2, 100, 4), torch.rand(2, 100)
    >>> y, (register, h) = layer(u, dt)
    >>> y.shape, register.shape, h.shape
    (torch.Size([2, 100, 4]), torch.Size([2, 40, 3]), torch.Size([2, 1, 8, 16]))
    >>> y_next, state = layer.step(torch.randn(2, 4), (register, h), dt=torch.tensor([0.3, 2.0]))
    >>> y_next.shape
    torch.Size([2, 4])
    """

    kernels = ("causal_conv1d", "ssd", "rms_norm")
    slow_parameters = {"A_log": "A", "dt_bias": "dt"}
    gated_unit = False

    def __init__(
        self,
        d_model,
        d_state=64,
        *,
        d_conv=4,
        expand=2,
        head_dim=None,
        n_groups=1,
        chunk_size=None,
        dt_min=1e-3,
        dt_max=1e-1,
        bidirectional=False,
        backend=None,
    ):
        super().__init__(d_model, bidirectional=bidirectional, backend=backend)
        self.d_inner = inner = int(expand * d_model)
        if inner < 1:
            raise ValueError(f"expand * d_model must be at least 1. Got {expand!r} * {d_model} instead.")
        # The power of two that divides is the lowest bit.
        self.head_dim = P = min(LARGEST_HEAD, inner & -inner) if head_dim is None else head_dim
        for name, value in {"d_state": d_state, "d_conv": d_conv, "head_dim": P, "n_groups": n_groups}.items():
            if value < 1:
                raise ValueError(f"{name} must be a positive integer. Got {value!r} instead.")
        if inner % P:
            raise ValueError(f"head_dim must divide the expand * d_model = {inner} inner channels. Got {P!r} instead.")
        self.n_heads = H = inner // P
        if H % n_groups:
            raise ValueError(f"n_groups must divide the {H} heads (of head_dim={P}). Got {n_groups!r} instead.")
        self.d_state, self.d_conv, self.n_groups, self.chunk_size = d_state, d_conv, n_groups, chunk_size
        convolved = inner + 2 * n_groups * d_state
        self.in_proj = torch.nn.Linear(d_model, inner + convolved + H, bias=False)
        self.conv1d = torch.nn.Conv1d(convolved, convolved, d_conv, groups=convolved)
        step = log_uniform_steps(H, dt_min, dt_max).exp()
        # The inverse of softplus.
        self.dt_bias = torch.nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.A_log = torch.nn.Parameter(torch.empty(H).uniform_(1, 16).log())
        self.D = torch.nn.Parameter(torch.ones(H))
        self.norm = torch.nn.RMSNorm(inner, eps=1e-5)
        self.out_proj = torch.nn.Linear(inner, d_model, bias=False)
        self._frozen = None
        self._complete(
            d_state=d_state, d_conv=d_conv, expand=expand, head_dim=head_dim, n_groups=n_groups, chunk_size=chunk_size,
            dt_min=dt_min, dt_max=dt_max,
        )  # fmt: skip

    def extra_repr(self):
        return (
            f"{self.d_model}, d_state={self.d_state}, d_conv={self.d_conv}, n_heads={self.n_heads}, "
            f"head_dim={self.head_dim}, n_groups={self.n_groups}, bidirectional={self.bidirectional}"
        )

    def freeze(self):
        """Compute A once, for steps with weights that no longer change; returns self."""
        with torch.no_grad():
            self._frozen = self._rates()
        return self

    def _rates(self):
        return -torch.exp(self.A_log)

    def _state_shapes(self, batch_size):
        register = batch_size, self.conv1d.in_channels, self.d_conv - 1
        return register, (batch_size, self.n_heads, self.head_dim, self.d_state)

    def _branches(self, u):
        """The gate z, what goes through the convolution, and δ: one product each, so that each lies in a block."""
        *wide, of_step = self.in_proj.weight.split(self._sizes())
        # The step in the type of the weights, also where the other products are in a shorter one.
        return *(product(u, weight) for weight in wide), linear(u.to(of_step.dtype), of_step)

    def _sizes(self):
        return self.d_inner, self.conv1d.in_channels, self.n_heads

    def _parts(self, convolved):
        """x (…, H, P), B and C (…, G, N)."""
        size = self.n_groups * self.d_state
        x, B, C = convolved.split([self.d_inner, size, size], dim=-1)
        rest, groups = convolved.shape[:-1], (self.n_groups, self.d_state)
        return x.view(*rest, self.n_heads, self.head_dim), B.view(*rest, *groups), C.view(*rest, *groups)

    def _out(self, y, z, backend):
        """RMSNorm of the gated outputs, over all channels of a group, projected back."""
        size = self.d_inner // self.n_groups
        y = rms_norm(y.flatten(-2), self.norm.weight, z, eps=self.norm.eps, group_size=size, backend=backend)
        return product(y, self.out_proj.weight)

    def _read(self, u, dt, lengths, state):
        register, h = (None, None) if state is None else state
        z, convolved, delta = self._branches(u)
        convolved, register = causal_conv1d(
            convolved.transpose(1, 2), self.conv1d.weight.squeeze(1), self.conv1d.bias, None, register, True, "silu",
            lengths=lengths, backend=self._backend("causal_conv1d"),
        )  # fmt: skip
        x, B, C = self._parts(convolved.transpose(1, 2))
        y, h = ssd(
            x, delta, self._rates(), B, C, self.chunk_size, self.D, None, self.dt_bias, h, None, True,
            return_final_states=True, gap=dt, backend=self._backend("ssd"),
        )  # fmt: skip
        return self._out(y, z, self._backend("rms_norm")), (register, h)

    def _selection(self, u, dt):
        z, _, delta = self._branches(u)
        step = softplus(delta + self.dt_bias, threshold=40)
        step = step if dt is None else step * dt.unsqueeze(-1).to(step.dtype)
        return {"step": step, "kept": torch.exp(step * self._rates()), "gate": silu(z)}

    def _advance(self, u_t, dt, state):
        register, h = state
        z, sample, delta = linear(u_t, self.in_proj.weight).split(self._sizes(), dim=-1)
        window = torch.cat([register.to(sample.dtype), sample.unsqueeze(-1)], dim=-1)
        convolved = silu((window * self.conv1d.weight.squeeze(1)).sum(-1) + self.conv1d.bias)
        # The state and what meets it in float32 at least, as in the kernel.
        working = torch.promote_types(u_t.dtype, torch.float32)
        x, B, C = self._parts(convolved.to(working))
        h, step = h.to(working), softplus(delta.to(working) + self.dt_bias, threshold=40)
        if dt is not None:
            step = step * dt.unsqueeze(-1).to(step.dtype)
        # Ā - 1, which keeps the digits of a slow head.
        decay = torch.expm1(step * (self._rates() if self._frozen is None else self._frozen))
        # The heads of a group side by side: (batch, G, heads of a group · P, N) times rows of N.
        written = (step.unsqueeze(-1) * x).reshape(x.shape[0], self.n_groups, -1, 1) * B.unsqueeze(-2)
        h = torch.addcmul(h + written.view(h.shape), decay[..., None, None], h)
        y = h.reshape(x.shape[0], self.n_groups, -1, self.d_state) @ C.unsqueeze(-1)
        y = y.view(x.shape) + self.D.unsqueeze(-1) * x
        # One row is not worth a call of the loops.
        return self._out(y.to(z.dtype), z, "pytorch"), (window[..., 1:], h)
