"""What a component is: four small methods, and logarithmic parameters as scikit-learn's GP kernels have them.

A component is a linear-Gaussian process in continuous time with a state x of n numbers,

    x(t + Δ) = A(Δ) x(t) + w,  w ~ N(0, Q(Δ)),    f(t) = H x(t),    x(t₁) ~ N(m, P + κ D Dᵀ), κ → ∞.

Letters: A transition, Q process noise, H observation row, m mean, P covariance, D diffuse directions, Δ gap, θ the
logarithms of the free parameters.
"""

import copy
import re
from functools import cache
from inspect import Parameter, signature
from typing import ClassVar, NamedTuple

import numpy as np

from statespace.kernels.kalman_filter.blocks import TABLE, Blocks

# A parameter of no unit of its own, or of a process that is not bound to data, may take any value that a float can
# square and add without losing everything else.
_WIDE = (1e-10, 1e10)


class Initial(NamedTuple):
    """The state at the first sample: N(mean, covariance + κ D Dᵀ), κ → ∞.

    Attributes
    ----------
    mean : ndarray of shape (n,)
    covariance : ndarray of shape (n, n)
    diffuse : ndarray of shape (n, d)
        The columns D; d = 0 for a process that is stationary.

    Examples
    --------
    >>> from statespace.kalman import LocalLevel
    >>> LocalLevel().initial().diffuse
    array([[1.]])
    """

    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray


class Component:
    """Base class of all processes; a class of your own needs no more than four methods.

    A subclass defines ``transition(dt)`` and ``process_noise(dt)``, of shape (n_gaps, n, n) for dt of shape (n_gaps,),
    ``observation()`` of shape (n,) and ``initial()``, an `Initial`. Its ``__init__`` stores its arguments unchanged. An
    argument ``name`` that comes with another ``name_bounds`` is a positive parameter that can be fitted: its bounds
    are a pair, ``"fixed"``, or None for wide ones.

    The four methods are called once for each different gap, so a class of your own is quick on a regular grid, and
    costs memory in proportion to the number of different gaps elsewhere. The gradient by its parameters is taken by
    central differences of its small matrices; `pullback` can be overridden by an exact one.

    Attributes
    ----------
    units : dict of str to (int, int)
        For a parameter, the powers of y's unit and of the unit of time that it is measured in; for example (2, −1)
        for a variance for each unit of time. It lets None stand for a start value that is taken from the data.

    Examples
    --------
    A random walk, as if `LocalLevel` did not exist:

    >>> import numpy as np
    >>> from statespace.kalman import Component, Initial
    >>> class Walk(Component):
    ...     units = {"variance": (2, -1)}
    ...     def __init__(self, variance=None, variance_bounds=None):
    ...         self.variance = variance
    ...         self.variance_bounds = variance_bounds
    ...     def transition(self, dt):
    ...         return np.ones((len(dt), 1, 1))
    ...     def process_noise(self, dt):
    ...         return self.value("variance") * np.asarray(dt)[:, None, None]
    ...     def observation(self):
    ...         return np.ones(1)
    ...     def initial(self):
    ...         return Initial(np.zeros(1), np.zeros((1, 1)), np.ones((1, 1)))
    >>> from statespace.kalman import Seasonal
    >>> Walk() + Seasonal(12)
    Walk() + Seasonal(period=12)
    """

    units: ClassVar[dict[str, tuple[int, int]]] = {}
    tabulated = True
    # Whether `design` is to be given the times; where it is overridden and this is not, it reads covariates.
    uses_times = False

    def transition(self, dt):
        """A(Δ) of shape (..., n, n) for gaps of shape (...)."""
        raise TypeError(f"{type(self).__name__} must define transition(dt).")

    def process_noise(self, dt):
        """Q(Δ) of shape (..., n, n) for gaps of shape (...)."""
        raise TypeError(f"{type(self).__name__} must define process_noise(dt).")

    def observation(self):
        """The row H of shape (n,)."""
        raise TypeError(f"{type(self).__name__} must define observation().")

    def initial(self):
        """The state at the first sample, an `Initial`."""
        raise TypeError(f"{type(self).__name__} must define initial().")

    @property
    def n_states(self):
        """The number n of states."""
        return len(self.observation())

    @property
    def start_moves(self):
        """Whether the state at the first sample depends on θ; True where nobody knows."""
        return True

    def design(self, covariates=None, times=None):
        """The rows H: (n,) where they do not change, (n_times, n) where covariates or times enter.

        Parameters
        ----------
        covariates : ndarray of shape (n_times, c), optional
        times : ndarray of shape (n_times,), optional
            Since the first sample. Only handed to a component whose ``uses_times`` is True.

        Returns
        -------
        ndarray of shape (n,) or (n_times, n)
        """
        return self.observation()

    def rows(self, covariates=None, times=None):
        """`design`, with no more arguments than it asks for."""
        return self.design(covariates, times) if self.uses_times else self.design(covariates)

    # The parameters, in the manner of sklearn.gaussian_process.kernels.

    @classmethod
    @cache
    def _arguments(cls):
        if cls.__init__ is object.__init__:
            return {}
        found = [p for p in signature(cls.__init__).parameters.values() if p.name != "self"]
        if any(p.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) for p in found):
            raise TypeError(f"{cls.__name__}.__init__ must name its arguments: *args and **kwargs cannot be cloned.")
        return {p.name: p.default for p in found}

    @classmethod
    @cache
    def _positive(cls):
        return {name: f"{name}_bounds" for name in cls._arguments() if f"{name}_bounds" in cls._arguments()}

    def _is_free(self, name):
        bounds = getattr(self, self._positive()[name])
        return not (isinstance(bounds, str) and bounds == "fixed")

    @property
    def free(self):
        """The names of the parameters that are fitted, in the order of ``theta``."""
        return tuple(name for name in self._positive() if self._is_free(name))

    def value(self, name):
        """The parameter's value; 1.0 while it is None, that is, to be taken from the data.

        Parameters
        ----------
        name : str

        Returns
        -------
        float
        """
        value = getattr(self, name)
        return 1.0 if value is None else value

    @property
    def theta(self):
        """ndarray of shape (n_free,): the natural logarithms of the free parameters."""
        return np.log([float(self.value(name)) for name in self.free])

    @property
    def bounds(self):
        """ndarray of shape (n_free, 2): the natural logarithms of their bounds."""
        return np.log([self._bounds_of(name) for name in self.free]).reshape(-1, 2)

    def _bounds_of(self, name):
        bounds = getattr(self, f"{name}_bounds")
        if bounds is None:
            return _WIDE
        pair = np.asarray(bounds, dtype=float)
        if pair.shape != (2,) or not 0 < pair[0] <= pair[1] < np.inf:
            raise ValueError(
                f"{name}_bounds of {type(self).__name__} must be a pair 0 < lower <= upper, 'fixed' or None. "
                f"Got {bounds!r}."
            )
        return float(pair[0]), float(pair[1])

    def clone_with_theta(self, theta):
        """The same process with other free parameters.

        Parameters
        ----------
        theta : array-like of shape (n_free,)
            The natural logarithms of the free parameters.

        Returns
        -------
        Component
        """
        names = self.free
        theta = np.asarray(theta, dtype=float)
        if theta.shape != (len(names),):
            raise ValueError(f"theta must have {len(names)} entries {names}, got an array of shape {theta.shape}.")
        clone = copy.copy(self)
        for name, value in zip(names, np.exp(theta), strict=True):
            setattr(clone, name, float(value))
        return clone

    def get_params(self, deep=True):
        """The arguments of ``__init__``.

        Parameters
        ----------
        deep : bool, default=True
            Whether a sum names its components' parameters too.

        Returns
        -------
        dict
        """
        return {name: getattr(self, name) for name in self._arguments()}

    def set_params(self, **params):
        """Set arguments of ``__init__``, in place.

        Parameters
        ----------
        **params

        Returns
        -------
        self
        """
        for name, value in params.items():
            if name not in self._arguments():
                raise ValueError(
                    f"Invalid parameter {name!r} for {type(self).__name__}. "
                    f"Valid parameters are: {[*self._arguments()]}."
                )
            setattr(self, name, value)
        return self

    def named(self):
        """The components with their names: ``[("local_level", ...), ...]``."""
        return [(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower(), self)]

    def hyperparameters(self):
        """The free parameters' names in the order of ``theta``, a sum's as ``component__parameter``."""
        return list(self.free)

    def __copy__(self):
        # what copy.copy does in the end, at a tenth of its price: a search copies every component at every step
        clone = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        return clone

    def __add__(self, other):
        from statespace.kalman.composition import Sum

        return Sum([*_terms(self), *_terms(other)]) if isinstance(other, Component) else NotImplemented

    def __mul__(self, other):
        from statespace.kalman.products import product

        return product(self, other) if isinstance(other, Component) else NotImplemented

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        mine, theirs = self.get_params(deep=False), other.get_params(deep=False)
        return all(_same(mine[name], theirs[name]) for name in mine)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self):
        shown = []
        for name, default in self._arguments().items():
            value = getattr(self, name)
            if _same(value, default) or (name.endswith("_bounds") and not isinstance(value, str)):
                continue
            shown.append(f"{name}={float(value):.6g}" if isinstance(value, float) else f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    # Meeting the data.

    def validate(self):
        """Refuse parameters that are no positive numbers; called when the process meets data."""
        for name in self._positive():
            value = getattr(self, name)
            if value is None:
                continue
            if not (np.isscalar(value) and np.isreal(value) and 0 < value < np.inf):
                raise ValueError(
                    f"{name} of {type(self).__name__} must be a positive number, or None to be taken from the data. "
                    f"Got {value!r}."
                )

    def resolved(self, scale):
        """A copy in which no parameter and no bound is None any more.

        Parameters
        ----------
        scale : Scale

        Returns
        -------
        Component
        """
        self.validate()
        clone = copy.copy(self)
        for name in self._positive():
            low, high = self._likely(name, scale)
            if getattr(self, name) is None:
                setattr(clone, name, float(np.sqrt(low) * np.sqrt(high)))
            if getattr(self, f"{name}_bounds") is None:
                setattr(clone, f"{name}_bounds", clone._default_bounds(name, low, high))
        return clone

    def _likely(self, name, scale):
        """The least and the greatest value that the parameter is likely to have."""
        return scale.natural(self.units[name]) if name in self.units else (1.0, 1.0)

    def _default_bounds(self, name, low, high):
        value = float(getattr(self, name))
        if name not in self.units:
            low, high = _WIDE
        elif self.units[name][0] == 0:
            low, high = 1e-2 * low, 1e2 * high
        else:
            low, high = 1e-12 * low, 1e4 * high
        return min(low, 1e-2 * value), max(high, 1e2 * value)

    def is_variance(self):
        """ndarray of shape (n_free,): which of ``theta`` scale a noise, which vanishes when they run to zero."""
        return np.array([self.units.get(name, (0, 0))[0] == 2 for name in self.free], dtype=bool)

    def ranges(self, scale):
        """The values of θ that are likely, to start from.

        Parameters
        ----------
        scale : Scale

        Returns
        -------
        ndarray of shape (n_free, 2)
            Logarithms; the same twice where a value is given.
        """
        likely = []
        for name in self.free:
            given = getattr(self, name) is not None or name not in self.units
            likely.append((self.value(name),) * 2 if given else self._likely(name, scale))
        return np.log(likely).reshape(-1, 2)

    def rescaled(self, scale):
        """The same process for y / ``scale.value`` and times / ``scale.time``.

        Parameters
        ----------
        scale : Scale

        Returns
        -------
        Component
        """
        from statespace.kalman.composition import Rescaled

        return Rescaled(self, scale.value, scale.time)

    def diffuse_scale(self, scale):
        """ndarray of shape (d,): a unit of each diffuse column in the units of `rescaled`, but for that of y itself."""
        return np.ones(self.initial().diffuse.shape[1])

    def blocks(self, gaps=None):
        """The kernel's description of A and Q.

        Parameters
        ----------
        gaps : ndarray of shape (n_gaps,), optional
            The different gaps; needed by components that are tabulated.

        Returns
        -------
        Blocks
            Without its ``gap_index``.
        """
        gaps = np.zeros(1) if gaps is None else gaps
        n = self.n_states
        transition = _matrices(self.transition(gaps), len(gaps), n, self, "transition")
        noise = _matrices(self.process_noise(gaps), len(gaps), n, self, "process_noise")
        return Blocks(
            kind=np.array([TABLE]), size=np.array([n]), parameters=np.zeros((1, 3)),
            transition=transition.reshape(len(gaps), -1), process_noise=noise.reshape(len(gaps), -1), gap_index=None,
        )  # fmt: skip

    def free_block_parameters(self, gaps=None):
        """ndarray of bool, shape (n_blocks, 3): which parameters of its blocks `pullback` reads."""
        return np.ones(self.blocks(gaps).parameters.shape, dtype=bool)

    def noise_by_theta(self, gap):
        """dQ/dθ, where θ enters nothing but Q(Δ), and that linearly through exp θ: what `differencing` asks for.

        Parameters
        ----------
        gap : float

        Returns
        -------
        ndarray of shape (n_free, n, n) or None
            None where θ enters otherwise, or nobody knows.
        """
        return None

    def pullback(self, gradient, gaps=None):
        """The gradient by θ, given the gradient by this component's part of the model.

        Parameters
        ----------
        gradient : Gradient
            With ``parameters`` (n_blocks, 3), ``transition`` and ``process_noise`` (n_gaps, n²), ``observation``
            (n,), ``mean`` (n,), ``covariance`` (n, n) and ``diffuse`` (n, d), each restricted to this component.
        gaps : ndarray of shape (n_gaps,), optional
            The different gaps.

        Returns
        -------
        ndarray of shape (n_free,)
        """
        theta, step = self.theta, 1e-5
        result = np.zeros(len(theta))
        for j in range(len(theta)):
            shift = np.zeros(len(theta))
            shift[j] = step
            for sign in (1.0, -1.0):
                clone = self.clone_with_theta(theta + sign * shift)
                table, initial = clone.blocks(gaps), clone.initial()
                total = np.vdot(gradient.transition, table.transition)
                total += np.vdot(gradient.process_noise, table.process_noise)
                total += np.vdot(gradient.observation, clone.observation())
                total += np.vdot(gradient.mean, initial.mean) + np.vdot(gradient.covariance, initial.covariance)
                total += np.vdot(gradient.diffuse, initial.diffuse)
                result[j] += sign * total / (2 * step)
        return result


def _terms(component):
    from statespace.kalman.composition import Sum

    return component.components if isinstance(component, Sum) else [component]


def _same(a, b):
    if isinstance(a, Component) or isinstance(b, Component):
        return type(a) is type(b) and a == b
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a is b or bool(np.all(np.equal(a, b))) if np.shape(a) == np.shape(b) else False


def _matrices(given, n_gaps, n, component, method):
    given = np.asarray(given, dtype=float)
    if given.shape != (n_gaps, n, n):
        raise ValueError(
            f"{type(component).__name__}.{method}(dt) must have shape ({n_gaps}, {n}, {n}) for {n_gaps} gaps and the "
            f"{n} states of its observation(). Got {given.shape}."
        )
    return given
