"""Accuracy on DNA: splice sites beside naive Bayes, and promoters of E. coli beside a published convolutional network.

The data are read from the folder that ``STATESPACE_DATA`` names; without it they are passed over. With the environment
variable ``SHORT`` set, one fold and one epoch of each. Options were chosen on a part of the first fold's training data.

Published on the same promoters (V. Solovyev, R. Umarov 2016, arXiv:1610.00121): sensitivity 0.90, specificity 0.96,
correlation coefficient 0.84. Both sets tell which strand is read, so that ``reverse_complement`` would hide something;
what it costs is shown on the promoters.
"""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from harness import machine
from sklearn.metrics import matthews_corrcoef
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import CategoricalNB

from statespace import MambaClassifier, S4DClassifier
from statespace.datasets import read_fasta

TESTS = ["tests/test_symbols.py", "tests/datasets/test_fasta.py"]
SHORT = "SHORT" in os.environ
COMMON = {
    "alphabet": "dna", "bidirectional": True, "d_model": 32, "n_layers": 2, "dropout": 0.3, "patience": None,
}  # fmt: skip
S4D = {"d_state": 32, "dt_min": 0.1, "dt_max": 1.0, "learning_rate": 1e-2, "max_epochs": 1 if SHORT else 12}
MAMBA = {"d_state": 16, "max_epochs": 1 if SHORT else 10}
JUNCTION, WINDOW = 30, 60


def folder(name):
    """The folder of a data set, or None."""
    root = os.environ.get("STATESPACE_DATA")
    if root is None or not (Path(root) / name).is_dir():
        print(f"\n{name}: no such folder in STATESPACE_DATA, passed over")
        return None
    return Path(root) / name


class NaiveBayes:
    """Each base by its place, by itself."""

    def fit(self, X, y):
        self.model = CategoricalNB(min_categories=5).fit(self._codes(X), y)
        return self

    def predict(self, X):
        return self.model.predict(self._codes(X))

    @staticmethod
    def _codes(X):
        return np.array([["ACGTN".find(letter) % 5 for letter in x] for x in X])


class AtJunction:
    """A classifier of steps that is asked at one step alone."""

    def __init__(self, classifier):
        self.classifier = classifier

    def fit(self, X, y):
        steps = np.full((len(X), WINDOW), None, dtype=object)
        steps[:, JUNCTION] = y
        self.classifier.fit(X, steps)
        return self

    def predict(self, X):
        return self.classifier.predict(X)[:, JUNCTION]


class Hidden:
    """A classifier that is also trained on copies of the sequences with some bases hidden behind an N."""

    def __init__(self, classifier, copies=1 if SHORT else 7, share=0.25):
        self.classifier, self.copies, self.share = classifier, copies, share

    def fit(self, X, y):
        rng = np.random.default_rng(0)
        hidden = [
            "".join(np.where(rng.random(len(x)) < self.share, "N", list(x))) for _ in range(self.copies) for x in X
        ]
        self.classifier.fit([*X, *hidden], np.tile(y, 1 + self.copies))
        return self

    def predict(self, X):
        return self.classifier.predict(X)

    def predict_proba(self, X):
        return self.classifier.predict_proba(X)


class Votes:
    """The larger of the probabilities that several classifiers of two classes, 0 and 1, give on average."""

    def __init__(self, *classifiers):
        self.classifiers = classifiers

    def fit(self, X, y):
        for classifier in self.classifiers:
            classifier.fit(X, y)
        return self

    def predict(self, X):
        return np.mean([classifier.predict_proba(X) for classifier in self.classifiers], axis=0).argmax(axis=1)


def validate(contenders, X, y, n_splits):
    """Predictions of every fold, of each contender."""
    folds = list(StratifiedKFold(n_splits, shuffle=True, random_state=0).split(X, y))[: 1 if SHORT else None]
    for name, make in contenders.items():
        start, answers = time.perf_counter(), []
        for train, test in folds:
            answers.append((y[test], make().fit(X[train], y[train]).predict(X[test])))
        yield name, answers, (time.perf_counter() - start) / len(folds)


def interval(scores):
    """Mean and 95 % confidence interval over folds, by Student's t."""
    from scipy.stats import t

    mean = np.mean(scores)
    if len(scores) < 2:
        return f"{mean:.3f}"
    half = t.ppf(0.975, len(scores) - 1) * np.std(scores, ddof=1) / np.sqrt(len(scores))
    return f"{mean:.3f} ± {half:.3f}"


def splice():
    where = folder("dna_uci_splice")
    if where is None:
        return
    rows = pd.read_csv(where / "splice.data", names=["label", "name", "sequence"], skipinitialspace=True)
    unique = rows["sequence"].str.strip().drop_duplicates()
    X, y = unique.to_numpy(), rows.loc[unique.index, "label"].to_numpy()
    print(f"\nSplice sites: {len(X)} windows of {WINDOW} bases, {len(rows) - len(X)} duplicates left out, 10 folds")
    contenders = {
        "naive Bayes": NaiveBayes,
        "S4DClassifier, both ways": lambda: AtJunction(S4DClassifier(**COMMON, **S4D, random_state=0)),
        "MambaClassifier, both ways": lambda: AtJunction(MambaClassifier(**COMMON, **MAMBA, random_state=0)),
    }
    for name, answers, seconds in validate(contenders, X, y, 10):
        scores = [np.mean(true == predicted) for true, predicted in answers]
        print(f"  {name:44s}accuracy {interval(scores)}   {seconds:.0f} s a fold", flush=True)


def promoters():
    where = folder("dna_cnnprom")
    if where is None:
        return
    parts = [read_fasta(where / f"Ecoli_{name}.fa.gz")["sequence"] for name in ("non_prom", "prom")]
    X, y = np.array([*parts[0], *parts[1]]), np.repeat([0, 1], [len(part) for part in parts])
    print(f"\nPromoters of E. coli: {y.sum()} of {len(y)} sequences of {len(X[0])} bases, 5 folds")
    print(f"  {'published convolutional network':44s}Sn 0.90   Sp 0.96   CC 0.84")

    # Copies are no validation data: all epochs, and no held-out part.
    wide = COMMON | S4D | {"d_model": 64, "batch_size": 64, "validation_fraction": 0, "max_epochs": 1 if SHORT else 8}
    contenders = {
        "naive Bayes": NaiveBayes,
        "S4DClassifier, both ways": lambda: S4DClassifier(**COMMON, **S4D, random_state=0),
        "the same, reverse_complement='equivariant'": lambda: S4DClassifier(
            **COMMON, **S4D, reverse_complement="equivariant", random_state=0
        ),
        "MambaClassifier, both ways": lambda: MambaClassifier(**COMMON, **MAMBA, random_state=0),
        "S4DClassifier, wider, with hidden bases": lambda: Hidden(S4DClassifier(**wide, random_state=0)),
        "two of these, their mean": lambda: Votes(*(Hidden(S4DClassifier(**wide, random_state=s)) for s in (0, 1))),
    }
    for name, answers, seconds in validate(contenders, X, y, 5):
        sensitivity, specificity, correlation = (
            interval([score(true, predicted) for true, predicted in answers])
            for score in (share(1), share(0), matthews_corrcoef)
        )
        print(
            f"  {name:44s}Sn {sensitivity}   Sp {specificity}   CC {correlation}   {seconds:.0f} s a fold", flush=True
        )


def share(label):
    """The share of a class that is found."""
    return lambda true, predicted: np.mean(predicted[true == label] == label)


def main():
    print(machine(["torch", "scikit-learn", "biopython"]))
    splice()
    promoters()
