"""DSS: diagonal state spaces (Gupta, Gu & Berant 2022, "Diagonal State Spaces are as Effective as Structured State
Spaces").

    x'(t) = Λ x(t) + B u(t),    y(t) = Re(W x(t)) + D u(t)

Λ       (H, N)    complex, diagonal, no conjugate partners; -exp(log_A_real) + i A_imag
W       (H, N)    complex, standard normal at the start
δ       (H,)      learned step of a channel, exp(log_step)
B       (H, N)    not learned: 1 (DSS-exp), or 1 / (exp(δ T Λ) - 1) with a horizon T (DSS-softmax)

On the grid of δ the kernels are those of the paper's proposition 1,

    exp       K_k = Re Σ_n W_n / Λ_n (exp(δ Λ_n) - 1) exp(k δ Λ_n)
    softmax   K_k = Re Σ_n W_n / Λ_n exp(k δ Λ_n) / Σ_{r < T} exp(r δ Λ_n)
"""

import torch

from statespace.layers.diagonal import DiagonalMixer
from statespace.layers.linear import log_uniform_steps
from statespace.layers.nodes import starting_nodes

# The paper's reciprocal of z is z̄ / (z z̄ + ε): a node whose period divides the horizon must not divide by zero.
EPSILON = 1e-7


class DSS(DiagonalMixer):
    """DSS: for each channel a diagonal system of ``d_state`` complex dimensions whose input matrix is not learned.

        x_k = exp(δ Δ_k Λ) x_{k-1} + (exp(δ Δ_k Λ) - 1) / Λ · B u_k,    y_k = Re(W x_k) + D u_k

    Parameters
    ----------
    d_model : int
        Number of channels, each with its own system.
    d_state : int, default 64
        Number N of complex nodes. Unlike S4D's, they have no conjugate partners: N nodes are 2 N real dimensions.
    kernel : {"exp", "softmax"}, default "exp"
        ``"exp"`` is B = 1. ``"softmax"`` divides each node's impulse response by its sum over the horizon, which is
        B = 1 / (exp(δ T Λ) - 1).
    horizon : int, default 1024
        T, with ``kernel="softmax"``: the time, in typical gaps, over which a node's response sums to W/Λ. In the paper
        it is the length of the training records.
    mode : {"auto", "convolution", "scan"}, default "auto"
        As in :class:`S4D`.
    dt_min, dt_max : float, default 1e-3 and 1e-1
        The step δ of a channel starts log-uniformly in this range; it multiplies the gaps.
    bidirectional : bool, default False
        Add a second read-out of the same system run backwards in time, with the gaps shifted by one. Such a layer has
        neither ``step`` nor a state to pass on.
    backend : str, optional
        Backend of the kernels, see :func:`statespace.kernels.diagonal_scan`; None takes the best one.

    Raises
    ------
    ValueError
        Unknown options, wrong shapes, negative gaps, or ``mode="convolution"`` on unequal gaps (the first is named).

    Notes
    -----
    The paper's softmax is taken over the record, so that its system changes with the record's length, and its nodes may
    grow, because the end of the record cuts them off. Neither can be run one sample at a time for ever, cut or padded.
    Here the horizon belongs to the layer and the nodes decay (as those of DSS-exp do in the paper): on a record of T
    samples one typical gap apart this is the paper's kernel, and for every other record it is the same linear system.
    In continuous time softmax makes each node's response integrate to W/Λ over the horizon, ∫₀ᵀ K = W/Λ.

    Λ starts at the eigenvalues with positive imaginary part of HiPPO-LegS' normal part of size 2 N, as in the paper.
    Λ and δ carry ``_optim = {"group": "ssm"}``.

    References
    ----------
    A. Gupta, A. Gu, J. Berant (2022). Diagonal State Spaces are as Effective as Structured State Spaces. Proposition 1.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import DSS
    >>> layer = DSS(d_model=4, d_state=16, kernel="softmax", horizon=100)
    >>> u, dt = torch.randn(2, 100, 4), torch.rand(2, 100)
    >>> y, state = layer(u, dt)
    >>> y.shape, state.shape
    (torch.Size([2, 100, 4]), torch.Size([2, 4, 16, 2]))
    >>> y_next, state = layer.step(torch.randn(2, 4), state, dt=torch.tensor([0.3, 2.0]))
    >>> y_next.shape
    torch.Size([2, 4])
    """

    slow_parameters = {"log_step": "dt", "log_A_real": "A", "A_imag": "A"}

    def __init__(
        self,
        d_model,
        d_state=64,
        *,
        kernel="exp",
        horizon=1024,
        mode="auto",
        dt_min=1e-3,
        dt_max=1e-1,
        bidirectional=False,
        backend=None,
    ):
        super().__init__(d_model, mode=mode, bidirectional=bidirectional, backend=backend)
        if kernel not in ("exp", "softmax"):
            raise ValueError(f"kernel must be 'exp' or 'softmax'. Got {kernel!r} instead.")
        if d_state < 1:
            raise ValueError(f"d_state must be a positive integer. Got {d_state!r} instead.")
        if not horizon > 0:
            raise ValueError(f"horizon must be positive, a number of typical gaps. Got {horizon!r} instead.")
        self.d_state, self.kernel, self.horizon = d_state, kernel, horizon
        A = starting_nodes("legs", d_model, 2 * d_state)
        self.log_step = torch.nn.Parameter(log_uniform_steps(d_model, dt_min, dt_max))
        self.log_A_real = torch.nn.Parameter(torch.log(-A.real).float())
        self.A_imag = torch.nn.Parameter(A.imag.float())
        self.W = torch.nn.Parameter(torch.randn((2 if bidirectional else 1) * d_model, d_state, 2))
        self.D = torch.nn.Parameter(torch.randn(d_model))
        self._mark_slow_parameters()

    def extra_repr(self):
        horizon = f", horizon={self.horizon}" if self.kernel == "softmax" else ""
        return (
            f"{self.d_model}, d_state={self.d_state}, kernel={self.kernel!r}{horizon}, mode={self.mode!r}, "
            f"bidirectional={self.bidirectional}"
        )

    def _system(self):
        """δΛ (H, N) and the read-out W B/Λ of the state s = x Λ / B (directions · H, N)."""
        A = torch.complex(-torch.exp(self.log_A_real.double()), self.A_imag.double())
        rate = torch.exp(self.log_step.double()).unsqueeze(-1) * A
        scale = 1 / A
        if self.kernel == "softmax":
            z = torch.expm1(rate * self.horizon)
            scale = scale * z.conj() / (z.real.square() + z.imag.square() + EPSILON)
        W = torch.view_as_complex(self.W.double())
        return rate, scale.repeat(len(W) // len(A), 1) * W

    def _state_shapes(self, batch_size):
        return batch_size, self.d_model, self.d_state, 2
