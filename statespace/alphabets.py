"""Alphabets: sequences of symbols as numbers, and each number as the row that a network reads.

Above: ``SeriesCollection`` and the deep estimators. Below: ``forms``, NumPy and pandas.
"""

from functools import lru_cache
from numbers import Integral

import numpy as np
import pandas as pd

from statespace.forms import has_rows, is_default

__all__ = ["Alphabet"]

# The codes of IUPAC (Cornish-Bowden 1985) for a base, or an amino acid, that is not known; the last leaves all open.
_BASES = {
    "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG",
    "N": "ACGT",
}  # fmt: skip
_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
_NAMED = {
    "dna": ("ACGT", _BASES),
    "rna": ("ACGU", {code: bases.replace("T", "U") for code, bases in _BASES.items()}),
    # Selenocysteine and pyrrolysine are too rare to have rows of their own.
    "protein": (_ACIDS, {"B": "DN", "Z": "EQ", "J": "IL", "U": _ACIDS, "O": _ACIDS, "X": _ACIDS}),
}
_COMPLEMENTS = {"dna": (3, 2, 1, 0), "rna": (3, 2, 1, 0)}


class Alphabet:
    """The symbols of which sequences are made, and how each is shown to a network.

    Symbol i of n is the i-th row of the identity, so that a network's first linear map holds an embedding of each
    symbol. What may be one of several symbols, such as the code R for A or G, has equal shares of them, and with these
    the mean of their embeddings; an unknown symbol has equal shares of all.

    Parameters
    ----------
    symbols : {"dna", "rna", "protein"}, str, sequence, int or Alphabet
        ``"dna"``, ``"rna"`` and ``"protein"`` are A C G T, A C G U and the twenty amino acids in the order of their
        letters, upper or lower case, with the ambiguity codes of IUPAC. Any other text is its characters. A sequence
        holds texts, of any length each, or integers. An integer n means the tokens 0 to n - 1.

    Attributes
    ----------
    symbols : tuple
        Of the rows, in their order.
    rows : ndarray of shape (n_codes, n_symbols)
        The shares of each code: first the symbols, then the ambiguity codes, the last one for what is unknown.
    complement : tuple of int or None
        The position of each base's partner on the other strand; None if the symbols have none.
    spec : str, int or tuple
        What ``symbols`` was, as a constant.

    Raises
    ------
    ValueError, TypeError
        If a symbol comes twice, or there are none, or they are neither texts nor integers.

    References
    ----------
    A. Cornish-Bowden, "Nomenclature for incompletely specified bases in nucleic acid sequences", Nucleic Acids
    Research 13, 1985.

    Examples
    --------
    >>> from statespace.alphabets import Alphabet
    >>> dna = Alphabet("dna")
    >>> dna.rows[dna.encode("acR")]
    array([[1. , 0. , 0. , 0. ],
           [0. , 1. , 0. , 0. ],
           [0.5, 0. , 0.5, 0. ]])
    >>> Alphabet(["rest", "walk"]).encode(["walk", "rest", None])
    array([1, 0, 2], dtype=int32)
    """

    def __init__(self, symbols):
        self.spec = _checked(symbols)
        self.symbols, codes = _NAMED.get(self.spec, (self.spec, {})) if isinstance(self.spec, str) else (self.spec, {})
        self.symbols = tuple(range(self.symbols) if isinstance(self.symbols, int) else self.symbols)
        self.complement = _COMPLEMENTS.get(self.spec)
        place = {symbol: i for i, symbol in enumerate(self.symbols)}
        self._names = [*self.symbols, *(codes or [None])]
        self.rows = np.eye(len(self._names), len(place))
        for i, allowed in enumerate(codes.values() if codes else [self.symbols], start=len(place)):
            self.rows[i, [place[symbol] for symbol in allowed]] = 1 / len(allowed)
        self._codes = {name: i for i, name in enumerate(self._names)}
        self._numeric = not isinstance(self.symbols[0], str)
        self._letters = None
        if not self._numeric and all(len(symbol) == 1 for symbol in self.symbols):
            self._letters = self._letter_table(fold=bool(codes))

    @staticmethod
    @lru_cache(maxsize=32)
    def of(spec):
        """The alphabet of a ``spec``, made once.

        Examples
        --------
        >>> from statespace.alphabets import Alphabet
        >>> Alphabet.of("dna") is Alphabet.of("dna")
        True
        """
        return Alphabet(spec)

    def _letter_table(self, fold):
        """The code of each Unicode point up to the last known one, and -1 for those after."""
        letters = {ord(name): code for name, code in self._codes.items() if name is not None}
        if fold:
            letters |= {ord(chr(point).lower()): code for point, code in letters.items()}
            self._codes |= {chr(point): code for point, code in letters.items()}
        table = np.full(max(letters) + 2, -1, dtype=np.int32)
        table[list(letters)] = list(letters.values())
        return table

    def __len__(self):
        return len(self.symbols)

    def __eq__(self, other):
        return isinstance(other, Alphabet) and self.spec == other.spec

    def __hash__(self):
        return hash(self.spec)

    def __repr__(self):
        return f"Alphabet({self.spec!r})"

    def encode(self, sequence, where="the sequence"):
        """The code of every symbol.

        Parameters
        ----------
        sequence : str, bytes, object whose ``str`` is the sequence (Biopython's ``Seq``), or array-like of symbols
            Numbers are positions in the alphabet, unless its symbols are themselves integers. None and NaN are unknown.
        where : str
            What the sequence is called in an error message.

        Returns
        -------
        codes : ndarray of shape (n_times,), int32
            Positions in ``rows``.

        Raises
        ------
        ValueError
            For a symbol that is not in the alphabet; the message has the symbol and its position.

        Examples
        --------
        >>> from statespace.alphabets import Alphabet
        >>> Alphabet("dna").encode("GAxT")
        Traceback (most recent call last):
            ...
        ValueError: the sequence has 'x' at position 2 (counted from 0), which is not in alphabet='dna': A, C, G, T, \
or, where a symbol is uncertain, R, Y, S, W, K, M, B, D, H, V, N; in upper or lower case.
        """
        symbols = self._unpacked(sequence, where)
        if isinstance(symbols, str):
            symbols = np.frombuffer(symbols.encode("utf-32-le", "surrogatepass"), dtype="<U1" if symbols else "<u4")
        if symbols.dtype.kind in "biuf":
            codes = self._from_numbers(symbols)
        elif symbols.dtype == "<U1" and self._letters is not None:
            points = np.ascontiguousarray(symbols).view(np.uint32)
            codes = self._letters[np.minimum(points, len(self._letters) - 1)]
        else:
            codes = np.array([self._code(symbol) for symbol in symbols.tolist()], dtype=np.int32)
        if (codes < 0).any():
            k = int(np.argmax(codes < 0))
            symbol = symbols[k].item() if isinstance(symbols[k], np.generic) else symbols[k]
            raise ValueError(
                f"{where} has {symbol!r} at position {k} (counted from 0), which is not in {self._description()}"
                f"{self._advice(symbol)}"
            )
        return codes

    def decode(self, codes):
        """The symbols of codes, None where unknown.

        Examples
        --------
        >>> from statespace.alphabets import Alphabet
        >>> "".join(Alphabet("rna").decode([0, 3, 4]))
        'AUR'
        """
        names = np.array(self._names, dtype=object)
        return names[np.asarray(codes, dtype=np.int64)]

    def _unpacked(self, sequence, where):
        """The sequence as one text, or as an array of symbols."""
        if not isinstance(sequence, str | bytes):
            if isinstance(sequence, list | tuple) or hasattr(sequence, "__array__"):
                return self._array(sequence, where)
            sequence = getattr(sequence, "seq", sequence)  # Biopython's SeqRecord
        if isinstance(sequence, bytes | bytearray):
            sequence = sequence.decode("latin-1")
        if not hasattr(sequence, "__len__") or isinstance(sequence, dict | set | frozenset):
            raise ValueError(f"{where} must be a text or an array of symbols. Got {sequence!r} instead.")
        text = str(sequence)
        if self._letters is None and text:
            kind = "integers" if self._numeric else "texts of several characters"
            raise ValueError(
                f"{where} is a text, but the symbols of {self._name()} are {kind}: give an array or a list of symbols."
            )
        return text

    @staticmethod
    def _array(sequence, where):
        try:
            array = np.asarray(sequence)
            if array.dtype.kind == "U" and not all(isinstance(symbol, str) for symbol in sequence):
                array = np.asarray(sequence, dtype=object)  # NumPy would write None and NaN as texts
        except ValueError:
            array = np.empty((0, 0))
        if array.dtype.kind == "S":
            array = array.astype(np.str_)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise ValueError(f"{where} must have one symbol a step, in an array of shape (n_times,) or (n_times, 1).")
        return array

    def _from_numbers(self, numbers):
        if np.issubdtype(numbers.dtype, np.floating):
            missing = np.isnan(numbers)
        else:
            missing = np.zeros(len(numbers), dtype=bool)
        if self._numeric and self.symbols != tuple(range(len(self))):
            codes = pd.Index(self.symbols).get_indexer(numbers)
        else:
            inside = (numbers >= 0) & (numbers < len(self))
            positions = np.where(inside, numbers, -1).astype(np.int32)
            codes = np.where(positions == numbers, positions, -1)
        return np.where(missing, len(self.rows) - 1, codes).astype(np.int32)

    def _code(self, symbol):
        """The code of one symbol in an array of objects."""
        if symbol is None or symbol is pd.NA or symbol != symbol:
            return len(self.rows) - 1
        if isinstance(symbol, int | float) and not isinstance(symbol, bool):
            return int(self._from_numbers(np.array([symbol]))[0])
        return self._codes.get(symbol, -1) if isinstance(symbol, str) else -1

    def _name(self):
        text = repr(list(self.spec) if isinstance(self.spec, tuple) else self.spec)
        return f"alphabet={text if len(text) < 60 else text[:55] + ' ...' + text[-1]}"

    def _description(self):
        """The alphabet in an error message."""
        if isinstance(self.spec, int):
            return f"{self._name()}, the tokens 0 to {self.spec - 1}."
        if self.spec not in _NAMED:
            return f"{self._name()}."
        uncertain = ", ".join(self._names[len(self) :])
        return (
            f"{self._name()}: {', '.join(self.symbols)}, or, where a symbol is uncertain, {uncertain}; "
            "in upper or lower case."
        )

    def _advice(self, symbol):
        """What to do about a symbol that is often met where it does not belong."""
        if not isinstance(symbol, str):
            return "" if self._numeric else f" Numbers are positions, 0 to {len(self) - 1}."
        if self.spec in _COMPLEMENTS and symbol in "TtUu":
            other = "rna" if self.spec == "dna" else "dna"
            return f" Sequences with {symbol} have alphabet={other!r}."
        if self.spec in _NAMED and symbol in "-.* \r\n":
            return " Remove gaps, stops and white space, or give an alphabet of your own that has them."
        return ""


def _checked(symbols):
    """The parameter ``alphabet`` as a constant."""
    if isinstance(symbols, Alphabet):
        return symbols.spec
    if isinstance(symbols, Integral) and not isinstance(symbols, bool):
        if symbols < 1:
            raise ValueError(f"alphabet as a number of tokens must be at least 1. Got {symbols!r} instead.")
        return int(symbols)
    if not isinstance(symbols, str):
        if not has_rows(symbols):
            raise TypeError(
                "alphabet must be 'dna', 'rna', 'protein', a text or a sequence of symbols, or a number of tokens. "
                f"Got {symbols!r} instead."
            )
        symbols = tuple(s.item() if isinstance(s, np.generic) else s for s in symbols)
        if not (all(type(s) is int for s in symbols) or all(isinstance(s, str) and s for s in symbols)):
            raise TypeError(f"the symbols of an alphabet must be texts or integers. Got {symbols!r} instead.")
    if len(symbols) == 0 or len(set(symbols)) < len(symbols):
        raise ValueError(f"alphabet must have at least one symbol, and none twice. Got {symbols!r} instead.")
    return symbols


def encode_series(X, alphabet, name="X"):
    """Sequences of symbols in any form -> the same form with codes, and the names of the series or None.

    Parameters
    ----------
    X : array-like
        A list, array, Series or Index of texts or of arrays of symbols; a table with one series a row; a Series or
        DataFrame with a (series, time) MultiIndex; a list of Series or DataFrames indexed by time.
    alphabet : Alphabet
    name : str
        What X is called in an error message.

    Returns
    -------
    X : list of ndarray, list of Series, or Series with a MultiIndex
        As `SeriesCollection` takes it.
    labels : Index or None

    Raises
    ------
    ValueError
        For one sequence instead of several, or a symbol that is not in the alphabet; the message has the symbol, its
        position and its series.

    Examples
    --------
    >>> from statespace.alphabets import Alphabet, encode_series
    >>> encode_series(["AC", "GGT"], Alphabet("dna"))[0]
    [array([0, 1], dtype=int32), array([2, 2, 3], dtype=int32)]
    """
    if isinstance(X, str | bytes) or hasattr(X, "seq") or not hasattr(X, "__getitem__"):
        raise ValueError(f"{name} must be a list of sequences. Got {type(X).__name__}; give [{name}] if it is one.")
    labels = None
    if isinstance(X, pd.DataFrame | pd.Series):
        if isinstance(X, pd.DataFrame) and X.shape[1] == 1:
            X = X.iloc[:, 0]
        if isinstance(X.index, pd.MultiIndex) and isinstance(X, pd.Series) and not X.map(_is_long).any():
            return _encode_panel(X, alphabet, name), None
        labels = None if is_default(X.index) else X.index
        X = list(X) if isinstance(X, pd.Series) else list(X.to_numpy())
    elif isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OUS":
        X = X[:, 0]
    rows = []
    for i, row in enumerate(X):
        label = i if labels is None else labels[i]
        codes = alphabet.encode(row, where=f"series {label!r} of {name}")
        rows.append(pd.Series(codes, index=row.index) if isinstance(row, pd.Series | pd.DataFrame) else codes)
    return rows, labels


def _is_long(entry):
    """Whether an entry is a whole sequence rather than one symbol of a single character."""
    return has_rows(entry) or (isinstance(entry, str | bytes) and len(entry) > 1)


def _encode_panel(X, alphabet, name):
    """A panel, whose error messages count positions within a series."""
    codes = np.empty(len(X), dtype=np.int32)
    for label, rows in X.groupby(level=list(range(X.index.nlevels - 1)), sort=False).indices.items():
        label = label[0] if isinstance(label, tuple) and len(label) == 1 else label
        codes[rows] = alphabet.encode(X.to_numpy()[rows], where=f"series {label!r} of {name}")
    return pd.Series(codes, index=X.index)
