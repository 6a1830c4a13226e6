"""Linear-Gaussian processes in continuous time that compose with ``+``.

Above: `statespace.KalmanRegressor`, which fits and predicts. Below: `statespace.kernels.kalman_filter`.

base          what a component is: four methods, and parameters in the manner of scikit-learn's GP kernels
closed        components whose matrices the kernel knows in closed form
components    level, trend, seasonal pattern, covariates: exactly diffuse at the start
dummies       the textbook's seasonal dummies, on a grid
stationary    Ornstein–Uhlenbeck and Matérn
oscillating   the damped stochastic cycle and the damped oscillator
carma         autoregressive moving averages in continuous time
schwarz       the coordinates in which these are stable by positive numbers
interventions known shifts, bends and outliers
quasiperiodic a seasonal pattern times a Matérn process
products      all other products of stationary processes
composition   the sum, and the same process in other units
scale         the sizes that data have: start values, bounds, and the units that the kernel computes in
binding       a process on the gaps and covariates of one record: likelihood, gradient, smoothing
likelihood    that of records that share a process, as a function of θ
fitting       maximum likelihood: start values, noises that belong at zero, standard errors
powers        θ as the kernel's numbers, where they are products of powers: no copies of components in a search
ascent        the search for a maximum within bounds, in few evaluations
differencing  the likelihood of complete records on a grid without any states, to search with
toeplitz      that of a moving average, whose covariance is a banded Toeplitz matrix
robust        noise with heavy tails, by a weight for each sample
diagnostics   standardised innovations, and the tests of what they should be
priors        what is known about parameters beforehand
posterior     a process given a record of one series or many: other times, joint covariance, samples, the last state
level         the constant that a diffuse start absorbs
joint         the joint covariance at many rows, in one sweep
rows          X as times and covariates
disturbances  innovations, leave-one-out predictions, shocks to the states
description   processes as plain data, for files

model           explicit matrices: filter, smooth, forecast, sample, fit
system          these matrices, checked
sequential      vector observations as the sequence of scalar ones that the kernel filters
smoothing       states, lag-one covariances and disturbances given a whole record
simulation      draws, of the model and given a record
square_root     the filter with triangular factors
criteria        AIC and its kin
estimation      fit: which entries are free (free), by EM (em) or by L-BFGS (maximum_likelihood)
results         what filters and smoothers return
seasonal_arima  seasonal ARIMA models with exactly diffuse differencing
arima_likelihood their likelihood and its gradient in unbounded parameters
innovations     the same for complete records, without covariances
structured      models whose size follows from the data
autoregression  vector autoregressions
factors         dynamic factors
"""

from statespace.kalman.autoregression import VectorAutoregression, vector_autoregression
from statespace.kalman.base import Component, Initial
from statespace.kalman.carma import CARMA
from statespace.kalman.components import LocalLevel, LocalTrend, Regression, Seasonal
from statespace.kalman.composition import Sum
from statespace.kalman.dummies import DummySeasonal
from statespace.kalman.factors import DynamicFactor, dynamic_factor
from statespace.kalman.interventions import LevelShift, Outlier, SlopeChange
from statespace.kalman.model import LinearGaussianModel
from statespace.kalman.oscillating import Cycle, DampedOscillator
from statespace.kalman.priors import LogNormal
from statespace.kalman.products import Product
from statespace.kalman.quasiperiodic import QuasiPeriodic
from statespace.kalman.seasonal_arima import Arima, arima
from statespace.kalman.stationary import Matern, OrnsteinUhlenbeck

__all__ = [
    "CARMA", "Arima", "Component", "Cycle", "DampedOscillator", "DummySeasonal", "DynamicFactor", "Initial",
    "LevelShift", "LinearGaussianModel", "LocalLevel", "LocalTrend", "LogNormal", "Matern", "OrnsteinUhlenbeck",
    "Outlier", "Product", "QuasiPeriodic", "Regression", "Seasonal", "SlopeChange", "Sum", "VectorAutoregression",
    "arima", "dynamic_factor", "vector_autoregression",
]  # fmt: skip
