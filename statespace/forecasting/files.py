"""Deep forecasters in model files: parameters, what was learned, and the history that forecasts go on from."""

from numbers import Integral

import numpy as np
import pandas as pd

from statespace.fitting import NOT_SAVED
from statespace.forecasting.tables import from_arrays, to_arrays

# What training learns beside the network's weights.
_LEARNED = (
    "time_scale_", "value_scale_", "max_horizon_", "context_length_", "trend_", "X_mean_", "X_scale_", "static_mean_",
    "static_scale_",
)  # fmt: skip


def exported(forecaster):
    """What `statespace.persistence.save` writes of a fitted forecaster: a dict that JSON can hold, and arrays."""
    params = forecaster.get_params(deep=False)
    if not isinstance(params["random_state"], Integral):
        params["random_state"] = None
    params |= NOT_SAVED
    if params["periods"] is not None:
        params["periods"] = [float(period) for period in params["periods"]]
    state = {"params": params, "model": forecaster._model_config(), "learned": {}, "static": None}
    data, arrays = forecaster._export_data()
    state |= data
    static = params.pop("static")
    if static is not None:
        state["static"], table = to_arrays(static, "static")
        arrays |= table
    arrays |= {f"model.{name}": value.numpy() for name, value in forecaster.model_.state_dict().items()}
    arrays["history_"] = forecaster.history_["loss"].to_numpy(dtype=np.float64)
    for name in _LEARNED:
        if hasattr(forecaster, name):
            value = getattr(forecaster, name)
            if isinstance(value, np.ndarray):
                arrays[name] = value
            else:
                state["learned"][name] = value
    return state, arrays


def imported(kind, state, arrays):
    """The fitted forecaster of a class that `exported` described."""
    static = None if state.get("static") is None else from_arrays(state["static"], arrays, "static")
    return kind(**state["params"] | NOT_SAVED, static=static)._import_data(state, arrays)


def take_learned(forecaster, state, arrays):
    """Give a forecaster what `exported` kept of training, but the network."""
    for name, value in state["learned"].items():
        setattr(forecaster, name, value)
    for name in _LEARNED:
        if name in arrays:
            setattr(forecaster, name, arrays[name])
    epochs = pd.RangeIndex(1, len(arrays["history_"]) + 1, name="epoch")
    forecaster.history_ = pd.DataFrame({"loss": arrays["history_"]}, index=epochs)
