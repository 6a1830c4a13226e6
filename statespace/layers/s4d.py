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

import numpy as np
import torch

from statespace.kernels import diagonal_convolution, diagonal_scan
from statespace.layers.linear import LinearMixer, log_uniform_steps


def _lin(d_state):
    """S4D-Lin, -1/2 + iπn: the frequencies of a Fourier series on one unit of δΔ-scaled time."""
    return -0.5 + 1j * np.pi * np.arange(d_state // 2)


def _inv(d_state):
    """S4D-Inv, -1/2 + i N/π (N/(2n + 1) - 1): close to HiPPO-LegS' eigenvalues (equation 9 of the paper)."""
    n = np.arange(d_state // 2)
    return -0.5 + 1j * d_state / np.pi * (d_state / (2 * n + 1) - 1)


def _legs(d_state):
    """S4D-LegS: the eigenvalues of the normal part of the HiPPO-LegS matrix, -1/2 + S with S skew-symmetric."""
    root = np.sqrt(2 * np.arange(d_state) + 1.0)
    lower = np.tril(np.outer(root, root), -1) / 2
    imaginary = np.linalg.eigvalsh(1j * (lower - lower.T))
    return -0.5 + 1j * imaginary[imaginary > 0]


def _real(d_state):
    """S4D-Real, -(n + 1): HiPPO-LegS' own diagonal; no conjugate pairs."""
    return -(1.0 + np.arange(d_state)) + 0j


INITS = {"lin": _lin, "inv": _inv, "legs": _legs, "real": _real}


class S4D(LinearMixer):
    """S4D: one diagonal linear system of ``d_state`` real dimensions for each channel, on irregular gaps.

        x_k = Ā_k x_{k-1} + B̄_k u_k,    y_k = 2 Re(C x_k) + D u_k,    Ā_k = exp(δ Δ_k A)

    On a regular grid the record is convolved with the system's impulse response; on irregular gaps it is scanned.

    Parameters
    ----------
    d_model : int
        Number of channels, each with its own system.
    d_state : int, default 64
        Real state dimension N of each system: N/2 conjugate pairs, or N real nodes with ``init="real"``.
    init : {"lin", "inv", "legs", "real"}, default "lin"
        Starting values of A, the paper's S4D-Lin, S4D-Inv, S4D-LegS and S4D-Real.
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
        super().__init__(d_model, mode=mode, bidirectional=bidirectional, backend=backend)
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}. Got {init!r} instead.")
        if discretization not in ("zoh", "bilinear"):
            raise ValueError(f"discretization must be 'zoh' or 'bilinear'. Got {discretization!r} instead.")
        if d_state < 1 or (d_state % 2 and init != "real"):
            raise ValueError(
                f"d_state must be a positive even number (it counts conjugate pairs twice). Got {d_state!r} instead."
            )
        self.d_state, self.init, self.discretization = d_state, init, discretization
        A = INITS[init](d_state)
        n = len(A)  # nodes: N/2 of conjugate pairs, or N real ones
        self.weight = 1.0 if init == "real" else 2.0
        directions = 2 if bidirectional else 1
        self.log_step = torch.nn.Parameter(log_uniform_steps(d_model, dt_min, dt_max))
        self.log_A_real = torch.nn.Parameter(torch.tensor(np.log(-A.real)).float().repeat(d_model, 1))
        imaginary = torch.tensor(A.imag).float().repeat(d_model, 1)
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

    def freeze(self):
        """Compute δA and CB/A once, for steps with weights that no longer change; returns self."""
        with torch.no_grad():
            rate, readout = self._system()
            self._frozen = rate, readout, self._decay(rate)
        return self

    def step(self, u_t, state, dt=None):
        """One sample in O(1): ``u_t`` (batch, d_model), gaps ``dt`` (batch,) or None for 1; returns (y_t, state)."""
        if state is None:
            state = self.initial_state(len(u_t))
        self._check(u_t, state, 2)
        with torch.autocast(u_t.device.type, enabled=False):
            rate, readout, decay = self._frozen or (*self._system(), None)
            if dt is not None:
                decay = self._decay(rate * dt.to(rate.real.dtype).view(-1, 1, 1))
            elif decay is None:
                decay = self._decay(rate)
            s = torch.view_as_complex(state.contiguous())
            s = s + decay.to(s.dtype) * (s + u_t.to(s.real.dtype).unsqueeze(-1))
            y = (readout.to(s.dtype) * s).real.sum(-1) + self.D * u_t
        return y.to(u_t.dtype), torch.view_as_real(s)

    def _system(self):
        """δA (H, n) and the read-out CB/A of the state s (directions · H, n), in float64: a power of a node that was
        rounded to float32 loses three digits within some thousand steps.
        """
        A = torch.complex(-torch.exp(self.log_A_real.double()), self.A_imag.double())
        B, C = (torch.view_as_complex(p.double()) for p in (self.B, self.C))
        scale = self.weight * B / A
        return torch.exp(self.log_step.double()).unsqueeze(-1) * A, scale.repeat(len(C) // len(A), 1) * C

    def _decay(self, z):
        """Ā - 1 for z = δΔA, written so that a tiny z keeps all its digits."""
        return torch.expm1(z) if self.discretization == "zoh" else z / (1 - z / 2)

    def _state_shapes(self, batch_size):
        return batch_size, *self.log_A_real.shape, 2

    def _mix(self, u, dt, gap, lengths, system, direction, state):
        rate, readout = system
        readout = readout[direction * self.d_model : (direction + 1) * self.d_model]
        skip = self.D if direction == 0 else None
        complex_dtype = torch.promote_types(u.dtype, torch.complex64)
        initial = None if state is None else torch.view_as_complex(state.to(u.dtype).contiguous())
        options = {"discretization": self.discretization, "backend": self.backend}
        if gap is None:
            dt = torch.ones_like(u[:, 0]) if dt is None else dt
            y, final = diagonal_scan(u, dt, rate, readout.to(complex_dtype), initial, **options)
            y = y if skip is None else torch.addcmul(y, skip.unsqueeze(-1).to(u.dtype), u)
        else:
            y, final = diagonal_convolution(u, rate * gap, readout, initial, lengths, skip, **options)
        return y, torch.view_as_real(final.contiguous())
