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
by Woodbury's identity. On a regular grid the impulse response K_l = C Ā^l B̄ comes from its truncated generating function,

    Σ_{l<L} K_l ω^l = C̃ (1 − ω Ā)^{-1} B̄ = 2/(1 + ω) · C̃ (z − δA)^{-1} δB,   z = 2 (1 − ω)/(1 + ω),   C̃ = C (1 − Ā^L),

at the roots of unity ω^L = 1: Cauchy products, Woodbury's identity again, and an inverse FFT.
"""

import torch

from statespace.kernels import cauchy, dplr_scan, long_convolution
from statespace.kernels.dplr_scan.step import advance, discretise
from statespace.layers.linear import LinearMixer, log_uniform_steps
from statespace.lti import hippo

# LegT and Fourier have Λ on the imaginary axis; −exp(·) reaches it nearly.
LEAST_DECAY = 1e-4


class S4(LinearMixer):
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
        P = form.P if len(form.P) else form.B[None] * 0
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
        """One sample in O(d_state): ``u_t`` (batch, d_model), gaps ``dt`` (batch,) or None for 1; returns (y_t, state)."""
        self._check(u_t, state, 2)
        if state is None:
            state = self.initial_state(len(u_t))
        with torch.autocast(u_t.device.type, enabled=False):
            x = torch.view_as_complex(state.contiguous())
            if dt is None:
                P, C, tables = self._frozen or self._recurrence(torch.ones(1, dtype=torch.float64, device=x.device))
            else:
                P, C, tables = self._recurrence(dt)
            x = advance(u_t.to(x.real.dtype), x, *(t.to(x.dtype if t.is_complex() else x.real.dtype) for t in tables), P.to(x.dtype))
            y = 2 * (C.to(x.dtype) * x).real.sum(-1) + self.D * u_t
        return y.to(u_t.dtype), torch.view_as_real(x)

    def freeze(self):
        """Compute the step of gap 1 once, for steps with weights that no longer change; returns self."""
        with torch.no_grad():
            self._frozen = self._recurrence(torch.ones(1, dtype=torch.float64, device=self.D.device))
        return self

    def kernel(self, length, gap=1.0):
        return _impulse_response(self._system(), gap, length, self.backend)

    def _recurrence(self, dt):
        Lambda, P, B, C = self._system()
        return P, C, discretise(dt.double().view(-1, 1, 1), Lambda, P, B)

    def _system(self):
        """δΛ, √δ P, δB and C in complex128: the system in units of the gap."""
        step = torch.exp(self.log_step.double()).unsqueeze(-1)
        Lambda = torch.complex(-torch.exp(self.log_A_real.double()), self.A_imag.double())
        P, B, C = (torch.view_as_complex(p.double()) for p in (self.P, self.B, self.C))
        return step * Lambda, step.sqrt().unsqueeze(-1) * P, step * B, C

    def _mix(self, u, dt, gap, lengths, system, direction, state):
        Lambda, P, B, C = system
        C = C[direction * self.d_model : (direction + 1) * self.d_model]
        initial = None if state is None else torch.view_as_complex(state.to(u.dtype).contiguous())
        if gap is None:
            y, final = dplr_scan(u, dt, Lambda, P, B, C, initial, backend=self.backend)
        else:
            y = long_convolution(u, _impulse_response((Lambda, P, B, C), gap, u.shape[-1], self.backend).to(u.dtype))
            if dt is None:
                dt = torch.ones_like(u[:, 0])
            _, final = dplr_scan(u, dt, Lambda, P, B, C, initial, backend=self.backend)
            if initial is not None:
                y = y + dplr_scan(u * 0, dt, Lambda, P, B, C, initial, backend=self.backend)[0]
        if direction == 0:
            y = torch.addcmul(y, self.D.unsqueeze(-1).to(u.dtype), u)
        return y, torch.view_as_real(final.contiguous())

    def _state_shapes(self, batch_size):
        return batch_size, self.d_model, self.d_state // 2, 2


def _impulse_response(system, gap, length, backend):
    """K_l = 2 Re(C Ā^l B̄), l < length, in float64."""
    Lambda, P, B, C = system
    Lambda, P, B = gap * Lambda, gap**0.5 * P, gap * B
    tilde = C - _times_power(C, Lambda, P, length)
    angle = torch.arange(length // 2 + 1, dtype=torch.float64, device=B.device) * (2 * torch.pi / length)
    omega = torch.polar(torch.ones_like(angle), -angle)
    rows = torch.cat([tilde.unsqueeze(1), P.conj()], dim=1)
    columns = torch.cat([B.unsqueeze(1), P], dim=1)
    last = 2 * (tilde * B).real.sum(-1, keepdim=True) / 2
    if length % 2 == 0:
        omega = omega[:-1]
    z = 2 * (1 - omega) / (1 + omega)
    products = cauchy(rows.unsqueeze(2) * columns.unsqueeze(1), z, Lambda[:, None, None], conjugate=True)
    low = products[:, 1:, 1:].movedim(-1, 1)
    solved = torch.linalg.solve(torch.eye(low.shape[-1]).to(low) + low, products[:, 1:, 0].movedim(-1, 1))
    spectrum = products[:, 0, 0] - (products[:, 0, 1:].movedim(-1, 1) * solved).sum(-1)
    spectrum = spectrum * 2 / (1 + omega)
    if length % 2 == 0:
        spectrum = torch.cat([spectrum, last.to(spectrum)], dim=-1)
    return torch.fft.irfft(spectrum, length)


def _times_power(C, Lambda, P, length):
    """C Ā^length by repeated squaring of the real matrix."""
    n = C.shape[-1]
    eye = torch.eye(n, dtype=C.dtype, device=C.device)
    zero = torch.zeros_like(Lambda)
    tables = discretise(torch.ones(1, 1, 1, dtype=torch.float64, device=C.device), Lambda, P, zero)
    basis = torch.cat([eye, 1j * eye]).unsqueeze(1)  # (2 n, 1, n)
    columns = advance(basis.new_zeros(2 * n, len(C), dtype=torch.float64), basis.expand(-1, len(C), -1), *(t for t in tables), P)
    matrix = torch.cat([columns.real, columns.imag], dim=-1).permute(1, 2, 0)
    power = torch.linalg.matrix_power(matrix, length)
    row = torch.cat([C.real, -C.imag], dim=-1).unsqueeze(1) @ power
    return torch.complex(row[:, 0, :n], -row[:, 0, n:])


def _real(x):
    return torch.view_as_real(torch.from_numpy(x)).float()
