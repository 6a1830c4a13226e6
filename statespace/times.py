"""Times as they are given -> checked times, and the gaps between them.

Above: ``validation``, which hands these functions on. Below: NumPy and pandas.

Times are floats, datetimes or timedeltas. They keep their full precision, datetimes as whole nanoseconds, until a
difference is taken; the difference is taken in float64 (or in whole nanoseconds) before anything is scaled or cast.
"""

import numpy as np
import pandas as pd

_DAY = 86_400_000_000_000  # nanoseconds; times any day count of a datetime64[ns] it is exact in float64
# A scaled gap this near to 1 is a rounded 1 (0.3 - 0.2 in floats is not 0.1), and a regular grid can be convolved.
_ROUNDED = 1e-6
_NUMBERS = ("floating", "integer", "mixed-integer-float", "decimal", "empty")
_DATETIMES = ("datetime", "datetime64", "date")
_TIMEDELTAS = ("timedelta", "timedelta64")


def check_times(times, *, series=None, allow_equal=True, start=0):
    """Times as an array whose entries are finite and do not decrease.

    Parameters
    ----------
    times : array-like of shape (n,)
        Numbers, datetimes (``datetime64``, ``DatetimeIndex``, ``PeriodIndex``, objects; with or without a time zone) or
        timedeltas.
    series : int or str, optional
        The name of the series, for the error message.
    allow_equal : bool, default=True
        Whether two successive times may be equal.
    start : int, default=0
        The place in its series of the first of these times, for the error message.

    Returns
    -------
    ndarray of shape (n,)
        float64; datetime64[ns] for datetimes, in UTC if they came with a time zone; or timedelta64[ns].

    Raises
    ------
    ValueError
        If times are not finite, decrease, or (with ``allow_equal=False``) repeat; the message names the series, the
        index and both values.

    Examples
    --------
    >>> from statespace.times import check_times
    >>> check_times([0, 0.5, 2])
    array([0. , 0.5, 2. ])
    >>> check_times([0, 4, 2.5], series=3)
    Traceback (most recent call last):
        ...
    ValueError: `times` of series 3 must not decrease: times[2] = 2.5 follows 4.0. Sort the rows by time first.
    """
    times = as_times(times, series=series, start=start)
    later, earlier = times[1:], times[:-1]
    wrong = later < earlier if allow_equal else later <= earlier
    if not wrong.any():
        return times
    k = int(np.argmax(wrong)) + 1
    if times[k] < times[k - 1]:
        raise ValueError(
            f"{_times_of(series)} must not decrease: times[{start + k}] = {_show(times[k])} follows "
            f"{_show(times[k - 1])}. Sort the rows by time first."
        )
    raise ValueError(
        f"{_times_of(series)} must increase: times[{start + k}] = {_show(times[k])} follows {_show(times[k - 1])}. "
        "Merge rows of equal time into one, for example by their mean."
    )


def as_times(times, *, series=None, start=0):
    """Times as a finite array, in any order: `check_times` without the check of the order.

    Parameters
    ----------
    times : array-like of shape (n,)
        As in `check_times`.
    series : int or str, optional
        The name of the series, for the error message.
    start : int, default=0
        As in `check_times`.

    Returns
    -------
    ndarray of shape (n,)
        float64, datetime64[ns] (UTC) or timedelta64[ns].

    Raises
    ------
    ValueError
        If the times are not one-dimensional, are of another kind, or are not finite.

    Examples
    --------
    >>> import pandas as pd
    >>> from statespace.times import as_times
    >>> as_times(pd.DatetimeIndex(["2024-03-31 03:00", "2024-03-31 01:00"], tz="Europe/Berlin"))
    array(['2024-03-31T01:00:00.000000000', '2024-03-31T00:00:00.000000000'],
          dtype='datetime64[ns]')
    """
    array = _to_array(times, series)
    missing = np.isnat(array) if array.dtype.kind in "mM" else ~np.isfinite(array)
    if missing.any():
        k = int(np.argmax(missing))
        after = f" after {_show(array[k - 1])}" if k else ""
        raise ValueError(
            f"{_times_of(series)} must be finite: times[{start + k}] = {_show(array[k])}{after}. "
            "Drop the row or give it its time."
        )
    return array


def _to_array(times, series):
    """float64, datetime64[ns] or timedelta64[ns], whatever the container."""
    if isinstance(times, pd.MultiIndex):
        raise ValueError(f"{_times_of(series)} must have one level, got a MultiIndex with levels {list(times.names)}.")
    if isinstance(times, pd.Series | pd.api.extensions.ExtensionArray):
        times = pd.Index(times)
    if not isinstance(times, pd.Index):
        if np.ma.is_masked(times):
            k = int(np.argmax(np.ma.getmaskarray(times)))
            raise ValueError(
                f"{_times_of(series)} must be finite: times[{k}] is masked. Drop the row or give it its time."
            )
        try:
            times = np.asarray(times)
        except ValueError as error:
            raise ValueError(f"{_times_of(series)} must be one-dimensional: {error}") from None
        if times.ndim != 1:
            raise ValueError(f"{_times_of(series)} must be one-dimensional, got an array of shape {times.shape}.")
    dtype = times.dtype
    found = pd.api.types.infer_dtype(times, skipna=True) if dtype == np.dtype(object) else ""
    try:
        if isinstance(dtype, pd.PeriodDtype) or found == "period":
            return pd.PeriodIndex(times).to_timestamp().as_unit("ns").to_numpy()
        if pd.api.types.is_datetime64_any_dtype(dtype) or found in _DATETIMES:
            return _datetimes(times, found, series)
        if pd.api.types.is_timedelta64_dtype(dtype) or found in _TIMEDELTAS:
            return pd.TimedeltaIndex(times).as_unit("ns").to_numpy()
    except (pd.errors.OutOfBoundsDatetime, pd.errors.OutOfBoundsTimedelta):
        raise ValueError(
            f"{_times_of(series)} must lie between {pd.Timestamp.min:%Y-%m-%d} and {pd.Timestamp.max:%Y-%m-%d} "
            "as datetimes. Give older or later ones as floats, for example in years."
        ) from None
    if found in _NUMBERS or (pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)):
        return _numbers(times, series)
    example = repr(times[0]) if len(times) else "nothing"
    raise ValueError(
        f"{_times_of(series)} must be numbers, datetimes or timedeltas, got {found or dtype} such as {example}. "
        "Convert text with pd.to_datetime(times)."
    )


def _datetimes(times, found, series):
    if found == "datetime":
        aware = [t.tzinfo is not None for t in times if not pd.isna(t)]
        if any(aware) and not all(aware):
            raise ValueError(
                f"{_times_of(series)} mix datetimes with and without a time zone. "
                "Give all of them one, for example with pd.to_datetime(times, utc=True)."
            )
        index = pd.DatetimeIndex(pd.to_datetime(times, utc=any(aware)))
    else:
        index = pd.DatetimeIndex(times)
    if index.tz is not None:  # a step over a clock change is as long as it was
        index = index.tz_convert("UTC").tz_localize(None)
    return index.as_unit("ns").to_numpy()


def _numbers(times, series):
    if np.iscomplexobj(times):
        raise ValueError(f"{_times_of(series)} must be real numbers, got complex ones.")
    index = isinstance(times, pd.Index)
    array = times.to_numpy(dtype=np.float64, na_value=np.nan) if index else times.astype(np.float64)
    if getattr(times.dtype, "kind", "") in "iu" and len(array) and np.abs(array).max() > 2**53:
        lost = array.astype(object) != np.asarray(times).astype(object)
        if lost.any():
            k = int(np.argmax(lost))
            raise ValueError(
                f"{_times_of(series)} cannot be kept exactly in float64: times[{k}] = {times[k]}. "
                "Subtract the first time, or give nanoseconds as datetimes with pd.to_datetime(times)."
            )
    return array


def _times_of(series):
    series = series.item() if isinstance(series, np.generic) else series
    return "`times`" if series is None else f"`times` of series {series!r}"


def _show(time):
    return str(pd.Timestamp(time) if time.dtype.kind == "M" else pd.Timedelta(time)) if _is_clock(time) else f"{time}"


def _is_clock(times):
    return np.asarray(times).dtype.kind in "mM"


def _nanoseconds(unit):
    try:
        length = f"1 {unit}" if isinstance(unit, str) and not unit[:1].isdigit() else unit
        return pd.Timedelta(length) / pd.Timedelta(1, unit="ns")
    except ValueError:
        raise ValueError(
            f"`unit` must be a pandas unit of time such as 'D', 'h' or 's', or a length: '365.25D'. Got {unit!r}."
        ) from None


def _difference(later, earlier):
    """later − earlier: of floats in float64; of clocks in nanoseconds, as the float64 nearest to the whole number."""
    if not _is_clock(later):
        return later - earlier
    later, earlier = np.asarray(later).astype(np.int64), np.asarray(earlier).astype(np.int64)
    if later.size == 0:
        return np.zeros(later.shape)
    span = max(int(later.max()), int(earlier.max())) - min(int(later.min()), int(earlier.min()))
    if span < 2**63:
        return (later - earlier).astype(np.float64)
    # Whole nanoseconds overflow after 292 years: days and the rest, each exact.
    return (later // _DAY - earlier // _DAY).astype(np.float64) * _DAY + (later % _DAY - earlier % _DAY)


def elapsed(times, origin=None, unit="D"):
    """The time since ``origin``, as float64.

    Parameters
    ----------
    times : array-like of shape (n,)
        As in `check_times`, in any order.
    origin : scalar of the same kind, optional
        By default the first of ``times``.
    unit : str or Timedelta, default="D"
        The unit of the answer for datetimes and timedeltas: a pandas unit, or a length such as ``"365.25D"``. Numbers
        stay in their own.

    Returns
    -------
    ndarray of shape (n,), float64
        t_k − origin, the difference taken in whole nanoseconds for datetimes.

    Raises
    ------
    ValueError
        If the times are not finite, or if one of times and origin is a number and the other a datetime.

    Examples
    --------
    >>> import pandas as pd
    >>> from statespace.times import elapsed
    >>> elapsed(pd.to_datetime(["2024-01-01 00:00", "2024-01-01 12:00", "2024-01-03 00:00"]))
    array([0. , 0.5, 2. ])
    >>> elapsed([1e9 + 1, 1e9 + 2.5], origin=1e9)
    array([1. , 2.5])
    """
    times = as_times(times)
    if origin is None:
        if len(times) == 0:
            return np.zeros(0)
        origin = times[0]
    else:
        origin = as_times([origin])[0]
    check_same_clock(times, clock(origin))
    difference = _difference(times, origin)
    return difference / _nanoseconds(unit) if _is_clock(times) else difference


def gaps(times, first=0.0, unit="D"):
    """The gaps Δ_k = t_k − t_{k−1}, as float64.

    Parameters
    ----------
    times : array-like of shape (n,)
        As in `check_times`; the order is not checked here.
    first : float, default=0.0
        The first entry, which no earlier time defines.
    unit : str or Timedelta, default="D"
        The unit of the answer for datetimes and timedeltas, as in `elapsed`.

    Returns
    -------
    ndarray of shape (n,), float64

    Raises
    ------
    ValueError
        If the times are not finite.

    Examples
    --------
    >>> from statespace.times import gaps
    >>> gaps([1e9, 1e9 + 0.5, 1e9 + 2])
    array([0. , 0.5, 1.5])
    """
    times = as_times(times)
    result = np.empty(len(times))
    result[:1] = first
    result[1:] = _difference(times[1:], times[:-1])
    if _is_clock(times):
        result[1:] /= _nanoseconds(unit)
    return result


def median_gap(times, unit="D", weights=None):
    """The median of all positive gaps of several series, which deep models divide by (their ``time_scale_``).

    Parameters
    ----------
    times : list of array-like
        The times of each series.
    unit : str or Timedelta, default="D"
        The unit of the answer for datetimes and timedeltas, as in `elapsed`.
    weights : array-like of shape (n_series,), optional
        The gaps of a series of weight 2 count twice.

    Returns
    -------
    float
        1.0 if there is no positive gap.

    Raises
    ------
    ValueError
        If the times are not finite.

    Examples
    --------
    >>> from statespace.times import median_gap
    >>> median_gap([[0, 1, 3], [10, 10, 14]])
    2.0
    """
    parts = [gaps(t, unit=unit)[1:] for t in times]
    everything = np.concatenate([np.zeros(0), *parts])
    counted = everything > 0
    if weights is None:
        return float(np.median(everything[counted])) if counted.any() else 1.0
    shares = np.repeat(np.asarray(weights, dtype=np.float64), [len(part) for part in parts])
    counted &= shares > 0
    if not counted.any():
        return 1.0
    order = np.argsort(everything[counted], kind="stable")
    positive, upto = everything[counted][order], np.cumsum(shares[counted][order])
    middle = [np.searchsorted(upto, upto[-1] / 2, side=side) for side in ("left", "right")]
    return float(positive[np.minimum(middle, len(positive) - 1)].mean())


def scale_gaps(gaps, time_scale):
    """Gaps in units of ``time_scale``; what differs from 1 by rounding is 1.

    Parameters
    ----------
    gaps : ndarray, float64
        Gaps as ``validation.gaps`` gives them.
    time_scale : float
        The training data's median gap.

    Returns
    -------
    ndarray of the same shape

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.times import scale_gaps
    >>> scale_gaps(np.diff([0.1, 0.2, 0.3, 0.7]), 0.1)
    array([1., 1., 4.])
    """
    scaled = np.asarray(gaps, dtype=np.float64) / time_scale
    return np.where(np.abs(scaled - 1) < _ROUNDED, 1.0, scaled)


def clock(times):
    """The kind of checked times: "numbers", "datetimes" or "timedeltas".

    Parameters
    ----------
    times : ndarray
        From `check_times`.

    Returns
    -------
    str

    Examples
    --------
    >>> from statespace.times import check_times, clock
    >>> clock(check_times([0, 1]))
    'numbers'
    """
    return {"M": "datetimes", "m": "timedeltas"}.get(np.asarray(times).dtype.kind, "numbers")


def check_same_clock(times, fitted):
    """Refuse times of another kind than those before.

    Parameters
    ----------
    times : ndarray
        From `check_times`.
    fitted : str
        The `clock` of the earlier times.

    Raises
    ------
    ValueError
        If the kinds differ.

    Examples
    --------
    >>> from statespace.times import check_same_clock, check_times
    >>> check_same_clock(check_times([0, 1]), "numbers")
    """
    if clock(times) != fitted:
        raise ValueError(
            f"`times` must be {fitted}, as the earlier ones (in fit, or the origin) were; got {clock(times)}. "
            f"Convert them to {fitted}."
        )


def has_zone(times):
    """Whether datetimes know their time zone.

    Parameters
    ----------
    times : array-like of shape (n,)
        As in `check_times`, before the check: what it returns is in UTC and knows no zone.

    Returns
    -------
    bool or None
        None for numbers and timedeltas, which have none.

    Examples
    --------
    >>> import pandas as pd
    >>> from statespace.times import has_zone
    >>> has_zone(pd.DatetimeIndex(["2024-03-31"], tz="Europe/Berlin")), has_zone(pd.DatetimeIndex(["2024-03-31"]))
    (True, False)
    """
    dtype = getattr(times, "dtype", np.dtype(object))
    if isinstance(dtype, pd.DatetimeTZDtype):
        return True
    if getattr(dtype, "kind", "O") == "M" or isinstance(dtype, pd.PeriodDtype):
        return False
    if dtype != np.dtype(object) or pd.api.types.infer_dtype(times, skipna=True) not in (*_DATETIMES, "period"):
        return None
    return any(getattr(time, "tzinfo", None) is not None for time in times)


def check_same_zone(zoned, fitted):
    """Refuse datetimes without a time zone after some with one, and the other way round.

    Parameters
    ----------
    zoned, fitted : bool or None
        What `has_zone` says of the times, and of the earlier ones; None where that is not known.

    Raises
    ------
    ValueError
        If both are known and differ.

    Examples
    --------
    >>> from statespace.times import check_same_zone
    >>> check_same_zone(True, True)
    """
    if None in (zoned, fitted) or zoned == fitted:
        return
    if fitted:
        raise ValueError(
            "`times` must have a time zone, as in fit: without one nobody knows which moment they mean. Give them "
            "theirs, for example with times.tz_localize('UTC')."
        )
    raise ValueError(
        "`times` must have no time zone, as in fit. Take it away with times.tz_localize(None), if those of fit were "
        "read off the same clock, or with times.tz_convert(None), if they were in UTC; or fit with a zone."
    )


def check_length(times, n_times, *, series=None):
    """Refuse times that are not one for each row.

    Parameters
    ----------
    times : ndarray
        From `check_times`.
    n_times : int
        The number of rows.
    series : int or str, optional
        The name of the series, for the error message.

    Raises
    ------
    ValueError
        If the lengths differ.

    Examples
    --------
    >>> from statespace.times import check_length
    >>> check_length([0.0, 1.0], 2)
    """
    if len(times) != n_times:
        raise ValueError(
            f"{_times_of(series)} must have one entry for each of the {n_times} rows, got {len(times)} entries."
        )
