"""The real sets of DNA: what is in them, what to watch for, and that they can be fitted."""

import numpy as np
import pandas as pd
import pytest

from statespace import S4DClassifier, SeriesCollection
from statespace.alphabets import Alphabet
from statespace.datasets import read_fasta

TINY = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 1, "device": "cpu", "random_state": 0}


def test_splice_sites(data_path):
    rows = pd.read_csv(
        data_path("dna_uci_splice/splice.data"), names=["label", "name", "sequence"], skipinitialspace=True
    )
    sequences = rows["sequence"].str.strip()
    assert rows["label"].value_counts().to_dict() == {"N": 1655, "IE": 768, "EI": 767}
    assert sequences.duplicated().sum() == 185
    letters = pd.Series(list("".join(sequences))).value_counts()
    assert letters.drop(list("ACGT")).sum() == 60
    X = SeriesCollection(sequences, alphabet="dna")
    assert (X.lengths == 60).all()
    rows_read = np.concatenate([X.alphabet.rows[row[:, 0].astype(int)] for row in X.values])
    assert ((rows_read > 0).sum(axis=1) > 1).sum() == 60
    unique = sequences.drop_duplicates()[::10]
    clf = S4DClassifier(alphabet="dna", bidirectional=True, **TINY).fit(unique, rows.loc[unique.index, "label"])
    assert clf.classes_.tolist() == ["EI", "IE", "N"]
    assert set(clf.predict(unique)) <= {"EI", "IE", "N"}


def test_bacterial_promoters(data_path):
    columns = ["label", "name", "sequence"]
    rows = pd.read_csv(data_path("dna_uci_promoters/promoters.data"), names=columns, skipinitialspace=True)
    rows["sequence"] = rows["sequence"].str.strip()
    assert rows["label"].value_counts().to_dict() == {"+": 53, "-": 53}
    codes = SeriesCollection(rows["sequence"], alphabet="dna")
    assert (codes.lengths == 57).all()
    for letters, values in zip(rows["sequence"], codes.values, strict=True):
        assert "".join(codes.alphabet.decode(values[:, 0])) == letters.upper()
    clf = S4DClassifier(alphabet="dna", reverse_complement="augment", **TINY).fit(rows["sequence"], rows["label"])
    assert clf.predict(rows["sequence"]).shape == (106,)


@pytest.mark.parametrize(("name", "count"), [("Ecoli_prom", 839), ("Ecoli_non_prom", 3000)])
def test_promoter_files(data_path, name, count):
    records = read_fasta(data_path(f"dna_cnnprom/{name}.fa.gz"))
    assert len(records) == count
    assert records.index.is_unique
    X = SeriesCollection(records["sequence"], alphabet="dna")
    assert (X.lengths == 81).all()
    assert max(values.max() for values in X.values) < len(Alphabet("dna"))
    assert X.label(0) == records.index[0]
