"""Series and tables of pandas as plain arrays and JSON, for model files: every kind of index, and panels."""

import numpy as np
import pandas as pd


def to_arrays(table, name):
    """A table as what a model file holds.

    Parameters
    ----------
    table : Series or DataFrame
        Of numbers.
    name : str
        The arrays' names begin with it.

    Returns
    -------
    description : dict that JSON can hold
    arrays : dict of ndarray

    Examples
    --------
    >>> import pandas as pd
    >>> from statespace.forecasting.tables import from_arrays, to_arrays
    >>> y = pd.Series([1.0, 2.0], index=pd.period_range("2020-01", periods=2, freq="M"), name="sales")
    >>> from_arrays(*to_arrays(y, "y"), "y").equals(y)
    True
    """
    series = isinstance(table, pd.Series)
    columns = [table.name] if series else list(table.columns)
    description = {"series": series, "columns": [_plain(column) for column in columns], "levels": []}
    arrays = {f"{name}.values": np.asarray(table, dtype=np.float64).reshape(len(table), -1)}
    index = table.index
    panel = isinstance(index, pd.MultiIndex)
    description["panel"] = panel
    description["names"] = [_plain(label) for label in index.names]
    for number in range(index.nlevels):
        codes, values = (index.codes[number], index.levels[number]) if panel else (None, index)
        kind = _kind(values)
        description["levels"].append(kind)
        key = f"{name}.level{number}"
        if codes is not None:
            arrays[f"{key}.codes"] = np.asarray(codes, dtype=np.int64)
        if kind["kind"] == "labels":
            kind["labels"] = [_plain(value) for value in values]
        else:
            arrays[key] = np.asarray(values.asi8 if hasattr(values, "asi8") else values, dtype=np.int64)
    return description, arrays


def from_arrays(description, arrays, name):
    """The table that `to_arrays` described; arguments as it returned them."""
    levels = []
    for number, kind in enumerate(description["levels"]):
        levels.append(_index(kind, arrays.get(f"{name}.level{number}")))
    if description["panel"]:
        codes = [arrays[f"{name}.level{number}.codes"] for number in range(len(levels))]
        index = pd.MultiIndex(levels, codes, names=description["names"])
    else:
        index = levels[0].rename(description["names"][0])
    values = arrays[f"{name}.values"]
    if description["series"]:
        return pd.Series(values[:, 0], index=index, name=description["columns"][0])
    return pd.DataFrame(values, index=index, columns=description["columns"])


def _kind(index):
    if isinstance(index, pd.PeriodIndex):
        return {"kind": "periods", "freq": index.freqstr}
    if isinstance(index, pd.DatetimeIndex):
        zone = None if index.tz is None else str(index.tz)
        return {"kind": "datetimes", "unit": index.unit, "zone": zone, "freq": index.freqstr}
    if pd.api.types.is_integer_dtype(index.dtype):
        return {"kind": "range" if isinstance(index, pd.RangeIndex) else "integers"}
    return {"kind": "labels"}


def _index(kind, array):
    if kind["kind"] == "labels":
        return pd.Index(kind["labels"])
    if kind["kind"] == "periods":
        return pd.PeriodIndex.from_ordinals(array, freq=kind["freq"])
    if kind["kind"] == "datetimes":
        index = pd.DatetimeIndex(array.view(f"datetime64[{kind['unit']}]"))
        index = index if kind["zone"] is None else index.tz_localize("UTC").tz_convert(kind["zone"])
        index.freq = kind["freq"]
        return index
    if kind["kind"] == "range" and len(array):
        step = int(array[1] - array[0]) if len(array) > 1 else 1
        return pd.RangeIndex(int(array[0]), int(array[-1]) + step, step)
    return pd.Index(array)


def _plain(label):
    """A label as JSON has it; others than text and numbers as text."""
    if isinstance(label, np.generic):
        label = label.item()
    return label if label is None or isinstance(label, str | int | float) else str(label)
