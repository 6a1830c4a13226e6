"""Maximum likelihood in θ: starts, the search, noises that belong at zero, standard errors."""

import numpy as np

from statespace.kalman.ascent import Ascent

# Start values are compared on no more samples than this, and improved on no more than that.
_SCOUTED, _ROUGH = 200, 500
# How many times as many samples the next rough search sees.
_GROWTH = 20
# Start values that are compared for each parameter that has none; and where all are variances, each point of which is
# brought to their best common scale: those have few maxima. Length scales and periods make many.
_POINTS, _SCALED_POINTS = 16, 5
# The factor by which all variances are changed to see how the likelihood depends on their common scale.
_FACTOR = 4.0
# The number of starts for many parameters, and how far apart they are in proportion to what is likely.
_STARTS, _APART = 3, 0.3
# The gradient in units of its standard deviation at which a search has arrived: the likelihood lacks 5e-9 there. Where
# the standard deviation is guessed, the likelihood may be flatter than that.
_TOLERANCE, _GUESSED_TOLERANCE = 1e-4, 1e-5
# Values of a noise that are tried where it is zero: more where the likelihood says that it is not.
_COARSE, _FINE = 5, 16
# Two ways to the same likelihood differ by rounding, in proportion to it.
_ALIKE = 1e-9
# A rough likelihood errs by less.
_NEARLY = 0.05
# What stands for "no likelihood at all", finite because a line search must be able to subtract it.
_IMPOSSIBLE = 1e25


def scout(likelihood, ranges, is_variance, count):
    """Starts for the search: the best of points spread evenly over the likely values, apart from each other.

    Where all variances are free, a common factor s changes the likelihood by −½ n log s + ½ Q (1 − 1/s) with n samples
    (without those that close a diffuse direction) and the weighted sum Q of squared innovations, so that two values of
    it give the best factor of a point.

    Parameters
    ----------
    likelihood : Likelihood
    ranges : ndarray of shape (k, 2)
        The least and the greatest likely value of each of θ; the same twice where the value is given.
    is_variance : ndarray of bool, shape (k,)
    count : int
        The number of starts that are wanted.

    Returns
    -------
    list of ndarray of shape (k,)
        Best first.
    """
    low, high = ranges.T
    spread = np.flatnonzero(high > low)
    if len(spread) == 0:
        return [low]
    # The additive sequence with the powers of the root of x^(k + 1) = x + 1 as steps is even in any dimension.
    root = 2.0
    for _ in range(40):
        root = (1 + root) ** (1 / (len(spread) + 1))
    scalable = is_variance.any() and (high > low)[is_variance].all() and getattr(likelihood, "noise_is_fitted", False)
    n_points = (_SCALED_POINTS if scalable and is_variance[spread].all() else _POINTS) * len(spread)
    steps = np.arange(1, n_points + 1)[:, np.newaxis] * root ** -np.arange(1.0, len(spread) + 1)
    places = (0.5 + steps) % 1.0
    points = np.tile(low, (len(places), 1))
    points[:, spread] += (high - low)[spread] * places
    if scalable and getattr(likelihood, "has_scale", False):
        factors, values = np.array([likelihood.scaled(point) for point in points]).T
        points = points + factors[:, np.newaxis] * is_variance
    else:
        values = np.array([likelihood.value(point) for point in points])
        if scalable:
            points, values = _to_scale(likelihood, points, values, is_variance)
    chosen: list[int] = []
    apart = _APART * (high - low).max()
    for k in np.argsort(-values, kind="stable"):
        if all(np.abs(points[k] - points[other]).max() > apart for other in chosen):
            chosen.append(k)
    return [points[k] for k in chosen[:count]]


def _to_scale(likelihood, points, values, is_variance):
    """Each point with its variances times the factor that is best for all of them, and the likelihood there."""
    log, share = np.log(_FACTOR), 1 - 1 / _FACTOR
    step = log * is_variance
    best = int(np.argmax(values))
    with np.errstate(all="ignore"):
        gains = np.array([likelihood.value(point + step) for point in points]) - values
        # From a second step at one point: how many samples there are beyond those that close a diffuse direction.
        further = likelihood.value(points[best] + 2 * step) - values[best] - gains[best]
        squares = 2 * (gains[best] - further) / share**2
        n = np.rint((squares * share - 2 * gains[best]) / log)
        factors = (2 * gains + n * log) / (share * n)
        # not so where there is no likelihood
        usable = np.isfinite(factors) & (factors > 0) & (n > 0)
        factors = np.where(usable, factors, 1.0)
        values = np.where(usable, values - 0.5 * n * (np.log(factors) - factors + 1), values)
    return points + np.log(factors)[:, np.newaxis] * is_variance, values


class Search:
    """The maximum of a likelihood in θ.

    Parameters
    ----------
    likelihood : Likelihood
    bounds : ndarray of shape (k, 2)
        Of θ.
    is_variance : ndarray of bool, shape (k,)
        Which of θ scale a noise: towards their lower bound the likelihood is flat, so that a gradient alone
        neither brings them there nor away from there.
    ranges : ndarray of shape (k, 2)
        The least and the greatest likely value of each of θ.
    optimizer : "fmin_l_bfgs_b" or callable
        A callable has the signature that scikit-learn's GaussianProcessRegressor asks for.

    Attributes
    ----------
    message : str
        Why the last search ended before the maximum; empty if it did not.
    """

    def __init__(self, likelihood, bounds, is_variance, ranges, optimizer="fmin_l_bfgs_b"):
        self.likelihood, self.bounds, self.is_variance = likelihood, bounds, is_variance
        self.ranges, self.optimizer = ranges, optimizer
        self.message = ""

    def quick(self):
        """The same search of the same likelihood by a quicker way, or None."""
        likelihood = None if callable(self.optimizer) else self.likelihood.quick()
        return likelihood and Search(likelihood, self.bounds, self.is_variance, self.ranges)

    def roughly(self):
        """The same search of a likelihood that costs less and may err a little; None where it is no other."""
        if callable(self.optimizer) or (rough := self.likelihood.roughly()) is None:
            return None
        middle = np.clip(self.ranges.mean(axis=1), *self.bounds.T)
        if rough.value(middle) == self.likelihood.value(middle):
            return None
        return Search(rough, self.bounds, self.is_variance, self.ranges)

    def confirm(self, theta, quick):
        """Whether the likelihood itself is at ``theta``, where ``quick`` has its maximum, as ``quick`` has it."""
        value = self.likelihood.value(theta)
        size = max(abs(value), self.likelihood.n_observed)
        return abs(value - quick.likelihood.value(theta)) <= _ALIKE * size

    def start(self):
        """Where to start, and the curvature there: both from the first samples, which cost less than all of them."""
        # Sums of like processes have several maxima.
        count = 1 if len(self.bounds) <= 3 else _STARTS
        starts = [np.clip(start, *self.bounds.T) for start in self._scouted(count)]
        whole = self.likelihood.n_observed
        head = self.likelihood.head(_ROUGH)
        if callable(self.optimizer) or (len(starts) == 1 and head.n_observed == whole):
            return starts[0], None
        # Several starts are to be told apart; a single one need only come near.
        tolerance = 0.3 if len(starts) == 1 else 0.1
        rough = Search(head, self.bounds, self.is_variance, self.ranges)
        start, _ = max((rough.climb(start, None, tolerance) for start in starts), key=lambda end: end[1])
        curvature, seen = rough.curvature(start), max(head.n_observed, 1)
        while whole > 2 * _GROWTH * seen:
            # What is known from few samples brings the search near on more, which cost little beside all of them.
            larger = self.likelihood.head(_GROWTH * seen)
            curvature, seen = curvature * (larger.n_observed / seen), larger.n_observed
            near = Search(larger, self.bounds, self.is_variance, self.ranges)
            start, _ = near.maximum(start, curvature)
            curvature = near.curvature(start)
        return start, curvature * (whole / seen)

    def _scouted(self, count):
        return scout(self.likelihood.head(_SCOUTED), self.ranges, self.is_variance, count)

    def curvature(self, theta, step=1e-3):
        """ndarray of shape (k, k): minus the second derivatives, by differences."""
        gradient = self.likelihood.gradient(theta)[1]
        result = np.empty((len(theta), len(theta)))
        for j in range(len(theta)):
            shift = np.zeros(len(theta))
            shift[j] = step
            result[j] = (gradient - self.likelihood.gradient(theta + shift)[1]) / step
        return (result + result.T) / 2

    def objective(self, theta, eval_gradient=True):
        """Minus the log-likelihood, as an optimizer wants it."""
        if not eval_gradient:
            value = self.likelihood.value(theta)
            return -value if np.isfinite(value) else _IMPOSSIBLE
        value, gradient = self.likelihood.gradient(theta)
        return (-value, -gradient) if np.isfinite(value) else (_IMPOSSIBLE, gradient)

    def climb(self, theta, curvature, tolerance=None):
        """One search from ``theta``; ``curvature`` (k, k) are minus the second derivatives there, if they are known."""
        if callable(self.optimizer):
            theta, value = self.optimizer(self.objective, theta, self.bounds)
            return np.asarray(theta, dtype=float), -float(value)
        typical = max(self.likelihood.n_observed, 1) / 10
        if tolerance is None:
            tolerance = _GUESSED_TOLERANCE if curvature is None else _TOLERANCE
        known = getattr(self.likelihood, "information", self.likelihood.gradient)
        search = Ascent(known, self.bounds, self.is_variance, tolerance, typical)
        theta, value = search.climb(theta, curvature)
        self.message = search.message
        return theta, value

    def maximum(self, theta, curvature=None):
        """The maximum near ``theta``, with noises that belong at zero at their bound: θ and the log-likelihood."""
        start = theta
        if curvature is not None and not callable(self.optimizer):
            # What the likelihood does not feel may as well be zero at once: a search for it would go on for long.
            flat = self.is_variance & (np.diag(curvature) < 0.1)
            moved, _ = self._to_zero_and_back(start, self.likelihood.value(start), flat) if flat.any() else (None, None)
            theta = start if moved is None else moved
        theta, value = self.climb(theta, curvature)
        # A noise that is known within a factor of 1.4, and stayed where that was measured, is far from zero.
        known = False if curvature is None else (np.diag(curvature) > 9) & (np.abs(theta - start) < 1)
        for _ in range(3):
            moved, moved_value = self._to_zero_and_back(theta, value, self.is_variance & ~np.asarray(known))
            if moved is None:
                break
            climbed, climbed_value = self.climb(moved, curvature)
            if climbed_value < moved_value:
                climbed, climbed_value = moved, moved_value
            gained = climbed_value - value
            theta, value = climbed, climbed_value
            if gained < 1e-9:
                break
        return theta, value

    def _to_zero_and_back(self, theta, value, places):
        """Noises moved to their lower bound where that is free, away from it where that gains; None if neither."""
        best, moved = value, theta.copy()
        low = self.bounds[:, 0]

        def try_each(j, candidates, least):
            nonlocal best, moved
            for candidate in candidates:
                trial = moved.copy()
                trial[j] = candidate
                found = self.likelihood.value(trial)
                if found >= best + least:
                    best, moved = found, trial

        places = np.flatnonzero(places)
        for j in places[moved[places] > low[places]]:
            # Equal likelihoods prefer the bound: what cannot be told from zero is reported as zero.
            try_each(j, low[j : j + 1], 0.0)
        at_zero = places[moved[places] == low[places]]
        slope = self.likelihood.gradient(moved)[1] if len(at_zero) else None
        for j in at_zero:
            # Where the likelihood rises from zero, its maximum lies above, and may be small.
            try_each(j, np.linspace(*self.ranges[j], _FINE if slope[j] > 0.0 else _COARSE), 1e-6)
        return (None, value) if np.array_equal(moved, theta) else (moved, best)


def at_bounds(theta, bounds):
    """Which of θ lie at one of their bounds.

    Parameters
    ----------
    theta : ndarray of shape (k,)
    bounds : ndarray of shape (k, 2)

    Returns
    -------
    ndarray of bool, shape (k,)
    """
    return (theta - bounds[:, 0] < 1e-6) | (bounds[:, 1] - theta < 1e-6)


def standard_errors(likelihood, theta, inside):
    """Standard errors of θ from the observed information, by differences of the exact gradient.

    Parameters
    ----------
    likelihood : Likelihood
    theta : ndarray of shape (k,)
    inside : ndarray of bool, shape (k,)
        The entries that are not at a bound; the others are taken as known.

    Returns
    -------
    ndarray of shape (k,)
        NaN for the others, and where the information is not positive definite.
    """
    result = np.full(len(theta), np.nan)
    places = np.flatnonzero(inside)
    step = 1e-4
    information = np.empty((len(places), len(places)))
    for row, j in enumerate(places):
        shift = np.zeros(len(theta))
        shift[j] = step
        above, below = likelihood.gradient(theta + shift)[1], likelihood.gradient(theta - shift)[1]
        information[row] = -(above - below)[places] / (2 * step)
    information = (information + information.T) / 2
    if len(places) and np.isfinite(information).all():
        values, vectors = np.linalg.eigh(information)
        # A direction in which the likelihood does not bend says nothing about the parameters that it involves.
        known = values > 1e-8 * max(values.max(), 1.0)
        variance = (vectors[:, known] ** 2 / values[known]).sum(axis=1)
        variance[(vectors[:, ~known] ** 2 > 1e-6).any(axis=1)] = np.nan
        result[places] = np.sqrt(variance)
    return result


def fit(search, n_restarts, random_state):
    """Scout, maximise, and search again from elsewhere.

    Parameters
    ----------
    search : Search
    n_restarts : int
        Further searches, from starts drawn around the first.
    random_state : numpy.random.RandomState

    Returns
    -------
    theta : ndarray of shape (k,)
    message : str
        Empty if the search converged.
    """
    quick = search.quick()
    if quick is not None:
        theta, message = _fit(quick, n_restarts, random_state)
        if search.confirm(theta, quick):
            return theta, message
    rough = search.roughly()
    if rough is not None:
        theta, message = _fit(rough, n_restarts, random_state)
        if abs(search.likelihood.value(theta) - rough.likelihood.value(theta)) < _NEARLY:
            # what is left to go is little, and the curvature is known
            theta, _ = search.climb(theta, rough.curvature(theta))
            return theta, search.message
    return _fit(search, n_restarts, random_state)


def _fit(search, n_restarts, random_state):
    start, curvature = search.start()
    theta, value = search.maximum(start, curvature)
    message = search.message
    for _ in range(n_restarts):
        # Two decades and a half to either side: the bounds are too wide to draw from.
        drawn = np.clip(start + random_state.uniform(-6.0, 6.0, size=len(start)), *search.bounds.T)
        other, other_value = search.maximum(drawn)
        if other_value > value:
            theta, value, message = other, other_value, search.message
    return theta, message
