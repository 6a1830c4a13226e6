"""Deep estimators on sequences of symbols: any form of X, ragged, streamed, saved, searched; both strands of DNA."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict, train_test_split

import statespace
from statespace import S4DClassifier, S4DRegressor, S5Classifier, SeriesCollection, SSMRegressor

TINY = {"d_model": 8, "n_layers": 1, "d_state": 4, "max_epochs": 2, "device": "cpu", "random_state": 0}
PARTNERS = str.maketrans("ACGTRYNacgt", "TGCAYRNtgca")


def make_sequences(n=16, seed=0):
    """Ragged DNA with unknown bases, whether it has more G than C, and which bases are A."""
    rng = np.random.default_rng(seed)
    X = ["".join(rng.choice(list("ACGTN"), size, p=[0.24] * 4 + [0.04])) for size in rng.integers(3, 20, n)]
    y = np.array(["few", "many"])[[int(x.count("G") > x.count("C")) for x in X]]
    return X, y, [np.array([letter == "A" for letter in x]).astype(float) for x in X]


def reverse_complement(X):
    return [x.translate(PARTNERS)[::-1] for x in X]


def as_rows(X):
    """What the documentation says a network reads."""
    return [np.array([[base == letter for base in "ACGT"] if letter != "N" else [0.25] * 4 for letter in x]) for x in X]


def test_symbols_are_rows_of_the_identity():
    X, y, _ = make_sequences()
    clf = S4DClassifier(alphabet="dna", **TINY).fit(X, y)
    assert clf.model_.encoder.in_features == 4
    assert clf.alphabet_ == "dna"
    assert not hasattr(clf, "x_mean_")
    for encoded, expected in zip((clf._encode(np.c_[clf._alphabet.encode(x)]) for x in X), as_rows(X), strict=True):
        np.testing.assert_array_equal(encoded, expected)
    # The network's answer, from its rows.
    import torch

    model = clf._copy_model(torch.device("cpu"), torch.float64)
    for x, rows, answer in zip(X, as_rows(X), clf.predict_log_proba(X), strict=True):
        logits = model(torch.from_numpy(rows * 1.0)[None])[0]
        np.testing.assert_allclose(answer, torch.log_softmax(logits, 1)[0].detach(), rtol=1e-9), x


def test_every_form_of_x_gives_the_same():
    X, y, _ = make_sequences()
    X = [x.replace("N", "A") for x in X]
    clf = S4DClassifier(alphabet="dna", **TINY).fit(X, y)
    expected = clf.predict_proba(X)
    tokens = [["ACGT".index(letter) for letter in x] for x in X]
    others = [
        [x.lower() for x in X], np.array(X), pd.Series(X, index=[f"read {i}" for i in range(len(X))]),
        [list(x) for x in X], tokens, [np.array(t) for t in tokens], SeriesCollection(tokens),
        SeriesCollection(X, alphabet="dna"), [x.encode() for x in X],
    ]  # fmt: skip
    for other in others:
        np.testing.assert_array_equal(clf.predict_proba(other), expected)
    # N was not seen in fit, and needs no warning: its row is the mean of all.
    assert np.isfinite(clf.predict_proba(["ANNA"])).all()


def test_tokens_in_a_table():
    rng = np.random.default_rng(0)
    X = rng.integers(5, size=(12, 9))
    steps = np.where(np.arange(9) > 6, X[:, :1], np.nan)
    clf = S4DClassifier(alphabet=5, **TINY).fit(X, steps)
    assert clf.predict(X).shape == (12, 9)
    np.testing.assert_array_equal(clf.predict(X[:, :4].tolist())[0], clf.predict(X)[0][:4])
    assert not hasattr(clf, "n_features_in_")
    with pytest.raises(ValueError, match=r"series 2 of X has 5 at position 1.*the tokens 0 to 4"):
        clf.predict([[0], [1], [2, 5]])


@pytest.mark.parametrize("alphabet", ["dna", "ACGTN", ["A", "C", "G", "T", "N"], ("A", "C", "G", "T", "N")])
def test_labels_a_step_streams_copies_and_files(alphabet, tmp_path):
    X, _, steps = make_sequences()
    reg = S4DRegressor(alphabet=alphabet, **TINY).fit(X, steps)
    expected = reg.predict(X)
    assert [len(row) for row in expected] == [len(x) for x in X]
    stream = reg.stream()
    np.testing.assert_allclose([stream.step(letter) for letter in X[1]], expected[1], rtol=1e-9, atol=1e-12)
    reg.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    assert isinstance(again, S4DRegressor)
    for model in (again, pickle.loads(pickle.dumps(reg))):
        for row, other in zip(model.predict(X), expected, strict=True):
            np.testing.assert_array_equal(row, other)
    assert clone(reg).get_params()["alphabet"] == alphabet
    assert clone(again).fit(X, steps).history_.equals(reg.history_)


def test_an_array_as_alphabet(tmp_path):
    reg = S4DRegressor(alphabet=np.array(["up", "down"]), **TINY).fit([["up"], ["up", "down"]], [1.0, 2.0])
    reg.save(tmp_path / "model")
    assert statespace.load(tmp_path / "model").alphabet == ["up", "down"]
    assert reg.stream().step("up") == pytest.approx(reg.predict([["up"]])[0])


@pytest.mark.parametrize(
    ("symbol", "message"),
    [
        ("Z", "x_t has 'Z'.*not in alphabet='dna'"),
        ("AC", "x_t has 'AC'"),
        (["A", "C"], "x_t must be one symbol"),
        ("", "x_t"),
        (7, "x_t has 7"),
    ],
)
def test_a_stream_says_what_is_no_symbol(symbol, message):
    X, y, _ = make_sequences(4)
    stream = S4DClassifier(alphabet="dna", **TINY).fit(X, y).stream()
    with pytest.raises(ValueError, match=message):
        stream.step(symbol)
    for letter in ("A", "n", 2, np.nan, np.str_("C"), ["T"]):
        stream.step(letter)
    assert stream.n_steps == 6


def test_a_label_for_one_letter():
    """Numbers beside None are labels as they are elsewhere."""
    X, y, _ = make_sequences()
    labels = [np.full(len(x), None, dtype=object) for x in X]
    for row, label in zip(labels, y == "many", strict=True):
        row[1] = int(label)
    clf = S4DClassifier(alphabet="dna", **TINY).fit(X, labels)
    assert clf.classes_.tolist() == [0, 1]
    numbers = [np.where(np.arange(len(x)) == 1, float(row[1]), np.nan) for x, row in zip(X, labels, strict=True)]
    pd.testing.assert_frame_equal(S4DClassifier(alphabet="dna", **TINY).fit(X, numbers).history_, clf.history_)


def test_events_in_time():
    X, _, steps = make_sequences()
    times = [np.cumsum(np.random.default_rng(i).exponential(size=len(x)) + 0.01) for i, x in enumerate(X)]
    reg = S4DRegressor(alphabet="dna", **TINY).fit(X, steps, times=times)
    collection = SeriesCollection(X, times=times, alphabet="dna")
    expected = reg.predict(X, times=times)
    for row, other in zip(reg.predict(collection), expected, strict=True):
        np.testing.assert_array_equal(row, other)
    stream = reg.stream()
    for k, gap in enumerate(np.diff(times[0], prepend=0.0)):
        assert stream.step(X[0][k], gap) == pytest.approx(expected[0][k], rel=1e-9)
    with pytest.raises(ValueError, match="fitted with times"):
        reg.predict(X)
    with pytest.raises(ValueError, match="give the estimator alphabet='dna'"):
        S4DRegressor(**TINY).fit(collection, steps)
    with pytest.raises(ValueError, match="symbols of 'dna', not of 'rna'"):
        S4DRegressor(alphabet="rna", **TINY).fit(collection, steps)


@pytest.mark.parametrize("form", [list, np.array, pd.Series, lambda X: SeriesCollection(X, alphabet="dna")])
def test_scikit_learn_cuts_sequences(form):
    X, y, _ = make_sequences(24)
    X = form(X)
    train, test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    clf = S4DClassifier(alphabet="dna", **TINY)
    search = GridSearchCV(clf, {"reverse_complement": [None, "equivariant"]}, cv=2, error_score="raise")
    search.fit(train, y_train)
    assert 0 <= search.score(test, y_test) <= 1
    assert cross_val_predict(clf, X, y, cv=2).shape == y.shape


def test_motifs_are_learned():
    rng = np.random.default_rng(0)
    X = ["".join(rng.choice(list("ACGT"), n)) for n in rng.integers(20, 40, 200)]
    y = rng.integers(2, size=200)
    X = [
        x[:k] + "TATAAT" + x[k + 6 :] if label else x
        for x, label, k in zip(X, y, rng.integers(14, size=200), strict=True)
    ]
    y = np.array(["TATAAT" in x for x in X])
    clf = S4DClassifier(
        d_model=16, n_layers=2, d_state=8, dt_min=0.1, dt_max=1.0, alphabet="dna", bidirectional=True, max_epochs=25,
        learning_rate=0.01, random_state=0, device="cpu",
    )  # fmt: skip
    assert clf.fit(X[:150], y[:150]).score(X[150:], y[150:]) > 0.85


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["steps", "mean", "last"])
def test_equivariant_estimators(kind, bidirectional, tmp_path):
    X, y, steps = make_sequences()
    options = TINY | {"n_layers": 2, "bidirectional": bidirectional, "pooling": "mean" if kind == "steps" else kind}
    clf = S5Classifier(alphabet="dna", reverse_complement="equivariant", **options).fit(
        X, steps if kind == "steps" else y
    )
    here, there = clf.predict_proba(X), clf.predict_proba(reverse_complement(X))
    rows = (
        zip(here, there, strict=True) if kind != "steps" else ((a, b[::-1]) for a, b in zip(here, there, strict=True))
    )
    for row, other in rows:
        np.testing.assert_allclose(row, other, rtol=0, atol=1e-12)
    clf.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    np.testing.assert_array_equal(np.concatenate(list(again.predict_proba(X))), np.concatenate(list(here)))
    assert np.ptp([row[0] for row in here] if kind != "steps" else here[0], axis=0).max() > 1e-6
    with pytest.raises(ValueError, match="reads both strands needs the whole sequence"):
        clf.stream()


def test_equivariant_on_irregular_times_and_several_scales():
    X, _, steps = make_sequences()
    times = [np.cumsum(np.random.default_rng(i).exponential(size=len(x)) + 0.01) for i, x in enumerate(X)]
    reg = SSMRegressor(
        "s4d", d_model=8, n_layers=1, layer_options={"d_state": 4}, backbone="sashimi",
        backbone_options={"factors": [2]}, alphabet="rna", reverse_complement="equivariant", max_epochs=1,
        random_state=0,
    )  # fmt: skip
    X = [x.replace("T", "U") for x in X]
    reg.fit(X, steps, times=times)
    other = [x.replace("U", "T").translate(PARTNERS)[::-1].replace("T", "U") for x in X]
    # On the other strand the gaps lie in reverse, but for the first one, which is 1 for every series.
    other_times = [-t[::-1] for t in times]
    for row, row_other in zip(reg.predict(X, times=times), reg.predict(other, times=other_times), strict=True):
        np.testing.assert_allclose(row, row_other[::-1], rtol=0, atol=1e-9)


def test_augmentation_teaches_both_strands():
    """Runs of A against A and T in turn, but never runs of T: those are on the strand that is not in the data."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    X = ["".join(rng.choice(list("CG"), 8)) + ("AAAAAA" if label else "ATATAT") for label in y]
    other = reverse_complement(X)
    options = TINY | {"max_epochs": 15, "validation_fraction": 0, "learning_rate": 0.02, "n_layers": 2}
    scores = {
        mode: S4DClassifier(alphabet="dna", reverse_complement=mode, **options).fit(X, y).score(other, y)
        for mode in (None, "augment", "equivariant")
    }
    assert scores["augment"] > 0.95
    assert scores["equivariant"] > 0.95
    assert scores[None] < 0.8
    first, second = (
        S4DClassifier(alphabet="dna", reverse_complement="augment", **TINY).fit(X, y).history_ for _ in range(2)
    )
    pd.testing.assert_frame_equal(first, second)
    S4DClassifier(alphabet="dna", reverse_complement="augment", **TINY).fit(X, y).stream().step("A")


@pytest.mark.parametrize(
    ("options", "X", "message"),
    [
        ({}, ["AC", "GT"], "X holds texts, not numbers.*alphabet='dna'"),
        ({"alphabet": "dna"}, ["AC", "GX"], "series 1 of X has 'X' at position 1"),
        ({"alphabet": "dna"}, ["AC", ""], "series 1 of X is empty"),
        ({"alphabet": "dna"}, "ACGT", "must be a list of sequences"),
        ({"alphabet": "dna"}, [], "must hold a series"),
        ({"alphabet": "dna"}, np.zeros((2, 3, 2)), "one symbol a step"),
        ({"alphabet": 2.5}, ["AC", "GT"], "alphabet must be"),
        ({"reverse_complement": "equivariant"}, ["AC", "GT"], "needs alphabet='dna' or 'rna'.*Got alphabet=None"),
        ({"reverse_complement": "augment", "alphabet": ["A"]}, ["A", "A"], "needs alphabet='dna' or 'rna'"),
        ({"reverse_complement": "both", "alphabet": "dna"}, ["AC", "GT"], "must be None, 'equivariant' or 'augment'"),
    ],
)  # fmt: skip
def test_bad_input_is_named(options, X, message):
    with pytest.raises((ValueError, TypeError), match=message):
        S4DRegressor(**TINY, **options).fit(X, [0.0, 1.0])


def test_an_estimator_may_be_fitted_to_numbers_again():
    X, y, _ = make_sequences()
    clf = S4DClassifier(alphabet="dna", **TINY).fit(X, y)
    numbers = np.random.default_rng(0).normal(size=(16, 5))
    clf.set_params(alphabet=None).fit(numbers, y)
    assert not hasattr(clf, "alphabet_")
    assert clf.n_features_in_ == 5
    clf.set_params(alphabet="dna").fit(X, y)
    assert not hasattr(clf, "n_features_in_")
    assert clf.predict(X).shape == (16,)
