"""LTIFilter: an analog filter on the times that the samples really have, as a scikit-learn transformer.

Above: the user, and `statespace.transformations` for sktime. Below: ``prototypes`` designs, ``analog`` computes,
``stream`` steps.
"""

import warnings
from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from statespace import persistence
from statespace.lti.analog import causal, from_prototype, from_system, zero_phase
from statespace.lti.forms import in_the_form_of
from statespace.lti.prototypes import check_design, design, evaluated
from statespace.lti.stream import FilterStream
from statespace.lti.systems import LinearSystem
from statespace.times import clock, median_gap
from statespace.validation import check_collection, check_times_as_fitted

_PADDINGS = ("odd", "even", "constant")
_PARTS = ("A", "B", "C", "D")


class LTIFilter(TransformerMixin, BaseEstimator):
    """Filter series with an analog filter, exactly, on any times.

    Between samples the input is held or drawn as a line, and the filter's differential equation

        x'(t) = A x(t) + B u(t),    y(t) = C x(t) + D u(t)

    is solved in closed form over every gap. On a dense grid that is ``scipy.signal.lsim`` of the analog filter; on
    bursts, gaps and jittered clocks it stays the same filter, with no resampling before it.

    Parameters
    ----------
    kind : str or LinearSystem, default="butterworth"
        "butterworth", "chebyshev1", "chebyshev2", "elliptic", "bessel", "notch" or "peak"; or a stable `LinearSystem`
        of one input and one output, which makes the parameters up to ``quality`` unused.
    order : int, default=4
        The order of the lowpass prototype; bands have twice as many poles. Not used by "notch" and "peak", which have
        two poles.
    cutoff : float or pair of float, optional
        In cycles per unit of time; a pair (low, high) for "bandpass" and "bandstop". Where the gain is −3 dB for
        "butterworth" and "bessel", leaves ``ripple`` for "chebyshev1" and "elliptic", reaches ``attenuation`` for
        "chebyshev2"; the centre of "notch" and "peak". None: a tenth of the median sampling rate in `fit`, (0.05, 0.2)
        of it for a band.
    band : {"lowpass", "highpass", "bandpass", "bandstop"}, default="lowpass"
        Not used by "notch" and "peak".
    ripple : float, default=1.0
        In the passband, in decibels, for "chebyshev1" and "elliptic".
    attenuation : float, default=40.0
        In the stopband, in decibels, for "chebyshev2" and "elliptic".
    quality : float, default=30.0
        Centre over width at −3 dB, for "notch" and "peak".
    zero_phase : bool, default=False
        Run forward and backward in time: no delay, and the gain ``|H|²`` (−6 dB at the cutoff of a Butterworth filter).
        Every output then depends on the whole record.
    hold : {"foh", "zoh"}, default="foh"
        A line from sample to sample, or the level of the last one.
    padding : {"odd", "even", "constant"}, default="odd"
        How a record goes on beyond its ends, with ``zero_phase``: turned about the end of a line through the samples
        of the filter's last time constant (a trend goes on, and no single noisy sample is the pivot), mirrored, or at
        its last value.
    time_unit : str or Timedelta, default="D"
        The unit of time for datetimes and timedeltas. Numbers are in their own.

    Attributes
    ----------
    cutoff_ : float or tuple of float, or None
        The cutoff that is used; None for a LinearSystem.
    system_ : LinearSystem
        The analog filter.
    time_scale_ : float
        The median gap of the series in `fit`; 1 without times.
    clock_ : {"numbers", "datetimes", "timedeltas"} or None
        The kind of times; None if there were none.
    n_channels_ : int
    channel_names_ : list of str or None
    n_features_in_ : int
        Columns of X, if X was a table of shape (n_series, n_times).

    Notes
    -----
    A causal filter starts in the equilibrium of the first sample, so that a constant passes without a transient. NaN is
    a missing sample: the hold bridges it, as if its row were not there. The output at its time is what the filter gives
    if the last value goes on, with ``zero_phase`` if the hold goes on to the next one; it is NaN before the first
    value, and with ``zero_phase`` after the last.

    Each filter is run as a sum of modes of one or two real states (its partial fractions), never as a companion matrix;
    one whose poles nearly coincide as a cascade of small sections. Zero phase is exact too: H(s) H(−s) is split into a
    filter that runs forward and the same one backward, so that no intermediate signal is sampled.

    Samples that are denser than the input's detail are assumed, as for every hold: a line attenuates a sinusoid of
    frequency f on gaps Δ by about 1 − (π f Δ)²/3.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti import LTIFilter
    >>> times = np.cumsum(np.random.default_rng(0).exponential(0.005, size=8000))
    >>> slow, fast = np.sin(2 * np.pi * 0.2 * times), np.sin(2 * np.pi * 5.0 * times)
    >>> low_pass = LTIFilter("butterworth", cutoff=1.0, zero_phase=True)
    >>> smooth = low_pass.fit_transform([slow + fast], times=[times])[0]
    >>> bool(np.sqrt(np.mean((smooth - slow) ** 2)) < 0.02)
    True
    >>> low_pass.frequency_response([0.2, 1.0, 5.0]).round(4)
    array([1.  , 0.5, 0.  ])
    """

    # Times are no option that a meta-estimator must be told of: they are routed whenever they are given.
    __metadata_request__fit: ClassVar = {"times": True}
    __metadata_request__transform: ClassVar = {"times": True}

    def __init__(
        self,
        kind="butterworth",
        order=4,
        cutoff=None,
        band="lowpass",
        *,
        ripple=1.0,
        attenuation=40.0,
        quality=30.0,
        zero_phase=False,
        hold="foh",
        padding="odd",
        time_unit="D",
    ):
        self.kind = kind
        self.order = order
        self.cutoff = cutoff
        self.band = band
        self.ripple = ripple
        self.attenuation = attenuation
        self.quality = quality
        self.zero_phase = zero_phase
        self.hold = hold
        self.padding = padding
        self.time_unit = time_unit

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X, y=None, times=None):
        """Design the filter; of X only the kind of times, their median gap and the names are learned.

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

        Warns
        -----
        UserWarning
            A cutoff lies above half the median sampling rate, where the samples do not show what to filter.
        """
        self._check_parameters()
        collection = check_collection(X, times, estimator=self, reset=True)
        self.n_channels_ = collection.n_channels
        self.channel_names_ = _names(collection)
        self.clock_ = None if collection.times is None else clock(collection.times[0])
        self.time_scale_ = 1.0 if collection.times is None else median_gap(collection.times, unit=self.time_unit)
        self._set_filter()
        self._warn_of_aliasing()
        return self

    def _check_parameters(self):
        if isinstance(self.kind, LinearSystem):
            system = self.kind
            if system.D.shape != (1, 1) or system.dt is not None or not system.is_stable:
                raise ValueError(
                    f"kind must be a stable LinearSystem in continuous time with one input and one output. "
                    f"Got {system} with poles {system.poles}."
                )
        else:
            check_design(self.kind, self.order, self.cutoff, self.band, self.ripple, self.attenuation, self.quality)
        if self.hold not in ("foh", "zoh"):
            raise ValueError(f"hold must be 'foh' or 'zoh'. Got {self.hold!r} instead.")
        if self.padding not in _PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(map(repr, _PADDINGS))}. Got {self.padding!r} instead.")

    def _set_filter(self):
        """The filter of the parameters and of ``time_scale_``."""
        if isinstance(self.kind, LinearSystem):
            self.cutoff_, self.system_ = None, self.kind
            self._prototype, self._filter = None, from_system(self.kind)
            return
        self.cutoff_ = self._chosen_cutoff()
        self._prototype = design(
            self.kind, self.order, self.cutoff_, self.band, self.ripple, self.attenuation, self.quality
        )
        *factors, omega = self._prototype
        system = LinearSystem.from_zpk(*factors)
        self.system_ = LinearSystem(omega * system.A, omega * system.B, system.C, system.D)
        self._filter = from_prototype(*self._prototype)

    def _chosen_cutoff(self):
        pair = self.kind not in ("notch", "peak") and self.band in ("bandpass", "bandstop")
        if self.cutoff is None:
            return (0.05 / self.time_scale_, 0.2 / self.time_scale_) if pair else 0.1 / self.time_scale_
        return tuple(float(f) for f in self.cutoff) if pair else float(self.cutoff)

    def _warn_of_aliasing(self):
        highest = 0.0 if self.cutoff_ is None else float(np.max(self.cutoff_))
        if highest > 0.5 / self.time_scale_:
            warnings.warn(
                f"the cutoff {highest:g} lies above half the median sampling rate, {0.5 / self.time_scale_:g} cycles "
                "per unit of time: the samples cannot tell such frequencies apart. Lower it, or check time_unit.",
                UserWarning,
                stacklevel=3,
            )

    def transform(self, X, times=None):
        """Filter every channel of every series.

        Parameters
        ----------
        X, times
            As in `fit`. A filter that was fitted with times asks for times.

        Returns
        -------
        array-like
            In the form of X: an array of the same shape, a list of arrays, a frame or a list of frames with the same
            index and columns, or a SeriesCollection.

        Raises
        ------
        ValueError
            For bad X or times, or another number of channels than in `fit`.
        """
        check_is_fitted(self)
        collection = check_collection(X, times, estimator=self, n_channels=self.n_channels_)
        check_times_as_fitted(collection, self.clock_)
        names = _names(collection)
        if None not in (names, self.channel_names_) and names != self.channel_names_:
            raise ValueError(
                f"X has the columns {names}, but {type(self).__name__} was fitted with {self.channel_names_}. "
                "Give the same columns in the same order."
            )
        steps = collection.gaps(unit=self.time_unit)
        if steps is None:
            steps = [np.ones(n) for n in collection.lengths]
        filtered = (self._both_ways if self.zero_phase else self._forward)(collection.values, steps)
        return in_the_form_of(X, collection, filtered)

    def _forward(self, values, steps):
        """All channels of all series as records one after the other, in one pass."""
        n = self.n_channels_
        v = np.concatenate([rows.T.ravel() for rows in values])
        gaps = np.concatenate([np.tile(own, n) for own in steps])
        lengths = np.repeat([len(rows) for rows in values], n)
        starts = np.cumsum(lengths) - lengths
        y = causal(self._filter, v, gaps, starts, self.hold)
        return [part.reshape(n, -1).T for part in np.split(y, starts[n::n])]

    def _both_ways(self, values, steps):
        filter, mirrored = self._filter, self._filter.mirrored()
        return [
            np.stack([zero_phase(filter, mirrored, v, own, self.hold, self.padding) for v in rows.T], axis=1)
            for rows, own in zip(values, steps, strict=True)
        ]

    def fit_transform(self, X, y=None, times=None):
        """`fit`, then `transform` of the same series.

        Parameters
        ----------
        X, y, times
            As in `fit`.

        Returns
        -------
        array-like
            As `transform` gives it.
        """
        return self.fit(X, times=times).transform(X, times=times)

    def frequency_response(self, frequency):
        """The gain, and the phase, that a sinusoid gets.

        Parameters
        ----------
        frequency : float or array-like of shape (n_frequencies,)
            Cycles per unit of time.

        Returns
        -------
        ndarray of shape (n_frequencies,)
            ``H(2πi f)``, complex; ``|H|²``, real, with ``zero_phase``.
        """
        check_is_fitted(self)
        if self._prototype is None:
            H = self.system_.frequency_response(frequency)
        else:
            *factors, omega = self._prototype
            H = evaluated(*factors, 2j * np.pi * np.asarray(frequency, dtype=np.float64) / omega)
        return np.abs(H) ** 2 if self.zero_phase else H

    def stream(self):
        """The filter one sample at a time, in constant time and memory.

        Returns
        -------
        FilterStream
            ``stream.step(x_t, dt)`` equals `transform` of the record so far. It starts a new series.

        Raises
        ------
        ValueError
            With ``zero_phase``, which has to see the whole record.
        """
        check_is_fitted(self)
        if self.zero_phase:
            raise ValueError("zero_phase=True reads the whole record: fit with zero_phase=False to stream.")
        return FilterStream(self._filter, self.hold, self.n_channels_, self.clock_, self.time_unit, self.time_scale_)

    def get_feature_names_out(self, input_features=None):
        """The names of the columns that `transform` gives: those that came in.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names to use for columns that have none.

        Returns
        -------
        ndarray of str
            The columns of a table (n_series, n_times), otherwise the channels.
        """
        check_is_fitted(self)
        if hasattr(self, "n_features_in_"):
            from sklearn.utils.validation import _check_feature_names_in

            return _check_feature_names_in(self, input_features)
        names = self.channel_names_ or [f"x{j}" for j in range(self.n_channels_)]
        return np.array(names if input_features is None else list(input_features), dtype=object)

    def _export(self):
        """What `statespace.persistence.save` writes: a dict that JSON can hold, and arrays."""
        check_is_fitted(self)
        params, arrays = self.get_params(deep=False), {}
        if isinstance(self.kind, LinearSystem):
            params["kind"] = None
            arrays = {name: getattr(self.kind, name) for name in _PARTS}
        if self.cutoff is not None:
            params["cutoff"] = np.asarray(self.cutoff, dtype=np.float64).tolist()
        params["time_unit"] = self.time_unit if isinstance(self.time_unit, str) else str(pd.Timedelta(self.time_unit))
        learned = ("n_channels_", "channel_names_", "clock_", "time_scale_", "n_features_in_")
        state = {name: getattr(self, name) for name in learned if hasattr(self, name)}
        if hasattr(self, "feature_names_in_"):
            state["feature_names_in_"] = self.feature_names_in_.tolist()
        return {"params": params, "learned": state}, arrays

    @classmethod
    def _import(cls, state, arrays):
        """The fitted estimator that `_export` described."""
        params = state["params"]
        if arrays:
            params["kind"] = LinearSystem(*(arrays[name] for name in _PARTS))
        if isinstance(params["cutoff"], list):
            params["cutoff"] = tuple(params["cutoff"])
        self = cls(**params)
        for name, value in state["learned"].items():
            setattr(self, name, value)
        if "feature_names_in_" in state["learned"]:
            self.feature_names_in_ = np.array(self.feature_names_in_, dtype=object)
        self._check_parameters()
        self._set_filter()
        return self

    def save(self, path):
        """Write the fitted filter to one safetensors file; ``statespace.load(path)`` reads it.

        Parameters
        ----------
        path : str or os.PathLike
            The file, replaced as a whole if it exists.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            The filter is not fitted.
        """
        persistence.save(self, path)


def _names(collection):
    """The names of the channels as text; None if they have none."""
    if collection.columns is None or all(name is None for name in collection.columns):
        return None
    return [str(name) for name in collection.columns]
