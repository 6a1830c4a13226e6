"""TIDES: a diagonal state-space system whose rates, input and output matrices the input chooses, while time stays time
(Soydan, Bessa, Mohr & Barreira 2026, "TIDES: Implicit Time-Awareness in Selective State Space Models").

    x'(t) = Λ(u) x(t) + B(u) u,    y(t) = Re(C(u) x(t)) + D u

Λ(u)    (B, P, L)       rates of decay -exp(·) of the input, turning frequencies of their own
B(u)    (B, P, H, L)    complex, B₀ + Σ_r d_r(u) B_r with r factors d(u); never made
C(u)    (B, H, P, L)    complex, likewise
δ       (P,)            learned step of a state, exp(log_step); it multiplies the gap Δ_k that sample k really has
x       (B, P, L)       complex

Zero-order hold over the gap, with the matrices of the sample that is held:

    x_k = Λ̄_k x_{k-1} + Λ_k⁻¹ (Λ̄_k - 1) B_k u_k,    Λ̄_k = exp(δ Δ_k Λ_k)

B_k has P·H complex numbers for every sample. What is needed of it is the product with one vector,

    B_k u_k = Σ_r d_{k,r} B_r u_k,

and the root mean square of each of its columns, by which it is normalised: a quadratic form of d_k, whose matrix is the
Gram matrix of that column in B_0 … B_R. Both need O(R (P + H)) numbers for a sample; C_k likewise.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

from statespace.kernels import linear_scan
from statespace.layers.linear import log_uniform_steps
from statespace.layers.selective import SelectiveMixer
from statespace.lti import hippo

EPS = 1e-6
SLOWEST = 1e-12  # rate of decay: what divides by it must not overflow, squared
RATES = {
    "exp": lambda raw: torch.exp(raw).clamp(min=SLOWEST),
    "softplus": lambda raw: F.softplus(raw).clamp(min=SLOWEST),
    "stable": lambda raw: 1 / (raw * raw + 0.5),
    "standard": lambda raw: (-raw).clamp(min=1e-4),
}
STARTS = {
    "exp": np.log,
    "softplus": lambda rate: np.log(np.expm1(rate)),
    "stable": lambda rate: np.sqrt(np.maximum(0.0, 1 / rate - 0.5)),
    "standard": np.negative,
}


class TIDES(SelectiveMixer):
    """TIDES: selective through its rates Λ(u), B(u) and C(u), discretised over the gaps that samples really have.

        x_k = Λ̄_k x_{k-1} + Λ_k⁻¹ (Λ̄_k - 1) B_k u_k,    y_k = Re(C_k x_k) + D u_k,    Λ̄_k = exp(δ Δ_k Λ_k)

    Mamba lets the input choose the step, which then no longer is a time. Here the input chooses rates, in units of one
    over time, and the step is the gap: what was learned on some gaps holds on others.

    Parameters
    ----------
    d_model : int
        Number H of channels.
    d_state : int, default 16
        Number P of complex states, even.
    n_blocks : int, default 1
        Λ starts as the eigenvalues of this many HiPPO-LegS matrices (of their normal parts).
    rate : {"exp", "softplus", "stable", "standard"}, default "exp"
        How a real number z becomes a rate of decay: exp(z), log(1 + exp(z)), 1 / (z² + 1/2), or max(-z, 1e-4).
    rank : int, default 8
        B(u) and C(u) are a fixed matrix and this many more, weighted by factors that are affine in the input. 0: fixed
        matrices, whose states the input scales by one complex factor each.
    normalize : bool, default True
        Divide the numbers that become rates, the columns of B(u) and the rows of C(u) by their root mean square over
        the states, and scale each state by a weight (the factors, if ``rank`` is 0).
    discretization : {"zoh", "bilinear"}, default "zoh"
        Zero-order hold or the bilinear rule.
    init_scale : float, default 0.0
        Standard deviation of the weights through which the input acts on Λ, B and C: at 0 the layer starts as S5.
    dt_min, dt_max : float, default 1e-3 and 1e-1
        The step δ of a state starts log-uniformly in this range; it multiplies the gaps.
    bidirectional : bool, default False
        Add a second layer that runs backwards in time, see :class:`~statespace.layers.SelectiveMixer`; the two share
        Λ and B, and read out by C and D of their own.
    backend : str, optional
        Backend of the scan, see :func:`statespace.kernels.linear_scan`; None takes the best one.

    Raises
    ------
    ValueError
        Unknown options, wrong shapes, negative gaps.

    Notes
    -----
    The layer is the mixer of the paper's block, without the norm, GELU and gated linear unit that the block puts around
    it (:class:`statespace.models.ResidualBlock` has its own). Formulas, start and normalisation follow the authors'
    code [2]_, with P complex states that are not tied in conjugate pairs, as in their experiments. What differs: rates
    are exp(·) by default, one of theirs, and not ``"standard"``, where a state may grow without bound; ``"standard"``
    is held below -1e-4 here, which is an option there; and backwards in time the gaps are shifted by one.

    With the zero-order hold, halving every gap and repeating every input changes no output.

    Time and memory are linear in length · (rank · min(H, 2 P) + P); no matrix is made for a step.

    References
    ----------
    .. [1] T. Soydan, M. A. Bessa, D. Mohr, R. Barreira (2026). TIDES: Implicit Time-Awareness in Selective State Space
       Models. arXiv 2605.09742.
    .. [2] https://github.com/TaylanSoydan/TIDES, tides/tides.py

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import TIDES
    >>> layer = TIDES(d_model=4, d_state=8)
    >>> u, dt = torch.randn(2, 100, 4), torch.rand(2, 100)
    >>> y, state = layer(u, dt)
    >>> y.shape, state.shape
    (torch.Size([2, 100, 4]), torch.Size([2, 8, 2]))
    >>> y_next, state = layer.step(torch.randn(2, 4), state, dt=torch.tensor([0.3, 2.0]))
    >>> y_next.shape
    torch.Size([2, 4])
    """

    kernels = ("linear_scan",)
    slow_parameters = {"log_step": "dt", "Lambda_real": "A", "Lambda_real_weight": "A", "Lambda_imag": "A", "B": "B"}
    shared = ("log_step", "Lambda_real", "Lambda_real_weight", "Lambda_imag", "Lambda_norm", "B", "B_proj", "B_norm")

    def __init__(
        self,
        d_model,
        d_state=16,
        *,
        n_blocks=1,
        rate="exp",
        rank=8,
        normalize=True,
        discretization="zoh",
        init_scale=0.0,
        dt_min=1e-3,
        dt_max=1e-1,
        bidirectional=False,
        backend=None,
    ):
        super().__init__(d_model, bidirectional=bidirectional, backend=backend)
        if n_blocks < 1 or d_state < 1 or d_state % (2 * n_blocks):
            raise ValueError(
                f"d_state must be a positive multiple of 2 n_blocks. Got d_state={d_state!r} and n_blocks={n_blocks!r}."
            )
        if rate not in RATES:
            raise ValueError(f"rate must be one of {', '.join(map(repr, RATES))}. Got {rate!r} instead.")
        if rank < 0:
            raise ValueError(f"rank must be a positive integer, or 0 for factors of each state. Got {rank!r} instead.")
        if discretization not in ("zoh", "bilinear"):
            raise ValueError(f"discretization must be 'zoh' or 'bilinear'. Got {discretization!r} instead.")
        if init_scale < 0:
            raise ValueError(f"init_scale must not be negative. Got {init_scale!r} instead.")
        self.d_state, self.rate, self.rank, self.normalize = d_state, rate, rank, normalize
        self.discretization = discretization
        form = hippo.dplr("legs", d_state // n_blocks)
        # Both of each conjugate pair.
        Lambda = np.tile(np.concatenate([form.Lambda, form.Lambda.conj()]), n_blocks)
        V = torch.tensor(np.concatenate([form.V, form.V.conj()], axis=1))
        self.log_step = torch.nn.Parameter(log_uniform_steps(d_state, dt_min, dt_max))
        self.Lambda_real = torch.nn.Parameter(torch.tensor(STARTS[rate](-Lambda.real)).float())
        self.Lambda_real_weight = torch.nn.Parameter(init_scale * torch.randn(d_state, d_model))
        self.Lambda_imag = torch.nn.Parameter(torch.tensor(Lambda.imag).float())
        B = torch.randn(n_blocks, len(V), d_model) / math.sqrt(d_state)
        C = torch.randn(d_model, n_blocks, len(V), dtype=V.dtype) * math.sqrt(2 / d_state)
        B, C = (V.mH @ B.to(V.dtype)).flatten(0, 1), (C @ V).flatten(1)
        self.B, self.B_proj = self._matrices(B.T, init_scale)
        self.C, self.C_proj = self._matrices(C, init_scale)
        if normalize:
            self.Lambda_norm, self.B_norm, self.C_norm = (torch.nn.Parameter(torch.ones(d_state)) for _ in range(3))
        else:
            self.Lambda_norm = self.B_norm = self.C_norm = None
        self.D = torch.nn.Parameter(torch.randn(d_model))
        self._complete(
            d_state=d_state, n_blocks=n_blocks, rate=rate, rank=rank, normalize=normalize,
            discretization=discretization, init_scale=init_scale, dt_min=dt_min, dt_max=dt_max,
        )  # fmt: skip

    def _matrices(self, start, init_scale):
        """The matrices (1 + rank, H, P, 2) of a sum that starts as ``start`` (H, P), and the projection that weights
        them; or one matrix and the projection to a factor of each state, which starts as 1.
        """
        matrices = torch.view_as_real(start.to(torch.complex64)).unsqueeze(0)
        if self.rank:
            more = init_scale * torch.randn(self.rank, *matrices.shape[1:])
            return torch.nn.Parameter(torch.cat([matrices, more])), torch.nn.Linear(self.d_model, self.rank)
        projection = torch.nn.Linear(self.d_model, 2 * self.d_state)
        with torch.no_grad():
            projection.weight.normal_(std=init_scale) if init_scale else projection.weight.zero_()
            projection.bias.copy_(torch.cat([torch.ones(self.d_state), torch.zeros(self.d_state)]))
        return torch.nn.Parameter(matrices), projection

    def extra_repr(self):
        return (
            f"{self.d_model}, d_state={self.d_state}, rate={self.rate!r}, rank={self.rank}, "
            f"normalize={self.normalize}, discretization={self.discretization!r}, bidirectional={self.bidirectional}"
        )

    def _state_shapes(self, batch_size):
        return batch_size, self.d_state, 2

    def _working(self, u):
        """In the type of the weights: there is no wide product to shorten, and the step is all of the layer."""
        return u.to(self._dtype())

    def _read(self, u, dt, lengths, state):
        u = u.transpose(1, 2).contiguous()
        factor, written = self._step(u, None if dt is None else dt.to(u.dtype).unsqueeze(1))
        initial = None if state is None else torch.view_as_complex(state.to(u.dtype).contiguous())
        # A padded step multiplies by 1 and adds 0: the last state is that after the last real step.
        x = linear_scan(factor, written, initial, backend=self._backend("linear_scan"))
        return self._output(u, x).transpose(1, 2), torch.view_as_real(x[..., -1].clone())

    def _advance(self, u_t, dt, state):
        u = u_t.unsqueeze(2)
        factor, written = self._step(u, None if dt is None else dt.to(u.dtype).view(-1, 1, 1))
        x = factor * torch.view_as_complex(state.to(u.dtype).contiguous()).unsqueeze(2) + written
        return self._output(u, x).squeeze(2), torch.view_as_real(x.squeeze(2))

    def _selection(self, u, dt):
        factor, _ = self._step(u.transpose(1, 2).contiguous(), None if dt is None else dt.to(u.dtype).unsqueeze(1))
        return {"kept": factor.abs().transpose(1, 2)}

    def _step(self, u, dt):
        """Λ̄ and what it adds, Λ⁻¹ (Λ̄ - 1) B u, both complex (B, P, L)."""
        raw = self.Lambda_real_weight @ u + self.Lambda_real.unsqueeze(1)
        if self.normalize:
            raw = raw * torch.rsqrt(raw.square().mean(1, keepdim=True) + EPS) * self.Lambda_norm.unsqueeze(1)
        rate = -RATES[self.rate](raw)
        rate = torch.complex(rate, self.Lambda_imag.unsqueeze(1).expand_as(rate))
        step = torch.exp(self.log_step).unsqueeze(1)
        step = step if dt is None else step * dt
        z = step * rate
        v = self._written(u)
        if self.discretization == "zoh":
            change = torch.expm1(z)
            return change + 1, change / rate * v
        half = 1 / (1 - z / 2)
        return (1 + z / 2) * half, step * half * v

    def _written(self, u):
        """B(u) u, complex (B, P, L)."""
        if self.rank == 0:
            matrix = torch.view_as_complex(self.B[0])
            v = torch.complex(*((part.T @ u) for part in (matrix.real, matrix.imag)))
            return v * self._factors(self.B_proj, self.B_norm, u)
        weights = self._weights(self.B_proj, u)
        matrices = torch.cat([self.B[..., 0], self.B[..., 1]], dim=-1)  # (1 + rank, H, 2 P)
        if self.normalize:
            u = u * _inverse_size(matrices, weights, self.d_state)
        v = torch.complex(*_Mixed.apply(matrices, weights, u).chunk(2, dim=1))
        return v if self.B_norm is None else v * self.B_norm.unsqueeze(1)

    def _output(self, u, x):
        """Re(C(u) x) + D u, (B, H, L)."""
        if self.rank == 0:
            x = x * self._factors(self.C_proj, self.C_norm, u)
        elif self.C_norm is not None:
            x = x * self.C_norm.unsqueeze(1)
        x = torch.cat([x.real, x.imag], dim=1)
        matrices = torch.cat([self.C[..., 0], -self.C[..., 1]], dim=-1)  # (1 + rank, H, 2 P)
        if self.rank == 0:
            y = matrices[0] @ x
        else:
            weights = self._weights(self.C_proj, u)
            y = _Mixed.apply(matrices.transpose(1, 2), weights, x)
            if self.normalize:
                y = y * _inverse_size(matrices, weights, self.d_state)
        return torch.addcmul(y, self.D.unsqueeze(1), u)

    def _factors(self, projection, norm, u):
        """A complex factor for each state, (B, P, L)."""
        factors = projection.weight @ u + projection.bias.unsqueeze(1)
        real, imag = factors.chunk(2, dim=1)
        if self.normalize:
            size = (real.square() + imag.square()).mean(1, keepdim=True)
            scale = torch.rsqrt(size + EPS) * norm.unsqueeze(1)
            real, imag = real * scale, imag * scale
        return torch.complex(real, imag)

    def _weights(self, projection, u):
        """Of the matrices that a sum starts with and goes on with: 1, then the projection; (B, 1 + rank, L)."""
        weights = projection.weight @ u + projection.bias.unsqueeze(1)
        return torch.cat([torch.ones_like(weights[:, :1]), weights], dim=1)


class _Mixed(torch.autograd.Function):
    """Σ_r weights_r matrices_rᵀ u for matrices (R, M, N), weights (B, R, L) and u (B, M, L): (B, N, L).

    One matrix product for all r, with the weights on its smaller side, one r after the other: what is written for an r
    is still at hand when it is read.
    """

    @staticmethod
    def forward(ctx, matrices, weights, u):
        R, M, N = matrices.shape
        ctx.save_for_backward(matrices, weights, u)
        if M <= N:
            return matrices.flatten(0, 1).T @ _weighted(u, weights).flatten(1, 2)
        return _summed((matrices.mT.flatten(0, 1) @ u).unflatten(1, (R, N)), weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        matrices, weights, u = ctx.saved_tensors
        R, M, N = matrices.shape
        if M <= N:
            back = (matrices.flatten(0, 1) @ grad).unflatten(1, (R, M))
            grad_matrices = (_weighted(u, weights).flatten(1, 2) @ grad.mT).sum(0).unflatten(0, (R, M))
            return grad_matrices, _dots(back, u), _summed(back, weights)
        weighted = _weighted(grad, weights).flatten(1, 2)
        grad_matrices = (weighted @ u.mT).sum(0).unflatten(0, (R, N)).mT
        grad_u = matrices.mT.flatten(0, 1).T @ weighted
        return grad_matrices, _dots((matrices.mT.flatten(0, 1) @ u).unflatten(1, (R, N)), grad), grad_u


def _weighted(u, weights):
    """weights_r u, (B, R, M, L)."""
    if torch.compiler.is_compiling():
        return u.unsqueeze(1) * weights.unsqueeze(2)
    out = u.new_empty(len(u), weights.shape[1], *u.shape[1:])
    for r in range(weights.shape[1]):
        torch.mul(u, weights[:, r : r + 1], out=out[:, r])
    return out


def _summed(parts, weights):
    """Σ_r weights_r parts_r for parts (B, R, M, L)."""
    out = parts[:, 0] * weights[:, :1]
    for r in range(1, weights.shape[1]):
        out.addcmul_(parts[:, r], weights[:, r : r + 1])
    return out


def _dots(parts, u):
    """parts_r · u over the channels, (B, R, L)."""
    return torch.stack([(parts[:, r] * u).sum(1) for r in range(parts.shape[1])], dim=1)


def _inverse_size(matrices, weights, n):
    """One over the root mean square of Σ_r weights_r matrices_r (R, H, 2 n) over its n complex states; (B, H, L)."""
    gram = torch.einsum("rhk,shk->hrs", matrices, matrices)
    pairs = (weights.unsqueeze(1) * weights.unsqueeze(2)).flatten(1, 2)
    size = (gram.flatten(1) @ pairs) / n
    return torch.rsqrt(size.clamp(min=0) + EPS)
