"""Accuracy of the classifiers on series that ship with sktime, over several seeds.

JapaneseVowels: 9 speakers by 12 cepstral coefficients, 7 to 29 steps. BasicMotions: 4 motions by accelerometer and
gyroscope, 100 steps. Options were chosen by cross-validation on the training part alone, which is printed too; the test
part, always the archive's own, is looked at once for every seed. 1-nearest-neighbour with the Euclidean distance is the
archive's baseline for series of one length.
"""

import time
import warnings

import numpy as np
import torch
from harness import machine
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from statespace import S4DClassifier, S5Classifier

TESTS = ["tests/test_classification.py"]
SEEDS = range(5)


def load(name):
    """Training and test part: lists of arrays (n_times_i, n_channels), and labels."""
    from sktime import datasets
    from sktime.datatypes import convert_to

    parts = []
    for split in ("train", "test"):
        X, y = getattr(datasets, f"load_{name}")(split=split, return_X_y=True)
        parts += [[frame.to_numpy() for frame in convert_to(X, "df-list")], np.asarray(y)]
    return parts


def report(title, make, train_X, train_y, test_X, test_y):
    """One line: the accuracy on training folds, and on the test part for every seed."""
    start = time.perf_counter()
    scores = [make(seed).fit(train_X, train_y).score(test_X, test_y) for seed in SEEDS]
    seconds = (time.perf_counter() - start) / len(SEEDS)
    folds = cross_val_score(make(0), train_X, train_y, cv=StratifiedKFold(4, shuffle=True, random_state=0))
    listed = " ".join(f"{100 * score:.1f}" for score in scores)
    print(
        f"  {title:24s} training folds {100 * folds.mean():5.1f} %   test {100 * np.mean(scores):5.1f} % "
        f"(seeds: {listed})   {seconds:.1f} s a fit",
        flush=True,
    )


def japanese_vowels():
    """Aim: 97 %."""
    data = load("japanese_vowels")
    print(f"\nJapaneseVowels: {len(data[0])} to train, {len(data[2])} to test, 9 classes")
    options = {
        "d_model": 64, "n_layers": 2, "d_state": 32, "dt_min": 0.01, "dt_max": 0.5, "dropout": 0.3, "max_epochs": 40,
        "validation_fraction": 0,
    }  # fmt: skip
    for kind in (S4DClassifier, S5Classifier):
        report(kind.__name__, lambda seed, kind=kind: kind(**options, random_state=seed), *data)


def basic_motions():
    """Aim: 97.5 %."""
    data = load("basic_motions")
    print(f"\nBasicMotions: {len(data[0])} to train, {len(data[2])} to test, 4 classes")
    flat = [np.stack(part).reshape(len(part), -1) for part in (data[0], data[2])]
    nearest = KNeighborsClassifier(1).fit(flat[0], data[1]).score(flat[1], data[3])
    print(f"  {'1-nearest neighbour':24s} test {100 * nearest:5.1f} %")
    options = {"d_model": 32, "n_layers": 2, "d_state": 32, "max_epochs": 50, "validation_fraction": 0}
    for kind in (S4DClassifier, S5Classifier):
        report(kind.__name__, lambda seed, kind=kind: kind(**options, random_state=seed), *data)


def main():
    print(machine(["torch", "scikit-learn", "sktime"]), f"{torch.get_num_threads()} threads")
    warnings.simplefilter("ignore")
    japanese_vowels()
    basic_motions()


if __name__ == "__main__":
    main()
