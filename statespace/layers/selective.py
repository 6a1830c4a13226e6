"""What the layers whose system depends on their input share: padding anywhere, both directions, the checks."""

from abc import abstractmethod

import torch
from torch.nn.functional import linear

from statespace.layers.base import SequenceMixer
from statespace.layers.checks import check_gaps, check_shapes, state_at_rest


class SelectiveMixer(SequenceMixer):
    """A layer that chooses from each sample what its state keeps, writes and reads out; no convolution can replace it.

        x_k = Ā(u_k, Δ_k) x_{k-1} + B̄(u_k, Δ_k) u_k,    y_k = C(u_k) x_k

    A subclass reads one direction of a record (``_read``) and one sample (``_advance``), says what its state looks like
    (``_state_shapes``), and ends its constructor with ``_complete``.

    Parameters
    ----------
    d_model : int
        Number of channels.
    bidirectional : bool, default False
        Add a second layer of the same kind that runs backwards in time, with the gaps shifted by one; the two share
        what ``shared`` names, as Vision Mamba's share their projections [1]_, and their outputs are added. Such a layer
        has neither ``step`` nor a state to pass on.
    backend : str, optional
        Backend of the kernels that have it; None takes the best one of each.

    Attributes
    ----------
    shared : tuple of str
        The submodules that both directions have in common.
    reverse : SelectiveMixer
        The second layer of a bidirectional one.

    References
    ----------
    .. [1] L. Zhu, B. Liao, Q. Zhang, X. Wang, W. Liu, X. Wang (2024). Vision Mamba: Efficient Visual Representation
       Learning with Bidirectional State Space Model. Algorithm 1.

    Examples
    --------
    >>> from statespace.layers import S4D, SelectiveMixer
    >>> isinstance(S4D(d_model=2, d_state=8), SelectiveMixer)
    False
    """

    shared: tuple[str, ...] = ("in_proj", "out_proj")

    def __init__(self, d_model, *, bidirectional=False, backend=None):
        super().__init__()
        if d_model < 1:
            raise ValueError(f"d_model must be a positive integer. Got {d_model!r} instead.")
        self.d_model, self.bidirectional, self.backend = d_model, bidirectional, backend
        self._check_backend()

    def _complete(self, **options):
        """What a constructor ends with, handing on its own arguments but ``bidirectional``."""
        if self.bidirectional:
            self.reverse = type(self)(self.d_model, backend=self.backend, **options)
            for name in self.shared:
                setattr(self.reverse, name, getattr(self, name))
        self._mark_slow_parameters()

    @abstractmethod
    def _read(self, u, dt, lengths, state):
        """One direction of time over a record.

        Parameters
        ----------
        u : Tensor of shape (batch, length, d_model)
            Of the type of the weights, or under autocast of its.
        dt : Tensor of shape (batch, length) or None
            Gaps, in float32 at least; None are gaps of 1. Padded steps, gap 0, stand at the end.
        lengths : Tensor of shape (batch,) or None
            The real steps of each record, which come first; None: all are real.
        state
            As `initial_state` gives it; None starts at rest.

        Returns
        -------
        y : Tensor of shape (batch, length, d_model)
            Anything finite at padded steps.
        state
            Of each record after its last real step.
        """

    @abstractmethod
    def _advance(self, u_t, dt, state):
        """One sample: ``u_t`` (batch, d_model), ``dt`` (batch,) or None, a state; returns (y_t, state).

        A sample of gap 0 may do anything finite to the state: the state before it is what stays.
        """

    @abstractmethod
    def _state_shapes(self, batch_size):
        """Shape of the state, or a tuple of the shapes of its tensors; an axis that grows with the record is None."""

    @torch.no_grad()
    def selection(self, u, dt=None):
        """What a record makes the layer choose, forwards in time from rest.

        Parameters
        ----------
        u : Tensor of shape (batch, length, d_model)
        dt : Tensor of shape (batch, length), optional
            Gaps, all positive; None are gaps of 1.

        Returns
        -------
        chosen : dict of str to Tensor of shape (batch, length, n)
            By name, as far as the layer has them: ``"step"``, how much time passes for the state; ``"kept"``, the share
            of the state that a step keeps; ``"written"``, the weight with which a sample is written; ``"gate"``, what
            multiplies the outputs; and what else is the layer's own. n are channels, heads or states.

        Raises
        ------
        ValueError
            The layer chooses none of these; wrong shapes, or gaps that are not positive.
        """
        self._check_shapes(u, None, 3)
        if dt is not None:
            check_gaps(u, dt)
            if not bool((dt > 0).all()):
                raise ValueError("gaps must be positive here: ask for each record without its padding.")
        return self._selection(self._working(u), _working_gaps(dt))

    def _selection(self, u, dt):
        """As `selection`, of what has been checked."""
        raise ValueError(f"{type(self).__name__} has neither steps nor gates.")

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
            Zero at padded steps.
        state
            Of each record at its own end, padded steps not counted; None if bidirectional.
        """
        self._check_shapes(u, state, 3)
        real = None
        if dt is not None:
            check_gaps(u, dt)
            real = dt.detach() > 0
            # An exported graph reads records without padding.
            real = None if torch.compiler.is_exporting() or bool(real.all()) else real
        working = self._working(u)
        with torch.autocast(u.device.type, enabled=False):
            gaps = _working_gaps(dt)
            lengths, order = None, None
            if real is not None:
                lengths = real.sum(1)
                # Samples first, in their order, padding behind them.
                order = torch.argsort((~real).byte(), dim=1, stable=True)
                working, gaps = _taken(torch.where(real.unsqueeze(-1), working, 0.0), order), _taken(gaps, order)
            if self.bidirectional:
                y, final = self._read_both(working, gaps, lengths), None
            else:
                y, final = self._read(working, gaps, lengths, state)
                final = _wide(final)
            if order is not None:
                y = torch.zeros_like(y).scatter(1, order.unsqueeze(-1).expand_as(y), y)
                y = torch.where(real.unsqueeze(-1), y, 0.0)
        return y.to(u.dtype), final

    def step(self, u_t, state, dt=None):
        """One sample: ``u_t`` (batch, d_model), gaps ``dt`` (batch,) or None for 1; returns (y_t, state)."""
        if state is None:
            state = self.initial_state(len(u_t))
        self._check_shapes(u_t, state, 2)
        with torch.autocast(u_t.device.type, enabled=False):
            y, after = self._advance(u_t.to(self._dtype()), _working_gaps(dt), state)
            # A graph that is traced has to serve every gap.
            if dt is not None and (torch.compiler.is_compiling() or not bool((dt > 0).all())):
                after = self._choose(dt > 0, after, state)
        return y.to(u_t.dtype), after

    def _check_shapes(self, u, state, dimensions):
        check_shapes(self, u, state, dimensions)

    def _dtype(self):
        return next(self.parameters()).dtype

    def _working(self, u):
        """u in the type of the weights, or under autocast in that, in which matrices are then multiplied (`product`).

        On the CPU, whose loops know no half precision, only where another backend is asked for.
        """
        dtype, device = self._dtype(), u.device.type
        follows = device != "cpu" or self.backend not in (None, "cpu")
        if follows and dtype == torch.float32 and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        return u.to(dtype)

    def _choose(self, real, after, before):
        """The state after one sample: the one before it in the records where it is padding."""
        return _chosen(real, after, before)

    def _read_both(self, u, dt, lengths):
        """Outputs of a bidirectional layer, arguments as in `_read`."""
        return self._read(u, dt, lengths, None)[0] + self._reversed(u, dt, lengths)

    def _reversed(self, u, dt, lengths):
        """Each record read from its own end: there the gap of sample k is the one that leads to sample k + 1, and the
        last sample takes the record's first gap.
        """
        L = u.shape[1]
        if lengths is None:
            u, order = u.flip(1), None
            if dt is not None:
                dt = torch.cat([dt[:, :1], dt[:, 1:].flip(1)], dim=1)
        else:
            index = torch.arange(L, device=u.device)
            last = lengths.unsqueeze(1) - 1
            order = torch.where(index <= last, last - index, index)
            behind = torch.where((index > 0) & (index <= last), last - index + 1, torch.where(index > last, index, 0))
            u, dt = _taken(u, order), _taken(dt, behind)
        y, _ = self.reverse._read(u, dt, lengths, None)
        return y.flip(1) if order is None else _taken(y, order)


def product(x, weight, bias=None):
    """x Wᵀ + b in the type of x: that of the weights, or under autocast a shorter one, in products like this alone."""
    return linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def _wide(state):
    """A state in float32 at least."""
    if isinstance(state, torch.Tensor):
        return state.to(torch.promote_types(state.dtype, torch.float32))
    return tuple(map(_wide, state))


def _working_gaps(dt):
    return None if dt is None else dt.to(torch.promote_types(dt.dtype, torch.float32))


def _taken(x, order):
    """x (batch, length[, channels]) in another order of its steps."""
    return x.gather(1, order if x.ndim == 2 else order.unsqueeze(-1).expand_as(x))


def _chosen(real, after, before):
    """Of each record the state ``after`` where the sample is real, and the one ``before`` where it is padding."""
    if isinstance(after, torch.Tensor):
        return torch.where(real.view(-1, *[1] * (after.ndim - 1)), after, before.to(after.dtype))
    return tuple(_chosen(real, *parts) for parts in zip(after, before, strict=True))
