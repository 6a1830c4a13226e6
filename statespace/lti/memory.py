"""HiPPOMemory: the past of a signal in a few coefficients, online or for whole records.

Above: the user. Below: ``recorder`` has the online half, ``history`` keeps a record, ``projections`` computes,
``hippo`` has the mathematics.
"""

from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from statespace import persistence
from statespace.lti import hippo
from statespace.lti.history import History
from statespace.lti.projections import Scaled, Windowed
from statespace.lti.recorder import Recorder
from statespace.times import clock, median_gap
from statespace.validation import check_collection, check_times_as_fitted

_MEASURES = ("legs", "legt", "lagt", "fourier")


class HiPPOMemory(Recorder, TransformerMixin, BaseEstimator):
    """Compress the whole past of a signal into coefficients that rebuild it.

    For each channel the state of a linear system holds the coefficients of the past in an orthonormal basis,

        x(t) ≈ argmin Σ_n ‖u − Σ_n x_n g_n‖² under the measure,    u(t − s) ≈ Σ_n x_n(t) g_n(s),

    over samples that may come at any time: between them the signal is held or drawn as a line, and projected exactly.
    Online, `update` takes a sample in time and memory that do not depend on how many came before, and `reconstruct`
    gives the past back. For whole records, `transform` gives one row of features a series, the coefficients at its end.

    Parameters
    ----------
    measure : {"legs", "legt", "lagt", "fourier"}, default="legs"
        What is remembered, and how (`statespace.lti.hippo`). "legs": everything since the first sample, in equal
        weight, as a polynomial. "legt": the last ``window``, as a polynomial. "fourier": the last ``window``, as a
        Fourier series. "lagt": the past in weights that decay exponentially with the time constant ``window``.
    n_coefficients : int, default=64
        Coefficients for each channel.
    window : float, optional
        For all measures but "legs": in the unit of the times (of ``time_unit`` for datetimes). None: the duration of
        the longest series in `fit`.
    hold : {"zoh", "foh"}, default="zoh"
        A sample's value over the gap that leads to it, as the layers of this package read their inputs; or a line from
        the sample before to it, the first gap of a record being constant.
    time_unit : str or Timedelta, default="D"
        The unit of time for datetimes and timedeltas. Numbers are in their own.

    Attributes
    ----------
    window_ : float or None
        The window in use; None for "legs".
    time_scale_ : float
        The median gap in `fit`, which is taken as the gap before the first sample of a series; 1 without times.
    clock_ : {"numbers", "datetimes", "timedeltas"} or None
        The kind of times in `fit`; None if there were none.
    n_channels_ : int
    channel_names_ : list of str or None
    n_features_in_ : int
        Columns of X, if X was a table of shape (n_series, n_times).

    Notes
    -----
    "legs" and "lagt" are exact projections of the past. "legt" and "fourier" have to know the value that leaves the
    window, and read it from the approximation itself, as in the papers: the state solves HiPPO's equation exactly, and
    differs from the projection of the window by what the basis did not resolve. Their record is 0 before its first
    sample. An even "fourier" basis has a last coefficient that is always 0.

    NaN is a missing sample, bridged as if its row were not there; after the last value it goes on as it is. A channel
    without any value has NaN as its coefficients.

    LegS is not stepped by a bilinear rule in 1/t, as in HiPPO's code, but exactly in ln t; the coefficients of a held
    signal are those of the optimal polynomial to rounding, after any number of samples.

    References
    ----------
    A. Gu, T. Dao, S. Ermon, A. Rudra, C. Ré (2020). HiPPO: Recurrent Memory with Optimal Polynomial Projections.
    A. Voelker, I. Kajić, C. Eliasmith (2019). Legendre Memory Units ("legt").
    A. Gu, I. Johnson, A. Timalsina, A. Rudra, C. Ré (2022). How to Train Your HiPPO ("fourier").

    Examples
    --------
    Online, on irregular times:

    >>> import numpy as np
    >>> from statespace.lti import HiPPOMemory
    >>> gaps = np.random.default_rng(0).exponential(0.01, size=2000)
    >>> times = np.cumsum(gaps)
    >>> memory = HiPPOMemory(n_coefficients=64)
    >>> for gap, value in zip(gaps, np.sin(times)):
    ...     memory = memory.update(value, gap)
    >>> past = np.linspace(1.0, 19.0, 5)
    >>> bool(np.abs(memory.reconstruct(past) - np.sin(past)).max() < 0.05)
    True

    As features of whole records:

    >>> X = [np.sin(times), np.cos(times)]
    >>> features = HiPPOMemory("legs", 8, hold="foh").fit_transform(X, times=[times, times])
    >>> features.shape
    (2, 8)
    """

    # Times are no option that a meta-estimator must be told of: they are routed whenever they are given.
    __metadata_request__fit: ClassVar = {"times": True}
    __metadata_request__transform: ClassVar = {"times": True}

    def __init__(self, measure="legs", n_coefficients=64, *, window=None, hold="zoh", time_unit="D"):
        self.measure = measure
        self.n_coefficients = n_coefficients
        self.window = window
        self.hold = hold
        self.time_unit = time_unit

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X, y=None, times=None):
        """Learn the channels, the median gap and, where it is not given, the window; forgets what `update` was told.

        Parameters
        ----------
        X : array-like
            Series: an ndarray of shape (n_series, n_times, n_channels), or (n_series, n_times) for one channel; a list
            of (n_times_i, n_channels) arrays; a DataFrame with a (series, time) MultiIndex; a list of DataFrames
            indexed by time; or a SeriesCollection.
        y : None
            Not used.
        times : array-like, optional
            Times of the samples, if X does not bring them: one vector of shape (n_times,) for all series, (n_series,
            n_times), or a list. Without times a series lies on a grid of step 1.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad X, times or parameters; the message says what to change.
        """
        self._check_parameters()
        collection = check_collection(X, times, estimator=self, reset=True)
        self.n_channels_ = collection.n_channels
        self.channel_names_ = _names(collection)
        self.clock_ = None if collection.times is None else clock(collection.times[0])
        self.time_scale_ = 1.0 if collection.times is None else median_gap(collection.times, unit=self.time_unit)
        self.window_ = self._chosen_window(lambda: max(gaps.sum() for gaps in self._gaps(collection)))
        return self.reset()

    def _check_parameters(self):
        if self.measure not in _MEASURES:
            raise ValueError(f"measure must be one of {', '.join(map(repr, _MEASURES))}. Got {self.measure!r} instead.")
        n = self.n_coefficients
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
            raise ValueError(f"n_coefficients must be a positive integer. Got {n!r} instead.")
        if self.hold not in ("zoh", "foh"):
            raise ValueError(f"hold must be 'zoh' or 'foh'. Got {self.hold!r} instead.")
        if self.window is None:
            return
        if self.measure == "legs":
            raise ValueError(
                f"measure='legs' remembers everything: it takes no window. Got {self.window!r}; use 'legt'."
            )
        if not 0.0 < self.window < np.inf:
            raise ValueError(f"window must be positive and finite. Got {self.window!r} instead.")

    def _chosen_window(self, longest):
        if self.measure == "legs":
            return None
        return float(longest() if self.window is None else self.window)

    def _gaps(self, collection):
        steps = collection.gaps(first=self.time_scale_, unit=self.time_unit)
        return [np.ones(n) for n in collection.lengths] if steps is None else steps

    def _projection(self, window):
        line = self.hold == "foh"
        if self.measure == "legs":
            return Scaled(int(self.n_coefficients), line)
        return Windowed(self.measure, int(self.n_coefficients), window, line)

    def transform(self, X, times=None):
        """The coefficients at the end of every series.

        Parameters
        ----------
        X, times
            As in `fit`. A memory that was fitted with times asks for times.

        Returns
        -------
        ndarray of shape (n_series, n_channels * n_coefficients)
            The channels one after the other, as `get_feature_names_out` names them.

        Raises
        ------
        ValueError
            For bad X or times, or another number of channels than in `fit`.
        """
        check_is_fitted(self)
        self._check_parameters()
        collection = check_collection(X, times, estimator=self, n_channels=self.n_channels_)
        check_times_as_fitted(collection, self.clock_)
        projection = self._projection(self.window_)
        rows = []
        for values, gaps in zip(collection.values, self._gaps(collection), strict=True):
            history = History(projection, self.measure, self.window_, self.n_channels_)
            history.extend(values, gaps)
            rows.append(history.coefficients().ravel())
        return np.stack(rows)

    def fit_transform(self, X, y=None, times=None):
        """`fit`, then `transform` of the same series.

        Parameters
        ----------
        X, y, times
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_series, n_channels * n_coefficients)
        """
        return self.fit(X, times=times).transform(X, times=times)

    def inverse_transform(self, X, ages=None):
        """The signals that features stand for, at ages before the end of each series.

        Parameters
        ----------
        X : array-like of shape (n_series, n_channels * n_coefficients)
            From `transform`.
        ages : array-like of shape (n_ages,), optional
            The time before the end: in units of the whole record for "legs" (1 is its beginning), of ``window_`` for
            the others. None: 101 ages from 1 to 0.

        Returns
        -------
        ndarray of shape (n_series, n_ages, n_channels)

        Raises
        ------
        ValueError
            Another number of features, or ages outside of what is remembered.
        """
        check_is_fitted(self)
        features = np.asarray(X, dtype=np.float64)
        expected = self.n_channels_ * self.n_coefficients
        if features.ndim != 2 or features.shape[1] != expected:
            raise ValueError(f"X must have shape (n_series, {expected}), as transform gives it. Got {features.shape}.")
        ages = np.linspace(1.0, 0.0, 101) if ages is None else np.asarray(ages, dtype=np.float64)
        if self.measure == "legs":
            if not ((ages >= 0.0) & (ages <= 1.0)).all():
                raise ValueError(f"ages must lie in [0, 1] for measure 'legs'. Got {ages.min():g} to {ages.max():g}.")
            functions = hippo.legendre(self.n_coefficients, 1.0 - 2.0 * ages)
        else:
            functions = hippo.basis(self.measure, self.n_coefficients, ages)
        return np.einsum("ak,sck->sac", functions, features.reshape(len(features), self.n_channels_, -1))

    def get_feature_names_out(self, input_features=None):
        """The names of the columns that `transform` gives, such as ``"flow_legs3"``.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names to use for channels that have none; for a table (n_series, n_times), those of its columns, which must
            agree.

        Returns
        -------
        ndarray of str
        """
        check_is_fitted(self)
        names = self.channel_names_ or [f"x{c}" for c in range(self.n_channels_)]
        if hasattr(self, "n_features_in_"):
            from sklearn.utils.validation import _check_feature_names_in

            _check_feature_names_in(self, input_features)
        elif input_features is not None:
            names = list(input_features)
            if len(names) != self.n_channels_:
                raise ValueError(f"input_features must name the {self.n_channels_} channel(s). Got {len(names)} names.")
        return np.array(
            [f"{name}_{self.measure}{k}" for name in names for k in range(self.n_coefficients)], dtype=object
        )

    def _export(self):
        """What `statespace.persistence.save` writes: a dict that JSON can hold, and arrays."""
        check_is_fitted(self)
        params = self.get_params(deep=False)
        params["time_unit"] = self.time_unit if isinstance(self.time_unit, str) else str(pd.Timedelta(self.time_unit))
        learned = ("n_channels_", "channel_names_", "clock_", "time_scale_", "window_", "n_features_in_")
        state = {name: getattr(self, name) for name in learned if hasattr(self, name)}
        if hasattr(self, "feature_names_in_"):
            state["feature_names_in_"] = self.feature_names_in_.tolist()
        if self._history is None:
            return {"params": params, "learned": state}, {}
        return {"params": params, "learned": state, "single": self._single}, self._history.export()

    @classmethod
    def _import(cls, state, arrays):
        """The fitted estimator that `_export` described."""
        self = cls(**state["params"])
        for name, value in state["learned"].items():
            setattr(self, name, value)
        if "feature_names_in_" in state["learned"]:
            self.feature_names_in_ = np.array(self.feature_names_in_, dtype=object)
        self._check_parameters()
        self.reset()
        if arrays:
            self._started(len(arrays["starts"]), state["single"]).restore(arrays)
        return self

    def save(self, path):
        """Write the fitted memory, with the record that it has read, to one safetensors file.

        Parameters
        ----------
        path : str or os.PathLike
            The file, replaced as a whole if it exists; ``statespace.load(path)`` reads it.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            The memory is not fitted.
        """
        persistence.save(self, path)


def _names(collection):
    """The names of the channels as text; None if they have none."""
    if collection.columns is None or all(name is None for name in collection.columns):
        return None
    return [str(name) for name in collection.columns]
