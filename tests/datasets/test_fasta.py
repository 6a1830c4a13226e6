"""read_fasta gives the records as they stand, whatever wrote the file, and says what is wrong with one that is none."""

import gzip
import sys

import pytest

from statespace.datasets import read_fasta

TEXT = ">first exon 1, donor\nACGTnacg\nTT\n\n>second\nGG CC\n>third  two  spaces\n"


def check(records):
    assert records.index.tolist() == ["first", "second", "third"]
    assert records["sequence"].tolist() == ["ACGTnacgTT", "GGCC", ""]
    assert records["description"].tolist() == ["exon 1, donor", "", "two  spaces"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "mac"])
@pytest.mark.parametrize("start", ["", "\ufeff", "; a comment\n\n"], ids=["plain", "byte order mark", "comment"])
def test_plain_and_compressed(tmp_path, start, end):
    content = (start + TEXT).replace("\n", end).encode()
    (tmp_path / "a.fasta").write_bytes(content)
    (tmp_path / "b").write_bytes(gzip.compress(content))
    check(read_fasta(tmp_path / "a.fasta"))
    check(read_fasta(str(tmp_path / "b")))


def test_names_that_come_twice_are_kept_with_a_warning(tmp_path):
    (tmp_path / "a.fasta").write_text(">a 1\nAC\n>b\nGG\n>a 2\nTT\n")
    with pytest.warns(UserWarning, match=r"a\.fasta has 2 records called 'a'; all are kept"):
        records = read_fasta(tmp_path / "a.fasta")
    assert records["sequence"].tolist() == ["AC", "GG", "TT"]
    assert records.loc["a", "description"].tolist() == ["1", "2"]


def test_a_record_may_have_no_name_and_another_encoding(tmp_path):
    (tmp_path / "a.fasta").write_bytes(b">\nAC\n>b caf\xe9\nGG")
    records = read_fasta(tmp_path / "a.fasta")
    assert records.index.tolist() == ["", "b"]
    assert records["sequence"].tolist() == ["AC", "GG"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: there is no record"),
        (b"\n\n", "is empty: there is no record"),
        (b"\n@read\nACGT\n+\n!!!!\n", "a record begins with '>', but line 2 is '@read"),
        (b"ACGT\n>a\nACGT\n", "line 1 is 'ACGT"),
        (gzip.compress(TEXT.encode())[:-12], "no whole gzip file"),
        (gzip.compress(TEXT.encode())[:20] + b"\0" * 30, "no whole gzip file"),
    ],
)
def test_what_is_no_fasta_file(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_fasta(tmp_path / "a")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_fasta(tmp_path / "a")


def test_biopython_says_what_is_missing(monkeypatch, tmp_path):
    for name in [m for m in sys.modules if m.split(".")[0] == "Bio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Bio", None)
    with pytest.raises(ImportError, match=r"pip install 'statespace-learn\[dna\]'"):
        read_fasta(tmp_path / "a")
