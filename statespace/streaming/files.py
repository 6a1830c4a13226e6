"""A `KalmanStream` as plain data and arrays, and back: what `statespace.persistence` writes and reads."""

import numpy as np

from statespace.kalman.binding import State
from statespace.kalman.description import description, restored
from statespace.kalman.robust import family_of
from statespace.kalman.scale import Scale
from statespace.streaming.clock import StreamClock
from statespace.streaming.filter import Filters, Moment
from statespace.streaming.window import Window


def exported(stream):
    """A stream for a file.

    Parameters
    ----------
    stream : KalmanStream

    Returns
    -------
    state : dict
        That JSON can hold.
    arrays : dict of str to ndarray

    Examples
    --------
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.streaming import KalmanStream
    >>> from statespace.streaming.files import exported, imported
    >>> stream = KalmanRegressor(LocalLevel()).fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 1.5]).stream(lag=1.0)
    >>> again = imported(KalmanStream, *exported(stream))
    >>> again.step(1.0, time=1.5) == stream.step(1.0, time=1.5)
    True
    """
    process, scale, unit, backend = stream._model
    filters, clock, window = stream._filters, stream._clock, stream._window
    state = {
        "process": description(process),
        "scale": [scale.value, scale.time, scale.span],
        "columns": [name if isinstance(name, str) else int(name) for name in scale.columns],
        "unit": unit,
        "backend": backend,
        "settings": stream._settings,
        "origin": scale.origin,
        "n_covariates": stream._n_covariates,
        "n_steps": stream.n_steps,
        "clock": [clock.kind, clock.now, clock.absolute],
        "zoned": clock.zoned,
        "window": None,
    }
    arrays = {"covariate_scale": scale.covariates, "row": filters.row}
    arrays |= _moment_arrays("start", filters.moment() if window is None else window.before)
    if window is not None:
        samples, m = list(window.samples), len(filters)
        state["window"] = [window.lag, window.before_time]
        arrays |= {
            "times": np.array([sample.time for sample in samples]),
            "gaps": np.array([sample.gap for sample in samples], dtype=float),
            "values": np.array([sample.values for sample in samples], dtype=float).reshape(-1, m),
            "noise": np.array([np.broadcast_to(sample.noise, m) for sample in samples], dtype=float).reshape(-1, m),
        }
        if not stream._fixed:
            arrays["rows"] = np.array([sample.row for sample in samples]).reshape(len(samples), len(filters.row))
    return state, arrays


def imported(kind, state, arrays):
    """The stream that `exported` described.

    Parameters
    ----------
    kind : type
        KalmanStream.
    state : dict
    arrays : dict of str to ndarray

    Returns
    -------
    KalmanStream
    """
    stream = object.__new__(kind)
    process, unit, backend = restored(state["process"]), state["unit"], state["backend"]
    columns = tuple(state["columns"])
    scale = Scale(*state["scale"], columns, arrays["covariate_scale"], state["origin"], unit)
    stream._model = process, scale, unit, backend
    stream._settings, stream.n_steps, stream._window = state["settings"], state["n_steps"], None
    stream._n_covariates = state["n_covariates"]
    name, now, absolute = state["clock"]
    stream._clock = clock = StreamClock(name, unit, scale.time, now, state.get("zoned"))
    clock.absolute = absolute
    start = _moment("start", arrays)
    family = family_of(state["settings"]["family"])
    stream._filters = filters = Filters(process.rescaled(scale), scale.value, start, backend, family)
    if state["window"] is not None:
        stream._window = Window(filters, clock, *state["window"])
        for k, time in enumerate(arrays["times"].tolist()):
            gap, values, noise = arrays["gaps"][k].item(), arrays["values"][k].tolist(), arrays["noise"][k].tolist()
            row = arrays["rows"][k] if "rows" in arrays else None
            filters.step(values, gap, noise, row)
            stream._window.keep(time, gap, values, noise, row)
    filters.row = arrays["row"]
    return stream


def _moment_arrays(name, moment):
    """A moment as arrays: outputs may have different numbers of directions left."""
    arrays = {f"{name}.offsets": np.array(moment.offsets)}
    for k, state in enumerate(moment.states):
        arrays |= {f"{name}.{k}.{part}": getattr(state, part) for part in State._fields}
    return arrays


def _moment(name, arrays):
    offsets = arrays[f"{name}.offsets"]
    states = [State(*(arrays[f"{name}.{k}.{part}"] for part in State._fields)) for k in range(len(offsets))]
    return Moment(tuple(states), tuple(offsets.tolist()))
