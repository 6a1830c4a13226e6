"""S4D: a diagonal state-space system for each channel (Gu, Gupta, Goel & Ré 2022, "On the Parameterization and
Initialization of Diagonal State Space Models").

    x'(t) = A x(t) + B u(t),    y(t) = 2 Re(C x(t)) + D u(t)

A       (H, N/2)   complex, diagonal, one of each conjugate pair; A = -exp(log_A_real) + i A_imag, so that it decays
B, C    (H, N/2)   complex; B starts at 1
D       (H,)       real skip
δ       (H,)       learned step of a channel, exp(log_step); it multiplies the gap Δ_k that sample k really has
x       (B, H, N/2)

Zero-order hold: Ā_k = exp(δ Δ_k A), B̄_k = (Ā_k - 1)/A · B. Bilinear: Ā_k = (1 + δΔ_k A/2)/(1 - δΔ_k A/2),
B̄_k = δΔ_k/(1 - δΔ_k A/2) · B. In both, A B̄_k = (Ā_k - 1) B. The layer's state is therefore s = x A / B, which is
written to by Ā_k - 1 alone and read out by C B / A.
"""

import math

import torch

from statespace.layers.diagonal import DiagonalMixer
from statespace.layers.linear import log_uniform_steps
from statespace.layers.nodes import starting_nodes


class S4D(DiagonalMixer):
    """S4D: one diagonal linear system of ``d_state`` real dimensions for each channel, on irregular gaps.

        x_k = Ā_k x_{k-1} + B̄_k u_k,    y_k = 2 Re(C x_k) + D u_k,    Ā_k = exp(δ Δ_k A)

    On a regular grid the record is convolved with the system's impulse response; on irregular gaps it is scanned.

    Parameters
    ----------
    d_model : int
        Number of channels, each with its own system.
    d_state : int, default 64
        Real state dimension N of each system: N/2 conjugate pairs, or N real nodes with ``init="real"``.
    init : {"lin", "inv", "legs", "real", "random"}, default "lin"
        Starting values of A, the paper's S4D-Lin, S4D-Inv, S4D-LegS, S4D-Real and S4D-Rand.
    discretization : {"zoh", "bilinear"}, default "zoh"
        Zero-order hold or the bilinear rule.
    mode : {"auto", "convolution", "scan"}, default "auto"
        ``"auto"`` convolves when all gaps are equal and scans otherwise, also when a gradient in ``dt`` is asked for;
        ``"convolution"`` raises on unequal gaps. A padded tail of zero gaps is no inequality.
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
    δ, A and B carry ``_optim = {"group": "ssm"}``: they want a lower learning rate and no weight decay, as in the
    paper's experiments. The real part of A is -exp of a parameter: the system is stable whatever the optimiser does.

    References
    ----------
    A. Gu, A. Gupta, K. Goel, C. Ré (2022). On the Parameterization and Initialization of Diagonal State Space Models.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import S4D
    >>> layer = S4D(d_model=4, d_state=16)
    >>> u, dt = torch.randn(2, 100, 4), torch.rand(2, 100)
    >>> y, state = layer(u, dt)
    >>> y.shape, state.shape
    (torch.Size([2, 100, 4]), torch.Size([2, 4, 8, 2]))
    >>> y_next, state = layer.step(torch.randn(2, 4), state, dt=torch.tensor([0.3, 2.0]))
    >>> y_next.shape
    torch.Size([2, 4])
    """

    slow_parameters = {"log_step": "dt", "log_A_real": "A", "A_imag": "A", "B": "B"}

    def __init__(
        self,
        d_model,
        d_state=64,
        *,
        init="lin",
        discretization="zoh",
        mode="auto",
        dt_min=1e-3,
        dt_max=1e-1,
        bidirectional=False,
        backend=None,
    ):
        options = {"mode": mode, "bidirectional": bidirectional, "backend": backend}
        super().__init__(d_model, discretization=discretization, **options)
        A = starting_nodes(init, d_model, d_state)
        self.d_state, self.init = d_state, init
        n = A.shape[1]  # nodes: N/2 of conjugate pairs, or N real ones
        self.weight = 1.0 if init == "real" else 2.0
        directions = 2 if bidirectional else 1
        self.log_step = torch.nn.Parameter(log_uniform_steps(d_model, dt_min, dt_max))
        self.log_A_real = torch.nn.Parameter(torch.log(-A.real).float())
        imaginary = A.imag.float()
        if init == "real":
            self.register_buffer("A_imag", imaginary)
        else:
            self.A_imag = torch.nn.Parameter(imaginary)
        one = torch.tensor([1.0, 0.0])
        self.B = torch.nn.Parameter(one.repeat(d_model, n, 1))
        self.C = torch.nn.Parameter(torch.randn(directions * d_model, n, 2) * math.sqrt(0.5))
        self.D = torch.nn.Parameter(torch.randn(d_model))
        self._mark_slow_parameters()

    def extra_repr(self):
        return (
            f"{self.d_model}, d_state={self.d_state}, init={self.init!r}, discretization={self.discretization!r}, "
            f"mode={self.mode!r}, bidirectional={self.bidirectional}"
        )

    def _system(self):
        """δA (H, n) and the read-out CB/A of the state s (directions · H, n)."""
        A = torch.complex(-torch.exp(self.log_A_real.double()), self.A_imag.double())
        B, C = (torch.view_as_complex(p.double()) for p in (self.B, self.C))
        scale = self.weight * B / A
        return torch.exp(self.log_step.double()).unsqueeze(-1) * A, scale.repeat(len(C) // len(A), 1) * C

    def _state_shapes(self, batch_size):
        return batch_size, *self.log_A_real.shape, 2
