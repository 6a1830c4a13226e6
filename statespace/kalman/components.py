"""The processes of structural time series: level, trend, seasonal pattern, covariates. All start exactly diffuse."""

from numbers import Integral
from typing import ClassVar

import numpy as np

from statespace.kalman.base import Initial
from statespace.kalman.closed import ClosedForm, closed_blocks
from statespace.kernels.kalman_filter.blocks import RANDOM_WALK, ROTATION, TREND

# The textbook's seasonal has period/2 harmonics. A weekly pattern of minutes would need 5040; what is sharper
# than six harmonics draw must be asked for.
_MOST_HARMONICS = 6


class LocalLevel(ClosedForm):
    """A level that wanders: dμ = dw with E[dw²] = ``variance`` dt, f = μ, μ(t₁) diffuse.

    Between samples Δ apart the level changes by N(0, ``variance`` Δ); at Δ = 1 this is the textbook's local level model
    (Durbin & Koopman 2012, section 2.1).

    Parameters
    ----------
    variance : float, optional
        In squared units of y for each unit of time. None takes a start value from the data, 1.0 where there are none.
    variance_bounds : pair of float, "fixed" or None, default=None
        None stands for wide bounds in the data's units.

    Examples
    --------
    >>> from statespace.kalman import LocalLevel
    >>> LocalLevel(variance=2.0).process_noise([0.0, 0.5])
    array([[[0.]],
    <BLANKLINE>
           [[1.]]])
    """

    units: ClassVar = {"variance": (2, -1)}

    def __init__(self, variance=None, variance_bounds=None):
        self.variance = variance
        self.variance_bounds = variance_bounds

    def blocks(self, gaps=None):
        """The kernel's description of A and Q."""
        return closed_blocks(RANDOM_WALK, 1, [[self.value("variance"), 0.0, 0.0]])

    def derivatives(self):
        """The derivatives of the block parameters by log ``variance``."""
        return {"variance": (np.array([[self.value("variance"), 0.0, 0.0]]), None)}

    def observation(self):
        """The row H = (1)."""
        return np.ones(1)

    def initial(self):
        """Diffuse."""
        return Initial(np.zeros(1), np.zeros((1, 1)), np.ones((1, 1)))


class LocalTrend(ClosedForm):
    """A level with a slope that both wander: dμ = ν dt + dw₁, dν = dw₂, f = μ, both diffuse at the start.

    Over a gap Δ the noise is Q = ``level_variance`` Δ e₁e₁ᵀ + ``slope_variance`` [[Δ³/3, Δ²/2], [Δ²/2, Δ]]: the
    slope's noise, integrated, moves the level too. With ``level_variance`` near zero the smoothed level is the cubic
    smoothing spline (Wahba 1978).

    Parameters
    ----------
    level_variance : float, optional
        In squared units of y for each unit of time. None takes a start value from the data, 1.0 where there are none.
    slope_variance : float, optional
        In squared units of y for each cubed unit of time.
    level_variance_bounds, slope_variance_bounds : pair of float, "fixed" or None, default=None
        None stands for wide bounds in the data's units.

    Examples
    --------
    >>> from statespace.kalman import LocalTrend
    >>> LocalTrend(level_variance=1.0, slope_variance=3.0).process_noise([2.0])
    array([[[10.,  6.],
            [ 6.,  6.]]])
    """

    units: ClassVar = {"level_variance": (2, -1), "slope_variance": (2, -3)}

    def __init__(
        self, level_variance=None, slope_variance=None, level_variance_bounds=None, slope_variance_bounds=None
    ):
        self.level_variance = level_variance
        self.slope_variance = slope_variance
        self.level_variance_bounds = level_variance_bounds
        self.slope_variance_bounds = slope_variance_bounds

    def blocks(self, gaps=None):
        """The kernel's description of A and Q."""
        return closed_blocks(TREND, 2, [[self.value("level_variance"), self.value("slope_variance"), 0.0]])

    def derivatives(self):
        """The derivatives of the block parameters by the parameters' logarithms."""
        return {
            "level_variance": (np.array([[self.value("level_variance"), 0.0, 0.0]]), None),
            "slope_variance": (np.array([[0.0, self.value("slope_variance"), 0.0]]), None),
        }

    def observation(self):
        """The row H = (1, 0)."""
        return np.array([1.0, 0.0])

    def initial(self):
        """Diffuse."""
        return Initial(np.zeros(2), np.zeros((2, 2)), np.eye(2))

    def diffuse_scale(self, scale):
        """One for the level, the unit of time for the slope."""
        return np.array([1.0, scale.time])


class Seasonal(ClosedForm):
    """A pattern that repeats and may drift: a sum of harmonics, each a rotation with noise, diffuse at the start.

    Harmonic h turns by ω_h Δ, ω_h = 2π h / ``period``, and gets noise ``variance`` · Δ · I over a gap Δ. On a unit
    grid this is the textbook's trigonometric seasonal (Harvey 1989, section 2.3.4; Durbin & Koopman 2012, section
    3.2.2).

    The harmonic at period/2 is invisible in its sine part on a grid of one unit: there the likelihood is the
    textbook's, whose harmonic is 1 × 1, and predictions on the grid are finite. Nothing is known about that sine from
    such data, so between the points of the grid the standard deviation is infinite; take one harmonic less if you
    predict there.

    Parameters
    ----------
    period : float
        In units of time.
    harmonics : int, optional
        At most period / (2 × gap) can be told apart on a regular grid. None takes so many, from the median gap (1
        where there are no data), but no more than 6.
    variance : float, optional
        In squared units of y for each unit of time. None takes a start value from the data, 1.0 where there are none.
    variance_bounds : pair of float, "fixed" or None, default=None
        None stands for wide bounds in the data's units.
    period_bounds : pair of float, "fixed" or None, default="fixed"
        With bounds the period is fitted too, from the given value.

    Examples
    --------
    >>> from statespace.kalman import Seasonal
    >>> Seasonal(12).n_states
    12
    """

    units: ClassVar = {"period": (0, 1), "variance": (2, -1)}

    def __init__(self, period, harmonics=None, variance=None, variance_bounds=None, period_bounds="fixed"):
        self.period = period
        self.harmonics = harmonics
        self.variance = variance
        self.variance_bounds = variance_bounds
        self.period_bounds = period_bounds

    def validate(self):
        """Refuse parameters that are no positive numbers, and a number of harmonics that is no count."""
        super().validate()
        if self.period is None:
            raise ValueError("Seasonal needs a period, in units of time. Got None.")
        if self.harmonics is not None and not (isinstance(self.harmonics, Integral) and self.harmonics >= 1):
            raise ValueError(f"harmonics of Seasonal must be an integer >= 1 or None. Got {self.harmonics!r}.")

    def _count(self, gap=1.0):
        if self.harmonics is not None:
            return int(self.harmonics)
        # A period of 12 gaps measured in floats may come out as 11.999...
        return int(np.clip(np.floor(self.period / (2 * gap) * (1 + 1e-6)), 1, _MOST_HARMONICS))

    def resolved(self, scale):
        """A copy in which neither a parameter, a bound nor the number of harmonics is None any more."""
        clone = super().resolved(scale)
        clone.harmonics = self._count(scale.time)
        return clone

    def _default_bounds(self, name, low, high):
        if name == "period":
            return 0.5 * self.period, 2.0 * self.period
        return super()._default_bounds(name, low, high)

    def _parameters(self):
        frequency = 2 * np.pi * np.arange(1, self._count() + 1) / self.period
        nothing = np.zeros(len(frequency))
        return np.column_stack([frequency, nothing + self.value("variance"), nothing])

    def blocks(self, gaps=None):
        """The kernel's description of A and Q."""
        return closed_blocks(ROTATION, 2, self._parameters())

    def derivatives(self):
        """The derivatives of the block parameters by the parameters' logarithms."""
        parameters = self._parameters()
        return {"period": (parameters * [-1.0, 0.0, 0.0], None), "variance": (parameters * [0.0, 1.0, 0.0], None)}

    def observation(self):
        """The row H = (1, 0, 1, 0, …)."""
        return np.tile([1.0, 0.0], self._count())

    def initial(self):
        """Diffuse."""
        n = 2 * self._count()
        return Initial(np.zeros(n), np.zeros((n, n)), np.eye(n))


class Regression(ClosedForm):
    """Covariates with coefficients that are constant or drift: f = Σ β_j x_j, dβ_j = dw_j, β diffuse at the start.

    Parameters
    ----------
    columns : int, str or list of them, optional
        Which covariates: their names in a DataFrame, or indices that count the columns after the time. None takes all.
    variance : float or None, default=0.0
        E[dw²] / dt of each coefficient, in squared units of y / x for each unit of time. 0 keeps them constant; a
        positive value, or None for one from the data, is where the fit starts.
    variance_bounds : pair of float, "fixed" or None, default=None
        None stands for wide bounds in the data's units.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import Regression
    >>> Regression(columns=[0, 2]).design(np.array([[1.0, 2.0, 3.0]]))
    array([[1., 3.]])
    """

    units: ClassVar = {"variance": (2, -1)}

    def __init__(self, columns=None, variance=0.0, variance_bounds=None):
        self.columns = columns
        self.variance = variance
        self.variance_bounds = variance_bounds

    # Both are learned from the data by `resolved`: where the columns stand, and in which units the kernel sees them.
    _positions: list[int] | None = None
    _column_scale: np.ndarray | None = None

    def _is_free(self, name):
        return self.variance != 0 and super()._is_free(name)

    def validate(self):
        """Refuse a variance that is negative or no number."""
        if self.variance != 0:
            super().validate()

    def _places(self):
        if self._positions is not None:
            return self._positions
        columns = [0] if self.columns is None else np.atleast_1d(np.asarray(self.columns, dtype=object)).tolist()
        if not all(isinstance(column, Integral) for column in columns):
            return list(range(len(columns)))
        return columns

    def resolved(self, scale):
        """A copy that knows where its columns stand, and in which neither parameter nor bound is None."""
        names = list(scale.columns)
        given = range(len(names)) if self.columns is None else self.columns
        columns = np.atleast_1d(np.asarray(given, dtype=object)).tolist()
        if not columns:
            raise ValueError("Regression needs covariates: give X columns after the time.")
        places = []
        for column in columns:
            if column in names and not isinstance(column, Integral):
                places.append(names.index(column))
            elif isinstance(column, Integral) and 0 <= column < len(names):
                places.append(int(column))
            else:
                raise ValueError(f"Regression knows no column {column!r}. X has the covariates {names}, from 0 on.")
        clone = super().resolved(self._own_units(scale, places))
        clone._positions = places
        return clone

    def _own_units(self, scale, places):
        return scale._replace(value=scale.value / np.sqrt(np.mean(scale.covariates[places] ** 2)))

    def ranges(self, scale):
        """ndarray of shape (n_free, 2): the logarithms of the likely values, to start from."""
        return super().ranges(self._own_units(scale, self.resolved(scale)._places()))

    def rescaled(self, scale):
        """The same process for y / ``scale.value``, times / ``scale.time`` and covariates of root mean square 1."""
        clone = super().rescaled(scale)
        clone._column_scale = scale.covariates[self._places()]
        return clone

    def diffuse_scale(self, scale):
        """The covariates' root mean squares."""
        return scale.covariates[self._places()]

    def _sizes(self):
        return np.ones(len(self._places())) if self._column_scale is None else self._column_scale

    def blocks(self, gaps=None):
        """The kernel's description of A and Q: one random walk for each coefficient."""
        return closed_blocks(RANDOM_WALK, 1, [[self.value("variance") * size**2, 0.0, 0.0] for size in self._sizes()])

    def derivatives(self):
        """The derivatives of the block parameters by log ``variance``."""
        return {"variance": (self.blocks().parameters, None)}

    def observation(self):
        """The row H for covariates that are all 1."""
        return 1.0 / self._sizes()

    def design(self, covariates=None, times=None):
        """The rows H of shape (n_times, n): the covariates themselves."""
        if covariates is None:
            return self.observation()
        return np.asarray(covariates, dtype=float)[:, self._places()] / self._sizes()

    def initial(self):
        """Diffuse."""
        n = len(self._places())
        return Initial(np.zeros(n), np.zeros((n, n)), np.eye(n))
