"""Mamba-3: a matrix state per head, discretised by an exponential-trapezoidal rule and turned by angles that the input
chooses (Lahoti, Li, Chen, Wang, Bick, Kolter, Dao & Gu 2026, "Mamba-3: Improved Sequence Modeling using State Space
Principles").

    H_k = α_k R_k (H_{k-1} + (1 - λ_k) s_k Σ_r x_{r,k-1} b_{r,k-1}ᵀ) + λ_k s_k Σ_r x_{r,k} b_{r,k}ᵀ
    y_{r,k} = H_k c_{r,k} + D x_{r,k},    s_k = Δ_k softplus(· + bias),    α_k = exp(s_k a_k)

Δ_k     (B, L)              gap before sample k: it multiplies the step, and with it the decay and the angle
s       (B, L, H)           step of a head
a       (B, L, H)           minus the rate of decay, -softplus(·) by default
λ       (B, L, H)           weight of the new sample in the trapezoid, sigmoid(·); 1 is the Euler rule of Mamba-2
R_k                         turns neighbouring pairs of states by -s_k π tanh(θ_k)
θ       (B, L, N/4)         angles, shared by the heads; the paper turns half of the state
b, c    (B, L, R, H, N)     divided by their root mean square, with a bias of each head
x       (B, L, R, H, P)     inputs; R is the rank of what a sample writes (R = 1: an outer product)
H       (B, H, P, N)        state

a, s, λ, θ, b, c and x come from the sample; there is no short convolution.

Turning the state is turning b and c by the running sum φ_k of the angles, the paper's rotary embedding: in the frame
that stands still c_k meets b_j at the angle φ_k - φ_j. The state handed on is turned back into the frame of its own
last sample, so that no angle has to be remembered, and none grows.

The trapezoid is one scan. In the frame that stands still, let g_k be what is left of the past at sample k, its own
writing aside: H_k = g_k + γ_k x_k b_kᵀ with γ_k = λ_k s_k. Then

    g_k = α_k g_{k-1} + α_k (γ_{k-1} + (1 - λ_k) s_k) x_{k-1} b_{k-1}ᵀ,    y_k = g_k c_k + γ_k (b_k · c_k) x_k

the recurrence of `ssd` over the samples before, with a decay of each sample's own. Everything is added and nothing
taken off again: a long gap costs the sample before it no digits. Several ranks follow each other in that scan without
decay between them, each seeing what those before it wrote; what those behind it write is added.
"""

import math

import torch
from torch.nn import functional as F

from statespace.kernels import rms_norm, ssd
from statespace.layers.selective import SelectiveMixer, product

EPS = 1e-5
SLOWEST = 1e-4  # rate of decay
STEP_FLOOR = 1e-4
RATES = {
    "softplus": F.softplus,
    "heavy-tail": lambda raw: raw.clamp(min=0) + 1 / (1 - raw.clamp(max=0)),
}


class Mamba3(SelectiveMixer):
    """Mamba-3: a complex, trapezoidal and optionally multi-input state-space layer whose dynamics the input chooses.

        H_k = α_k R_k (H_{k-1} + (1 - λ_k) s_k x_{k-1} b_{k-1}ᵀ) + λ_k s_k x_k b_kᵀ,    y_k = H_k c_k + D x_k

    with s_k = Δ_k softplus(·), α_k = exp(s_k a_k), and R_k a rotation of pairs of states by s_k π tanh(θ_k): the
    eigenvalues are complex, so that a state can count and alternate where a real decay can only forget.

    Parameters
    ----------
    d_model : int
        Number of channels.
    d_state : int, default 64
        Size N of the state of each of a head's channels.
    expand : int, default 2
        The state's inputs are ``expand * d_model`` channels.
    head_dim : int, optional
        Channels P of a head; None is 64, or the largest number below that divides the channels.
    mimo_rank : int, default 1
        Rank R of what a sample writes to a head's state, and number of read-outs: above 1, the paper's multi-input,
        multi-output form.
    rope_fraction : float, default 0.5
        Share of the state's dimensions that turn. 0 is a real state.
    rate : {"softplus", "heavy-tail"}, default "softplus"
        How a real number z becomes a rate of decay: log(1 + exp(z)), or 1 + z above zero and 1 / (1 - z) below, which
        the authors' code has come to since.
    chunk_size : int, optional
        Steps of a chunk, see :func:`statespace.kernels.ssd`; None chooses.
    dt_min, dt_max : float, default 1e-3 and 1e-1
        The bias of a head's step starts log-uniformly in this range; the step multiplies the gaps.
    bidirectional : bool, default False
        Add a second layer that runs backwards in time with the same projections, see
        :class:`~statespace.layers.SelectiveMixer`.
    backend : str, optional
        Backend of the scan, see :func:`statespace.kernels.ssd`; None takes the best one.

    Raises
    ------
    ValueError
        Unknown options, wrong shapes, negative gaps.

    Notes
    -----
    At Δ ≡ 1 this is the paper's layer, with the parameters, names and order of channels of the authors' code [2]_: a
    layer of rank 1 takes the weights of theirs. (Their kernel for higher ranks turns other pairs of states, which is a
    permutation of the state.) A gap multiplies the step, and through it decay, angle and both weights of the trapezoid.
    The layer does not hold its input: between samples the trapezoid interpolates.

    The rate of decay is at least 1e-4. Time and memory are linear in the length, also of the kernel.

    References
    ----------
    .. [1] A. Lahoti, K. Y. Li, B. Chen, C. Wang, A. Bick, J. Z. Kolter, T. Dao, A. Gu (2026). Mamba-3: Improved
       Sequence Modeling using State Space Principles. arXiv 2603.15569, section 3.
    .. [2] https://github.com/state-spaces/mamba, mamba_ssm/modules/mamba3.py

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import Mamba3
    >>> layer = Mamba3(d_model=8, d_state=16, mimo_rank=2)
    >>> u, dt = torch.randn(2, 100, 8), torch.rand(2, 100)
    >>> y, state = layer(u, dt)
    >>> y.shape, state[0].shape
    (torch.Size([2, 100, 8]), torch.Size([2, 1, 16, 16]))
    >>> y_next, state = layer.step(torch.randn(2, 8), state, dt=torch.tensor([0.3, 2.0]))
    >>> y_next.shape
    torch.Size([2, 8])
    """

    kernels = ("ssd", "rms_norm")
    slow_parameters = {"dt_bias": "dt"}

    def __init__(
        self,
        d_model,
        d_state=64,
        *,
        expand=2,
        head_dim=None,
        mimo_rank=1,
        rope_fraction=0.5,
        rate="softplus",
        chunk_size=None,
        dt_min=1e-3,
        dt_max=1e-1,
        bidirectional=False,
        backend=None,
    ):
        super().__init__(d_model, bidirectional=bidirectional, backend=backend)
        for name, value in (("d_state", d_state), ("expand", expand), ("mimo_rank", mimo_rank)):
            if value < 1:
                raise ValueError(f"{name} must be a positive integer. Got {value!r} instead.")
        d_inner = expand * d_model
        if head_dim is None:
            head_dim = next(n for n in range(min(64, d_inner), 0, -1) if d_inner % n == 0)
        if head_dim < 1 or d_inner % head_dim:
            raise ValueError(f"head_dim must divide expand * d_model = {d_inner}. Got {head_dim!r} instead.")
        if not 0 <= rope_fraction <= 1:
            raise ValueError(f"rope_fraction must lie in [0, 1]. Got {rope_fraction!r} instead.")
        if rate not in RATES:
            raise ValueError(f"rate must be one of {', '.join(map(repr, RATES))}. Got {rate!r} instead.")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size must be a positive integer. Got {chunk_size!r} instead.")
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"steps need 0 < dt_min <= dt_max. Got dt_min={dt_min!r}, dt_max={dt_max!r} instead.")
        self.d_state, self.d_inner, self.head_dim, self.mimo_rank = d_state, d_inner, head_dim, mimo_rank
        self.n_heads, self.n_angles = d_inner // head_dim, int(d_state * rope_fraction) // 2
        self.chunk_size, self.rate = chunk_size, rate
        H, R, N = self.n_heads, mimo_rank, d_state
        self.sizes = d_inner, d_inner, R * N, R * N, H, H, H, self.n_angles
        self.in_proj = torch.nn.Linear(d_model, sum(self.sizes), bias=False)
        step = torch.exp(torch.empty(H).uniform_(math.log(dt_min), math.log(dt_max))).clamp(min=STEP_FLOOR)
        self.dt_bias = torch.nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus of it is the step
        self.B_norm, self.C_norm = (torch.nn.RMSNorm(N, eps=EPS) for _ in range(2))
        self.B_bias, self.C_bias = (torch.nn.Parameter(torch.ones(H, R, N)) for _ in range(2))
        if R > 1:
            self.mimo_x, self.mimo_o = (torch.nn.Parameter(torch.full((H, R, head_dim), 1 / R)) for _ in range(2))
            self.mimo_z = torch.nn.Parameter(torch.ones(H, R, head_dim))
        self.D = torch.nn.Parameter(torch.ones(H))
        self.out_proj = torch.nn.Linear(d_inner, d_model, bias=False)
        self._complete(
            d_state=d_state, expand=expand, head_dim=head_dim, mimo_rank=mimo_rank, rope_fraction=rope_fraction,
            rate=rate, chunk_size=chunk_size, dt_min=dt_min, dt_max=dt_max,
        )  # fmt: skip

    def extra_repr(self):
        return (
            f"{self.d_model}, d_state={self.d_state}, n_heads={self.n_heads}, head_dim={self.head_dim}, "
            f"mimo_rank={self.mimo_rank}, bidirectional={self.bidirectional}"
        )

    def _state_shapes(self, batch_size):
        H, R, N = self.n_heads, self.mimo_rank, self.d_state
        return (batch_size, H, self.head_dim, N), (batch_size, R, N), (batch_size, self.d_inner)

    def _projected(self, u):
        """W_in u in the type of the weights; multiplied in that of u, but for what steps and angles come from."""
        weight = self.in_proj.weight
        if u.dtype == weight.dtype:
            return self.in_proj(u)
        wide, narrow = weight.split([sum(self.sizes[:4]), sum(self.sizes[4:])])
        return torch.cat([product(u, wide).to(weight.dtype), F.linear(u.to(weight.dtype), narrow)], dim=-1)

    def _project(self, u, dt, backend):
        """What the samples say: z and x (B, L, D), b and c (B, L, R, N) without their biases; step, log-decay and the
        weight λ (B, L, H); the speeds of the angles (B, L, S).
        """
        z, x, b, c, step, rate, weight, angle = self._projected(u).split(self.sizes, dim=-1)
        b, c = (p.unflatten(-1, (self.mimo_rank, -1)) for p in (b, c))
        step = F.softplus(step + self.dt_bias)
        if dt is not None:
            step = step * dt.to(step.dtype).unsqueeze(-1)
        decay = -step * RATES[self.rate](rate).clamp(min=SLOWEST)
        b, c = (rms_norm(p, norm.weight, eps=EPS, backend=backend) for p, norm in ((b, self.B_norm), (c, self.C_norm)))
        return z, x, b, c, step, decay, torch.sigmoid(weight), math.pi * torch.tanh(angle)

    def _ranks(self, x, weights):
        """Channels (B, L, D) as those of each rank and head, (B, L, R, H, P)."""
        x = x.unflatten(-1, (1, self.n_heads, self.head_dim))
        return x if self.mimo_rank == 1 else x * getattr(self, weights).transpose(0, 1)

    def _gated(self, y, z, dtype):
        """y (B, L, R, H, P): the gate, the sum over the ranks, and the output's projection in ``dtype``."""
        if self.mimo_rank == 1:
            return product((y.flatten(2) * F.silu(z)).to(dtype), self.out_proj.weight)
        y = y * F.silu(self._ranks(z, "mimo_z")) * self.mimo_o.transpose(0, 1)
        return product(y.sum(2).flatten(2).to(dtype), self.out_proj.weight)

    def _read(self, u, dt, lengths, state):
        z, x, b, c, step, decay, weight, speed = self._project(u, dt, self._backend("rms_norm"))
        if state is None:
            state = (x.new_zeros(shape) for shape in self._state_shapes(len(u)))
        h, *before = (part.to(x.dtype) for part in state)
        b_before, x_before = (
            torch.cat([old.unsqueeze(1), p[:, :-1]], dim=1) for old, p in zip(before, (b, x), strict=True)
        )
        # The angles add up in float64; what is left of full turns is no larger than a float32 holds.
        angle = torch.cumsum(step.unsqueeze(-1).double() * speed.unsqueeze(2).double(), dim=1)
        angle = (angle - 2 * math.pi * torch.round(angle.detach() / (2 * math.pi))).to(x.dtype)
        turn = torch.polar(torch.ones_like(angle), angle.detach())
        earlier = (
            F.pad(angle[:, :-1], (0, 0, 0, 0, 1, 0)),
            torch.cat([torch.ones_like(turn[:, :1]), turn[:, :-1]], dim=1),
        )
        keys = _turned(b_before, self.B_bias, *earlier)
        queries = _turned(c, self.C_bias, angle, turn)
        now = weight * step
        write = torch.exp(decay) * (F.pad(now[:, :-1], (0, 0, 1, 0)) + (1 - weight) * step)
        y, h = self._scan(self._ranks(x_before, "mimo_x"), write, decay, keys, queries, h, u.dtype)
        xs = self._ranks(x, "mimo_x")
        own = now[..., None, None] * self._products(c, b) + self.D.view(-1, 1, 1) * torch.eye(
            self.mimo_rank, dtype=y.dtype, device=y.device
        )
        y = y + _applied(own, xs)
        # The state of the last sample's own frame, with what it writes itself.
        h = _turned_back(h, angle[:, -1]) + now[:, -1, :, None, None] * self._outer(b[:, -1], x[:, -1])
        return self._gated(y, z, u.dtype), (h, *_last((b, x), lengths, before))

    def _scan(self, x, write, decay, keys, queries, h, dtype):
        """g_k = α_k g_{k-1} + write_k Σ_r x_{r,k} b_{r,k}ᵀ, from h; y_{r,k} = g_k c_{r,k} and the last g.

        What is multiplied is so in ``dtype``; decays and states are in that of the weights.
        """
        R = self.mimo_rank
        x, keys, queries = (p.to(dtype) for p in (x, keys, queries))
        if R == 1:
            x, keys, queries = (p.squeeze(2) for p in (x, keys, queries))
            y, h = ssd(
                x, write, None, keys, queries, self.chunk_size, None, None, None, h, decay=decay,
                return_final_states=True, backend=self._backend("ssd"),
            )  # fmt: skip
            return y.unsqueeze(2), h
        # One rank after the other, without decay between them; each sees what those before it wrote.
        times = write.unsqueeze(2).expand(*keys.shape[:4])
        decays = F.pad(decay.unsqueeze(2), (0, 0, 0, R - 1))
        y, h = ssd(
            *(p.flatten(1, 2) for p in (x, times)), None, *(p.flatten(1, 2) for p in (keys, queries)), self.chunk_size,
            None, None, None, h, decay=decays.flatten(1, 2), return_final_states=True, backend=self._backend("ssd"),
        )  # fmt: skip
        later = torch.einsum("blrhn,bljhn->blhrj", queries, keys).triu(1)
        return y.unflatten(1, (-1, R)) + _applied(write[..., None, None] * later, x), h

    def _products(self, c, b):
        """c_r · b_j of every sample and head, biases included, (B, L, H, R, R): turned by one angle both, they are what
        they are without it.
        """
        with_b = torch.einsum("blrn,hjn->blhrj", c, self.B_bias)
        with_c = torch.einsum("bljn,hrn->blhrj", b, self.C_bias)
        without = c @ b.mT if self.mimo_rank > 1 else (c * b).sum(-1, keepdim=True)
        return without.unsqueeze(2) + with_b + with_c + self.C_bias @ self.B_bias.mT

    def _selection(self, u, dt):
        z, *_, step, decay, weight, _ = self._project(u, dt, self._backend("rms_norm"))
        gate = F.silu(self._ranks(z, "mimo_z") if self.mimo_rank > 1 else z).flatten(2)
        return {"step": step, "kept": torch.exp(decay), "trapezoid": weight, "gate": gate}

    def _advance(self, u_t, dt, state):
        gaps = None if dt is None else dt.unsqueeze(1)
        z, x, b, c, step, decay, weight, speed = self._project(u_t.unsqueeze(1), gaps, "pytorch")
        h, b_before, x_before = (part.to(u_t.dtype) for part in state)
        step, decay, weight = (p[:, 0, :, None, None] for p in (step, decay, weight))
        h = torch.exp(decay) * (h + (1 - weight) * step * self._outer(b_before, x_before))
        h = _turned_back(h, step.squeeze(-1) * speed) + weight * step * self._outer(b[:, 0], x[:, 0])
        y = torch.einsum("bhpn,brhn->brhp", h, c[:, 0].unsqueeze(2) + self.C_bias.transpose(0, 1))
        y = y.unsqueeze(1) + self.D.unsqueeze(1) * self._ranks(x, "mimo_x")
        return self._gated(y, z, u_t.dtype).squeeze(1), (h, b[:, 0], x[:, 0])

    def _outer(self, b, x):
        """Σ_r x_r b_rᵀ of one sample, (B, H, P, N)."""
        keys = b.unsqueeze(2) + self.B_bias.transpose(0, 1)
        return torch.einsum("brhp,brhn->bhpn", self._ranks(x.unsqueeze(1), "mimo_x")[:, 0], keys)


class _Turned(torch.autograd.Function):
    """p (B, L, R, N) plus a bias (H, R, N) of each head, neighbouring pairs turned by angles (B, L, H, S), of which
    ``turn`` is exp(iφ): (B, L, R, H, N).
    """

    @staticmethod
    def forward(ctx, p, bias, angle, turn):
        N = p.shape[-1]
        # Complex pairs need rows of even length.
        out = p.new_empty(*p.shape[:3], len(bias), N + N % 2)
        torch.add(p.unsqueeze(3), bias.transpose(0, 1), out=out[..., :N])
        turn = turn.unsqueeze(2)
        _pairs(out, turn).mul_(turn)
        ctx.save_for_backward(out, turn)
        return out[..., :N]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        out, turn = ctx.saved_tensors
        N = grad.shape[-1]
        g = out.new_empty(out.shape)
        g[..., :N].copy_(grad)
        pairs, turned = _pairs(g, turn), _pairs(out, turn)
        grad_angle = (turned.real * pairs.imag - turned.imag * pairs.real).sum(2)
        pairs.mul_(turn.conj())
        g = g[..., :N]
        return g.sum(3), g.sum((0, 1)).transpose(0, 1), grad_angle, None


def _pairs(x, turn):
    """The pairs of the last axis that turn, as complex numbers."""
    return torch.view_as_complex(x[..., : 2 * turn.shape[-1]].unflatten(-1, (-1, 2)))


def _turned(p, bias, angle, turn):
    if angle.shape[-1] == 0:
        return p.unsqueeze(3) + bias.transpose(0, 1)
    return _Turned.apply(p, bias, angle, turn)


def _turned_back(h, angle):
    """The first pairs of the states of h (B, H, P, N), turned by -angle (B, H, S)."""
    n = 2 * angle.shape[-1]
    if n == 0:
        return h
    pairs = torch.view_as_complex(h[..., :n].unflatten(-1, (-1, 2)).contiguous())
    turn = torch.polar(torch.ones_like(angle), -angle).unsqueeze(2)
    return torch.cat([torch.view_as_real(pairs * turn).flatten(-2), h[..., n:]], dim=-1)


def _applied(products, x):
    """Σ_j products_{r,j} x_j for products (B, L, H, R, R) and x (B, L, R, H, P)."""
    if x.shape[2] == 1:
        return products[..., 0].unsqueeze(2) * x
    return (products @ x.transpose(2, 3)).transpose(2, 3)


def _last(series, lengths, before):
    """Each of the ``series`` (B, L, ...) at its record's last real step, or what was ``before`` if it has none."""
    if lengths is None:
        return tuple(x[:, -1].clone() for x in series)
    row = torch.arange(len(lengths), device=lengths.device)
    return tuple(
        torch.where((lengths > 0).view(-1, *[1] * (old.ndim - 1)), x[row, lengths - 1], old)
        for x, old in zip(series, before, strict=True)
    )
