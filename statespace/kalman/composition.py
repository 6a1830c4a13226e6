"""Processes made of processes: the sum, and the same process in other units."""

import copy
from types import SimpleNamespace

import numpy as np

from statespace.kalman.base import Component, Initial
from statespace.kernels.kalman_filter.blocks import Blocks


class Sum(Component):
    """The sum f₁(t) + f₂(t) + … of independent processes, as ``+`` makes it.

    The state is the components' states one after the other; A and Q are block diagonal.

    Parameters
    ----------
    components : list of Component

    Examples
    --------
    >>> from statespace.kalman import LocalLevel, Matern
    >>> process = LocalLevel() + Matern(nu=1.5, length_scale=3.0)
    >>> process.hyperparameters()
    ['local_level__variance', 'matern__length_scale', 'matern__variance']
    >>> process.set_params(matern__variance=2.0)
    LocalLevel() + Matern(length_scale=3, variance=2)
    """

    def __init__(self, components):
        self.components = components

    def _each(self, method, *arguments):
        return [getattr(component, method)(*arguments) for component in self.components]

    def transition(self, dt):
        """A(Δ) of shape (..., n, n) for gaps of shape (...)."""
        return _block_diagonal(self._each("transition", dt))

    def process_noise(self, dt):
        """Q(Δ) of shape (..., n, n) for gaps of shape (...)."""
        return _block_diagonal(self._each("process_noise", dt))

    def observation(self):
        """The row H of shape (n,)."""
        return np.concatenate(self._each("observation"))

    @property
    def n_states(self):
        """The number n of states."""
        return sum(component.n_states for component in self.components)

    def design(self, covariates=None, times=None):
        """The rows H: (n,) where they do not change, (n_times, n) where covariates or times enter."""
        rows = self._each("rows", covariates, times)
        lengths = [len(row) for row in rows if row.ndim == 2]
        if not lengths:
            return np.concatenate(rows)
        return np.hstack([np.broadcast_to(row, (lengths[0], row.shape[-1])) for row in rows])

    @property
    def uses_times(self):
        """Whether the rows of any component depend on the times."""
        return any(component.uses_times for component in self.components)

    @property
    def tabulated(self):
        """Whether any component's A and Q are tabulated for the different gaps."""
        return any(component.tabulated for component in self.components)

    def initial(self):
        """The state at the first sample, an `Initial`."""
        means, covariances, diffuse = zip(*self._each("initial"), strict=True)
        return Initial(np.concatenate(means), _block_diagonal(covariances), _block_diagonal(diffuse))

    @property
    def free(self):
        """The names of the parameters that are fitted, in the order of ``theta``."""
        return tuple(f"{name}__{parameter}" for name, component in self.named() for parameter in component.free)

    def hyperparameters(self):
        """The free parameters' names in the order of ``theta``, as ``component__parameter``."""
        return list(self.free)

    @property
    def theta(self):
        """ndarray of shape (n_free,): the natural logarithms of the free parameters."""
        return np.concatenate([component.theta for component in self.components])

    @property
    def bounds(self):
        """ndarray of shape (n_free, 2): the natural logarithms of their bounds."""
        return np.concatenate([component.bounds for component in self.components])

    def _with(self, components):
        clone = copy.copy(self)
        clone.components = components
        return clone

    def clone_with_theta(self, theta):
        """The same process with other free parameters."""
        theta = np.asarray(theta, dtype=float)
        counts = [len(component.free) for component in self.components]
        if theta.shape != (sum(counts),):
            raise ValueError(f"theta must have {sum(counts)} entries {self.free}, got an array of shape {theta.shape}.")
        clones, start = [], 0
        for component, count in zip(self.components, counts, strict=True):
            clones.append(component.clone_with_theta(theta[start : start + count]))
            start += count
        return self._with(clones)

    def named(self):
        """The components with their names; of several of one class: ``seasonal_1``, ``seasonal_2``."""
        names = [component.named()[0][0] for component in self.components]
        seen: dict[str, int] = {}
        result = []
        for name, component in zip(names, self.components, strict=True):
            seen[name] = seen.get(name, 0) + 1
            result.append((f"{name}_{seen[name]}" if names.count(name) > 1 else name, component))
        return result

    def get_params(self, deep=True):
        """``components``, and with ``deep`` each component by its name and its parameters as ``name__parameter``."""
        params = {"components": self.components}
        if deep:
            for name, component in self.named():
                params[name] = component
                params |= {f"{name}__{key}": value for key, value in component.get_params().items()}
        return params

    def set_params(self, **params):
        """Set ``components``, a component by its name, or a parameter of one as ``name__parameter``, in place."""
        if "components" in params:
            self.components = params.pop("components")
        order = [name for name, _ in self.named()]
        for key, value in params.items():
            name, _, parameter = key.partition("__")
            if name not in order:
                raise ValueError(f"Invalid parameter {name!r} for {self!r}. Valid components are: {order}.")
            at = order.index(name)
            if parameter:
                self.components[at].set_params(**{parameter: value})
            else:
                self.components = [*self.components[:at], value, *self.components[at + 1 :]]
        return self

    def __repr__(self):
        return " + ".join(map(repr, self.components))

    def validate(self):
        """Refuse what is no component, and parameters that are no positive numbers."""
        for component in self.components:
            if not isinstance(component, Component):
                raise ValueError(f"A sum's components must be processes from statespace.kalman. Got {component!r}.")
            component.validate()

    def resolved(self, scale):
        """A copy in which no parameter and no bound is None any more."""
        self.validate()
        return self._with(self._each("resolved", scale))

    def ranges(self, scale):
        """ndarray of shape (n_free, 2): the logarithms of the likely values, to start from."""
        return np.concatenate(self._each("ranges", scale))

    def is_variance(self):
        """ndarray of shape (n_free,): which of ``theta`` scale a noise, which vanishes when they run to zero."""
        return np.concatenate(self._each("is_variance"))

    def rescaled(self, scale):
        """The same process for y / ``scale.value`` and times / ``scale.time``."""
        return self._with(self._each("rescaled", scale))

    def diffuse_scale(self, scale):
        """ndarray of shape (d,): a unit of each diffuse column in the units of `rescaled`, but for that of y itself."""
        return np.concatenate(self._each("diffuse_scale", scale))

    def blocks(self, gaps=None):
        """The kernel's description of A and Q: the components' blocks one after the other."""
        parts = self._each("blocks", gaps)
        kind, size, parameters = (np.concatenate(arrays) for arrays in zip(*(part[:3] for part in parts), strict=True))
        tables = [part for part, own in zip(parts, self.components, strict=True) if own.tabulated]
        if not tables:
            return parts[0]._replace(kind=kind, size=size, parameters=parameters)
        transition = np.hstack([part.transition for part in tables])
        return Blocks(kind, size, parameters, transition, np.hstack([part.process_noise for part in tables]), None)

    @property
    def start_moves(self):
        """Whether the state at the first sample depends on θ."""
        return any(component.start_moves for component in self.components)

    def free_block_parameters(self, gaps=None):
        """Those of each component."""
        return np.concatenate(self._each("free_block_parameters", gaps))

    def pullback(self, gradient, gaps=None):
        """The gradient by θ, component by component."""
        result, block, state, cell = [], 0, 0, 0
        for component in self.components:
            part = component.blocks(gaps)
            n, n_cells = int(part.size.sum()), part.transition.shape[1]
            blocks, states = slice(block, block + len(part.kind)), slice(state, state + n)
            cells = slice(cell, cell + n_cells)
            block, state, cell = blocks.stop, states.stop, cells.stop
            restricted = SimpleNamespace(
                parameters=gradient.parameters[blocks], transition=gradient.transition[:, cells],
                process_noise=gradient.process_noise[:, cells], observation=gradient.observation[states],
                mean=gradient.mean[states], covariance=gradient.covariance[states, states],
            )  # fmt: skip
            if component.tabulated:
                # The columns of D that touch its states are its own.
                own = np.abs(self.initial().diffuse[states]).max(axis=0) > 0
                restricted.diffuse = gradient.diffuse[states][:, own]
            result.append(component.pullback(restricted, gaps))
        return np.concatenate(result)


class Rescaled(Component):
    """A process for y / ``value_scale`` and times / ``time_scale``, whatever its parameters mean.

    The states are its own, divided by ``value_scale``.

    Parameters
    ----------
    component : Component
    value_scale, time_scale : float
        The units in which y and times are measured now.

    Examples
    --------
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.composition import Rescaled
    >>> Rescaled(LocalLevel(variance=8.0), value_scale=2.0, time_scale=3.0).process_noise([1.0])
    array([[[6.]]])
    """

    def __init__(self, component, value_scale, time_scale):
        self.component = component
        self.value_scale = value_scale
        self.time_scale = time_scale

    def transition(self, dt):
        """A(Δ) of shape (..., n, n) for gaps of shape (...)."""
        return self.component.transition(np.asarray(dt, dtype=float) * self.time_scale)

    def process_noise(self, dt):
        """Q(Δ) of shape (..., n, n) for gaps of shape (...)."""
        return self.component.process_noise(np.asarray(dt, dtype=float) * self.time_scale) / self.value_scale**2

    def observation(self):
        """The row H of shape (n,)."""
        return self.component.observation()

    def design(self, covariates=None, times=None):
        """The rows H."""
        own = None if times is None else np.asarray(times, dtype=float) * self.time_scale
        return self.component.rows(covariates, own)

    @property
    def uses_times(self):
        """Whether the rows of the component depend on the times."""
        return self.component.uses_times

    def initial(self):
        """The state at the first sample, an `Initial`."""
        mean, covariance, diffuse = self.component.initial()
        return Initial(mean / self.value_scale, covariance / self.value_scale**2, diffuse)

    @property
    def free(self):
        """The names of the parameters that are fitted, in the order of ``theta``."""
        return self.component.free

    @property
    def theta(self):
        """ndarray of shape (n_free,): the logarithms of the component's parameters, in their own units."""
        return self.component.theta

    @property
    def bounds(self):
        """ndarray of shape (n_free, 2): the natural logarithms of their bounds."""
        return self.component.bounds

    def clone_with_theta(self, theta):
        """The same process with other free parameters."""
        return Rescaled(self.component.clone_with_theta(theta), self.value_scale, self.time_scale)

    def is_variance(self):
        """ndarray of shape (n_free,): which of ``theta`` scale a noise."""
        return self.component.is_variance()

    def pullback(self, gradient, gaps=None):
        """The gradient by θ; a component's own exact one sees the gradient in its own units."""
        own_gaps = None if gaps is None else gaps * self.time_scale
        inner = SimpleNamespace(**vars(gradient))
        inner.process_noise = gradient.process_noise / self.value_scale**2
        inner.mean = gradient.mean / self.value_scale
        inner.covariance = gradient.covariance / self.value_scale**2
        return self.component.pullback(inner, own_gaps)


def _block_diagonal(parts):
    shapes = [part.shape[-2:] for part in parts]
    result = np.zeros((*parts[0].shape[:-2], *map(sum, zip(*shapes, strict=True))))
    row, column = 0, 0
    for part, (n_rows, n_columns) in zip(parts, shapes, strict=True):
        result[..., row : row + n_rows, column : column + n_columns] = part
        row, column = row + n_rows, column + n_columns
    return result
