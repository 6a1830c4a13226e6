"""Symbols in every form become the same codes, and what is no symbol is named with its position and its series."""

import numpy as np
import pandas as pd
import pytest

from statespace import SeriesCollection
from statespace.alphabets import Alphabet, encode_series

DNA = Alphabet("dna")


def test_the_ambiguity_codes_have_shares_of_the_bases_they_allow():
    bases = {
        "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "GC", "W": "AT", "K": "GT", "M": "AC",
        "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
    }  # fmt: skip
    partners = dict(zip("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN", strict=True))
    for letter, allowed in bases.items():
        expected = [(base in allowed) / len(allowed) for base in "ACGT"]
        rows = DNA.rows[DNA.encode(letter + letter.lower())]
        np.testing.assert_array_equal(rows, [expected, expected])
        # What stands on the other strand is the code of the partners.
        np.testing.assert_array_equal(rows[:, DNA.complement], DNA.rows[DNA.encode(partners[letter] * 2)])
    assert len(DNA.rows) == len(bases)
    rna = Alphabet("rna")
    np.testing.assert_array_equal(rna.encode("ACGURYKMBDHVN"), DNA.encode("ACGTRYKMBDHVN"))
    np.testing.assert_array_equal(rna.rows, DNA.rows)


def test_proteins():
    protein = Alphabet("protein")
    assert "".join(protein.symbols) == "ACDEFGHIKLMNPQRSTVWY"
    rows = dict(zip("BZJUOXa", protein.rows[protein.encode("BZJUOXa")], strict=True))
    named = {letter: "".join(np.array(protein.symbols)[row > 0]) for letter, row in rows.items()}
    assert (named["B"], named["Z"], named["J"], named["a"]) == ("DN", "EQ", "IL", "A")
    assert (np.array([rows["X"], rows["U"], rows["O"]]) == 0.05).all()
    np.testing.assert_allclose(protein.rows.sum(axis=1), 1)
    assert protein.complement is None


class Written:
    """As Biopython's Seq: an object whose str is the sequence."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text

    def __len__(self):
        return len(self.text)


class Record:
    """As Biopython's SeqRecord, whose str is more than the sequence."""

    def __init__(self, text):
        self.seq = Written(text)

    def __len__(self):
        return len(self.seq)


@pytest.mark.parametrize(
    "sequence",
    [
        "AcGTn", np.str_("AcGTn"), b"ACGTN", Written("ACGTN"), Record("ACGTN"), list("ACGTN"), tuple("acgtn"),
        np.array(list("ACGTN")), np.array(list("ACGTN"), dtype=object), np.array(list("ACGTN"), dtype="S1"),
        np.array(list("ACGTN"))[:, None], pd.Series(list("ACGTN")), pd.Series(list("ACGTN"), dtype=object),
        ["A", "C", "G", "T", None], ["A", "C", "G", "T", np.nan], ["A", 1, "G", 3, "N"], [0, 1, 2, 3, np.nan],
        np.array([0, 1, 2, 3, np.nan])[:, None], np.array([0, 1, 2, 3, np.nan], dtype=np.float32),
        np.array(list("AxCxGxTxNx"))[::2], ["A", "C", "G", "T", pd.NA],
    ],
    ids=lambda sequence: type(sequence).__name__,
)  # fmt: skip
def test_one_sequence_in_every_form(sequence):
    np.testing.assert_array_equal(DNA.encode(sequence), [0, 1, 2, 3, len(DNA.rows) - 1])


def test_biopython():
    seq = pytest.importorskip("Bio.Seq").Seq("ACGTN")
    record = pytest.importorskip("Bio.SeqRecord").SeqRecord(seq)
    codes, _ = encode_series([seq, record], DNA)
    np.testing.assert_array_equal(codes, [DNA.encode("ACGTN")] * 2)


def test_alphabets_of_ones_own():
    assert Alphabet("HP").encode("PHP").tolist() == [1, 0, 1]
    words = Alphabet(["the", "cat", "a"])
    assert words.encode(["a", "cat", None]).tolist() == [2, 1, 3]
    assert words.decode([2, 1, 3]).tolist() == ["a", "cat", None]
    assert Alphabet([10, -20]).encode([-20, 10.0, np.nan]).tolist() == [1, 0, 2]
    assert Alphabet(np.int64(3)).encode(np.array([2, 0], dtype=np.uint8)).tolist() == [2, 0]
    # What is unknown has equal shares of all.
    np.testing.assert_array_equal(Alphabet(4).rows, np.vstack([np.eye(4), np.full(4, 0.25)]))
    assert Alphabet("αβγ").encode("γα").tolist() == [2, 0]
    assert Alphabet(["a", "b"]) == Alphabet(("a", "b")) != Alphabet("ab")


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [
        (3.5, "alphabet must be 'dna'.* Got 3.5"),
        (True, "alphabet must be 'dna'"),
        (0, "at least 1. Got 0"),
        ("", "at least one symbol"),
        ([], "at least one symbol"),
        ("ACA", "none twice. Got 'ACA'"),
        (["a", 1], "must be texts or integers"),
        (["a", ""], "must be texts or integers"),
        ([0.5, 1.0], "must be texts or integers"),
    ],
)
def test_what_is_no_alphabet(alphabet, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Alphabet(alphabet)


@pytest.mark.parametrize(
    ("alphabet", "sequence", "message"),
    [
        ("dna", "ACGTx", "the sequence has 'x' at position 4 .counted from 0., which is not in alphabet='dna': A, C,"),
        ("dna", "ACU", "'U' at position 2.*Sequences with U have alphabet='rna'"),
        ("rna", "ACT", "'T' at position 2.*Sequences with T have alphabet='dna'"),
        ("dna", "AC-T", "'-' at position 2.*Remove gaps"),
        ("dna", "AC\n", r"'\\n' at position 2.*white space"),
        ("dna", "A\U0001f9ec", "'\U0001f9ec' at position 1"),
        ("dna", ["A", "CG"], "'CG' at position 1"),
        ("dna", ["A", ""], "'' at position 1"),
        ("dna", [0, 4], "has 4 at position 1.*Numbers are positions, 0 to 3"),
        ("dna", [0, -1], "has -1 at position 1"),
        ("dna", [0.0, 0.5], "has 0.5 at position 1"),
        ("dna", [0.0, np.inf], "has inf at position 1"),
        ("dna", ["A", True], "has True at position 1"),
        ("protein", "MK*", "has '\\*' at position 2"),
        ("HP", "Hh", "has 'h' at position 1.*not in alphabet='HP'"),
        (5, [5], "alphabet=5, the tokens 0 to 4"),
        (5, "01", "is a text, but the symbols of alphabet=5 are integers"),
        (["ab", "c"], "abc", "are texts of several characters: give an array or a list"),
        ("dna", None, "must be a text or an array of symbols. Got None"),
        ("dna", np.nan, "must be a text or an array of symbols. Got nan"),
        ("dna", {"A": 1}, "must be a text or an array of symbols"),
        ("dna", [["A", "C"], ["G", "T"]], "must have one symbol a step"),
        ("dna", [["A", "C"], ["G"]], "must have one symbol a step"),
    ],
)  # fmt: skip
def test_what_is_no_symbol(alphabet, sequence, message):
    with pytest.raises(ValueError, match=message):
        Alphabet(alphabet).encode(sequence)


PANEL = pd.MultiIndex.from_tuples([("a", 0.0), ("a", 0.5), ("b", 1.0), ("b", 3.0), ("b", 3.5)])


@pytest.mark.parametrize(
    "X",
    [
        ["AC", "GTN"], ("AC", "GTN"), np.array(["AC", "GTN"]), np.array(["AC", "GTN"], dtype=object),
        np.array([["AC"], ["GTN"]]), pd.Series(["AC", "GTN"]), pd.Series(["AC", "GTN"], dtype=object),
        pd.DataFrame({"sequence": ["AC", "GTN"]}), pd.Index(["AC", "GTN"]), [list("AC"), list("GTN")],
        [[0, 1], [2, 3, np.nan]], [b"AC", b"GTN"],
    ],
    ids=lambda X: type(X).__name__,
)  # fmt: skip
def test_collections_in_every_form(X):
    collection = SeriesCollection(X, alphabet="dna")
    assert [row[:, 0].tolist() for row in collection.values] == [[0, 1], [2, 3, 14]]
    assert collection.times is None
    assert collection.labels is None
    assert collection.alphabet == DNA


@pytest.mark.parametrize(
    "X",
    [
        np.array([list("ACG"), list("TTN")]), np.array([[0, 1, 2], [3, 3, np.nan]]),
        pd.DataFrame([list("ACG"), list("TTN")]), np.array([[[0], [1], [2]], [[3], [3], [np.nan]]]),
    ],
    ids=lambda X: type(X).__name__,
)  # fmt: skip
def test_tables_have_a_series_in_each_row(X):
    collection = SeriesCollection(X, alphabet="dna")
    assert [row[:, 0].tolist() for row in collection.values] == [[0, 1, 2], [3, 3, 14]]


@pytest.mark.parametrize("one", ["ACGT", b"ACGT", Record("ACGT"), 7])
def test_one_sequence_is_no_collection(one):
    with pytest.raises(ValueError, match=r"X must be a list of sequences.*give \[X\]"):
        SeriesCollection(one, alphabet="dna")


def test_series_are_named():
    records = pd.Series(["AC", "GQ", ""], index=["chr1", "chr2", "chr3"])
    with pytest.raises(ValueError, match="series 'chr2' of X has 'Q' at position 1"):
        SeriesCollection(records, alphabet="dna")
    with pytest.raises(ValueError, match="series 'chr3' of X is empty"):
        SeriesCollection(records[["chr1", "chr3"]], alphabet="dna")
    with pytest.raises(ValueError, match="series 1 of X has 'Q' at position 0"):
        SeriesCollection(["AC", "QG"], alphabet="dna")
    with pytest.raises(ValueError, match="series 1 of X is empty"):
        SeriesCollection(["AC", ""], alphabet="dna")
    with pytest.raises(ValueError, match="series 1 of X must be a text or an array of symbols"):
        SeriesCollection(["AC", np.nan], alphabet="dna")


def test_events_in_time_from_panels_and_frames():
    expected = SeriesCollection(["AC", "GTA"], times=[[0.0, 0.5], [1.0, 3.0, 3.5]], alphabet="dna")
    letters = pd.Series(list("ACGTA"), index=PANEL)
    frames = [pd.Series(list("AC"), index=[0.0, 0.5]), pd.Series(list("GTA"), index=[1.0, 3.0, 3.5])]
    for X in (letters, letters.to_frame("base"), frames, [frame.to_frame() for frame in frames]):
        collection = SeriesCollection(X, alphabet="dna")
        for own, other in zip(collection.values + collection.times, expected.values + expected.times, strict=True):
            np.testing.assert_array_equal(own, other)
    letters.iloc[3] = "!"
    with pytest.raises(ValueError, match="series 'b' of X has '!' at position 1"):
        SeriesCollection(letters, alphabet="dna")
    # Whole sequences under a MultiIndex, as pandas joins two files, are a series each.
    joined = pd.concat([pd.Series(["AC"], index=["x"]), pd.Series(["GT"], index=["y"])], keys=["one", "two"])
    collection = SeriesCollection(joined, alphabet="dna")
    assert collection.times is None
    assert collection.label(1) == ("two", "y")


def test_a_collection_keeps_its_alphabet():
    X = SeriesCollection(["ACN", "GT", "T"], times=[[0, 1, 2], [0, 5], [0]], alphabet="dna")
    assert repr(X) == "SeriesCollection(3 series, 1 to 3 samples, symbols of 'dna', times as numbers)"
    assert X[[0, 2]].alphabet == DNA
    assert X[0][0].tolist() == ["A", "C", "N"]
    again = SeriesCollection([X[0], X[1], X[2]], alphabet="dna")
    for own, other in zip(again.values + again.times, X.values + X.times, strict=True):
        np.testing.assert_array_equal(own, other)
    assert SeriesCollection(X).alphabet == DNA
    assert SeriesCollection(SeriesCollection(["AC"], alphabet="dna"), times=[0.0, 2.0]).alphabet == DNA
    tokens = SeriesCollection([[0, 1], [3]])
    assert [row.tolist() for row in SeriesCollection(tokens, alphabet="dna").values] == [[[0], [1]], [[3]]]
    with pytest.raises(ValueError, match=r"series 1 of X has 3\.0 at position 0"):
        tokens.with_alphabet(3)
    with pytest.raises(ValueError, match="symbols of 'dna', not of 'rna'"):
        X.with_alphabet("rna")
    with pytest.raises(ValueError, match="symbols have one channel, got 2"):
        SeriesCollection(np.zeros((1, 3, 2))).with_alphabet(2)
