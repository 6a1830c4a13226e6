"""The maximum of a smooth function of a few parameters within bounds, from its exact gradient: few evaluations.

A quadratic model with a dense Hessian, made better by every gradient seen (BFGS), is maximised within the bounds and
within a step that has proved worth its length. Above: `fitting`. Nothing here knows what the function is.
"""

import numpy as np

# The longest first step in any parameter, and of all: parameters are logarithms.
_FIRST_STEP, _LONGEST_STEP = 2.0, 8.0
# Steps shorter than this have met rounding.
_SHORTEST_STEP = 1e-9
# The least curvature in proportion to the greatest.
_FLATTEST = 1e-7
# What a vanishing parameter may still gain: a slope of this size, as the value levels off exponentially.
_LITTLE = 0.3
_NEAR = 0.3
# Of the value: what cannot be told from none.
_ROUNDING = 1e-13


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
    step, held = np.zeros(k), np.zeros(k, dtype=bool)
    for _ in range(3 * k + 1):
        free = ~held
        if free.any():
            rest = slope[free] - hessian[np.ix_(free, held)] @ step[held]
            step[free] = np.linalg.solve(hessian[np.ix_(free, free)], rest)
        beyond = free & ((step < low) | (step > high))
        step = np.minimum(np.maximum(step, low), high)
        if beyond.any():
            held |= beyond
            continue
        # what is held although the slope leads inwards is let go, the worst first
        pull = slope - hessian @ step
        inwards = np.where(held, np.where(step >= high, -pull, pull), 0.0)
        inwards[low == high] = 0.0
        worst = int(np.argmax(inwards))
        if inwards[worst] <= 1e-10 * np.abs(slope).max():
            break
        held[worst] = False
    return step


def definite(hessian):
    """A positive definite matrix with the same eigenvectors and the eigenvalues' sizes."""
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    sizes = np.maximum(np.abs(values), _FLATTEST * max(np.abs(values).max(), 1e-300))
    return (vectors * sizes) @ vectors.T


def learned(hessian, step, change):
    """The Hessian after a step over which minus the slope changed by ``change``: BFGS, damped as Powell (1978) does."""
    along = hessian @ step
    bent, seen = step @ along, step @ change
    if seen < 0.2 * bent:
        change = along + 0.8 * bent / (bent - seen) * (change - along)
        seen = 0.2 * bent
    return hessian - np.outer(along, along) / bent + np.outer(change, change) / seen


class Ascent:
    """A search for the maximum.

    Parameters
    ----------
    gradient : callable
        θ → the value, −inf where there is none, and its slope of shape (k,).
    bounds : ndarray of shape (k, 2)
    vanishing : ndarray of bool, shape (k,)
        Parameters towards whose lower bound the value levels off, as it does for the logarithm of a variance: the last
        stretch is one step.
    tolerance : float
        The slope in units of the root of the curvature at which the search has arrived; the value then lacks its
        square, as far as the Hessian knows.
    typical : float
        A typical curvature: the unit is not taken to be a thousand times greater or smaller.

    Attributes
    ----------
    hessian : ndarray of shape (k, k)
        Minus the second derivatives, as far as they are known.
    message : str
        Why the last search ended early; empty if it did not.
    """

    def __init__(self, gradient, bounds, vanishing, tolerance, typical):
        self.gradient, self.bounds, self.vanishing = gradient, bounds, vanishing
        self.tolerance, self.typical = tolerance, typical
        self.hessian, self.message = None, ""

    def climb(self, theta, hessian, max_evaluations=1000):
        """The maximum from ``theta`` on.

        Parameters
        ----------
        theta : ndarray of shape (k,)
        hessian : ndarray of shape (k, k)
            Minus the second derivatives at ``theta``, or a guess.
        max_evaluations : int

        Returns
        -------
        theta : ndarray of shape (k,)
        value : float
        """
        self.hessian, self.message = definite(hessian), ""
        value, slope, *known = self.gradient(theta)
        if known:
            self.hessian = definite(known[0])
        pairs=[]
        # where the slope was when the last stretch was tried in vain
        longest, tried = _FIRST_STEP, np.full(len(theta), _LITTLE)
        for _ in range(max_evaluations):
            low, high = self.bounds.T - theta
            held = self._held(slope, low, high)
            low, high = np.where(held, 0.0, low), np.where(held, 0.0, high)
            step = within(slope, self.hessian, np.maximum(low, -longest), np.minimum(high, longest))
            predicted = slope @ step - 0.5 * step @ self.hessian @ step
            if self._arrived(slope, held, predicted):
                return theta, value
            size = np.abs(step).max()
            if size < _SHORTEST_STEP:
                break
            jump = self._levels_off(slope, tried) & ~held
            if jump.any() and predicted > 2.0 * np.abs(slope[jump]).sum():
                jump[:] = False
            step = np.where(jump, low, step)
            new_value, new_slope, *known = self.gradient(theta + step)
            gain = new_value - value
            if jump.any():
                tried = np.where(jump, 0.1 * np.abs(slope), tried)
            elif np.isfinite(new_value):
                if size < _NEAR: pairs.append((step, slope - new_slope))
                if not known:
                    self.hessian = learned(self.hessian, step, slope - new_slope)
                share = gain / predicted if predicted > 0.0 else 0.0
                if share < 0.1:
                    longest = 0.3 * size
                elif share > 0.75 and size > 0.9 * longest:
                    longest = min(2.0 * longest, _LONGEST_STEP)
            else:
                longest = 0.2 * size
            # of a gain that is less than rounding only the slope can tell
            level = abs(gain) <= _ROUNDING * max(abs(value), 1.0)
            if gain > 0.0 or (level and self._length(new_slope, held) < self._length(slope, held)):
                theta, value, slope = theta + step, new_value, new_slope
                if known:
                    self.hessian = definite(known[0])
                    for pair in pairs[-len(theta):]:
                        self.hessian = learned(self.hessian, *pair)
            elif level:
                break
        if np.abs(slope[~held] * self._unit()[~held]).max(initial=0.0) > 100 * self.tolerance:
            self.message = "the search made no more progress"
        return theta, value

    def _held(self, slope, low, high):
        flat = self.vanishing & (np.abs(slope) < _LITTLE * 1e-6)
        return ((low >= 0.0) & ((slope <= 0.0) | flat)) | ((high <= 0.0) & (slope >= 0.0))

    def _levels_off(self, slope, below):
        """Where f = f₀ − c exp(θ) is what is seen: the slope is −c exp(θ), and so is the second derivative."""
        bent = np.diag(self.hessian)
        return self.vanishing & (slope < 0.0) & (-slope < below) & (bent < -4.0 * slope)

    def _unit(self):
        return 1.0 / np.sqrt(np.clip(np.diag(self.hessian), 1e-3 * self.typical, 1e3 * self.typical))

    def _length(self, slope, held):
        return np.linalg.norm((slope * self._unit())[~held])

    def _arrived(self, slope, held, predicted):
        steepest = np.abs(slope * self._unit())[~held].max(initial=0.0)
        return steepest <= self.tolerance and predicted <= self.tolerance**2
