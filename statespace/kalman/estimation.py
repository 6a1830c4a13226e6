"""Fitting explicit models: what is free, the search, and what is reported.

Above: `model`. Below: `free` (θ and the arrays it stands for), `maximum_likelihood`, `em`.
"""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning

from statespace.kalman.em import check_em, expect, is_diagonal, maximise
from statespace.kalman.free import Parameters, check_free
from statespace.kalman.maximum_likelihood import climb, standard_errors
from statespace.kalman.sequential import Sequence

_METHODS = ("ml", "em")


class Objective:
    """The log-likelihood of several records as a function of θ.

    Parameters
    ----------
    parameters : Parameters
    records : list of (y, u, System)
    settle : callable
        A system → the same with the start that follows from it.
    """

    def __init__(self, parameters, records, settle):
        self.parameters, self.records, self.settle = parameters, records, settle
        names = {f.name: f.kind for f in parameters.free}
        R = records[0][2].observation_noise
        correlated = names.get("observation_noise") == "full" or bool((R * (1 - np.eye(R.shape[1]))).any())
        through_noise = correlated and "observation_noise" in names
        outputs = bool({"observation_intercept", "feedthrough"} & names.keys())
        self.options = {
            "affine": outputs or through_noise or bool({"state_intercept", "input_matrix"} & names.keys()),
            "rows": outputs or through_noise, "correlated": through_noise,
        }  # fmt: skip
        self.by_observation = outputs or through_noise or "observation" in names
        self.by_transition = bool({"transition", "state_intercept", "input_matrix", "cross_covariance"} & names.keys())
        self.by_transition |= records[0][2].cross_covariance is not None
        self.n_observed = sum(int(np.isfinite(y).sum()) for y, _, _ in records)

    def systems(self, arrays):
        for y, u, system in self.records:
            yield self.settle(system._replace(**arrays)), y, u

    def gradient(self, theta):
        """The log-likelihood and its gradient; −inf and 0 where there is none."""
        with np.errstate(all="ignore"):
            try:
                total, result = 0.0, np.zeros(len(theta))
                for system, y, u in self.systems(self.parameters.arrays(theta)):
                    value, gradients = Sequence(system, y, u, **self.options).gradient(
                        self.by_observation, self.by_transition
                    )
                    total += value
                    result += self.parameters.pullback(theta, gradients)
            except (ValueError, np.linalg.LinAlgError):
                return -np.inf, np.zeros(len(theta))
        if not (np.isfinite(total) and np.isfinite(result).all()):
            return -np.inf, np.zeros(len(theta))
        return total, result


class Fit(NamedTuple):
    """What was learned: the arrays by name, and what is reported of the fit."""

    arrays: dict
    log_likelihood: float
    history: np.ndarray
    converged: bool
    params: pd.DataFrame


def fit(system, varying, settle, records, *, method, free, max_iter, tolerance, errors):
    """Learn the free arrays of a system from records of it; see `LinearGaussianModel.fit`.

    Parameters
    ----------
    system : System
        With the start values.
    varying : frozenset of str
        The arrays that change from time to time.
    settle : callable
        A system → the same with the start that follows from it.
    records : list of (y, u, System)
    method, free, max_iter, tolerance, errors
        As the model's.

    Returns
    -------
    Fit
    """
    if method not in _METHODS:
        raise ValueError(f"method must be one of {_METHODS}. Got {method!r}.")
    if not any(np.isfinite(y).any() for y, _, _ in records):
        raise ValueError("y has no observation: everything is NaN.")
    free = check_free(free, system, varying, bool(system.stationary))
    if method == "ml":
        parameters = Parameters(free, system)
        objective = Objective(parameters, records, settle)
        theta, value, history, converged = climb(
            objective.gradient, parameters.start, parameters.bounds, objective.n_observed, max_iter or 500,
            tolerance or 1e-5,
        )  # fmt: skip
        arrays = parameters.arrays(theta)
    else:
        check_em(free, system, varying)
        arrays, value, history, converged = _expectation_maximisation(
            free, system, settle, records, max_iter or 1000, tolerance or 1e-8
        )
    if not converged:
        warn_not_converged(history)
    parameters = Parameters(free, system._replace(**arrays))
    deviations = np.nan
    if errors:
        there = Objective(parameters, [(y, u, part._replace(**arrays)) for y, u, part in records], settle)
        deviations = standard_errors(there.gradient, parameters.start, parameters.natural)
    params = pd.DataFrame(
        {"estimate": parameters.natural(parameters.start), "standard_error": deviations}, index=parameters.names
    )
    return Fit(arrays, float(value), np.array(history), converged, params)


def warn_not_converged(history):
    """A ConvergenceWarning at the caller of a model's ``fit``."""
    warnings.warn(
        f"the fit stopped before it converged, after {len(history) - 1} iterations: raise max_iter, or tolerance.",
        ConvergenceWarning, stacklevel=4,
    )  # fmt: skip


def _expectation_maximisation(free, system, settle, records, max_iter, tolerance):
    diagonal = is_diagonal(free, system)
    moving = any(f.name in ("transition", "state_intercept", "input_matrix") for f in free)
    n_observed = sum(int(np.isfinite(y).sum()) for y, _, _ in records)
    arrays: dict[str, np.ndarray] = {}
    history: list[float] = []
    for _ in range(max_iter + 1):
        current = [(settle(part._replace(**arrays)), y, u) for y, u, part in records]
        expectations = [expect(part, y, u, diagonal, moving) for part, y, u in current]
        history.append(sum(e.log_likelihood for e in expectations))
        if not np.isfinite(history[-1]):
            where = f"after {len(history) - 1} iterations" if len(history) > 1 else "at the start values"
            raise ValueError(
                f"the log-likelihood is not finite {where}. Give start values at which the record is possible (noise "
                "above 0, a stable transition for a stationary start)."
            )
        if len(history) > 1 and history[-1] - history[-2] <= tolerance * n_observed:
            return arrays, history[-1], history, True
        if len(history) <= max_iter:
            arrays = maximise(free, current[0][0], expectations, diagonal)
    return arrays, history[-1], history, False
