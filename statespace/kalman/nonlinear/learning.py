"""Parameters of user functions by maximum likelihood."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize

_KINDS = ("positive", "real", "probability")
# Central differences: of the gradient, and of the gradient's differences that give the standard errors.
_GRADIENT_STEP, _HESSIAN_STEP = 1e-5, 1e-3
_FARTHEST = 12 * float(np.log(10.0))


class FitResult(NamedTuple):
    """A maximum of the likelihood.

    Attributes
    ----------
    filter : filter
        What ``build`` returns for the estimates.
    parameters : dict of str to float
        The estimates.
    standard_errors : dict of str to float
        From the curvature at the maximum; NaN where it has none.
    log_likelihood : float
    converged : bool
    message : str
        The optimiser's.
    n_evaluations : int
        Of the likelihood.

    Examples
    --------
    >>> from statespace.kalman.nonlinear import FitResult
    >>> FitResult._fields[:3]
    ('filter', 'parameters', 'standard_errors')
    """

    filter: Any
    parameters: dict
    standard_errors: dict
    log_likelihood: float
    converged: bool
    message: str
    n_evaluations: int


def fit(build, y, parameters, *, times=None, u=None, bounds=None, max_iterations=200):
    """Estimate parameters of a filter's model by maximum likelihood.

    Maximises log p(y | θ) of the filter that ``build(**θ)`` returns, by L-BFGS-B with central differences, over log θ
    for positive parameters, the logit for probabilities, and θ itself, in units of its start value, for real ones.

    Parameters
    ----------
    build : callable
        ``build(**parameters)`` -> a filter of this package, with its model made of these numbers.
    y : array-like of shape (T,) or (T, p), or a list of ndarray, Series or DataFrame
        A list of arrays is several records, taken as independent; times and u are then lists as well.
    parameters : dict of str to float, or of str to (float, kind)
        Start values. kind is "positive", "real" or "probability"; for a bare number "positive" if it is above 0,
        otherwise "real".
    times : array-like, or a list, optional
    u : array-like, or a list, optional
    bounds : dict of str to (float, float), optional
        Lowest and highest values, None for none.
    max_iterations : int, default=200

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError
        For start values outside their kind or bounds, and where the likelihood has no value at the start.

    Notes
    -----
    A particle or ensemble filter must have an int as random_state, so that the likelihood is the same function at each
    call; its likelihood is still rough, and standard errors mean little.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.nonlinear import ExtendedKalmanFilter, NonlinearModel, fit
    >>> def build(rate, noise):
    ...     return ExtendedKalmanFilter(NonlinearModel(
    ...         np.eye(1), noise, transition=lambda x: x + rate * x * (1 - x), process_noise=1e-4,
    ...         initial_mean=[0.1], initial_covariance=1e-4))
    >>> y = build(0.3, 1e-3).model.simulate(60, random_state=0).observations
    >>> result = fit(build, y, {"rate": 0.1, "noise": 1e-2})
    >>> bool(abs(result.parameters["rate"] - 0.3) < 0.05), result.converged
    (True, True)
    """
    if not isinstance(parameters, dict) or not parameters:
        raise ValueError(
            "parameters must be a dict with the start value of each argument of build, as in {'rate': 0.1}. "
            f"Got {type(parameters).__name__}."
        )
    records = list(zip(*_parallel(y, times, u), strict=True)) if _are_records(y) else [(y, times, u)]
    start = {name: _start(name, given) for name, given in parameters.items()}
    transforms = [_Transform(name, value, kind, (bounds or {}).get(name)) for name, (value, kind) in start.items()]
    unknown = set(bounds or {}) - set(start)
    if unknown:
        raise ValueError(f"bounds name {', '.join(sorted(unknown))}, which parameters do not hold.")
    evaluations = 0

    def values_of(free):
        return {t.name: t.outwards(x) for t, x in zip(transforms, free, strict=True)}

    def loss(free):
        nonlocal evaluations
        evaluations += 1
        try:
            inner = build(**values_of(free))
            value = -sum(inner.log_likelihood(y_i, times=t_i, u=u_i) for y_i, t_i, u_i in records)
        except (ValueError, FloatingPointError, np.linalg.LinAlgError, OverflowError):
            if evaluations == 1:
                raise
            return np.inf
        return value if np.isfinite(value) else np.inf

    free = np.array([t.inwards(t.start) for t in transforms])
    at_start = loss(free)
    if not np.isfinite(at_start):
        raise ValueError(f"The log-likelihood is not finite at the start values {values_of(free)}.")
    # Where the model fails: clearly worse, and near enough for a line search to interpolate.
    worse = at_start + 10.0 * (1.0 + abs(at_start))

    def with_gradient(x):
        value = loss(x)
        return (value, _gradient(loss, x, _GRADIENT_STEP)) if np.isfinite(value) else (worse, np.zeros(len(x)))

    found = minimize(
        with_gradient, free, jac=True, method="L-BFGS-B", bounds=[t.limits for t in transforms],
        options={"maxiter": max_iterations, "ftol": 1e-11, "gtol": 1e-5},
    )  # fmt: skip
    hessian = np.empty((len(free), len(free)))
    for j in range(len(free)):
        shift = np.zeros(len(free))
        shift[j] = _HESSIAN_STEP
        change = _gradient(loss, found.x + shift, _HESSIAN_STEP) - _gradient(loss, found.x - shift, _HESSIAN_STEP)
        hessian[j] = change / (2 * _HESSIAN_STEP)
    estimates = values_of(found.x)
    errors = _standard_errors((hessian + hessian.T) / 2)
    scaled = {t.name: float(e * abs(t.slope(x))) for t, e, x in zip(transforms, errors, found.x, strict=True)}
    return FitResult(
        build(**estimates), estimates, scaled, -float(found.fun), bool(found.success), str(found.message), evaluations
    )


class _Transform:
    """One parameter, on the line on which it is searched."""

    def __init__(self, name, start, kind, bounds):
        self.name, self.start, self.kind = name, start, kind
        self.unit = abs(start) if kind == "real" and start != 0.0 else 1.0
        low, high = bounds or (None, None)
        if (low is not None and start < low) or (high is not None and start > high):
            raise ValueError(f"parameters[{name!r}] = {start} lies outside its bounds ({low}, {high}).")
        self.limits = tuple(self._limit(bound, sign) for bound, sign in ((low, -1.0), (high, 1.0)))

    def _limit(self, bound, sign):
        """A bound on the line; without one, a positive parameter stays within twelve powers of ten of its start."""
        if self.kind == "real":
            return None if bound is None else self.inwards(bound)
        far = self.inwards(self.start) + sign * _FARTHEST
        if bound is None or bound <= 0.0 or (self.kind == "probability" and bound >= 1.0):
            return far
        return self.inwards(bound)

    def inwards(self, value):
        if self.kind == "positive":
            return float(np.log(value))
        if self.kind == "probability":
            return float(np.log(value) - np.log1p(-value))
        return float(value / self.unit)

    def outwards(self, x):
        if self.kind == "positive":
            return float(np.exp(x))
        if self.kind == "probability":
            return float(1.0 / (1.0 + np.exp(-x)))
        return float(x * self.unit)

    def slope(self, x):
        value = self.outwards(x)
        return {"positive": value, "probability": value * (1 - value), "real": self.unit}[self.kind]


def _start(name, given):
    value, kind = given if isinstance(given, tuple | list) else (given, None)
    value = float(value)
    kind = kind or ("positive" if value > 0.0 else "real")
    if kind not in _KINDS:
        raise ValueError(f"The kind of parameters[{name!r}] must be one of {', '.join(_KINDS)}. Got {kind!r}.")
    if not np.isfinite(value) or (kind != "real" and value <= 0.0) or (kind == "probability" and value >= 1.0):
        raise ValueError(f"parameters[{name!r}] must start at a finite {kind} number. Got {value}.")
    return value, kind


def _are_records(y):
    arrays = np.ndarray | pd.Series | pd.DataFrame
    return isinstance(y, list) and len(y) > 0 and all(isinstance(record, arrays) and record.ndim for record in y)


def _parallel(y, times, u):
    given = []
    for name, values in (("times", times), ("u", u)):
        values = [None] * len(y) if values is None else list(values)
        if len(values) != len(y):
            raise ValueError(f"{name} must be a list of {len(y)}, one for each record of y. Got {len(values)}.")
        given.append(values)
    return y, *given


def _gradient(loss, x, step):
    result = np.zeros(len(x))
    centre = None
    for j in range(len(x)):
        shift = np.zeros(len(x))
        shift[j] = step
        high, low = loss(x + shift), loss(x - shift)
        if np.isfinite(high) and np.isfinite(low):
            result[j] = (high - low) / (2 * step)
        elif np.isfinite(high) or np.isfinite(low):  # at the edge of what the model bears: one side
            centre = loss(x) if centre is None else centre
            if np.isfinite(centre):
                result[j] = (high - centre) / step if np.isfinite(high) else (centre - low) / step
    return result


def _standard_errors(hessian):
    if not np.isfinite(hessian).all():
        return np.full(len(hessian), np.nan)
    try:
        variances = np.linalg.inv(hessian).diagonal()
    except np.linalg.LinAlgError:
        return np.full(len(hessian), np.nan)
    return np.sqrt(np.where(variances > 0.0, variances, np.nan))
