"""Stationary processes that swing: a rotation that is damped, and a damped oscillator driven by noise."""

from typing import ClassVar

import numpy as np

from statespace.kalman.base import Initial
from statespace.kalman.closed import ClosedForm, closed_blocks
from statespace.kernels.kalman_filter.blocks import ROTATED_OU, SHO

# Below a quality of 1/2 an oscillator does not swing; one of 30 rings for ten periods.
_LIKELY_QUALITY, _QUALITY_BOUNDS = (0.3, 30.0), (1e-2, 1e4)


class Cycle(ClosedForm):
    """A cycle whose amplitude and phase wander: a rotation by ωΔ, ω = 2π / ``period``, damped by exp(−``damping`` Δ).

    The state (f, f*) turns and shrinks, and gets noise of variance σ² (1 − exp(−2 ``damping`` Δ)) I over a gap Δ, so
    that it is stationary with the kernel

        σ² exp(−damping · r) cos(ωr),    ``r = |t − t'|``.

    On a unit grid this is the textbook's stochastic cycle (Harvey 1989, section 2.3.3; Durbin & Koopman 2012, section
    3.2.4) with damping factor ρ = exp(−``damping``) and disturbances of variance σ² (1 − ρ²).

    Parameters
    ----------
    period : float, optional
        In units of time. None takes a start value from the data, 1.0 where there are none.
    damping : float, optional
        The rate at which a swing dies away, in 1 / units of time: by 1/e within 1 / ``damping``. A factor ρ for each
        unit of time is ``damping = -log(ρ)``.
    variance : float, optional
        The marginal variance σ², in squared units of y.
    period_bounds, damping_bounds, variance_bounds : pair of float, "fixed" or None, default=None
        None stands for wide bounds in the data's units: of a given period, from half to twice as long; of one that is
        not, from two median gaps to the span of the data.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import Cycle
    >>> cycle = Cycle(period=4.0, damping=0.5, variance=2.0)
    >>> A, P = cycle.transition(1.0), cycle.initial().covariance
    >>> bool(np.isclose((A @ P)[0, 0], 2.0 * np.exp(-0.5) * np.cos(np.pi / 2)))
    True
    """

    units: ClassVar = {"period": (0, 1), "damping": (0, -1), "variance": (2, 0)}

    def __init__(
        self, period=None, damping=None, variance=None, period_bounds=None, damping_bounds=None, variance_bounds=None
    ):
        self.period = period
        self.damping = damping
        self.variance = variance
        self.period_bounds = period_bounds
        self.damping_bounds = damping_bounds
        self.variance_bounds = variance_bounds

    def _likely(self, name, scale):
        low, high = super()._likely(name, scale)
        return (min(2 * low, high), high) if name == "period" else (low, high)

    def resolved(self, scale):
        """A copy in which no parameter and no bound is None any more."""
        clone = super().resolved(scale)
        if self.period_bounds is None:
            low, high = self._likely("period", scale)
            clone.period_bounds = (
                (low, max(high, 2 * low)) if self.period is None else (self.period / 2, self.period * 2)
            )
        return clone

    def blocks(self, gaps=None):
        """The kernel's description of A and Q."""
        frequency = 2 * np.pi / self.value("period")
        return closed_blocks(ROTATED_OU, 2, [[self.value("damping"), self.value("variance"), frequency]])

    def derivatives(self):
        """The derivatives of the block parameters and the stationary covariance by the parameters' logarithms."""
        parameters, covariance = self.blocks().parameters, self.initial().covariance
        return {
            "period": (parameters * [0.0, 0.0, -1.0], None),
            "damping": (parameters * [1.0, 0.0, 0.0], None),
            "variance": (parameters * [0.0, 1.0, 0.0], covariance),
        }

    def observation(self):
        """The row H = (1, 0)."""
        return np.array([1.0, 0.0])

    def initial(self):
        """Stationary."""
        return Initial(np.zeros(2), float(self.value("variance")) * np.eye(2), np.zeros((2, 0)))


class DampedOscillator(ClosedForm):
    """A damped harmonic oscillator driven by white noise: celerite's SHO, in every regime of damping.

    f″ + (ω₀ / ``quality``) f′ + ω₀² f = noise, ω₀ = 2π ``frequency``. Above a quality of 1/2 it swings, and its kernel
    is

        σ² exp(−ω₀r / (2Q)) (cos ηω₀r + sin(ηω₀r) / (2ηQ)),    η = √(1 − 1/(4Q²)), ``r = |t − t'|``;

    at 1/2 it is a Matérn 3/2, below it a difference of two exponentials (Foreman-Mackey et al. 2017, section 4). The
    paths have one derivative. It equals celerite2's ``SHOTerm(sigma=variance ** 0.5, rho=1 / frequency, Q=quality)``.

    Parameters
    ----------
    frequency : float, optional
        Of the undamped oscillator, in cycles for each unit of time. None takes a start value from the data, 1.0 where
        there are none.
    quality : float, optional
        Q: about the number of swings, times π, in which the energy falls by 1/e. None starts between 0.3 and 30.
    variance : float, optional
        The marginal variance σ², in squared units of y.
    frequency_bounds, quality_bounds, variance_bounds : pair of float, "fixed" or None, default=None
        None stands for wide bounds, in the data's units where there are units.

    Examples
    --------
    >>> from statespace.kalman import DampedOscillator
    >>> ringing = DampedOscillator(frequency=0.2, quality=10.0, variance=3.0)
    >>> ringing.initial().covariance[0, 0], ringing.n_states
    (np.float64(3.0), 2)
    """

    units: ClassVar = {"frequency": (0, -1), "quality": (0, 0), "variance": (2, 0)}

    def __init__(
        self, frequency=None, quality=None, variance=None, frequency_bounds=None, quality_bounds=None,
        variance_bounds=None,
    ):  # fmt: skip
        self.frequency = frequency
        self.quality = quality
        self.variance = variance
        self.frequency_bounds = frequency_bounds
        self.quality_bounds = quality_bounds
        self.variance_bounds = variance_bounds

    def _likely(self, name, scale):
        return _LIKELY_QUALITY if name == "quality" else super()._likely(name, scale)

    def _default_bounds(self, name, low, high):
        if name == "quality":
            return min(_QUALITY_BOUNDS[0], self.quality / 10), max(_QUALITY_BOUNDS[1], self.quality * 10)
        return super()._default_bounds(name, low, high)

    def blocks(self, gaps=None):
        """The kernel's description of A and Q."""
        frequency = 2 * np.pi * self.value("frequency")
        return closed_blocks(SHO, 2, [[frequency, self.value("variance"), self.value("quality")]])

    def derivatives(self):
        """The derivatives of the block parameters and the stationary covariance by the parameters' logarithms."""
        parameters, covariance = self.blocks().parameters, self.initial().covariance
        return {
            "frequency": (parameters * [1.0, 0.0, 0.0], None),
            "quality": (parameters * [0.0, 0.0, 1.0], None),
            "variance": (parameters * [0.0, 1.0, 0.0], covariance),
        }

    def observation(self):
        """The row H = (1, 0): the state is (f, f′/ω₀)."""
        return np.array([1.0, 0.0])

    def initial(self):
        """Stationary."""
        return Initial(np.zeros(2), float(self.value("variance")) * np.eye(2), np.zeros((2, 0)))
