"""Tasks over random symbols that tell what a layer can do: copy, recall, memorise, compress.

They are those by which the selective layers were judged: selective copying and induction heads (Gu & Dao 2023 [1]_,
section 4.1 and appendix E), associative recall, memorisation and compression (Poli et al. 2024 [2]_, section 3). Each
series is a row of symbols, and the answers that count stand at some steps of it; at the others y is NaN, a label that
carries no loss.

.. [1] A. Gu, T. Dao (2023). Mamba: Linear-Time Sequence Modeling with Selective State Spaces.
.. [2] M. Poli et al. (2024). Mechanistic Design and Scaling of Hybrid Architectures.
"""

from typing import NamedTuple

import numpy as np


class TokenTask(NamedTuple):
    """What the tasks over symbols return.

    Attributes
    ----------
    X : ndarray of int of shape (n_series, n_times)
        Symbols, from 0 to ``n_symbols`` − 1.
    y : ndarray of float of shape (n_series, n_times)
        The symbol to answer with at each step, NaN where nothing is asked.
    n_symbols : int
        Number of symbols.

    Examples
    --------
    >>> from statespace.datasets import make_induction_heads
    >>> make_induction_heads(n_series=3, random_state=0)._fields
    ('X', 'y', 'n_symbols')
    """

    X: np.ndarray
    y: np.ndarray
    n_symbols: int


def make_selective_copying(n_series=1000, length=256, n_tokens=16, n_symbols=16, random_state=None):
    """Remember the symbols that matter, at random places among noise, and give them back in their order.

    ``n_tokens`` data symbols lie at random among ``length`` steps of noise; ``n_tokens`` copies of a marker follow, and
    at the k-th marker the k-th data symbol is asked for. A system that does not depend on its input cannot skip the
    noise, since it does not know where the data will be.

    Parameters
    ----------
    n_series : int, default=1000
    length : int, default=256
        Steps before the markers.
    n_tokens : int, default=16
        Data symbols in a series.
    n_symbols : int, default=16
        Noise (0), the data symbols (1, 2, …) and the marker (the last one).
    random_state : int, numpy.random.Generator or None
        The same integer gives the same data.

    Returns
    -------
    TokenTask
        A named tuple of X and y of shape (n_series, length + n_tokens), and n_symbols.

    Raises
    ------
    ValueError
        If a number is out of range.

    References
    ----------
    A. Gu, T. Dao (2023). Mamba: Linear-Time Sequence Modeling with Selective State Spaces. Section 4.1.1.

    Examples
    --------
    >>> from statespace.datasets import make_selective_copying
    >>> X, y, _ = make_selective_copying(n_series=1, length=8, n_tokens=3, n_symbols=6, random_state=4)
    >>> X
    array([[0, 0, 0, 3, 0, 4, 0, 1, 5, 5, 5]])
    >>> y[:, 8:]
    array([[3., 4., 1.]])
    """
    _check(n_series=(n_series, 1), n_tokens=(n_tokens, 1), length=(length, n_tokens), n_symbols=(n_symbols, 3))
    generator = np.random.default_rng(random_state)
    places = np.sort(generator.random((n_series, length)).argsort(axis=1)[:, :n_tokens], axis=1)
    data = generator.integers(1, n_symbols - 1, size=(n_series, n_tokens))
    X = np.zeros((n_series, length + n_tokens), dtype=np.int64)
    np.put_along_axis(X, places, data, axis=1)
    X[:, length:] = n_symbols - 1
    y = np.full(X.shape, np.nan)
    y[:, length:] = data
    return TokenTask(X, y, n_symbols)


def make_induction_heads(n_series=1000, length=256, n_symbols=16, random_state=None):
    """Recall what followed a symbol when it was last seen.

    A special symbol stands once at a random place of a random series and once at its end, where the symbol that
    followed it is asked for. Who learned the rule, and not the length, answers on series of any length.

    Parameters
    ----------
    n_series : int, default=1000
    length : int, default=256
        Steps of a series, at least 3.
    n_symbols : int, default=16
        Common symbols (0, 1, …) and the special one (the last).
    random_state : int, numpy.random.Generator or None
        The same integer gives the same data.

    Returns
    -------
    TokenTask
        A named tuple of X and y of shape (n_series, length), and n_symbols; only the last step asks.

    Raises
    ------
    ValueError
        If a number is out of range.

    References
    ----------
    A. Gu, T. Dao (2023). Mamba: Linear-Time Sequence Modeling with Selective State Spaces. Section 4.1.2.

    Examples
    --------
    >>> from statespace.datasets import make_induction_heads
    >>> X, y, _ = make_induction_heads(n_series=1, length=8, n_symbols=5, random_state=0)
    >>> X
    array([[3, 4, 2, 1, 1, 0, 0, 4]])
    >>> y[0, -1]
    np.float64(2.0)
    """
    _check(n_series=(n_series, 1), length=(length, 3), n_symbols=(n_symbols, 2))
    generator = np.random.default_rng(random_state)
    X = generator.integers(0, n_symbols - 1, size=(n_series, length))
    place = generator.integers(0, length - 2, size=n_series)
    rows = np.arange(n_series)
    X[rows, place] = X[:, -1] = n_symbols - 1
    y = np.full(X.shape, np.nan)
    y[:, -1] = X[rows, place + 1]
    return TokenTask(X, y, n_symbols)


def make_associative_recall(n_series=1000, length=128, n_keys=8, n_values=8, noise=0.0, random_state=None):
    """Learn within a series which value goes with which key.

    Pairs of a key and its value follow each other; every series has a mapping of its own. At each key that was seen
    before, its value is asked for. With ``noise``, pairs are parted by symbols that mean nothing.

    Parameters
    ----------
    n_series : int, default=1000
    length : int, default=128
        Steps of a series, at least 2.
    n_keys, n_values : int, default=8
        Keys are the symbols 0, 1, …; values follow them.
    noise : float, default=0.0
        Share of the series taken by noise, the last symbol; in [0, 1).
    random_state : int, numpy.random.Generator or None
        The same integer gives the same data.

    Returns
    -------
    TokenTask
        A named tuple of X and y of shape (n_series, length), and n_symbols = n_keys + n_values + 1.

    Raises
    ------
    ValueError
        If a number is out of range.

    References
    ----------
    M. Poli et al. (2024). Mechanistic Design and Scaling of Hybrid Architectures. Section 3.1, in-context recall and
    noisy in-context recall.

    Examples
    --------
    >>> from statespace.datasets import make_associative_recall
    >>> X, y, _ = make_associative_recall(n_series=1, length=8, n_keys=2, n_values=3, random_state=0)
    >>> X
    array([[1, 3, 0, 4, 0, 4, 0, 4]])
    >>> y
    array([[nan, nan, nan, nan,  4., nan,  4., nan]])
    """
    _check(n_series=(n_series, 1), length=(length, 2), n_keys=(n_keys, 1), n_values=(n_values, 1))
    if not 0 <= noise < 1:
        raise ValueError(f"noise must be a share in [0, 1). Got {noise!r} instead.")
    generator = np.random.default_rng(random_state)
    rows = np.arange(n_series)
    mapping = generator.integers(n_keys, n_keys + n_values, size=(n_series, n_keys))
    X = np.full((n_series, length), n_keys + n_values)
    y = np.full(X.shape, np.nan)
    n_pairs = max(1, round(length * (1 - noise)) // 2)
    keys = generator.integers(0, n_keys, size=(n_series, n_pairs))
    # Where the pairs begin: a random choice of n_pairs out of what is left when each pair counts as one step.
    order = np.sort(generator.random((n_series, length - n_pairs)).argsort(axis=1)[:, :n_pairs], axis=1)
    seen = np.zeros((n_series, n_keys), dtype=bool)
    for pair in range(n_pairs):
        key, place = keys[:, pair], order[:, pair] + pair
        value = mapping[rows, key]
        X[rows, place], X[rows, place + 1] = key, value
        y[rows, place] = np.where(seen[rows, key], value, np.nan)
        seen[rows, key] = True
    return TokenTask(X, y, n_keys + n_values + 1)


def make_memorization(n_series=1000, length=32, n_keys=64, n_values=64, mapping_state=0, random_state=None):
    """Keep facts in the weights: one fixed value for each key, the same in all series.

    A series is a row of random keys, each followed by a blank, at which the key's value is asked for. Nothing in the
    series tells it.

    Parameters
    ----------
    n_series : int, default=1000
    length : int, default=32
        Steps of a series, an even number.
    n_keys, n_values : int, default=64
        Keys are the symbols 0, 1, …; values follow them, and the blank is last.
    mapping_state : int, default=0
        Seed of the mapping: what is learned from one set is asked for in another of the same seed.
    random_state : int, numpy.random.Generator or None
        The same integer gives the same data.

    Returns
    -------
    TokenTask
        A named tuple of X and y of shape (n_series, length), and n_symbols = n_keys + n_values + 1.

    Raises
    ------
    ValueError
        If a number is out of range, or the length odd.

    References
    ----------
    M. Poli et al. (2024). Mechanistic Design and Scaling of Hybrid Architectures. Section 3.1, memorization.

    Examples
    --------
    >>> from statespace.datasets import make_memorization
    >>> X, y, _ = make_memorization(n_series=1, length=6, n_keys=3, n_values=3, random_state=0)
    >>> X
    array([[2, 6, 1, 6, 1, 6]])
    >>> y
    array([[nan,  4., nan,  4., nan,  4.]])
    """
    _check(n_series=(n_series, 1), length=(length, 2), n_keys=(n_keys, 1), n_values=(n_values, 1))
    if length % 2:
        raise ValueError(f"length must be even, a blank for every key. Got {length!r} instead.")
    mapping = n_keys + np.random.default_rng(mapping_state).integers(0, n_values, size=n_keys)
    generator = np.random.default_rng(random_state)
    X = np.full((n_series, length), n_keys + n_values)
    X[:, ::2] = generator.integers(0, n_keys, size=(n_series, length // 2))
    y = np.full(X.shape, np.nan)
    y[:, 1::2] = mapping[X[:, ::2]]
    return TokenTask(X, y, n_keys + n_values + 1)


def make_compression(n_series=1000, length=32, n_symbols=16, random_state=None):
    """Keep a whole series in the state, and read any place of it.

    ``length`` random symbols come first. Then each place is named in turn by a symbol of its own, at which the symbol
    that stood there is asked for.

    Parameters
    ----------
    n_series : int, default=1000
    length : int, default=32
        Symbols to remember; a series has twice as many steps.
    n_symbols : int, default=16
        Symbols to choose from, 0, 1, …; the names of the places follow them.
    random_state : int, numpy.random.Generator or None
        The same integer gives the same data.

    Returns
    -------
    TokenTask
        A named tuple of X and y of shape (n_series, 2 · length), and the number of all symbols, n_symbols + length.

    Raises
    ------
    ValueError
        If a number is out of range.

    Notes
    -----
    In the paper a token at the end asks a layer for an embedding from which a network decodes each place, given an
    encoding of it. Here the places are asked for as symbols, so that any model of series can be tried as it is.

    References
    ----------
    M. Poli et al. (2024). Mechanistic Design and Scaling of Hybrid Architectures. Section 3.1, compression.

    Examples
    --------
    >>> from statespace.datasets import make_compression
    >>> X, y, n_symbols = make_compression(n_series=1, length=3, n_symbols=5, random_state=0)
    >>> X, n_symbols
    (array([[4, 3, 2, 5, 6, 7]]), 8)
    >>> y
    array([[nan, nan, nan,  4.,  3.,  2.]])
    """
    _check(n_series=(n_series, 1), length=(length, 1), n_symbols=(n_symbols, 1))
    data = np.random.default_rng(random_state).integers(0, n_symbols, size=(n_series, length))
    places = np.broadcast_to(n_symbols + np.arange(length), data.shape)
    y = np.full((n_series, 2 * length), np.nan)
    y[:, length:] = data
    return TokenTask(np.concatenate([data, places], axis=1), y, n_symbols + length)


def _check(**numbers):
    for name, (value, least) in numbers.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}. Got {value!r} instead.")
