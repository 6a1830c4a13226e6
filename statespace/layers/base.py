"""What every sequence layer promises, so that networks, streams and tests treat them alike."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from operator import attrgetter

import torch

from statespace.kernels import BackendError
from statespace.kernels.dispatch import FILES, available, preferred


class SequenceMixer(torch.nn.Module, ABC):
    """A layer that mixes along time: a state evolves over the gaps, is written to by ``u`` and is read out as ``y``.

    Two faces of the same weights: :meth:`forward` over a whole record, :meth:`step` one sample at a time in O(1).
    Folding ``step`` over a record equals ``forward``; cutting a record anywhere and passing the state on equals one
    shot; a padded step (gap 0, input 0) changes no state; both faces are differentiable in the state.

    A parameter of the dynamics wants a learning rate of its own and no weight decay. It carries the attribute
    ``_optim = {"group": "ssm", "role": role}``, which `statespace.training.parameter_groups` reads; the role says which
    of the system's quantities it sets: ``"A"``, ``"B"`` or ``"dt"``, the step.

    Attributes
    ----------
    d_model : int
        Number of channels of input and output.
    backend : str or None
        None takes, for every kernel and call, the best backend that can serve it. A name is obeyed or refused by the
        kernels that have such a backend; those that have none take their best.
    kernels : tuple of str
        The names of the kernels that ``forward`` calls.
    slow_parameters : dict of str to {"A", "B", "dt"}
        The parameters that carry ``_optim``, by name ("A", "projection.bias"), and the role of each.
    gated_unit : bool
        Whether a residual stack gives the layer's outputs a gated linear unit. It adds those of a layer that has a
        gate and a projection out of its own, as Mamba has, as they are.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import S4D, SequenceMixer
    >>> layer = S4D(d_model=2, d_state=8)
    >>> isinstance(layer, SequenceMixer)
    True
    >>> y, state = layer(torch.ones(1, 5, 2), dt=torch.ones(1, 5))
    >>> y_next, state = layer.step(torch.ones(1, 2), state)
    """

    d_model: int
    backend: str | None = None
    kernels: tuple[str, ...] = ()
    slow_parameters: Mapping[str, str] = {}
    gated_unit = True

    def _mark_slow_parameters(self):
        for name, role in self.slow_parameters.items():
            attrgetter(name)(self)._optim = {"group": "ssm", "role": role}

    def _check_backend(self):
        """A constructor's check: some kernel of the layer has to have the backend that is asked for.

        Raises
        ------
        BackendError
            None has; the message says which ones there are.
        """
        if self.backend is None or any(self.backend in available(kernel) for kernel in self.kernels):
            return
        has = sorted({name for kernel in self.kernels for name in available(kernel)}, key=list(FILES).index)
        what = ", ".join(self.kernels) or "torch's own operations"
        raise BackendError(
            f"backend={self.backend!r} cannot run {type(self).__name__}: it is built on {what}, and there is no such "
            f"backend of any. Use None{', or one of ' + ', '.join(has) if has else ''}."
        )

    def _backend(self, kernel):
        """What ``kernel`` is told of the layer's ``backend``."""
        return preferred(kernel, self.backend)

    def __setstate__(self, state):
        """Copies and pickles of a tensor lose its attributes; the layer puts the marks back."""
        super().__setstate__(state)
        self._mark_slow_parameters()

    @abstractmethod
    def forward(self, u, dt=None, state=None):
        """Outputs over a record and the state at its end.

        Parameters
        ----------
        u : Tensor of shape (batch, length, d_model)
            Inputs.
        dt : Tensor of shape (batch, length), optional
            Gap before each sample, in units of the typical gap, the first one counting from the time of ``state``.
            None is the regular grid, all gaps 1. A padded step has gap 0 and input 0.
        state : optional
            State before the first sample, as returned by an earlier call; None starts at rest.

        Returns
        -------
        y : Tensor of shape (batch, length, d_model)
        state
            The state after the last sample: a tensor or a tuple of tensors, batch first.
        """

    @abstractmethod
    def step(self, u_t, state, dt=None):
        """One sample: ``u_t`` of shape (batch, d_model), gap ``dt`` of shape (batch,) or None; returns (y_t, state)."""

    def freeze(self):
        """Prepare for many steps with weights that no longer change; returns self.

        A layer computes here once what every `step` needs of its weights alone. Weights that change afterwards are not
        noticed: streams freeze a copy of their own.
        """
        return self

    @abstractmethod
    def initial_state(self, batch_size):
        """The state at rest for ``batch_size`` records."""
