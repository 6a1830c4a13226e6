"""SeriesCollection: series of any length with their times on board, which slices like an array.

Above: ``validation`` and the estimators, and scikit-learn's splitters, scorers and searches, which keep the times
because X itself carries them. Below: ``forms`` and ``alphabets``, which read X, and ``times``.
"""

import numpy as np
import pandas as pd

from statespace.alphabets import Alphabet, encode_series
from statespace.forms import check_shapes, has_rows, is_default, is_nested, parse
from statespace.times import check_length, check_times, gaps


class SeriesCollection:
    """Series of any length, one row each, with the times of their samples.

    A collection has ``len``, ``shape == (n_series,)`` and NumPy's indexing over series, so that every scikit-learn
    splitter, scorer, search and pipeline cuts it like an array and the times stay with their values. An integer index
    gives one series, a DataFrame indexed by time (an array of shape (n_times_i, n_channels) without times).

    Parameters
    ----------
    X : array-like
        One of

        - ndarray of shape (n_series, n_times, n_channels), or (n_series, n_times) for one channel;
        - a list of arrays of shape (n_times_i, n_channels), or (n_times_i,) for one channel;
        - a DataFrame or Series with a (series, time) MultiIndex; series may be interleaved, the times of each must not
          decrease;
        - a list of DataFrames or Series indexed by time (sktime's "df-list").

        NaN is a missing value.
    times : array-like, optional
        One vector of shape (n_times,) for all series, an array of shape (n_series, n_times), or a list of vectors of
        shape (n_times_i,): numbers, datetimes or timedeltas. An index that a DataFrame brings is its times. Series that
        have neither lie on a regular grid.
    alphabet : {"dna", "rna", "protein"}, str, sequence, int or Alphabet, optional
        X then holds sequences of symbols: a list or Series of texts, or any of the above forms with a symbol, or its
        position in the alphabet, for each step; see `statespace.alphabets.Alphabet`.

    Attributes
    ----------
    values : list of ndarray of shape (n_times_i, n_channels), float64
        NaN where missing. Of symbols their codes, of shape (n_times_i, 1).
    times : list of ndarray of shape (n_times_i,), or None
        float64, datetime64[ns] (UTC) or timedelta64[ns].
    lengths : ndarray of shape (n_series,), int64
        The number of samples of each series.
    n_channels : int
        The number of channels.
    columns : list or None
        The names of the channels, from a DataFrame.
    labels : Index or None
        The names of the series, from a MultiIndex, in the order in which they appear first; of texts in a Series, its
        index.
    alphabet : Alphabet or None
        What the codes in ``values`` stand for.

    Raises
    ------
    ValueError
        If a series is empty, has another number of channels than the first, an infinity, text, a symbol outside the
        alphabet, or times that are not finite, decrease or are not one for each row; the message names the series, the
        index and the values.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import SeriesCollection
    >>> X = SeriesCollection([[1.0, np.nan], [3.0, 4.0, 5.0]], times=[[0.0, 0.5], [0.0, 2.0, 2.5]])
    >>> X
    SeriesCollection(2 series, 2 to 3 samples, 1 channel, times as numbers)
    >>> X.gaps()[1]
    array([0. , 2. , 0.5])
    >>> X[[1]].lengths
    array([3])
    >>> X[0]
           0
    0.0  1.0
    0.5  NaN

    Events in time:

    >>> SeriesCollection(["ACC", "GN"], times=[[0.0, 0.1, 2.0], [0.0, 3.5]], alphabet="dna")
    SeriesCollection(2 series, 2 to 3 samples, symbols of 'dna', times as numbers)
    """

    ndim = 1
    dtype = np.dtype(np.float64)

    def __init__(self, X, times=None, alphabet=None):
        if isinstance(X, SeriesCollection):
            X = X if times is None else X.with_times(times)
            X = X if alphabet is None else X.with_alphabet(alphabet)
            self._set(X.values, X.times, X.columns, X.labels, X.alphabet)
            return
        names = None
        self.alphabet = _alphabet(alphabet)
        if self.alphabet is not None:
            X, names = encode_series(X, self.alphabet)
        values, index, self.columns, self.labels = parse(X)
        self.labels = names if self.labels is None else self.labels
        if times is not None and index is not None:
            if not all(is_default(t) for t in index):
                raise ValueError("X has times in its index, and times= was given too. Give one of the two.")
            index = None
        self.values = check_shapes(values, self.label)
        self.lengths = np.array([len(v) for v in self.values], dtype=np.int64)
        self.times = self._check_times(times if index is None else index)

    def _set(self, values, times, columns, labels, alphabet=None):
        self.values, self.times, self.columns, self.labels = values, times, columns, labels
        self.alphabet = alphabet
        self.lengths = np.array([len(v) for v in values], dtype=np.int64)
        return self

    def _check_times(self, times):
        if times is None:
            return None
        if _is_shared(times):
            times = check_times(times)
            for i, n_times in enumerate(self.lengths):
                check_length(times, n_times, series=self.label(i))
            return [times] * len(self)
        if len(times) != len(self):
            raise ValueError(
                f"`times` must be one vector for all series, or one for each of the {len(self)}; "
                f"got {len(times)} vectors."
            )
        checked = [check_times(t, series=self.label(i)) for i, t in enumerate(times)]
        for i, (t, n_times) in enumerate(zip(checked, self.lengths, strict=True)):
            check_length(t, n_times, series=self.label(i))
            if t.dtype != checked[0].dtype:
                raise ValueError(
                    f"`times` of series {self.label(i)!r} are {t.dtype}, those of series {self.label(0)!r} "
                    f"{checked[0].dtype}. Give all of them the same kind."
                )
        return checked

    @property
    def shape(self):
        """(n_series,)"""
        return (len(self.values),)

    @property
    def n_channels(self):
        """The number of channels."""
        return self.values[0].shape[1] if self.values else 0

    @property
    def observed(self):
        """List of bool arrays of shape (n_times_i, n_channels): False where a value is missing."""
        return [~np.isnan(v) for v in self.values]

    def label(self, i):
        """The name of series ``i``, or its position if series have no names.

        Examples
        --------
        >>> from statespace import SeriesCollection
        >>> SeriesCollection([[1.0], [2.0]]).label(1)
        1
        """
        if self.labels is None:
            return int(i)
        label = self.labels[i]
        return label.item() if isinstance(label, np.generic) else label

    def gaps(self, first=0.0, unit="D"):
        """The gaps Δ_k = t_k − t_{k−1} of every series.

        Parameters
        ----------
        first : float, default=0.0
            The first entry of every series.
        unit : str or Timedelta, default="D"
            The unit of the answer if times are datetimes or timedeltas.

        Returns
        -------
        list of ndarray of shape (n_times_i,), float64; or None without times

        Examples
        --------
        >>> from statespace import SeriesCollection
        >>> SeriesCollection([[1.0, 2.0]], times=[1e9, 1e9 + 0.5]).gaps(first=1.0)
        [array([1. , 0.5])]
        """
        return None if self.times is None else [gaps(t, first=first, unit=unit) for t in self.times]

    def with_times(self, times):
        """The same series with times, which they must not have yet.

        Parameters
        ----------
        times : array-like
            As for the constructor.

        Returns
        -------
        SeriesCollection

        Examples
        --------
        >>> from statespace import SeriesCollection
        >>> SeriesCollection([[1.0, 2.0]]).with_times([0.0, 3.0])
        SeriesCollection(1 series, 2 samples, 1 channel, times as numbers)
        """
        if self.times is not None:
            raise ValueError("X is a SeriesCollection with times, and times= was given too. Give one of the two.")
        result = object.__new__(SeriesCollection)._set(self.values, None, self.columns, self.labels, self.alphabet)
        result.times = result._check_times(times)
        return result

    def with_alphabet(self, alphabet):
        """The same series, of which the values are positions in an alphabet.

        Parameters
        ----------
        alphabet : {"dna", "rna", "protein"}, str, sequence, int or Alphabet
            As for the constructor.

        Returns
        -------
        SeriesCollection

        Raises
        ------
        ValueError
            If the series have several channels, values that are no positions, or already another alphabet.

        Examples
        --------
        >>> from statespace import SeriesCollection
        >>> SeriesCollection([[0, 1], [1, 1]]).with_alphabet(2)
        SeriesCollection(2 series, 2 samples, symbols of 2, no times)
        """
        alphabet = _alphabet(alphabet)
        if self.alphabet == alphabet:
            return self
        if self.alphabet is not None:
            raise ValueError(f"X is a SeriesCollection of symbols of {self.alphabet.spec!r}, not of {alphabet.spec!r}.")
        if self.n_channels > 1:
            raise ValueError(f"symbols have one channel, got {self.n_channels}.")
        codes = [alphabet.encode(v, where=f"series {self.label(i)!r} of X") for i, v in enumerate(self.values)]
        values = [c[:, np.newaxis].astype(np.float64) for c in codes]
        return object.__new__(SeriesCollection)._set(values, self.times, self.columns, self.labels, alphabet)

    def with_values(self, values):
        """Other values at the same times, under the same names.

        Parameters
        ----------
        values : list of ndarray of shape (n_times_i, n_channels)

        Returns
        -------
        SeriesCollection

        Examples
        --------
        >>> from statespace import SeriesCollection
        >>> X = SeriesCollection([[1.0, 2.0]], times=[0.0, 3.0])
        >>> X.with_values([-v for v in X.values])[0]
               0
        0.0 -1.0
        3.0 -2.0
        """
        values = check_shapes(list(values), self.label)
        if [len(v) for v in values] != self.lengths.tolist() or values[0].shape[1] != self.n_channels:
            raise ValueError("values must be one array of the same shape for each series.")
        return object.__new__(SeriesCollection)._set(values, self.times, self.columns, self.labels)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        """One series for an integer, a DataFrame or an array, of symbols if it has them; else a SeriesCollection."""
        if isinstance(key, tuple):  # scikit-learn asks for X[rows, ...]
            if len(key) != 2 or key[1] is not Ellipsis:
                raise IndexError(f"a SeriesCollection is indexed by series only, got {key!r}; arrays are in .values")
            key = key[0]
        if isinstance(key, int | np.integer) and not isinstance(key, bool | np.bool_):
            values = self.values[key] if self.alphabet is None else self.alphabet.decode(self.values[key])
            return values if self.times is None else pd.DataFrame(values, index=self.times[key], columns=self.columns)
        rows = np.arange(len(self))[np.asarray(key, dtype=np.intp) if np.size(key) == 0 else key]
        return object.__new__(SeriesCollection)._set(
            [self.values[i] for i in rows],
            None if self.times is None else [self.times[i] for i in rows],
            self.columns,
            None if self.labels is None else self.labels[rows],
            self.alphabet,
        )

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "a SeriesCollection does not turn into one array, which would lose its times; "
            "its arrays are in .values and .times"
        )

    def __repr__(self):
        low, high = (self.lengths.min(), self.lengths.max()) if len(self) else (0, 0)
        samples = f"{low} samples" if low == high else f"{low} to {high} samples"
        channels = f"{self.n_channels} channel" + "s" * (self.n_channels != 1)
        if self.alphabet is not None:
            channels = f"symbols of {self.alphabet.spec!r}"
        kinds = {"f": "numbers", "M": "datetimes", "m": "timedeltas"}
        times = f"times as {kinds[self.times[0].dtype.kind]}" if self.times else "no times"
        return f"SeriesCollection({len(self)} series, {samples}, {channels}, {times})"


def _alphabet(alphabet):
    return alphabet if alphabet is None or isinstance(alphabet, Alphabet) else Alphabet(alphabet)


def _is_shared(times):
    """Whether times are one vector of scalars."""
    if isinstance(times, pd.Index | pd.Series | pd.api.extensions.ExtensionArray):
        return True
    if isinstance(times, np.ndarray) and not is_nested(times):
        return times.ndim < 2
    return len(times) == 0 or not has_rows(times[0])
