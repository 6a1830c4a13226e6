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

from statespace.kernels import diagonal_scan, long_convolution, vandermonde
from statespace.kernels.vandermonde.pytorch import powers
from statespace.layers.base import SequenceMixer


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


class S4D(SequenceMixer):
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
        Backend of the scan, see :func:`statespace.kernels.diagonal_scan`; None takes the best one.

    Raises
    ------
    ValueError
        Unknown options, wrong shapes, negative gaps, or ``mode="convolution"`` on unequal gaps (the first is named).

    Notes
    -----
    δ, A and B carry ``_optim = {"group": "ssm"}``: they want a lower learning rate and no weight decay, as in the
    paper's experiments. The real part of A is -exp of a parameter, so that the system is stable whatever the optimiser does.

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

    slow_parameters = ("log_step", "log_A_real", "A_imag", "B")

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
        super().__init__()
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}. Got {init!r} instead.")
        if discretization not in ("zoh", "bilinear"):
            raise ValueError(f"discretization must be 'zoh' or 'bilinear'. Got {discretization!r} instead.")
        if mode not in ("auto", "convolution", "scan"):
            raise ValueError(f"mode must be 'auto', 'convolution' or 'scan'. Got {mode!r} instead.")
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"dt_min and dt_max must satisfy 0 < dt_min <= dt_max. Got {dt_min} and {dt_max} instead.")
        if d_model < 1:
            raise ValueError(f"d_model must be a positive integer. Got {d_model!r} instead.")
        if d_state < 1 or (d_state % 2 and init != "real"):
            raise ValueError(
                f"d_state must be a positive even number (it counts conjugate pairs twice). Got {d_state!r} instead."
            )
        self.d_model, self.d_state = d_model, d_state
        self.init, self.discretization, self.mode = init, discretization, mode
        self.bidirectional, self.backend = bidirectional, backend
        self._frozen = None
        A = INITS[init](d_state)
        n = len(A)  # nodes: N/2 of conjugate pairs, or N real ones
        self.weight = 1.0 if init == "real" else 2.0
        directions = 2 if bidirectional else 1
        log_step = math.log(dt_min) + torch.rand(d_model) * (math.log(dt_max) - math.log(dt_min))
        self.log_step = torch.nn.Parameter(log_step)
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

    def initial_state(self, batch_size):
        """The state at rest, zeros of shape (batch_size, d_model, nodes, 2): real and imaginary parts."""
        if self.bidirectional:
            raise ValueError("a bidirectional S4D reads the whole record and has no state to pass on.")
        return self.D.new_zeros(batch_size, *self.log_A_real.shape, 2)

    def freeze(self):
        """Compute δA and CB/A once, for steps with weights that no longer change; returns self."""
        with torch.no_grad():
            rate, readout = self._system()
            self._frozen = rate, readout, self._decay(rate)
        return self

    def forward(self, u, dt=None, state=None):
        """Outputs over a record and the state at its end; see :meth:`SequenceMixer.forward`.

        Parameters
        ----------
        u : Tensor of shape (batch, length, d_model)
        dt : Tensor of shape (batch, length), optional
        state : Tensor of shape (batch, d_model, nodes, 2), optional
            Real and imaginary parts of the state before the first sample.

        Returns
        -------
        y : Tensor of shape (batch, length, d_model)
        state : Tensor of shape (batch, d_model, nodes, 2), or None if bidirectional
            Of each record at its own end, padded steps not counted.
        """
        self._check(u, state, 3)
        gap, lengths = self._grid(u, dt)
        with torch.autocast(u.device.type, enabled=False):
            working = u.to(torch.promote_types(u.dtype, torch.float32)).transpose(1, 2)  # (B, H, L)
            rate, readout = self._system()
            d_model = self.d_model
            y, final = self._mix(working, dt, gap, lengths, rate, readout[:d_model], state)
            y = y + self.D.unsqueeze(-1) * working
            if self.bidirectional:
                y = y + self._backward_direction(working, dt, gap, lengths, rate, readout[d_model:])
                final = None
        return y.transpose(1, 2).to(u.dtype), final

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

    def _mix(self, u, dt, gap, lengths, rate, readout, state):
        """(y, final state) of one direction, u and y (B, H, L), without the skip."""
        initial = None if state is None else torch.view_as_complex(state.to(u.dtype).contiguous())
        if gap is None:
            complex_dtype = torch.promote_types(u.dtype, torch.complex64)
            dt = torch.ones_like(u[:, 0]) if dt is None else dt
            y, final = diagonal_scan(
                u, dt, rate, readout.to(complex_dtype), initial,
                discretization=self.discretization, backend=self.backend,
            )  # fmt: skip
        else:
            y, final = self._convolve(u, gap, lengths, rate, readout, initial)
        return y, torch.view_as_real(final)

    def _convolve(self, u, gap, lengths, rate, readout, initial):
        """One direction by convolution with K_l = Re Σ CB/A (Ā - 1) Ā^l."""
        L = u.shape[-1]
        decay = self._decay(rate * gap)
        node = 1 + decay
        y = long_convolution(u, vandermonde(readout * decay, node, L, real=True).to(u.dtype))
        if initial is not None:
            y = y + vandermonde(readout * node * initial, node, L, real=True).to(u.dtype)
        return y, self._final_state(u, lengths, decay, node, initial)

    def _final_state(self, u, lengths, decay, node, initial):
        """Σ_k Ā^(m-1-k) (Ā - 1) u_k + Ā^m s_0 at the end m of each record, by the transposed two-level product."""
        B, H, L = u.shape
        if lengths is not None:
            # Align the ends: sample m - 1 goes last, what follows it is cleared.
            index = torch.arange(L, device=u.device) - (L - lengths).unsqueeze(-1)
            u = torch.where((index < 0).unsqueeze(1), 0.0, u.gather(-1, index.clamp(min=0).unsqueeze(1).expand(B, H, L)))
        dtype = torch.promote_types(u.dtype, torch.complex64)
        M = 1 << math.ceil(math.log2(L) / 2)
        R = -(-L // M)
        fine, stride = powers(node, M)  # (H, n, M)
        coarse, _ = powers(stride, R + 1)  # (H, n, R + 1)
        blocks = torch.nn.functional.pad(u, (R * M - L, 0)).reshape(B, H, R, M)
        columns = fine.flip(-1).transpose(-1, -2).to(dtype)
        real, imaginary = (blocks @ torch.cat([columns.real, columns.imag], dim=-1)).chunk(2, dim=-1)
        weights = coarse[..., :R].flip(-1).transpose(-1, -2).to(dtype)
        final = (torch.complex(real, imaginary) * weights).sum(-2) * decay.to(dtype)
        if initial is not None:
            m = torch.full((B,), L, device=u.device) if lengths is None else lengths
            held = (coarse[..., m // M] * fine[..., m % M]).movedim(-1, 0)  # Ā^m, (B, H, n)
            final = final + held.to(dtype) * initial
        return final

    def _backward_direction(self, u, dt, gap, lengths, rate, readout):
        """The same system read from the end; there the gap of sample k is the one that leads to sample k + 1, and the
        last sample of a record takes the record's first gap.
        """
        if dt is not None:
            index = torch.arange(u.shape[-1], device=u.device)
            lengths = _lengths(dt) if lengths is None else lengths
            last = lengths.unsqueeze(-1) - 1
            dt = torch.where(index == last, dt[:, :1], torch.where(index < last, dt.roll(-1, dims=1), 0.0)).flip(-1)
            u = torch.where((index <= last).unsqueeze(1), u, 0.0)
        y, _ = self._mix(u.flip(-1), dt, gap, None, rate, readout, None)
        return y.flip(-1)

    def _grid(self, u, dt):
        """The one gap by which to convolve, or None to scan; and the lengths of the records if any are padded."""
        if dt is None:
            return (None if self.mode == "scan" else 1.0), None
        if dt.shape != u.shape[:2]:
            raise ValueError(
                f"dt must have shape {tuple(u.shape[:2])}, one gap for each step of u. Got {tuple(dt.shape)} instead."
            )
        gaps = dt.detach()
        if not bool((gaps >= 0).all()):
            series, index = torch.nonzero(~(gaps >= 0))[0].tolist()
            raise ValueError(
                f"dt must not be negative or NaN: dt[{series}, {index}] = {gaps[series, index].item():g}. "
                "Gaps are differences of times that do not decrease."
            )
        if self.mode == "scan" or (self.mode == "auto" and dt.requires_grad):
            return None, None
        lengths = _lengths(gaps)
        first = int((lengths > 0).int().argmax())
        gap = gaps[first, 0].item()
        tolerance = gap * (1e-6 if dt.dtype != torch.float64 else 1e-9)
        valid = torch.arange(dt.shape[1], device=dt.device) < lengths.unsqueeze(-1)
        unequal = valid & ((gaps - gap).abs() > tolerance)
        if not bool(unequal.any()):
            return gap, (None if bool(valid.all()) else lengths)
        if self.mode == "auto":
            return None, None
        series, index = torch.nonzero(unequal)[0].tolist()
        raise ValueError(
            f"mode='convolution' needs one gap throughout: dt[{series}, {index}] = {gaps[series, index].item():g} differs "
            f"from dt[{first}, 0] = {gap:g}. Use mode='auto' or mode='scan' for irregular times."
        )

    def _check(self, u, state, dimensions):
        expected = ("batch", "length", "d_model") if dimensions == 3 else ("batch", "d_model")
        if u.ndim != dimensions or u.shape[-1] != self.d_model or 0 in u.shape:
            raise ValueError(
                f"u must have shape ({', '.join(expected)}) with d_model = {self.d_model} and no empty axis. "
                f"Got {tuple(u.shape)} instead."
            )
        if self.bidirectional and (dimensions == 2 or state is not None):
            raise ValueError(
                "a bidirectional S4D reads the whole record: it has no step and takes no state. Use bidirectional=False."
            )
        if state is not None and state.shape != (len(u), *self.log_A_real.shape, 2):
            raise ValueError(
                f"state must have shape {(len(u), *self.log_A_real.shape, 2)}, as initial_state({len(u)}) gives it. "
                f"Got {tuple(state.shape)} instead."
            )


def _lengths(dt):
    """Number of steps of each record before its padding, the trailing gaps of 0."""
    steps = torch.arange(1, dt.shape[1] + 1, device=dt.device)
    return torch.where(dt > 0, steps, 0).amax(dim=1)
