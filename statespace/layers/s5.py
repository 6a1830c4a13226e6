"""S5: one diagonal state-space system of many inputs and outputs (Smith, Warrington & Linderman 2023, "Simplified
State Space Layers for Sequence Modeling").

    x'(t) = Λ x(t) + B u(t),    y(t) = 2 Re(C x(t)) + D u(t)

Λ       (P/2,)     complex, one of each conjugate pair; Λ = -exp(log_Lambda_real) + i Lambda_imag, so that it decays
B       (P/2, H)   complex
C       (H, P/2)   complex
D       (H,)       real skip
δ       (P/2,)     learned step of a state, exp(log_step); it multiplies the gap Δ_k that sample k really has
x       (B, P/2)

Zero-order hold: Λ̄_k = exp(δ Δ_k Λ), B̄_k = Λ⁻¹(Λ̄_k - 1) B. Bilinear: Λ̄_k = (1 + δΔ_k Λ/2)/(1 - δΔ_k Λ/2),
B̄_k = δΔ_k/(1 - δΔ_k Λ/2) · B. In both, Λ B̄_k = (Λ̄_k - 1) B: the gap scales the projected input B u_k, and no matrix
is made for a step. The layer's state is s = Λ x, which is written to by Λ̄_k - 1 alone and read out by C/Λ.
"""

import math

import numpy as np
import torch

from statespace.kernels import diagonal_states
from statespace.layers.checks import check_shapes
from statespace.layers.linear import LinearMixer, log_uniform_steps
from statespace.lti import hippo

INITS = ("legs", "legt", "lagt", "fourier")


def _start(init, size):
    """Eigenvalues (size/2,) of the normal part of a HiPPO matrix, one of each pair, and its eigenvectors."""
    form = hippo.dplr(init, size)
    # The normal part of a measure with a window only turns; what ends the memory is the low rank that is left out here.
    return np.where(form.Lambda.real < 0, form.Lambda, -0.5 + form.Lambda), form.V


class S5(LinearMixer):
    """S5: one linear system of ``d_state`` real dimensions that all channels write to and read, on irregular gaps.

        x_k = Λ̄_k x_{k-1} + B̄_k u_k,    y_k = 2 Re(C x_k) + D u_k,    Λ̄_k = exp(δ Δ_k Λ)

    The record is projected on to the states, scanned there and read out: two real matrix products around one loop.

    Parameters
    ----------
    d_model : int
        Number H of channels.
    d_state : int, default 64
        Real dimension P of the state: P/2 conjugate pairs.
    n_blocks : int, default 1
        The state matrix starts block-diagonal, this many HiPPO matrices of size P / n_blocks.
    init : {"legs", "legt", "lagt", "fourier"}, default "legs"
        The HiPPO measure, see :func:`statespace.lti.hippo.nplr`: Λ starts as the eigenvalues of the normal part of its
        matrix, B and C as random real matrices in the basis of its eigenvectors. LegS is the paper's. The real part of
        Λ is -1/2 where the normal part has none (``"legt"``, ``"fourier"``).
    discretization : {"zoh", "bilinear"}, default "zoh"
        Zero-order hold or the bilinear rule.
    mode : {"auto", "convolution", "scan"}, default "auto"
        ``"convolution"`` raises on unequal gaps. The convolution with the states' powers is summed recursively, one
        decay for all steps; a scan computes the decay of every gap.
    dt_min, dt_max : float, default 1e-3 and 1e-1
        The step δ of a state starts log-uniformly in this range; it multiplies the gaps.
    bidirectional : bool, default False
        Add a second read-out of the same system run backwards in time, with the gaps shifted by one. Such a layer has
        neither ``step`` nor a state to pass on.
    backend : str, optional
        Backend of the kernel, see :func:`statespace.kernels.diagonal_states`; None takes the best one.

    Raises
    ------
    ValueError
        Unknown options, wrong shapes, negative gaps, or ``mode="convolution"`` on unequal gaps (the first is named).

    Notes
    -----
    δ, Λ and B carry ``_optim = {"group": "ssm"}``: they want a lower learning rate and no weight decay, as in the
    paper's experiments. The real part of Λ is -exp of a parameter: the system is stable whatever the optimiser does.
    Time and memory are linear in length · (d_model + d_state), also where every sample has a gap of its own.

    References
    ----------
    J. T. H. Smith, A. Warrington, S. W. Linderman (2023). Simplified State Space Layers for Sequence Modeling. ICLR.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import S5
    >>> layer = S5(d_model=4, d_state=16, n_blocks=2)
    >>> u, dt = torch.randn(2, 100, 4), torch.rand(2, 100)
    >>> y, state = layer(u, dt)
    >>> y.shape, state.shape
    (torch.Size([2, 100, 4]), torch.Size([2, 8, 2]))
    >>> y_next, state = layer.step(torch.randn(2, 4), state, dt=torch.tensor([0.3, 2.0]))
    >>> y_next.shape
    torch.Size([2, 4])
    """

    kernels = ("diagonal_states",)
    slow_parameters = {"log_step": "dt", "log_Lambda_real": "A", "Lambda_imag": "A", "B": "B"}

    def __init__(
        self,
        d_model,
        d_state=64,
        *,
        n_blocks=1,
        init="legs",
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
        if n_blocks < 1 or d_state < 1 or d_state % (2 * n_blocks):
            raise ValueError(
                "d_state must be a positive multiple of 2 n_blocks (each block counts conjugate pairs twice). "
                f"Got d_state={d_state!r} and n_blocks={n_blocks!r} instead."
            )
        self.d_state, self.n_blocks, self.init, self.discretization = d_state, n_blocks, init, discretization
        size, directions = d_state // n_blocks, 2 if bidirectional else 1
        Lambda, V = _start(init, size)
        Lambda, V = torch.tensor(np.tile(Lambda, n_blocks)), torch.tensor(V)
        self.log_step = torch.nn.Parameter(log_uniform_steps(len(Lambda), dt_min, dt_max))
        self.log_Lambda_real = torch.nn.Parameter(torch.log(-Lambda.real).float())
        self.Lambda_imag = torch.nn.Parameter(Lambda.imag.float())
        # Real matrices of variance 1 / fan-in, then V* B and C V of every block, of which one of each pair is kept.
        B = torch.randn(n_blocks, size, d_model) / math.sqrt(d_model)
        C = torch.randn(directions, d_model, n_blocks, size) / math.sqrt(d_state)
        B = (V.mH @ B.to(V.dtype)).flatten(0, 1)
        C = (C.to(V.dtype) @ V).flatten(2)
        self.B = torch.nn.Parameter(torch.view_as_real(B).float())
        self.C = torch.nn.Parameter(torch.view_as_real(C).flatten(0, 1).float())
        self.D = torch.nn.Parameter(torch.randn(d_model))
        self._mark_slow_parameters()

    def extra_repr(self):
        return (
            f"{self.d_model}, d_state={self.d_state}, n_blocks={self.n_blocks}, init={self.init!r}, "
            f"discretization={self.discretization!r}, mode={self.mode!r}, bidirectional={self.bidirectional}"
        )

    def freeze(self):
        """Compute δΛ and the matrices once, for steps with weights that no longer change; returns self."""
        with torch.no_grad():
            rate, write, read = self._system()
            dtype = self.D.dtype
            self._frozen = rate, write.to(dtype), read.to(dtype), self._decay(rate)
        return self

    def step(self, u_t, state, dt=None):
        """One sample in O(1): ``u_t`` (batch, d_model), gaps ``dt`` (batch,) or None for 1; returns (y_t, state)."""
        if state is None:
            state = self.initial_state(len(u_t))
        check_shapes(self, u_t, state, 2)
        with torch.autocast(u_t.device.type, enabled=False):
            rate, write, read, decay = self._frozen or (*self._system(), None)
            if dt is not None:
                decay = self._decay(rate * dt.to(rate.real.dtype).unsqueeze(-1))
            elif decay is None:
                decay = self._decay(rate)
            u = u_t.to(torch.promote_types(u_t.dtype, torch.float32))
            s, v = torch.view_as_complex(state.contiguous()), torch.complex(*(u @ write.to(u.dtype)).chunk(2, dim=-1))
            s = s + decay.to(s.dtype) * (s + v)
            y = torch.cat([s.real, s.imag], dim=-1).to(u.dtype) @ read[0].to(u.dtype) + self.D * u
        return y.to(u_t.dtype), torch.view_as_real(s)

    def _system(self):
        """δΛ (P/2,), and as real matrices B (H, P) and 2 C/Λ (directions, P, H), in float64: the phase of a rate that
        was rounded to float32 loses three digits within some thousand steps.
        """
        Lambda = torch.complex(-torch.exp(self.log_Lambda_real.double()), self.Lambda_imag.double())
        B, C = (torch.view_as_complex(p.double()) for p in (self.B, self.C))
        C = 2 * C / Lambda
        write = torch.cat([B.real, B.imag]).T
        read = torch.cat([C.real, -C.imag], dim=1).unflatten(0, (-1, self.d_model)).transpose(1, 2)
        return torch.exp(self.log_step.double()) * Lambda, write, read

    def _decay(self, z):
        """Λ̄ - 1 for z = δΔΛ, written so that a tiny z keeps all its digits."""
        return torch.expm1(z) if self.discretization == "zoh" else z / (1 - z / 2)

    def _state_shapes(self, batch_size):
        return batch_size, len(self.log_step), 2

    def _mix(self, u, dt, gap, lengths, system, direction, state):
        rate, write, read = system
        u = u.transpose(1, 2)
        v = (u @ write.to(u.dtype)).unflatten(-1, (2, -1))
        initial = None if state is None else state.to(u.dtype).transpose(1, 2)
        if gap is not None:
            # One decay serves all steps, padded ones too: nothing reads what comes after a record's end.
            dt, rate = None, rate * gap
        x = diagonal_states(
            v, dt, rate, initial, discretization=self.discretization, backend=self._backend("diagonal_states")
        )  # (B, L, 2, P/2)
        y = x.flatten(2) @ read[direction].to(u.dtype)
        if direction == 0:
            y = y.addcmul_(self.D.to(u.dtype), u)  # in place: fresh memory costs as much as the product
        if lengths is None:
            final = x[:, -1]
        else:
            rest = torch.zeros_like(x[:, 0]) if initial is None else initial
            last = x[torch.arange(len(x), device=x.device), lengths - 1]
            final = torch.where(lengths.view(-1, 1, 1) > 0, last, rest)
        # A copy: a view would keep all states of the record in memory.
        return y.transpose(1, 2), final.transpose(1, 2).clone(memory_format=torch.contiguous_format)
