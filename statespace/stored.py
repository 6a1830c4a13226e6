"""StoredSeries: series that stay on disk and are read piece by piece, with the interface of a SeriesCollection.

Above: ``validation`` and the estimators, which learn from such series in one pass and read them batch by batch. Below:
``readers``, which cut them; ``forms``, ``alphabets`` and ``times``, which check each piece; ``statistics``.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from statespace.alphabets import Alphabet
from statespace.forms import check_values, is_nested
from statespace.readers import (
    PIECE,
    Items,
    PartReader,
    SharedReader,
    StoredRows,
    TableReader,
    is_chunked,
    is_dataset,
    make_reader,
    step_weights,
)
from statespace.statistics import GapMedian, Moments, TargetStatistics
from statespace.times import check_length, check_same_clock, check_times, clock, gaps

__all__ = ["Learned", "StoredSeries", "is_ragged", "is_stored", "stored_targets"]


def is_stored(X):
    """Whether X is to be read piece by piece rather than held in memory.

    Parameters
    ----------
    X : object

    Returns
    -------
    bool
        True for memory-mapped arrays, arrays in chunks (zarr, h5py, dask), lists of such arrays, a
        ``torch.utils.data.Dataset`` and a `StoredSeries`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.stored import is_stored
    >>> is_stored(np.zeros((3, 4, 1)))
    False
    """
    if isinstance(X, list | tuple):
        return len(X) > 0 and all(is_chunked(x) for x in X)
    return isinstance(X, StoredSeries) or is_chunked(X) or is_dataset(X)


class Learned(NamedTuple):
    """What a pass over the series learns.

    Attributes
    ----------
    n_channels : int
    mean, scale : ndarray of shape (n_channels,)
        Of symbols None.
    missing : bool
    time_scale : float

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.stored import StoredSeries
    >>> StoredSeries(np.arange(6.0).reshape(2, 3)).learn().mean
    array([2.5])
    """

    n_channels: int
    mean: np.ndarray | None
    scale: np.ndarray | None
    missing: bool
    time_scale: float


class StoredSeries:
    """Series that stay where they are stored, one row each, with the times of their samples.

    The counterpart of `SeriesCollection` for what does not fit into memory: it has ``len``, ``shape == (n_series,)``
    and NumPy's indexing over series, so that scikit-learn's splitters and searches cut it. Nothing is read until it is
    needed, and then the steps that are needed. Estimators make one of what they are given; make it yourself to give
    times along, or to search over parameters.

    Parameters
    ----------
    X : array, list of arrays or torch.utils.data.Dataset
        An array of shape (n_series, n_times, n_channels), or (n_series, n_times) for one channel, that is memory-mapped
        or in chunks (zarr, h5py, dask); a list of such arrays of shape (n_times_i, n_channels) or (n_times_i,); or a
        Dataset with ``len`` whose items are tuples (series, target) or (series, times, target). Series are cut by
        slices: an item that holds a memory-mapped array is not read whole. NaN is a missing value.
    times : array or list of arrays, optional
        One vector of shape (n_times,) for all series; an array of shape (n_series, n_times), which may be stored too;
        or a list of vectors. Not with items that bring them.
    alphabet : {"dna", "rna", "protein"}, str, sequence, int or Alphabet, optional
        The series are texts, or arrays of symbols or of their positions.

    Attributes
    ----------
    values : StoredRows
        ``values[i]`` reads a series, (n_times_i, n_channels), float64; ``values.read(i, start, stop)`` some steps.
    times : StoredRows or None
        The times of the samples, in the same way.
    lengths : ndarray of shape (n_series,), int64
        Of a Dataset found by a pass through its items.
    n_channels : int
    alphabet : Alphabet or None

    Raises
    ------
    ValueError
        For another form of X or times, or no series. What was stored is checked when it is read: an infinity, times
        that do not increase, another number of channels, each with the series and the index.

    See Also
    --------
    statespace.SeriesCollection : The same in memory.

    Notes
    -----
    A batch reads series in random order. Chunks of a zarr array should therefore hold few series and many steps.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from statespace.stored import StoredSeries
    >>> with tempfile.NamedTemporaryFile(suffix=".npy") as file:
    ...     np.save(file.name, np.arange(24.0).reshape(2, 6, 2))
    ...     X = StoredSeries(np.load(file.name, mmap_mode="r"), times=np.arange(6) / 10)
    ...     X, X[[1]].values.read(0, 4, 6)
    (StoredSeries(2 series, 2 channels, times as numbers), array([[20., 21.],
           [22., 23.]]))
    """

    ndim = 1
    dtype = np.dtype(np.float64)
    columns = labels = None

    def __init__(self, X, times=None, alphabet=None):
        self.alphabet = alphabet if alphabet is None or isinstance(alphabet, Alphabet) else Alphabet(alphabet)
        if isinstance(X, StoredSeries):
            raise ValueError("X is a StoredSeries already: give it its times and alphabet when it is made.")
        self._targets, times_reader = None, None
        self._rows = self._per_series = None
        if is_dataset(X):
            reader, times_reader = self._read_items(X)
        else:
            reader = make_reader(X)
            if isinstance(reader, TableReader) and len(X.shape) not in (2, 3):
                raise ValueError(
                    f"X must have the shape (n_series, n_times, n_channels) or (n_series, n_times), got {X.shape}. "
                    "Give a list of arrays if X is one series."
                )
        self._places = np.arange(len(reader))
        if not len(reader):
            raise ValueError("X must hold at least one series, got none.")
        if times is not None:
            if times_reader is not None:
                raise ValueError("X has times in its items, and times= was given too. Give one of the two.")
            times_reader = self._times_reader(times)
        self.values = StoredRows(reader, self._places, self._check_values)
        self.times = None if times_reader is None else StoredRows(times_reader, self._places, _check_times)

    def _read_items(self, dataset):
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise ValueError(
                f"X is a {type(dataset).__name__} without a length. Give a map-style Dataset, with __len__ and "
                "__getitem__: series are read in random order, and more than once."
            )
        if not len(dataset):
            raise ValueError("X must hold at least one series, got none.")
        items = Items(dataset)
        first = items[0]
        if not isinstance(first, tuple):
            return PartReader(items, None), None
        if len(first) not in (1, 2, 3):
            raise ValueError(
                "items of a Dataset must be tuples (series, target) or (series, times, target), or a series alone. "
                f"Got {len(first)} parts."
            )
        if len(first) > 1:
            self._targets = PartReader(items, len(first) - 1)
        return PartReader(items, 0), PartReader(items, 1) if len(first) == 3 else None

    def _times_reader(self, times):
        if isinstance(times, list | tuple):
            shared = len(times) == 0 or np.ndim(times[0]) == 0
        else:
            shared = not is_nested(times) and np.ndim(times) == 1
        if shared:
            return SharedReader(check_times(times, allow_equal=False))
        reader = make_reader(times)
        if len(reader) != len(self):
            raise ValueError(
                f"`times` must be one vector for all series, or one for each of the {len(self)}; "
                f"got {len(reader)} vectors."
            )
        return reader

    def _check_values(self, piece, place, start):
        if self.alphabet is not None:
            codes = self.alphabet.encode(piece, f"series {place} of X" + (f" from step {start}" if start else ""))
            return codes[:, np.newaxis].astype(np.float64)
        rows = check_values(np.asarray(piece), name=f"X (series {place})")
        rows = rows[:, np.newaxis] if rows.ndim == 1 else rows
        if rows.ndim != 2:
            raise ValueError(
                f"series {place} of X must have shape (n_times,) or (n_times, n_channels), got {rows.shape}."
            )
        known = self.__dict__.get("n_channels")
        if known is not None and rows.shape[1] != known:
            raise ValueError(
                f"series {place} of X has {rows.shape[1]} channels, but the first has {known}. "
                "Give every series the same channels; NaN marks what was not measured."
            )
        return rows

    @cached_property
    def n_channels(self):
        """The number of channels."""
        return self.values.read(0, 0, 1).shape[1]

    @cached_property
    def lengths(self):
        """The number of samples of each series."""
        return np.array([self._check_length(i) for i in range(len(self))], dtype=np.int64)

    def _check_length(self, i):
        n_times = self.values.length(i)
        if n_times == 0:
            raise ValueError(f"series {self.label(i)} of X is empty: give it at least one sample, or drop it.")
        if self.times is not None:
            check_length(range(self.times.length(i)), n_times, series=self.label(i))
        return n_times

    @property
    def shape(self):
        """(n_series,)"""
        return (len(self),)

    @property
    def has_targets(self):
        """Whether the series bring their targets along."""
        return self._targets is not None

    @cached_property
    def clock(self):
        """The kind of the times, as in `statespace.times.clock`; None without times."""
        return None if self.times is None else clock(self.times.read(0, 0, 1))

    def label(self, i):
        """The place of series ``i`` in the store.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.stored import StoredSeries
        >>> StoredSeries(np.zeros((3, 4)))[[2]].label(0)
        2
        """
        return int(self._places[i])

    def gaps(self, i, start=0, stop=None, first=0.0):
        """The gaps Δ_k of some steps of a series.

        Parameters
        ----------
        i : int
        start, stop : int
            The steps.
        first : float, default=0.0
            The gap of the first step of the series.

        Returns
        -------
        ndarray of shape (stop - start,), float64; or None without times
            In days of datetimes and timedeltas.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.stored import StoredSeries
        >>> StoredSeries(np.zeros((1, 4)), times=[0.0, 1.0, 3.0, 3.5]).gaps(0, 2, 4)
        array([2. , 0.5])
        """
        if self.times is None:
            return None
        before = max(start - 1, 0)
        times = self.times.read(i, before, stop)
        check_same_clock(times, self.clock)
        return gaps(times, first=first)[start - before :]

    def with_alphabet(self, alphabet):
        """The same series, which hold symbols of an alphabet.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.alphabets import Alphabet
        >>> from statespace.stored import StoredSeries
        >>> StoredSeries(np.array([[0, 1], [1, 1]], dtype=np.uint8)).with_alphabet(Alphabet("dna")).values[0]
        array([[0.],
               [1.]])
        """
        if self.alphabet == alphabet:
            return self
        if self.alphabet is not None:
            raise ValueError(f"X are StoredSeries of symbols of {self.alphabet.spec!r}, not of {alphabet.spec!r}.")
        result = self[:]
        result.alphabet = alphabet
        result.values = StoredRows(self.values.reader, self._places, result._check_values)
        return result

    def targets(self, per="auto"):
        """The targets that the items bring.

        Parameters
        ----------
        per : {"auto", "series", "step"}, default="auto"
            What a vector holds: outputs of its series, or a target for every step. ``"auto"`` takes it for the second
            if the first item has as many targets as steps.

        Returns
        -------
        targets : ndarray of shape (n_series,) or (n_series, n_outputs), or StoredRows for one target a step
            None if the items bring none.

        Examples
        --------
        >>> import torch
        >>> from statespace.stored import StoredSeries
        >>> X = StoredSeries(torch.utils.data.TensorDataset(torch.zeros(2, 3), torch.tensor([5, 7])))
        >>> X.targets()
        array([5, 7])
        """
        if self._targets is None:
            return None
        if not self._per_step(per):
            if self._per_series is None:
                self._per_series = [self._targets.whole(self.label(i)) for i in range(len(self))]
            return np.asarray(self._per_series)
        if self._rows is None:
            self._rows = stored_rows(self._targets, self._places, np.ndim(self._targets.whole(self.label(0))) == 1)
        return self._rows

    def _per_step(self, per):
        first = self._targets.whole(self.label(0))
        ndim = np.ndim(first)
        return ndim == 2 or (ndim == 1 and per != "series" and (per == "step" or len(first) == self.values.length(0)))

    def learn(self, per="auto", weights=None):
        """Read everything once, targets in items as well, and learn from it what the estimators scale with.

        Parameters
        ----------
        per : {"auto", "series", "step"}, default="auto"
            As in `targets`.
        weights : ndarray of shape (n_series,) or list of ndarray of shape (n_times_i,), optional
            Of series or of their steps, as in `statespace.weights.check_sample_weight`.

        Returns
        -------
        Learned

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.stored import StoredSeries
        >>> StoredSeries(np.arange(6.0).reshape(2, 3), times=[0.0, 1.0, 4.0]).learn().time_scale
        2.0
        """
        moments, median, n_channels = Moments(), GapMedian(), self.n_channels
        lengths, targets = np.empty(len(self), dtype=np.int64), []
        per_step = self.has_targets and self._per_step(per)
        rows_of_y = self.targets(per) if per_step else None
        statistics, missing = TargetStatistics(len(self)), False
        for i in range(len(self)):
            lengths[i] = self._check_length(i)
            # Among inputs a series with weights a step counts with their mean.
            share = 1.0 if weights is None else float(np.mean(weights[i]))
            if rows_of_y is not None:
                check_rows(rows_of_y, i, lengths[i])
            for start in range(0, int(lengths[i]), PIECE):
                stop = min(start + PIECE, int(lengths[i]))
                rows = self.values.read(i, start, stop)
                if self.alphabet is None:
                    moments.add(rows, None if weights is None else share)
                    missing = missing or (share > 0 and bool(np.isnan(rows).any()))
                if self.times is not None:
                    median.add(self.gaps(i, start, stop), share)
                if rows_of_y is not None:
                    statistics.add(i, rows_of_y.read(i, start, stop), step_weights(weights, i, start, stop))
            if self.has_targets and not per_step:
                targets.append(self._targets.whole(self.label(i)))
        self.lengths = lengths
        if rows_of_y is not None:
            rows_of_y.statistics = statistics
        elif self.has_targets:
            self._per_series = targets
        mean, scale = moments.mean_and_scale() if self.alphabet is None else (None, None)
        return Learned(n_channels, mean, scale, missing, 1.0 if self.times is None else median.median())

    def __len__(self):
        return len(self._places)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        """One series for an integer, read as a DataFrame, or an array without times; else a StoredSeries."""
        if isinstance(key, tuple):  # scikit-learn asks for X[rows, ...]
            if len(key) != 2 or key[1] is not Ellipsis:
                raise IndexError(f"StoredSeries are indexed by series only, got {key!r}; arrays are in .values")
            key = key[0]
        if isinstance(key, int | np.integer) and not isinstance(key, bool | np.bool_):
            i = range(len(self))[key]
            values = self.values[i] if self.alphabet is None else self.alphabet.decode(self.values[i])
            return values if self.times is None else pd.DataFrame(values, index=self.times[i])
        rows = np.arange(len(self))[np.asarray(key, dtype=np.intp) if np.size(key) == 0 else key]
        chosen = object.__new__(StoredSeries)
        chosen.alphabet, chosen._targets, chosen._places = self.alphabet, self._targets, self._places[rows]
        chosen._rows = chosen._per_series = None
        chosen.values = self.values[rows]
        chosen.times = None if self.times is None else self.times[rows]
        if "lengths" in vars(self):
            chosen.lengths = self.lengths[rows]
        return chosen

    def __array__(self, dtype=None, copy=None):
        raise TypeError("StoredSeries are not read into one array; .values[i] reads one series")

    def __repr__(self):
        channels = f"{self.n_channels} channel" + "s" * (self.n_channels != 1)
        if self.alphabet is not None:
            channels = f"symbols of {self.alphabet.spec!r}"
        return f"StoredSeries({len(self)} series, {channels}, {f'times as {self.clock}' if self.clock else 'no times'})"


def _check_times(times, place, start):
    return check_times(np.asarray(times), series=place, allow_equal=False, start=start)


def stored_rows(reader, places, single):
    """The targets a step that a reader reads, as they are, in columns; ``single`` says that they had none.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.readers import make_reader
    >>> from statespace.stored import stored_rows
    >>> stored_rows(make_reader([np.array([1, 2])]), np.arange(1), single=True)[0]
    array([[1],
           [2]])
    """
    rows = StoredRows(reader, places, _columns)
    rows.single = single
    return rows


def _columns(piece, place, start):
    rows = np.asarray(piece)
    return rows[:, np.newaxis] if rows.ndim == 1 else rows


def check_rows(rows, i, n_times):
    """Refuse targets that are not one for each of the ``n_times`` steps of series ``i``.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.readers import make_reader
    >>> from statespace.stored import check_rows, stored_rows
    >>> check_rows(stored_rows(make_reader([np.array([1, 2])]), np.arange(1), single=True), 0, 2)
    """
    if rows.length(i) != n_times:
        raise ValueError(
            f"y of series {int(rows.places[i])} must have one target for each of the {n_times} steps, "
            f"got {rows.length(i)}."
        )


def is_ragged(y, targets, collection):
    """Whether answers a step are to come in a list: y came as one, or its series were read from items of any length.

    Parameters
    ----------
    y : object
        As it was given.
    targets : list or StoredRows
        As they were checked.
    collection : SeriesCollection or StoredSeries

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.series import SeriesCollection
    >>> from statespace.stored import is_ragged
    >>> is_ragged(np.zeros((1, 2)), [np.zeros((2, 1))], SeriesCollection([[1.0, 2.0]]))
    False
    """
    if isinstance(y, list | tuple) or not isinstance(targets, StoredRows):
        return not isinstance(y, np.ndarray)
    return len(np.unique(collection.lengths)) > 1


def stored_targets(y, collection, per="auto"):
    """Targets beside stored series: one a series in memory, one a step as rows that are read when they are needed.

    Parameters
    ----------
    y : array-like or None
        Stored or not; None takes those that the items bring.
    collection : StoredSeries
    per : {"auto", "series", "step"}, default="auto"
        As in `statespace.validation.check_targets`.

    Returns
    -------
    y : StoredRows for stored targets a step; else ``y``, in memory

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.stored import StoredSeries, stored_targets
    >>> stored_targets([1.0, 2.0], StoredSeries(np.zeros((2, 3))))
    [1.0, 2.0]
    """
    if y is None:
        return collection.targets(per)
    if not is_stored(y) or is_dataset(y):
        return y
    if not isinstance(y, list | tuple):
        steps = len(y.shape) == 2 and (per == "step" or (per == "auto" and np.all(collection.lengths == y.shape[1])))
        if len(y.shape) < 2 or (len(y.shape) == 2 and not steps):
            return np.asarray(y)
    reader = make_reader(y)
    if len(reader) != len(collection):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {[len(collection), len(reader)]}"
        )
    rows = stored_rows(reader, np.arange(len(reader)), np.ndim(reader.read(0, 0, 1)) == 1)
    for i, n_times in enumerate(collection.lengths):
        check_rows(rows, i, n_times)
    return rows
