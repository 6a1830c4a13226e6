"""S4: a diagonal plus low-rank state-space system for each channel (Gu, Goel & Ré 2022, "Efficiently Modeling Long
Sequences with Structured State Spaces"; the stable form of Goel, Gu, Donahue & Ré 2022, "It's Raw!", section 4.1).

    x'(t) = A x(t) + B u(t),    y(t) = 2 Re(C x(t)) + D u(t),    A = Λ − P P*

Λ       (H, N/2)      complex, one of each conjugate pair; Λ = −exp(log_A_real) + i A_imag, so that A is stable
P       (H, r, N/2)   complex, the low-rank part; over both halves of every pair, P* x = 2 Re Σ_n P̄_n x_n
B, C    (H, N/2)      complex
D       (H,)          real skip
δ       (H,)          learned step of a channel, exp(log_step); it multiplies the gap Δ_k that sample k really has
x       (B, H, N/2)

Bilinear rule over the gap: Ā_k = (1 − δΔ_k A/2)^{-1} (1 + δΔ_k A/2), B̄_k = (1 − δΔ_k A/2)^{-1} δΔ_k B, a step of O(N r)
by Woodbury's identity. On a regular grid the impulse response K_l = C Ā^l B̄ has a truncated generating function,

    Σ_{l<L} K_l ω^l = C̃ (1 − ω Ā)^{-1} B̄ = 2/(1 + ω) · C̃ (z − δA)^{-1} δB,   z = 2 (1 − ω)/(1 + ω),   C̃ = C (1 − Ā^L),

computed at the roots of unity, ω^L = 1: Cauchy products, Woodbury's identity again, and an inverse FFT. Nodes, powers
and products are in float64, whatever the type of the parameters.
"""

import numpy as np
import torch

from statespace.kernels import cauchy, dplr_scan, long_convolution
from statespace.kernels.dplr_scan.step import advance, discretise
from statespace.layers.checks import check_shapes
from statespace.layers.linear import LinearMixer, log_uniform_steps
from statespace.lti import hippo

# LegT and Fourier have Λ on the imaginary axis, which −exp(·) only comes near; P makes them decay all the same.
LEAST_DECAY = 1e-4


class S4(LinearMixer):
    """S4: one diagonal plus low-rank system of ``d_state`` real dimensions for each channel, started as a HiPPO memory.

        x_k = (1 − δΔ_k A/2)^{-1} ((1 + δΔ_k A/2) x_{k-1} + δΔ_k B u_k),    y_k = 2 Re(C x_k) + D u_k,    A = Λ − P P*

    On a regular grid the record may be convolved with the impulse response, from its truncated generating function; on
    irregular gaps it is scanned, in O(d_state) a sample.

    Parameters
    ----------
    d_model : int
        Number of channels, each with its own system.
    d_state : int, default 64
        Real state dimension N of each system: N/2 conjugate pairs.
    measure : {"legs", "legt", "lagt", "fourier", "legsd", "foud"}, default "legs"
        The HiPPO measure whose matrices A and B start with, see :func:`statespace.lti.hippo.matrices`.
    rank : int, optional
        Rows of P. None: what the measure needs, 2 for ``"legt"`` and 1 for the others; more start at zero.
    discretization : {"bilinear"}, default "bilinear"
        The paper's rule, and the one that keeps a step of a system with a low-rank part at O(d_state).
    mode : {"auto", "convolution", "scan"}, default "auto"
        ``"convolution"`` is the paper's algorithm over the whole record and raises on unequal gaps; ``"scan"`` takes
        step after step. ``"auto"`` scans unequal gaps; equal ones too on a CPU, where the compiled scan is faster, and
        wherever no gradient is wanted; elsewhere it convolves equal ones.
    dt_min, dt_max : float, default 1e-3 and 1e-1
        The step δ of a channel starts log-uniformly in this range; it multiplies the gaps.
    bidirectional : bool, default False
        Add a second read-out of the same system run backwards in time, with the gaps shifted by one. Such a layer has
        neither ``step`` nor a state to pass on.
    backend : str, optional
        Backend of the kernels, see :func:`statespace.kernels.dplr_scan`; None takes the best one.

    Raises
    ------
    ValueError
        Unknown options, wrong shapes, negative gaps, or ``mode="convolution"`` on unequal gaps (the first is named).

    Notes
    -----
    δ, Λ, P and B carry ``_optim = {"group": "ssm"}``: they want a lower learning rate and no weight decay, as in the
    paper's experiments. C is the read-out of the state itself and not the paper's C̃ = C (1 − Ā^L): the layer reads
    records of every length, and its steps need no conversion.

    In float32 all faces agree to 2e-5 of the largest output over 4096 samples, but for a scan of ``"legsd"`` or
    ``"foud"``, up to 3e-4: without a low-rank part fast modes live for ten thousands of steps under the bilinear rule,
    and the rounding of their turns adds up. There ``mode="convolution"`` keeps its digits, as does float64.

    References
    ----------
    A. Gu, K. Goel, C. Ré (2022). Efficiently Modeling Long Sequences with Structured State Spaces.
    K. Goel, A. Gu, C. Donahue, C. Ré (2022). It's Raw! Audio Generation with State-Space Models, section 4.1.
    A. Gu, I. Johnson, A. Timalsina, A. Rudra, C. Ré (2022). How to Train Your HiPPO.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import S4
    >>> layer = S4(d_model=4, d_state=16)
    >>> u, dt = torch.randn(2, 100, 4), torch.rand(2, 100)
    >>> y, state = layer(u, dt)
    >>> y.shape, state.shape
    (torch.Size([2, 100, 4]), torch.Size([2, 4, 8, 2]))
    >>> y_next, state = layer.step(torch.randn(2, 4), state, dt=torch.tensor([0.3, 2.0]))
    >>> y_next.shape
    torch.Size([2, 4])
    """

    kernels = ("cauchy", "dplr_scan", "long_convolution")
    slow_parameters = {"log_step": "dt", "log_A_real": "A", "A_imag": "A", "P": "A", "B": "B"}

    def __init__(
        self,
        d_model,
        d_state=64,
        *,
        measure="legs",
        rank=None,
        discretization="bilinear",
        mode="auto",
        dt_min=1e-3,
        dt_max=1e-1,
        bidirectional=False,
        backend=None,
    ):
        super().__init__(d_model, mode=mode, bidirectional=bidirectional, backend=backend)
        if discretization != "bilinear":
            raise ValueError(
                f"discretization must be 'bilinear', which keeps a step at O(d_state). Got {discretization!r} instead; "
                "S4D and S5 have the zero-order hold."
            )
        if d_state < 1 or d_state % 2:
            raise ValueError(
                f"d_state must be a positive even number (it counts conjugate pairs twice). Got {d_state!r} instead."
            )
        form = hippo.dplr(measure, d_state, rank)
        # As columns: there the rows p of P subtract pᴴp.
        P = form.P.conj() if len(form.P) else np.zeros_like(form.B)[None]
        self.d_state, self.measure, self.rank, self.discretization = d_state, measure, len(P), discretization
        directions = 2 if bidirectional else 1
        self.log_step = torch.nn.Parameter(log_uniform_steps(d_model, dt_min, dt_max))
        decay = torch.from_numpy(-form.Lambda.real).clamp(min=LEAST_DECAY)
        self.log_A_real = torch.nn.Parameter(decay.log().float().repeat(d_model, 1))
        self.A_imag = torch.nn.Parameter(torch.from_numpy(form.Lambda.imag).float().repeat(d_model, 1))
        self.P = torch.nn.Parameter(_real(P).repeat(d_model, 1, 1, 1))
        self.B = torch.nn.Parameter(_real(form.B).repeat(d_model, 1, 1))
        self.C = torch.nn.Parameter(torch.randn(directions * d_model, d_state // 2, 2) * 0.5**0.5)
        self.D = torch.nn.Parameter(torch.randn(d_model))
        self._mark_slow_parameters()

    def extra_repr(self):
        return (
            f"{self.d_model}, d_state={self.d_state}, measure={self.measure!r}, rank={self.rank}, mode={self.mode!r}, "
            f"bidirectional={self.bidirectional}"
        )

    def step(self, u_t, state, dt=None):
        """One sample in O(d_state): ``u_t`` (batch, d_model), ``dt`` (batch,) or None for 1; returns (y_t, state)."""
        check_shapes(self, u_t, state, 2)
        if state is None:
            state = self.initial_state(len(u_t))
        with torch.autocast(u_t.device.type, enabled=False):
            x = torch.view_as_complex(state.contiguous())
            P, C, tables = self._frozen if dt is None and self._frozen else self._recurrence(dt)
            P, C = P.to(x.dtype), C.to(x.dtype)
            tables = (table.to(x.dtype if table.is_complex() else x.real.dtype) for table in tables)
            x = advance(u_t.to(x.real.dtype), x, *tables, P)
            y = 2 * (C * x).real.sum(-1) + self.D * u_t
        return y.to(u_t.dtype), torch.view_as_real(x)

    def freeze(self):
        """Compute what a step of gap 1 takes once, for steps with weights that no longer change; returns self."""
        with torch.no_grad():
            self._frozen = self._recurrence(None)
        return self

    def kernel(self, length, gap=1.0):
        """The impulse response K_l = 2 Re(C Ā^l B̄), l < ``length``, on a grid of ``gap``.

        Parameters
        ----------
        length : int
        gap : float, default 1.0

        Returns
        -------
        Tensor of shape (d_model, length)
            In float64, differentiable; of the forward direction.

        Examples
        --------
        >>> from statespace.layers import S4
        >>> S4(d_model=4, d_state=16).kernel(100).shape
        torch.Size([4, 100])
        """
        if length < 1 or not gap > 0:
            raise ValueError(f"length must be a positive integer and gap positive. Got {length!r} and {gap!r} instead.")
        *system, C = self._system()
        return impulse_response(*system, C[: self.d_model], length, gap, backend=self._backend("cauchy"))

    def _recurrence(self, dt):
        """P, C and the tables of a step over the gaps ``dt`` (batch,), None for 1."""
        step, Lambda, P, B, C = self._system_in_time()
        gap = torch.ones(1, device=C.device) if dt is None else dt
        # δ with the gap: over a large one its gradient is far below what those in δΛ, √δ P and δB add up from.
        return P, C, discretise(gap.double().view(-1, 1, 1) * step, Lambda, P, B)

    def _system(self):
        """δΛ, √δ P, δB and C in complex128: the system in units of the gap."""
        step, Lambda, P, B, C = self._system_in_time()
        return step * Lambda, step.sqrt().unsqueeze(-1) * P, step * B, C

    def _system_in_time(self):
        """δ, Λ, P, B and C in double precision."""
        step = torch.exp(self.log_step.double()).unsqueeze(-1)
        Lambda = torch.complex(-torch.exp(self.log_A_real.double()), self.A_imag.double())
        return step, Lambda, *(torch.view_as_complex(p.double()) for p in (self.P, self.B, self.C))

    def _mix(self, u, dt, gap, lengths, system, direction, state):
        *system, C = system
        system = *system, C[direction * self.d_model : (direction + 1) * self.d_model]
        initial = None if state is None else torch.view_as_complex(state.to(u.dtype).contiguous())
        if gap is not None:
            # Equal up to rounding: the same number throughout, but for the padding.
            dt = torch.full_like(u[:, 0], gap) if dt is None else gap * (dt > 0).to(u.dtype)
        y, final = dplr_scan(u, dt, *system, initial, backend=self._backend("dplr_scan"))
        if gap is not None and not self._scans(u, *system, *(() if initial is None else (initial,))):
            # The scan is left with the final state, and with what the initial one leaves in the outputs.
            K = impulse_response(*system, u.shape[-1], gap, backend=self._backend("cauchy"))
            y = long_convolution(u, K.to(u.dtype), backend=self._backend("long_convolution"))
            if initial is not None:
                y = y + dplr_scan(torch.zeros_like(u), dt, *system, initial, backend=self._backend("dplr_scan"))[0]
        if direction == 0:
            y = torch.addcmul(y, self.D.unsqueeze(-1).to(u.dtype), u)
        return y, torch.view_as_real(final.contiguous())

    def _scans(self, u, *others):
        """Whether equal gaps are scanned too.

        The final state asks for a scan in any case, which has the outputs as well: some 30 operations a pair and sample
        that a convolution only adds to. With gradients the scan back has five times as many, 4,800 at N = 64; three
        transforms forth and four back move 150 bytes instead, for which a GPU has time for 2,700 operations, and a
        long record keeps all of it busy.
        """
        if self.mode != "auto":
            return False
        if u.device.type == "cpu" and self.backend in (None, "cpu") and self.rank <= 2:
            return True
        # A compiled or exported program leaves out the scan of a state that nobody reads.
        wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (u, *others))
        return not (wanted or torch.compiler.is_compiling())

    def _state_shapes(self, batch_size):
        return batch_size, self.d_model, self.d_state // 2, 2


def impulse_response(Lambda, P, B, C, length, gap=1.0, *, backend=None):
    """K_l = 2 Re(C Ā^l B̄) for l < length, (H, length) in float64, from the truncated generating function."""
    Lambda, P, B = gap * Lambda, gap**0.5 * P, gap * B
    truncated = C - _times_power(C, Lambda, P, length)
    # Half of the roots of unity, the others being conjugate; z is infinite at −1, which has a limit of its own.
    angle = torch.arange((length + 1) // 2, dtype=torch.float64, device=B.device) * (-2 * torch.pi / length)
    omega = torch.polar(torch.ones_like(angle), angle)
    rows, columns = torch.cat([truncated.unsqueeze(1), P.conj()], dim=1), torch.cat([B.unsqueeze(1), P], dim=1)
    products = (rows.unsqueeze(2) * columns.unsqueeze(1)).flatten(1, 2)
    products = cauchy(products, 2 * (1 - omega) / (1 + omega), Lambda.unsqueeze(1), conjugate=True, backend=backend)
    spectrum = 2 / (1 + omega) * _woodbury(products.unflatten(1, (rows.shape[1], -1)))
    if length % 2 == 0:
        spectrum = torch.cat([spectrum, (truncated * B).real.sum(-1, keepdim=True)], dim=-1)
    return torch.fft.irfft(spectrum, length)


def _woodbury(k):
    """C (z − Λ + P P*)^{-1} B from the products k (H, 1 + r, 1 + r, nodes) of [C, P*] and [B, P] over z − Λ.

    One row of P after the other: with p added to what is inverted, k_ab becomes k_ab − k_ap k_pb / (1 + k_pp).
    """
    while k.shape[1] > 1:
        k = k[:, :-1, :-1] - k[:, :-1, -1:] * k[:, -1:, :-1] / (1 + k[:, -1:, -1:])
    return k[:, 0, 0]


def _times_power(C, Lambda, P, length):
    """C Ā^length, by repeated squaring of the real matrix that takes one state to the next."""
    n = C.shape[-1]
    basis = torch.eye(n, dtype=C.dtype, device=C.device)
    basis = torch.cat([basis, 1j * basis]).unsqueeze(1).expand(-1, len(C), -1)
    tables = discretise(torch.ones(1, 1, 1, dtype=torch.float64, device=C.device), Lambda, P, torch.zeros_like(Lambda))
    after = advance(torch.zeros_like(basis[..., 0].real), basis, *tables, P)
    power = torch.cat([after.real, after.imag], dim=-1).permute(1, 2, 0)
    row = torch.cat([C.real, -C.imag], dim=-1).unsqueeze(1)
    while length:
        if length % 2:
            row = row @ power
        length //= 2
        if length:
            power = power @ power
    return torch.complex(row[:, 0, :n], -row[:, 0, n:])


def _real(x):
    return torch.view_as_real(torch.from_numpy(x)).float()
