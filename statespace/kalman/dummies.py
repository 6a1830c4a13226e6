"""The textbook's dummy seasonal: a pattern of s numbers on a regular grid that sum to noise."""

import copy
from numbers import Integral
from typing import ClassVar

import numpy as np

from statespace.kalman.base import Component, Initial

# Steps that differ from a whole number by less than this are that number but for rounding.
_ROUNDED = 1e-6


class DummySeasonal(Component):
    """A pattern of s seasons whose sum over a round is noise: γ_t = −γ_{t−1} − … − γ_{t−s+1} + ω_t, diffuse.

    The seasonal of the basic structural model (Harvey 1989, section 2.3.2; Durbin & Koopman 2012, section 3.2.2). It
    lives on a grid: all gaps must be whole numbers of ``step``, of which several are taken at once. `Seasonal` is the
    smoother, trigonometric one, and needs no grid.

    Parameters
    ----------
    seasons : int
        s, at least 2.
    variance : float, optional
        var ω for one step, in squared units of y. None takes a start value from the data, 1.0 where there are none.
    step : float, default=1.0
        The length of a season, in units of time.
    variance_bounds : pair of float, "fixed" or None, default=None
        None stands for wide bounds in the data's units.

    Raises
    ------
    ValueError
        When it meets gaps that are no multiple of ``step``.

    Examples
    --------
    >>> from statespace.kalman import DummySeasonal
    >>> quarters = DummySeasonal(4, variance=0.5)
    >>> quarters.transition(1.0)
    array([[-1., -1., -1.],
           [ 1.,  0.,  0.],
           [ 0.,  1.,  0.]])
    """

    units: ClassVar = {"variance": (2, -1)}

    def __init__(self, seasons, variance=None, step=1.0, variance_bounds=None):
        self.seasons = seasons
        self.variance = variance
        self.step = step
        self.variance_bounds = variance_bounds

    def validate(self):
        """Refuse a number of seasons that is no count, a step that is no length, a variance that is not positive."""
        super().validate()
        if not (isinstance(self.seasons, Integral) and self.seasons >= 2):
            raise ValueError(f"seasons of DummySeasonal must be an integer >= 2. Got {self.seasons!r}.")
        if not (np.isscalar(self.step) and 0 < self.step < np.inf):
            raise ValueError(f"step of DummySeasonal must be a positive number. Got {self.step!r}.")

    def _likely(self, name, scale):
        low, high = super()._likely(name, scale)
        return low * self.step, high * self.step

    def rescaled(self, scale):
        """The same pattern for y / ``scale.value`` and times / ``scale.time``."""
        clone = copy.copy(self)
        clone.step = self.step / scale.time
        factor = scale.value**-2
        clone.variance = self.value("variance") * factor
        bounds = self.variance_bounds
        if bounds is not None and not isinstance(bounds, str):
            clone.variance_bounds = (bounds[0] * factor, bounds[1] * factor)
        return clone

    def _once(self):
        n = self.seasons - 1
        A = np.eye(n, k=-1)
        A[0] = -1.0
        return A

    def _powers(self, dt):
        """A and Q / variance for the whole numbers of steps next to dt / step."""
        n, once = self.seasons - 1, self._once()
        counts = np.rint(np.asarray(dt, dtype=float) / self.step).astype(np.int64)
        transition, noise = np.empty((*counts.shape, n, n)), np.empty((*counts.shape, n, n))
        for count in np.unique(counts):
            # A^s = I: whole rounds add the same noise each.
            rounds, rest = divmod(int(count), self.seasons)
            A, Q = np.eye(n), np.zeros((n, n))
            for done in range(self.seasons if rounds else rest):
                if done == rest:
                    Q_rest, A_rest = Q, A
                Q = Q + np.outer(A[:, 0], A[:, 0])
                A = once @ A
            if rounds:
                A, Q = A_rest, Q_rest + rounds * Q
            transition[counts == count], noise[counts == count] = A, Q
        return transition, noise

    def transition(self, dt):
        """A(Δ) of shape (..., n, n) for gaps of shape (...), of the nearest whole number of steps."""
        return self._powers(dt)[0]

    def process_noise(self, dt):
        """Q(Δ) of shape (..., n, n) for gaps of shape (...), of the nearest whole number of steps."""
        return self.value("variance") * self._powers(dt)[1]

    def observation(self):
        """The row H = (1, 0, …)."""
        return np.eye(self.seasons - 1)[0]

    def initial(self):
        """Diffuse."""
        n = self.seasons - 1
        return Initial(np.zeros(n), np.zeros((n, n)), np.eye(n))

    def blocks(self, gaps=None):
        """The kernel's description of A and Q, tabulated for the different gaps."""
        if gaps is not None:
            steps = np.asarray(gaps) / self.step
            wrong = np.abs(steps - np.rint(steps)) > _ROUNDED * np.maximum(steps, 1.0)
            if wrong.any():
                raise ValueError(
                    "DummySeasonal needs times on a grid of its step. A gap is "
                    f"{steps[wrong][0]:.6g} of its steps. Take Seasonal, which needs none, or another step."
                )
        return super().blocks(gaps)

    def noise_by_theta(self, gap):
        """dQ/dθ of shape (n_free, n, n)."""
        return self.process_noise(np.full(len(self.free), gap))

    def pullback(self, gradient, gaps=None):
        """The exact gradient by θ: Q is proportional to the variance."""
        if not self.free:
            return np.zeros(0)
        noise = self.process_noise(np.zeros(1) if gaps is None else gaps)
        return np.array([np.vdot(gradient.process_noise, noise)])
