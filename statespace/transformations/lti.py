"""LTIFilter with sktime's interface: analog filters in its pipelines, on regular and irregular indexes and panels.

Above: sktime. Below: `statespace.lti.LTIFilter`, which does the work.
"""

from typing import ClassVar

import pandas as pd
from sktime.transformations.base import BaseTransformer

from statespace.lti.filters import LTIFilter as SeriesFilter


class LTIFilter(BaseTransformer):
    """Filter series with an analog filter, exactly, on any index.

    The filter's differential equation x' = A x + B u, y = C x + D u is solved over the time that really passes between
    two rows: on a DatetimeIndex with gaps and bursts, on integers, on periods (at their start times, so that months
    differ in length).

    Parameters
    ----------
    kind : str or LinearSystem, default="butterworth"
        "butterworth", "chebyshev1", "chebyshev2", "elliptic", "bessel", "notch" or "peak"; or a stable `LinearSystem`
        of one input and one output, which makes the parameters up to ``quality`` unused.
    order : int, default=4
        The order of the lowpass prototype; bands have twice as many poles.
    cutoff : float or pair of float, optional
        In cycles per unit of time; a pair (low, high) for "bandpass" and "bandstop". None: a tenth of the median
        sampling rate in `fit`, (0.05, 0.2) of it for a band.
    band : {"lowpass", "highpass", "bandpass", "bandstop"}, default="lowpass"
        Not used by "notch" and "peak".
    ripple : float, default=1.0
        In the passband, in decibels, for "chebyshev1" and "elliptic".
    attenuation : float, default=40.0
        In the stopband, in decibels, for "chebyshev2" and "elliptic".
    quality : float, default=30.0
        Centre over width at −3 dB, for "notch" and "peak".
    zero_phase : bool, default=False
        Run forward and backward in time: no delay, the gain squared. Every output then depends on later rows too, so
        that it must not be used on the past of a forecast that is to be scored.
    hold : {"foh", "zoh"}, default="foh"
        What the input does between rows: a line, or the level of the last one.
    padding : {"odd", "even", "constant"}, default="odd"
        How a series goes on beyond its ends, with ``zero_phase``.
    time_unit : str or Timedelta, default="D"
        The unit of time for datetimes and periods. Integers are in their own.

    Attributes
    ----------
    filter_ : statespace.lti.LTIFilter
        The fitted filter: its ``cutoff_``, ``frequency_response``, ``stream``.

    See Also
    --------
    statespace.lti.LTIFilter : The same filter with scikit-learn's interface; the parameters in full.

    Notes
    -----
    Missing values are as if their rows were not there: the hold bridges them. The output in such a row is what the
    filter gives if the last value goes on; it is missing before the first value, and with ``zero_phase`` after the
    last. Every series begins anew, in the equilibrium of its first row.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.transformations import LTIFilter
    >>> hours = np.cumsum(np.random.default_rng(0).exponential(size=100))
    >>> y = pd.Series(np.sin(hours / 20), index=pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, unit="h"))
    >>> smooth = LTIFilter(order=2, cutoff=2.0).fit_transform(y)  # two cycles a day
    >>> smooth.index.equals(y.index)
    True
    """

    _tags: ClassVar = {
        "authors": "the statespace developers",
        "maintainers": "the statespace developers",
        "scitype:transform-input": "Series",
        "scitype:transform-output": "Series",
        "scitype:instancewise": True,
        "X_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "y_inner_mtype": "None",
        "fit_is_empty": False,
        "transform-returns-same-time-index": True,
        "skip-inverse-transform": True,
        "capability:inverse_transform": False,
        "capability:multivariate": True,
        "capability:unequal_length": True,
        "capability:missing_values": True,
        "capability:categorical_in_X": False,
    }

    def __init__(
        self,
        kind="butterworth",
        order=4,
        cutoff=None,
        band="lowpass",
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
        super().__init__()

    def _fit(self, X, y=None):
        self.filter_ = SeriesFilter(**self.get_params(deep=False)).fit(_series(X))
        return self

    def _transform(self, X, y=None):
        filtered = self.filter_.transform(_series(X))
        return filtered if isinstance(X.index, pd.MultiIndex) else filtered[0]

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Parameters for sktime's checks.

        Parameters
        ----------
        parameter_set : str, default="default"

        Returns
        -------
        list of dict
        """
        return [{}, {"kind": "elliptic", "order": 3, "cutoff": (0.05, 0.2), "band": "bandpass", "zero_phase": True}]


def _series(X):
    """What the filter takes: a frame with a (series, time) MultiIndex, or a list of one frame."""
    return X if isinstance(X.index, pd.MultiIndex) else [X]
