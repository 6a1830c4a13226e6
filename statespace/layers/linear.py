"""What the linear time-invariant layers share: the choice between convolution and scan, both directions, the checks."""

from abc import abstractmethod

import torch

from statespace.layers.base import SequenceMixer
from statespace.layers.checks import check_gaps, check_shapes, state_at_rest


class LinearMixer(SequenceMixer):
    """A layer whose system does not depend on its input: it convolves on equal gaps and scans on unequal ones.

        x'(t) = A x(t) + B u(t),    y(t) = C x(t) + D u(t)

    A subclass computes, once a call, what both directions share of the weights (``_system``), runs one direction
    (``_mix``), and says what its state looks like (``_state_shapes``).

    Parameters
    ----------
    d_model : int
        Number of channels.
    mode : {"auto", "convolution", "scan"}, default "auto"
        ``"auto"`` convolves when all gaps are equal and scans otherwise, also when a gradient in ``dt`` is asked for;
        ``"convolution"`` raises on unequal gaps. A padded tail of zero gaps is no inequality.
    bidirectional : bool, default False
        Add a second read-out that runs backwards in time, with the gaps shifted by one. Such a layer has neither
        ``step`` nor a state to pass on.
    backend : str, optional
        Backend of the kernels that have it; None takes the best one of each.

    Raises
    ------
    ValueError
        Unknown options.

    Examples
    --------
    >>> from statespace.layers import S4D, LinearMixer
    >>> isinstance(S4D(d_model=2, d_state=8), LinearMixer)
    True
    """

    def __init__(self, d_model, *, mode="auto", bidirectional=False, backend=None):
        super().__init__()
        if mode not in ("auto", "convolution", "scan"):
            raise ValueError(f"mode must be 'auto', 'convolution' or 'scan'. Got {mode!r} instead.")
        if d_model < 1:
            raise ValueError(f"d_model must be a positive integer. Got {d_model!r} instead.")
        self.d_model, self.mode, self.bidirectional, self.backend = d_model, mode, bidirectional, backend
        self._check_backend()
        self._frozen = None

    @abstractmethod
    def _system(self):
        """What a call needs of the weights alone, in the precision in which nodes and steps have to be computed."""

    @abstractmethod
    def _mix(self, u, dt, gap, lengths, system, direction, state):
        """One direction of time over a record.

        Parameters
        ----------
        u : Tensor of shape (batch, d_model, length)
            In float32 or float64.
        dt : Tensor of shape (batch, length) or None
            Gaps; None are gaps of 1.
        gap : float or None
            The one gap of all steps, by which to convolve; None asks for a scan over ``dt``.
        lengths : Tensor of shape (batch,) or None
            With ``gap``: the real steps of each record, where some are padded.
        system
            From `_system`.
        direction : {0, 1}
            0 reads forwards in time; 1 is the second read-out of a bidirectional layer, which is handed the reversed
            record and adds no skip.
        state
            As in `forward`.

        Returns
        -------
        y : Tensor of shape (batch, d_model, length)
        state
        """

    @abstractmethod
    def _state_shapes(self, batch_size):
        """Shape of the state, or a tuple of the shapes of its tensors."""

    def initial_state(self, batch_size):
        """The state at rest: zeros."""
        return state_at_rest(self, batch_size)

    def forward(self, u, dt=None, state=None):
        """Outputs over a record and the state at its end; see :meth:`SequenceMixer.forward`.

        Parameters
        ----------
        u : Tensor of shape (batch, length, d_model)
        dt : Tensor of shape (batch, length), optional
        state : optional
            The state before the first sample, shaped as `initial_state` gives it.

        Returns
        -------
        y : Tensor of shape (batch, length, d_model)
        state
            Of each record at its own end, padded steps not counted; None if bidirectional.
        """
        check_shapes(self, u, state, 3)
        gap, lengths = self._grid(u, dt)
        with torch.autocast(u.device.type, enabled=False):
            working = u.to(torch.promote_types(u.dtype, torch.float32)).transpose(1, 2)
            system = self._system()
            y, final = self._mix(working, dt, gap, lengths, system, 0, state)
            if self.bidirectional:
                y, final = y + self._reversed(working, dt, gap, lengths, system), None
        return y.transpose(1, 2).to(u.dtype), final

    def _reversed(self, u, dt, gap, lengths, system):
        """The record read from its end; there the gap of sample k is the one that leads to sample k + 1, and the last
        sample of a record takes the record's first gap.
        """
        if dt is not None:
            index = torch.arange(u.shape[-1], device=u.device)
            lengths = _lengths(dt) if lengths is None else lengths
            last = lengths.unsqueeze(-1) - 1
            dt = torch.where(index == last, dt[:, :1], torch.where(index < last, dt.roll(-1, dims=1), 0.0)).flip(-1)
            u = torch.where((index <= last).unsqueeze(1), u, 0.0)
        y, _ = self._mix(u.flip(-1), dt, gap, None, system, 1, None)
        return y.flip(-1)

    def _grid(self, u, dt):
        """The one gap by which to convolve, or None to scan; and the lengths of the records if any are padded."""
        if dt is None:
            return (None if self.mode == "scan" else 1.0), None
        check_gaps(u, dt)
        gaps = dt.detach()
        if self.mode == "scan" or (self.mode == "auto" and (dt.requires_grad or torch.compiler.is_exporting())):
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
            f"mode='convolution' needs one gap throughout: dt[{series}, {index}] = {gaps[series, index].item():g} "
            f"differs from dt[{first}, 0] = {gap:g}. Use mode='auto' or mode='scan' for irregular times."
        )


def log_uniform_steps(d_model, dt_min, dt_max):
    """Logarithms of starting steps δ (d_model,), log-uniform between the two."""
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"dt_min and dt_max must satisfy 0 < dt_min <= dt_max. Got {dt_min} and {dt_max} instead.")
    # On the CPU, also for a layer that is made without memory.
    low, high = torch.tensor([dt_min, dt_max], device="cpu").log().tolist()
    return low + torch.rand(d_model) * (high - low)


def _lengths(dt):
    """Number of steps of each record before its padding, the trailing gaps of 0."""
    steps = torch.arange(1, dt.shape[1] + 1, device=dt.device)
    return torch.where(dt > 0, steps, 0).amax(dim=1)
