"""Filters and smoothers for models whose dynamics or observation are not linear.

Above: user code. Below: NumPy, or torch where Jacobians are taken by automatic differentiation.

model         a system described by functions, in continuous or discrete time
functions     a user's functions: arguments by name, shapes, NumPy or torch
jacobians     given, by torch, by a complex step or by differences
circle        differences and means of angles
record        y, times and u as they are given -> checked arrays
integration   moments and paths of stochastic differential equations over a gap
roots         covariances by their square roots
gaussian      what the Gaussian filters share
extended      tangents
unscented     sigma points: unscented, cubature, Gauss–Hermite
results       the named tuples that come back
"""

from statespace.kalman.nonlinear.extended import ExtendedKalmanFilter
from statespace.kalman.nonlinear.model import NonlinearModel
from statespace.kalman.nonlinear.unscented import UnscentedKalmanFilter

__all__ = ["ExtendedKalmanFilter", "NonlinearModel", "UnscentedKalmanFilter"]
