"""A fitted `KalmanRegressor` as plain data and arrays, and back: what `statespace.persistence` writes and reads."""

from numbers import Integral

import numpy as np

from statespace.filtering.estimation import Estimation
from statespace.kalman.description import description, restored
from statespace.kalman.posterior import Record
from statespace.kalman.robust import Tails
from statespace.kalman.scale import Scale


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
    estimation = regressor._estimation
    scale, record = estimation.scale._asdict(), estimation.record
    arrays = {
        "times": record.times, "covariates": record.covariates, "y": record.y, "theta": regressor.theta_,
        "bounds": estimation.bounds, "shift": estimation.shift, "covariate_scale": scale.pop("covariates"),
        "order": regressor._order,
    }  # fmt: skip
    if estimation.squares is not None:
        arrays["squares"] = estimation.squares
    known = {"known_noise": record.noise, "noise_variance": regressor.noise_variance_}
    arrays |= {name: noise for name, noise in known.items() if np.ndim(noise)}
    state = {
        "params": params,
        "process": description(regressor.process_),
        "scale": scale | {"columns": [_plain(name) for name in scale["columns"]]},
        "noise": {name: noise for name, noise in known.items() if not np.ndim(noise)},
        "single": regressor._single,
        "n_features_in": regressor.n_features_in_,
        "feature_names_in": [str(name) for name in getattr(regressor, "feature_names_in_", [])],
    }
    return state, arrays


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
    regressor = kind(**params)
    noise = state["noise"] | arrays
    record = Record(arrays["times"], arrays["covariates"], arrays["y"], noise["known_noise"])
    scale = state["scale"] | {"columns": tuple(state["scale"]["columns"]), "covariates": arrays["covariate_scale"]}
    estimation = Estimation(
        restored(state["process"]), arrays["bounds"], arrays["shift"], record, Scale(**scale), params["time_unit"],
        params["backend"], Tails.of(params["noise"], params["df"], params["huber_threshold"]),
    )  # fmt: skip
    regressor._single = state["single"]
    regressor.n_features_in_ = state["n_features_in"]
    if state["feature_names_in"]:
        regressor.feature_names_in_ = np.array(state["feature_names_in"], dtype=object)
    regressor._order = arrays["order"]
    regressor._conclude(estimation, arrays["theta"], noise["noise_variance"], arrays.get("squares"))
    return regressor


def _plain(name):
    return int(name) if isinstance(name, Integral) else str(name)
