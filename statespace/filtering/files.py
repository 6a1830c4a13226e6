"""A fitted `KalmanRegressor` as plain data and arrays, and back: what `statespace.persistence` writes and reads."""

from numbers import Integral, Real

import numpy as np
import pandas as pd

from statespace.filtering.estimation import Estimation
from statespace.kalman.description import description, restored
from statespace.kalman.posterior import Record
from statespace.kalman.priors import LogNormal
from statespace.kalman.robust import Tails
from statespace.kalman.scale import Scale

# Of many series with a process each, as many as make a file longer by little.
_MOST_PROBED = 8


def exported(regressor):
    """A fitted regressor for a file.

    Parameters
    ----------
    regressor : KalmanRegressor

    Returns
    -------
    state : dict
        That JSON can hold.
    arrays : dict of str to ndarray

    Examples
    --------
    >>> from statespace import KalmanRegressor
    >>> from statespace.filtering.files import exported, imported
    >>> from statespace.kalman import LocalLevel
    >>> gp = KalmanRegressor(LocalLevel()).fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 1.5])
    >>> again = imported(KalmanRegressor, *exported(gp))
    >>> again.process_ == gp.process_
    True
    """
    params = regressor.get_params(deep=False) | {"process": description(regressor.process)}
    if not isinstance(regressor.random_state, Integral):
        params["random_state"] = None
    if regressor.priors is not None:
        params["priors"] = {name: [float(value) for value in prior] for name, prior in regressor.priors.items()}
    each = regressor._estimations
    processes = [*regressor.processes_.values()] if regressor._separate else [regressor.process_]
    arrays = _record_arrays([estimation.record for estimation in each])
    arrays |= {
        "theta": regressor.theta_,
        "bounds": np.stack([estimation.bounds for estimation in each]),
        "shift": np.stack([estimation.shift for estimation in each]),
        "scale": np.array([[e.scale.value, e.scale.time, e.scale.span] for e in each]),
        "covariate_scale": np.stack([estimation.scale.covariates for estimation in each]),
    }
    arrays["order"] = regressor._order
    if each[0].squares is not None:
        arrays["squares"] = np.concatenate([estimation.squares for estimation in each])
    if np.ndim(regressor._known):
        arrays["known"] = regressor._known
    state = {
        "params": params,
        "processes": [description(process) for process in processes],
        "columns": [_plain(name) for name in each[0].scale.columns],
        "known": None if np.ndim(regressor._known) else regressor._known,
        "labels": _described(regressor.series_),
        "origins": [estimation.scale.origin for estimation in each],
        "single": regressor._single,
        "zoned": regressor._zoned,
        "n_features_in": regressor.n_features_in_,
        "feature_names_in": [str(name) for name in getattr(regressor, "feature_names_in_", [])],
    }
    return state, arrays


def _record_arrays(records):
    """Several records end to end; ``starts`` tells the series apart."""
    arrays = {name: np.concatenate([getattr(r, name) for r in records]) for name in ("times", "covariates", "y")}
    if np.ndim(records[0].noise):
        arrays["noise"] = np.concatenate([record.noise for record in records])
    if len(records) > 1:
        arrays["starts"] = np.append(0, np.cumsum([len(record.times) for record in records])).astype(np.int64)
    elif records[0].starts is not None:
        arrays["starts"] = records[0].starts
    return arrays


def imported(kind, state, arrays):
    """The fitted regressor that `exported` described.

    Parameters
    ----------
    kind : type
        KalmanRegressor.
    state : dict
    arrays : dict of str to ndarray

    Returns
    -------
    KalmanRegressor
    """
    params = state["params"] | {"process": restored(state["params"]["process"])}
    if isinstance(params["noise_variance_bounds"], list):
        params["noise_variance_bounds"] = tuple(params["noise_variance_bounds"])
    if params["priors"] is not None:
        params["priors"] = {name: LogNormal(*prior) for name, prior in params["priors"].items()}
    regressor = kind(**params)
    regressor.series_, regressor._single = _labels(state["labels"]), state["single"]
    # files of earlier versions do not say
    regressor._zoned = state.get("zoned")
    regressor.n_features_in_ = state["n_features_in"]
    if state["feature_names_in"]:
        regressor.feature_names_in_ = np.array(state["feature_names_in"], dtype=object)
    known = arrays.get("known", state["known"])
    noise = arrays.get("noise", state["known"])
    whole = Record(arrays["times"], arrays["covariates"], arrays["y"], noise, arrays.get("starts"))
    separate = params["parameters"] == "separate" and regressor.series_ is not None
    records = [whole.one(i) for i in range(whole.n_series)] if separate else [whole]
    tails = Tails.of(params["noise"], params["df"], params["huber_threshold"])
    estimations = []
    for i, record in enumerate(records):
        scale = Scale(
            *arrays["scale"][i].tolist(), tuple(state["columns"]), arrays["covariate_scale"][i], state["origins"][i],
            params["time_unit"],
        )  # fmt: skip
        start, bounds, shift = restored(state["processes"][i]), arrays["bounds"][i], arrays["shift"][i]
        unit, backend = params["time_unit"], params["backend"]
        estimation = Estimation(start, bounds, shift, record, scale, unit, backend, tails)
        estimations.append(estimation.with_priors(params["priors"]))
    squares = [None] * len(records)
    if tails is not None:
        squares = np.split(arrays["squares"], np.cumsum([len(record.times) for record in records])[:-1])
    regressor._order = arrays["order"]
    regressor._conclude(estimations, list(arrays["theta"]) if separate else [arrays["theta"]], known, squares)
    return regressor


def answers(regressor, gaps):
    """The matrices of the fitted processes over some gaps: what tells whether a file means here what it meant.

    The components' formulas are all that a prediction takes from this package beside the filter itself, whose loops
    would have to be compiled to be asked.

    Parameters
    ----------
    regressor : KalmanRegressor
    gaps : ndarray of shape (n_gaps,)
        In the unit of time.

    Returns
    -------
    dict of str to ndarray

    Examples
    --------
    >>> from statespace import KalmanRegressor
    >>> from statespace.filtering.files import answers
    >>> from statespace.kalman import LocalLevel
    >>> gp = KalmanRegressor(LocalLevel(2.0), optimizer=None).fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 1.5])
    >>> answers(gp, [0.5])["process_noise.0"]
    array([[[1.]]])
    """
    processes = [*regressor.processes_.values()] if regressor._separate else [regressor.process_]
    found = {}
    for i, process in enumerate(processes[:_MOST_PROBED]):
        mean, covariance, _ = process.initial()
        found |= {f"transition.{i}": process.transition(gaps), f"process_noise.{i}": process.process_noise(gaps)}
        found |= {f"observation.{i}": process.observation(), f"mean.{i}": mean, f"covariance.{i}": covariance}
    return found


def _described(labels):
    """The labels of series as what JSON can hold."""
    if labels is None or isinstance(labels, pd.RangeIndex):
        return None if labels is None else {"range": len(labels)}
    rows = [list(label) if isinstance(label, tuple) else [label] for label in labels]
    for label in (part for row in rows for part in row):
        if not isinstance(label, str | Integral | Real):
            raise TypeError(f"a file holds labels of series that are text or numbers. Got {label!r}.")
    plain = [[label if isinstance(label, str) else np.asarray(label).item() for label in row] for row in rows]
    return {"names": [str(name) for name in labels.names], "rows": plain}


def _labels(described):
    if described is None or "range" in described:
        return None if described is None else pd.RangeIndex(described["range"])
    rows = [tuple(row) for row in described["rows"]]
    names = [None if name == "None" else name for name in described["names"]]
    return pd.Index([row if len(row) > 1 else row[0] for row in rows], name=names[0], tupleize_cols=False)


def _plain(name):
    return int(name) if isinstance(name, Integral) else str(name)
