"""Readers of what is stored: arrays of series, lists of arrays, the items of a Dataset, each cut by slices of time.

A reader has ``length(place)`` and ``read(place, start, stop)``, where ``place`` counts the series of the store.

Above: ``stored``. Below: NumPy.
"""

import mmap
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from statespace.forms import is_nested
from statespace.statistics import TargetStatistics

__all__ = ["StoredRows", "is_chunked", "is_dataset", "make_reader"]

# Steps of a series that are read at once to learn from them.
PIECE = 1 << 16


def is_chunked(X):
    """Whether X is an array that is memory-mapped or in chunks (zarr, h5py, dask).

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.readers import is_chunked
    >>> is_chunked(np.zeros(3))
    False
    """
    return isinstance(X, np.memmap) or all(hasattr(X, name) for name in ("chunks", "shape", "dtype", "__getitem__"))


def is_dataset(X):
    """Whether X is a ``torch.utils.data.Dataset``; by the names of its classes, so that torch is not imported for it.

    Examples
    --------
    >>> import torch
    >>> from statespace.readers import is_dataset
    >>> is_dataset(torch.utils.data.TensorDataset(torch.zeros(3)))
    True
    """
    return any(c.__name__ == "Dataset" and c.__module__.startswith("torch.utils.data") for c in type(X).__mro__)


def make_reader(arrays):
    """The reader of an array whose rows are series, or of a list of arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.readers import make_reader
    >>> make_reader(np.arange(6).reshape(2, 3)).read(1, 1, 3)
    array([4, 5])
    """
    return ListReader(arrays) if isinstance(arrays, list | tuple) or is_nested(arrays) else TableReader(arrays)


class TableReader:
    """An array of shape (n_series, n_times, ...), each row a series."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return self.array.shape[0]

    def length(self, place):
        return self.array.shape[1]

    def read(self, place, start, stop):
        return self.array[place, start:stop]

    def __getstate__(self):
        return {"array": _MappedFile.of(self.array)}

    def __setstate__(self, state):
        array = state["array"]
        self.array = array.open() if isinstance(array, _MappedFile) else array


class ListReader:
    """Arrays of shape (n_times_i, ...), one a series."""

    def __init__(self, arrays):
        self.arrays = list(arrays)

    def __len__(self):
        return len(self.arrays)

    def length(self, place):
        return len(self.arrays[place])

    def read(self, place, start, stop):
        return self.arrays[place][start:stop]

    def __getstate__(self):
        return {"arrays": [_MappedFile.of(array) for array in self.arrays]}

    def __setstate__(self, state):
        self.arrays = [array.open() if isinstance(array, _MappedFile) else array for array in state["arrays"]]


class _MappedFile(NamedTuple):
    """What opens a memory-mapped array again in another process, which would otherwise get a copy of its contents."""

    filename: str
    dtype: Any
    offset: int
    shape: tuple
    order: str

    @classmethod
    def of(cls, array):
        """The file of an array that is mapped whole; any other array as it is."""
        if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap) or array.filename is None:
            return array
        order = "C" if array.flags.c_contiguous else "F"
        return cls(str(array.filename), array.dtype, array.offset, array.shape, order)

    def open(self):
        return np.memmap(self.filename, self.dtype, "r", self.offset, self.shape, self.order)


class Items:
    """The items of a Dataset, the last of which is kept: its series, times and target are asked for one by one."""

    def __init__(self, dataset):
        self.dataset = dataset
        self._last = (None, None)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, place):
        kept, item = self._last
        if kept != place:
            item = self.dataset[place]
            self._last = (place, item)
        return item

    def __getstate__(self):
        return {"dataset": self.dataset, "_last": (None, None)}


class PartReader:
    """One part of the items of a Dataset: series, times or targets."""

    def __init__(self, items, part):
        self.items, self.part = items, part

    def __len__(self):
        return len(self.items)

    def whole(self, place):
        item = self.items[place]
        return item if self.part is None else item[self.part]

    def length(self, place):
        return len(self.whole(place))

    def read(self, place, start, stop):
        return self.whole(place)[start:stop]


class SharedReader:
    """One vector of times for all series."""

    def __init__(self, vector):
        self.vector = vector

    def length(self, place):
        return len(self.vector)

    def read(self, place, start, stop):
        return self.vector[start:stop]


class StoredRows(Sequence):
    """A sequence of arrays (n_times_i, n_columns), float64, each of which is read when it is asked for.

    Parameters
    ----------
    reader : object
        Has ``length(place)`` and ``read(place, start, stop)``.
    places : ndarray of shape (n_series,)
        The place of each series in the store.
    convert : callable
        ``convert(piece, place, start)`` turns what was read into an array of shape (n, n_columns).

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.stored import StoredSeries
    >>> rows = StoredSeries(np.arange(6.0).reshape(2, 3)).values
    >>> rows.read(1, 1, 3)
    array([[4.],
           [5.]])
    """

    single = False

    def __init__(self, reader, places, convert):
        self.reader, self.places, self.convert = reader, places, convert

    def __len__(self):
        return len(self.places)

    def __getitem__(self, key):
        """The whole array of one series; of several, StoredRows."""
        if isinstance(key, int | np.integer):
            return self.read(key)
        chosen = StoredRows(self.reader, self.places[key], self.convert)
        chosen.single = self.single
        return chosen

    def length(self, i):
        """n_times_i."""
        return self.reader.length(int(self.places[i]))

    def read(self, i, start=0, stop=None):
        """The steps from ``start`` to ``stop`` of series ``i``."""
        place = int(self.places[i])
        return self.convert(self.reader.read(place, start, stop), place, start)

    def map(self, function):
        """The same rows with a function of each piece taken."""
        mapped = StoredRows(self.reader, self.places, _Composed(function, self.convert))
        mapped.single = self.single
        if "statistics" in vars(self):
            mapped.statistics = self.statistics
        return mapped

    @cached_property
    def statistics(self):
        """What one pass learns from them as targets, a `statespace.statistics.TargetStatistics`."""
        statistics = TargetStatistics(len(self))
        for i in range(len(self)):
            for start in range(0, self.length(i), PIECE):
                statistics.add(i, self.read(i, start, start + PIECE))
        return statistics

    def learn(self, weights=None):
        """The statistics with weights of the series, (n_series,), or of their steps, a list of arrays (n_times_i,)."""
        if weights is None or self.statistics.weighted:
            return self.statistics
        statistics = TargetStatistics(len(self))
        for i in range(len(self)):
            for start in range(0, self.length(i), PIECE):
                stop = min(start + PIECE, self.length(i))
                statistics.add(i, self.read(i, start, stop), step_weights(weights, i, start, stop))
        self.statistics = statistics
        return statistics


def step_weights(weights, i, start, stop):
    """The weights of some steps of series ``i``, or None.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.readers import step_weights
    >>> step_weights(np.array([1.0, 2.0]), 1, 3, 5)
    array([2., 2.])
    """
    if weights is None:
        return None
    return weights[i][start:stop] if isinstance(weights, list) else np.full(stop - start, weights[i])


class _Composed:
    def __init__(self, outer, inner):
        self.outer, self.inner = outer, inner

    def __call__(self, piece, place, start):
        return self.outer(self.inner(piece, place, start))
