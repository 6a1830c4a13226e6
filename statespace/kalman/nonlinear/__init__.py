"""Filters and smoothers for models whose dynamics or observation are not linear.

Above: user code. Below: NumPy, or torch where Jacobians are taken by automatic differentiation.

model         a system described by functions, in continuous or discrete time
functions     a user's functions: arguments by name, shapes, NumPy or torch
noise         constant covariances and functions, as square roots
jacobians     given, by torch, by a complex step or by differences
circle        differences and means of angles
record        y, times and u as they are given -> checked arrays
integration   moments and paths of stochastic differential equations over a gap
roots         covariances by their square roots
interface     what all filters share: filter, log_likelihood, forecast, step
gaussian      what the Gaussian filters share: the update, the way back, draws
extended      tangents
unscented     sigma points: unscented, cubature, Gauss–Hermite
ensemble      the ensemble Kalman filter, stochastic and deterministic
particle      the bootstrap particle filter and its smoothers
resampling    particles in proportion to their weights
chance        a generator of its own for each step
multiple      several models and a chain that switches between them
lag           fixed-lag smoothing on a stream
learning      parameters by maximum likelihood
results       the named tuples that come back
"""

from statespace.kalman.nonlinear.ensemble import EnsembleKalmanFilter
from statespace.kalman.nonlinear.extended import ExtendedKalmanFilter
from statespace.kalman.nonlinear.lag import FixedLagSmoother
from statespace.kalman.nonlinear.learning import FitResult, fit
from statespace.kalman.nonlinear.model import NonlinearModel
from statespace.kalman.nonlinear.multiple import InteractingMultipleModel
from statespace.kalman.nonlinear.particle import ParticleFilter
from statespace.kalman.nonlinear.unscented import UnscentedKalmanFilter

__all__ = [
    "EnsembleKalmanFilter", "ExtendedKalmanFilter", "FitResult", "FixedLagSmoother", "InteractingMultipleModel",
    "NonlinearModel", "ParticleFilter", "UnscentedKalmanFilter", "fit",
]  # fmt: skip
