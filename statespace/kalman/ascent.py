"""The maximum of a smooth function of a few parameters within bounds, from its exact gradient: few evaluations.

A quadratic model is maximised within the bounds and within a step that has proved worth its length. Its matrix is the
information, where the function gives one, or a guess; what the gradients say about it is added (BFGS). Above:
`fitting`. Nothing here knows what the function is.
"""

import numpy as np

from statespace.kernels.compiled import entry, helper

# The longest first step in any parameter, and of all: parameters are logarithms.
_FIRST_STEP, _LONGEST_STEP = 2.0, 8.0
# Steps shorter than this have met rounding.
_SHORTEST_STEP = 1e-9
# Steps shorter than this tell about the second derivatives where they end.
_NEAR = 0.3
# The least curvature in proportion to the greatest.
_FLATTEST = 1e-7
# What a vanishing parameter may still gain: a slope of this size, as the value levels off exponentially.
_LITTLE = 0.3
# Of the value: what cannot be told from none.
_ROUNDING = 1e-13

_MOST_EVALUATIONS = 1000
_STUCK = "no step led higher"


@helper()
def _newton(slope, hessian, held, step, L):
    """Fill the entries of ``step`` that are not ``held`` with the maximum given those that are."""
    k = len(slope)
    for i in range(k):
        if held[i]:
            continue
        rest = slope[i]
        for j in range(k):
            if held[j]:
                rest -= hessian[i, j] * step[j]
        for j in range(i + 1):
            if held[j]:
                continue
            total = hessian[i, j]
            for c in range(j):
                if not held[c]:
                    total -= L[i, c] * L[j, c]
            L[i, j] = np.sqrt(max(total, 1e-14 * hessian[i, i])) if i == j else total / L[j, j]
        for c in range(i):
            if not held[c]:
                rest -= L[i, c] * step[c]
        step[i] = rest / L[i, i]
    for i in range(k - 1, -1, -1):
        if held[i]:
            continue
        for c in range(i + 1, k):
            if not held[c]:
                step[i] -= L[c, i] * step[c]
        step[i] /= L[i, i]


@entry()
def within(slope, hessian, low, high):
    """The step p between ``low`` and ``high`` that maximises slope·p − ½ p·hessian p, hessian positive definite.

    Parameters
    ----------
    slope : ndarray of shape (k,)
    hessian : ndarray of shape (k, k)
    low, high : ndarray of shape (k,)
        ``low <= 0 <= high``.

    Returns
    -------
    ndarray of shape (k,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.ascent import within
    >>> within(np.array([1.0, 4.0]), np.diag([1.0, 2.0]), np.full(2, -1.5), np.full(2, 1.5))
    array([1. , 1.5])
    """
    k = len(slope)
    step, held, L = np.zeros(k), np.zeros(k, dtype=np.bool_), np.zeros((k, k))
    steepest = np.abs(slope).max()
    for _ in range(3 * k + 1):
        _newton(slope, hessian, held, step, L)
        beyond = False
        for i in range(k):
            if not held[i] and not low[i] <= step[i] <= high[i]:
                held[i] = True
                beyond = True
                step[i] = low[i] if step[i] < low[i] else high[i]
        if beyond:
            continue
        # what is held although the slope leads inwards is let go, the worst first
        worst = -1
        most = 1e-10 * steepest
        for i in range(k):
            if held[i] and low[i] < high[i]:
                pull = slope[i]
                for j in range(k):
                    pull -= hessian[i, j] * step[j]
                if step[i] >= high[i]:
                    pull = -pull
                if pull > most:
                    worst, most = i, pull
        if worst < 0:
            break
        held[worst] = False
    return step


@entry()
def learned(hessian, step, change):
    """The Hessian after a step over which minus the slope changed by ``change``: BFGS, damped as Powell (1978) does."""
    k = len(step)
    along = np.zeros(k)
    bent = 0.0
    seen = 0.0
    for i in range(k):
        for j in range(k):
            along[i] += hessian[i, j] * step[j]
        bent += step[i] * along[i]
        seen += step[i] * change[i]
    share = 0.0
    if seen < 0.2 * bent:
        share = (0.2 * bent - seen) / (bent - seen)
        seen = 0.2 * bent
    result = np.empty((k, k))
    for i in range(k):
        x = change[i] + share * (along[i] - change[i])
        for j in range(k):
            y = change[j] + share * (along[j] - change[j])
            result[i, j] = hessian[i, j] - along[i] * along[j] / bent + x * y / seen
    return result


def definite(matrix):
    """A positive definite matrix with the same eigenvectors and the eigenvalues' sizes.

    Parameters
    ----------
    matrix : ndarray of shape (k, k)
        Symmetric.

    Returns
    -------
    ndarray of shape (k, k)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.ascent import definite
    >>> definite(np.diag([2.0, -1.0]))
    array([[2., 0.],
           [0., 1.]])
    """
    values, vectors = np.linalg.eigh(matrix)
    sizes = np.maximum(np.abs(values), _FLATTEST * max(np.abs(values).max(), 1e-300))
    return (vectors * sizes) @ vectors.T


@entry()
def _outlook(theta, slope, hessian, bounds, longest, vanishing, typical):
    """Which parameters are held at a bound; the step, what it promises, and the steepest slope in its own unit."""
    k = len(theta)
    held, low, high = np.zeros(k, dtype=np.bool_), np.zeros(k), np.zeros(k)
    steepest = 0.0
    for i in range(k):
        flat = vanishing[i] and abs(slope[i]) < 1e-6 * _LITTLE
        below, above = theta[i] <= bounds[i, 0], theta[i] >= bounds[i, 1]
        held[i] = (below and (slope[i] <= 0.0 or flat)) or (above and slope[i] >= 0.0)
        if not held[i]:
            low[i] = max(bounds[i, 0] - theta[i], -longest)
            high[i] = min(bounds[i, 1] - theta[i], longest)
            unit = np.sqrt(min(max(hessian[i, i], 1e-3 * typical), 1e3 * typical))
            steepest = max(steepest, abs(slope[i]) / unit)
    step = within(slope, hessian, low, high)
    promise = 0.0
    for i in range(k):
        promise += slope[i] * step[i]
        for j in range(k):
            promise -= 0.5 * step[i] * hessian[i, j] * step[j]
    return held, step, promise, steepest


class Ascent:
    """A search for the maximum.

    Parameters
    ----------
    function : callable
        θ → the value (−inf where there is none), its slope of shape (k,), and if it can a positive matrix (k, k) that
        is about minus its second derivatives.
    bounds : ndarray of shape (k, 2)
    vanishing : ndarray of bool, shape (k,)
        Parameters towards whose lower bound the value levels off, as it does for the logarithm of a variance: the last
        stretch is one step.
    tolerance : float
        The slope in units of the root of the curvature at which the search has arrived; the value then lacks its
        square, as far as the quadratic model knows.
    typical : float
        A typical curvature: the unit is not taken to be a thousand times greater or smaller.

    Attributes
    ----------
    message : str
        Why the last search ended early; empty if it did not.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.ascent import Ascent
    >>> def hill(x):
    ...     return -np.cosh(x[0] - 1.0) - x[1] ** 2, np.array([-np.sinh(x[0] - 1.0), -2.0 * x[1]])
    >>> search = Ascent(hill, np.array([[-5.0, 5.0], [-5.0, 5.0]]), np.zeros(2, dtype=bool), 1e-6, 1.0)
    >>> theta, value = search.climb(np.array([-1.0, 3.0]))
    >>> theta.round(4) + 0.0, round(float(value), 6)
    (array([1., 0.]), -1.0)
    """

    def __init__(self, function, bounds, vanishing, tolerance, typical):
        self.function, self.bounds, self.vanishing = function, np.ascontiguousarray(bounds), vanishing
        self.tolerance, self.typical = tolerance, float(typical)
        self.message = ""

    def climb(self, theta, hessian=None):
        """The maximum from ``theta`` on.

        Parameters
        ----------
        theta : ndarray of shape (k,)
        hessian : ndarray of shape (k, k), optional
            Minus the second derivatives at ``theta``, where they are known.

        Returns
        -------
        theta : ndarray of shape (k,)
        value : float
        """
        self.message = ""
        value, slope, *information = self.function(theta)
        guided = bool(information) and hessian is None
        if guided:
            hessian = self._model(information[0], ())
        else:
            hessian = np.diag(np.full(len(theta), self.typical)) if hessian is None else definite(hessian)
        longest, steps = _FIRST_STEP, []
        # the slope at which the last stretch was tried in vain
        tried = np.full(len(theta), _LITTLE)
        why = f"it took more than {_MOST_EVALUATIONS} evaluations"
        for _ in range(_MOST_EVALUATIONS):
            held, step, promise, steepest = _outlook(
                theta, slope, hessian, self.bounds, longest, self.vanishing, self.typical
            )
            if steepest <= self.tolerance and promise <= self.tolerance**2:
                return theta, value
            size = np.abs(step).max()
            if size < _SHORTEST_STEP:
                why = _STUCK
                break
            jump = self._levels_off(slope, hessian, tried, promise) & ~held
            jumps = jump.any()
            if jumps:
                step[jump] = self.bounds[jump, 0] - theta[jump]
            new_value, new_slope, *information = self.function(theta + step)
            gain = new_value - value
            # of a gain that is less than rounding only the slope can tell
            level = abs(gain) <= _ROUNDING * max(abs(value), 1.0)
            better = gain > 0.0 or (level and np.abs(new_slope[~held]).max() < np.abs(slope[~held]).max())
            if jumps:
                tried[jump] = 0.1 * np.abs(slope[jump])
            elif np.isfinite(new_value):
                seen = step, slope - new_slope
                if guided and size < _NEAR:
                    steps = [*steps[1 - len(theta) :], seen]
                if not guided or not better:
                    hessian = learned(hessian, *seen)
                if gain < 0.1 * promise:
                    longest = 0.3 * size
                elif gain > 0.75 * promise and size > 0.9 * longest:
                    longest = min(2.0 * longest, _LONGEST_STEP)
            else:
                longest = 0.2 * size
            if better:
                theta, value, slope = theta + step, new_value, new_slope
                if guided:
                    hessian = self._model(information[0], steps)
            elif level:
                why = _STUCK
                break
        # where rounding ends a search, the slope still says whether this is the maximum
        if steepest > 100 * self.tolerance:
            self.message = why
        return theta, value

    def _model(self, information, steps):
        hessian = information.copy()
        size = max(np.diag(hessian).max(), 1e-300)
        hessian[np.diag_indices(len(hessian))] += _FLATTEST * size
        for step, change in steps:
            hessian = learned(hessian, step, change)
        return hessian

    def _levels_off(self, slope, hessian, below, promise):
        """Where f = f₀ − c exp(θ) is what is seen: the slope is −c exp(θ), and so is the second derivative."""
        jump = self.vanishing & (slope < 0.0) & (-slope < below) & (hessian.diagonal() < -4.0 * slope)
        # while there is more to be had elsewhere, nobody knows
        return jump if promise <= -2.0 * slope[jump].sum() else np.zeros(len(slope), dtype=bool)
