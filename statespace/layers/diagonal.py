"""What the layers with one diagonal system a channel share: both faces of the system and its frozen form."""

import torch

from statespace.kernels import diagonal_convolution, diagonal_scan
from statespace.kernels.dispatch import preferred
from statespace.layers.checks import check_shapes
from statespace.layers.linear import LinearMixer


class DiagonalMixer(LinearMixer):
    """A diagonal system for each channel, x' = A x + B u, y = Re(C x) + D u, in the state s = x A / B.

    In both discretisations A B̄_k = (Ā_k - 1) B, so that Ā_k - 1 alone writes to s, and C B / A reads it out:

        s_k = s_{k-1} + (Ā_k - 1) (s_{k-1} + u_k),    y_k = Re Σ_n (C B / A)_n s_k,n + D u_k

    A subclass has the parameter ``D`` (d_model,) and says in ``_system`` what δA (d_model, nodes) and C B / A
    (directions · d_model, nodes) are, both in complex128: a power of a node that was rounded to float32 loses three
    digits within some thousand steps.

    Parameters
    ----------
    d_model : int
    discretization : {"zoh", "bilinear"}, default "zoh"
    **options
        See :class:`LinearMixer`.

    Raises
    ------
    ValueError
        Unknown options.
    """

    kernels = ("diagonal_scan", "diagonal_convolution")

    def __init__(self, d_model, *, discretization="zoh", **options):
        super().__init__(d_model, **options)
        if discretization not in ("zoh", "bilinear"):
            raise ValueError(f"discretization must be 'zoh' or 'bilinear'. Got {discretization!r} instead.")
        self.discretization = discretization

    def freeze(self):
        """Compute δA and CB/A once, for steps with weights that no longer change; returns self."""
        with torch.no_grad():
            rate, readout = self._system()
            self._frozen = rate, readout, decay_of(rate, self.discretization)
        return self

    def step(self, u_t, state, dt=None):
        """One sample in O(1): ``u_t`` (batch, d_model), gaps ``dt`` (batch,) or None for 1; returns (y_t, state)."""
        if state is None:
            state = self.initial_state(len(u_t))
        check_shapes(self, u_t, state, 2)
        with torch.autocast(u_t.device.type, enabled=False):
            rate, readout, decay = self._frozen or (*self._system(), None)
            if dt is not None or decay is None:
                z = rate if dt is None else rate * dt.to(rate.real.dtype).view(-1, 1, 1)
                decay = decay_of(z, self.discretization)
            y, state = advance(u_t, state, decay, readout, self.D)
        return y.to(u_t.dtype), state

    def _mix(self, u, dt, gap, lengths, system, direction, state):
        rate, readout = system
        readout = readout[direction * self.d_model : (direction + 1) * self.d_model]
        skip = self.D if direction == 0 else None
        options = {"discretization": self.discretization, "backend": self.backend}
        return run(u, dt, gap, lengths, rate, readout, skip, state, **options)


def decay_of(z, discretization):
    """Ā - 1 for z = δΔA, written so that a tiny z keeps all its digits."""
    return torch.expm1(z) if discretization == "zoh" else z / (1 - z / 2)


def run(u, dt, gap, lengths, rate, readout, skip, state, *, discretization, backend):
    """A record u (B, H, L) through the systems: y (B, H, L) and the state (B, H, nodes, 2); see `LinearMixer._mix`."""
    complex_dtype = torch.promote_types(u.dtype, torch.complex64)
    initial = None if state is None else torch.view_as_complex(state.to(u.dtype).contiguous())
    if gap is None:
        dt = torch.ones_like(u[:, 0]) if dt is None else dt
        options = {"discretization": discretization, "backend": preferred("diagonal_scan", backend)}
        y, final = diagonal_scan(u, dt, rate, readout.to(complex_dtype), initial, skip, **options)
    else:
        options = {"discretization": discretization, "backend": preferred("diagonal_convolution", backend)}
        y, final = diagonal_convolution(u, rate * gap, readout, initial, lengths, skip, **options)
    return y, torch.view_as_real(final.contiguous())


def advance(u_t, state, decay, readout, skip):
    """One sample u_t (..., H) with the state (..., H, nodes, 2): y_t and the next state."""
    s = torch.view_as_complex(state.contiguous())
    s = s + decay.to(s.dtype) * (s + u_t.to(s.real.dtype).unsqueeze(-1))
    return (readout.to(s.dtype) * s).real.sum(-1) + skip * u_t, torch.view_as_real(s)
