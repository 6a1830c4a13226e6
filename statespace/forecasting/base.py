"""What both families of forecasters share: sktime's tags, their own history, and the rows of X that a horizon needs."""

import warnings
from typing import ClassVar

import numpy as np
import pandas as pd
from sktime.datatypes import convert_to
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from statespace import persistence
from statespace.forecasting.calibration import Calibration
from statespace.forecasting.horizon import TimeAxis
from statespace.forecasting.tables import from_arrays, to_arrays


class TimeForecaster(BaseForecaster):
    """An sktime forecaster that keeps its own history and knows the time of every row.

    Subclasses set ``_axis`` (a `TimeAxis`) and ``_history`` in ``_fit``, and give ``_points(index, numbers, X)``: the
    forecasts at the times of an index, each of the series of that number.
    """

    _tags: ClassVar = {
        "authors": "the statespace developers",
        "maintainers": "the statespace developers",
        "capability:exogenous": True,
        "capability:missing_values": True,
        "capability:update": True,
        "capability:pred_int": True,
        # False would make sktime's base class ask for a relative horizon, which irregular indexes do not have.
        "capability:insample": True,
        "capability:pred_int:insample": True,
        "capability:random_state": True,
        "capability:categorical_in_X": False,
        "capability:multivariate": False,
        "requires-fh-in-fit": False,
        "X-y-must-have-same-index": True,
        "X_inner_mtype": "pd.DataFrame",
    }
    # The history is our own (`_update`): sktime's second copy, and its warning about it, are not needed.
    _config: ClassVar = {"remember_data": False}
    _y = None
    _X = None
    # What a file brings instead of training, (state, arrays): read by `_fit`.
    _restored = None

    def _make_axis(self, indexes, freq=None):
        """The clock of the series in ``fit``; warns where days are counted though another step was perhaps meant."""
        axis = TimeAxis.of(indexes, unit=self.time_unit, freq=freq)
        index = indexes[0]
        if self.time_unit is None and axis.unit == "D" and len(index) > 2:
            step = pd.infer_freq(index)
            if step not in (None, "D"):
                warnings.warn(
                    f"the DatetimeIndex of y has no freq, so time is counted in days, though its steps look like "
                    f"{step!r}. Set y.index.freq = {step!r} to count steps, or time_unit='D' (or another unit) to say "
                    "what is meant.",
                    UserWarning,
                    stacklevel=4,
                )
        return axis

    def _places(self, index=None):
        """Which rows of the history, or of ``index``, belong to which series; the name of the only series is None."""
        index = self._history.index if index is None else index
        if not isinstance(index, pd.MultiIndex):
            return {None: np.arange(len(index))}
        levels = list(range(index.nlevels - 1))
        groups = pd.Series(0, index=index).groupby(level=levels, sort=False)
        return {name if isinstance(name, tuple) else (name,): rows for name, rows in groups.indices.items()}

    def _indexes(self, index=None):
        """The times of every series of the history, or of ``index``."""
        index = self._history.index if index is None else index
        if not isinstance(index, pd.MultiIndex):
            return {None: index}
        times = index.get_level_values(-1)
        return {name: times[rows] for name, rows in self._places(index).items()}

    def _asked(self, fh):
        """The index that a horizon means, and the number of the series of each row."""
        indexes = {name: self._axis.future(fh, index[-1:]) for name, index in self._indexes().items()}
        numbers = np.repeat(np.arange(len(indexes)), [len(index) for index in indexes.values()])
        if None in indexes:
            return indexes[None], numbers
        rows = [(*name, time) for name, times in indexes.items() for time in times]
        return pd.MultiIndex.from_tuples(rows, names=self._history.index.names), numbers

    def predict_residuals(self, y=None, X=None):
        """What is left of y: y minus its forecasts, which within the data are one step ahead.

        Parameters
        ----------
        y : series of any mtype of sktime, optional
            None: all that is known from ``fit`` and ``update``, of every series of a panel too.
        X : DataFrame, optional
            Covariates at the times of y.

        Returns
        -------
        of the type and index of y
            NaN where y is missing.
        """
        if y is None and not getattr(self, "_is_vectorized", False):
            return self._history - self.fitted_values()
        return super().predict_residuals(y, X)

    def fitted_values(self):
        """What each observation so far was forecast to be, one step ahead, in one pass over the data.

        Returns
        -------
        Series or DataFrame
            Of the index of what is known from ``fit`` and ``update``; of every series of a panel. At the first times
            as in ``predict``.

        Raises
        ------
        sktime.exceptions.NotFittedError
            The forecaster is not fitted.
        """
        self.check_is_fitted()
        history = self._history
        numbers = np.empty(len(history), dtype=np.int64)
        for number, rows in enumerate(self._places().values()):
            numbers[rows] = number
        values = self._points(history.index, numbers, None)
        if isinstance(history, pd.DataFrame):
            return pd.DataFrame(values, index=history.index, columns=history.columns)
        return pd.Series(values, index=history.index, name=history.name)

    def _predict(self, fh, X):
        index, numbers = self._asked(fh)
        values = self._points(index, numbers, X)
        if isinstance(self._history, pd.DataFrame):
            return pd.DataFrame(values, index=index, columns=self._history.columns)
        return pd.Series(values, index=index, name=self._history.name)

    def _check_calibration(self):
        if not isinstance(self.calibrate, bool | np.bool_):
            raise ValueError(f"calibrate must be True or False. Got {self.calibrate!r} instead.")
        if not 0 < self.calibration_fraction < 1:
            raise ValueError(f"calibration_fraction must be within (0, 1). Got {self.calibration_fraction!r} instead.")

    @staticmethod
    def _refuse_joint(marginal):
        if not marginal:
            raise ValueError("marginal=False is not known: the distributions are those of single times. Use True.")

    def save(self, path=None, serialization_format="safetensors"):
        """Write the fitted forecaster to one safetensors file; ``statespace.load(path)`` reads it.

        Parameters
        ----------
        path : str or os.PathLike, optional
            The file, replaced as a whole if it exists. None: sktime's serialised object in memory.
        serialization_format : {"safetensors", "pickle", "cloudpickle"}, default="safetensors"
            The others are sktime's own, for ``sktime.base.load``: a zip file, and only safe to load from whom you
            trust.

        Raises
        ------
        sktime.exceptions.NotFittedError
            The forecaster is not fitted.
        ValueError
            y had several columns: each has a forecaster of its own.
        """
        if path is not None and serialization_format == "safetensors":
            if getattr(self, "_is_vectorized", False):
                raise ValueError(
                    "this forecaster has been fitted to several columns or series one by one. Save each forecaster in "
                    "forecasters_, or all of them with serialization_format='pickle'."
                )
            return persistence.save(self, path)
        sktimes = "pickle" if serialization_format == "safetensors" else serialization_format
        return super().save(path, serialization_format=sktimes)

    def _export_data(self):
        """History, covariates and horizon for a model file: a dict that JSON can hold, and arrays."""
        state = {"mtype": self._y_mtype_last_seen, "X": None, "fh": None}
        state["y"], arrays = to_arrays(self._history, "y")
        if self._covariates is not None:
            state["X"], more = to_arrays(self._covariates, "X")
            arrays |= more
        if self.calibration_ is not None:
            arrays |= {f"calibration.{name}": part for name, part in self.calibration_._asdict().items()}
        fh = self._fh
        if fh is not None:
            index = fh.to_pandas()
            lengths = isinstance(index, pd.TimedeltaIndex)
            steps = pd.Series(0.0, index=index.as_unit("ns").asi8 if lengths else index)
            description, more = to_arrays(steps, "fh")
            state["fh"] = [description, bool(fh.is_relative), lengths]
            arrays |= more
        return state, arrays

    def _import_data(self, state, arrays):
        """Give the data of a file to sktime's ``fit``, which makes its own state; ``_fit`` finds what was learned."""
        y = convert_to(from_arrays(state["y"], arrays, "y"), state["mtype"])
        X = None if state["X"] is None else from_arrays(state["X"], arrays, "X")
        fh = None
        if state["fh"] is not None:
            description, relative, lengths = state["fh"]
            index = from_arrays(description, arrays, "fh").index
            fh = ForecastingHorizon(pd.to_timedelta(index, unit="ns") if lengths else index, is_relative=relative)
        self._restored = state, arrays
        found = [arrays.get(f"calibration.{name}") for name in Calibration._fields]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self.fit(y, X=X, fh=fh)
        self._restored = None
        self.calibration_ = None if found[0] is None else Calibration(*found)
        return self


def extended(old, new):
    """The rows of ``old`` and ``new`` in order of time; where both have a time, those of ``new``."""
    if old is None or new is None:
        return new if old is None else old
    if not isinstance(old.index, pd.MultiIndex) and new.index.is_monotonic_increasing and old.index[-1] < new.index[0]:
        return pd.concat([old, new])
    kept = old.loc[~old.index.isin(new.index)]
    return pd.concat([kept, new]).sort_index(kind="stable")


def covariate_rows(index, *sources):
    """The rows of X at ``index``, from the first source that has each of them.

    Parameters
    ----------
    index : Index
        Times, or (series, time) pairs.
    *sources : DataFrame or None
        Of the same columns.

    Returns
    -------
    DataFrame with len(index) rows

    Raises
    ------
    ValueError
        If no source has a row for one of the times.
    """
    known = [source for source in sources if source is not None]
    for source in known:
        if source.index.equals(index):
            return source
    rows = known[0]
    for source in known[1:]:
        rows = pd.concat([rows, source.loc[~source.index.isin(rows.index)]])
    rows = rows.loc[~rows.index.duplicated()]
    place = rows.index.get_indexer(index)
    if (place < 0).any():
        missing = index[place < 0]
        raise ValueError(
            f"X must have a row for every time that is forecast: it has none for {missing[0]}"
            + (f" and {len(missing) - 1} others." if len(missing) > 1 else ".")
        )
    return rows.iloc[place]
