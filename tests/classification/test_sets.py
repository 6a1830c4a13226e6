"""Sets of labels: against the rank from the definition, and how often they hold the label of a new series."""

import numpy as np
import pytest
from scipy.special import log_softmax

import statespace
from statespace import S4DClassifier
from statespace.classification.sets import _sets
from statespace.conformal import conformal_quantile


def tiny(**options):
    defaults = {"d_model": 8, "n_layers": 1, "d_state": 4, "max_epochs": 4, "random_state": 0, "device": "cpu"}
    return S4DClassifier(**(defaults | options))


def draw(n, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    return 1.5 * rng.normal(size=(n, 10)) + 0.5 * y[:, None], np.array(["a", "b", "c"])[y]


@pytest.fixture(scope="module")
def fitted():
    return tiny(calibrate=True).fit(*draw(200))


@pytest.mark.parametrize("coverage", [0.3, 0.8, 0.95])
def test_sets_are_those_of_the_definition(fitted, coverage):
    X, _ = draw(60, seed=1)
    logarithms = log_softmax(fitted.predict_log_proba(X) * fitted.temperature_, axis=1)
    n = fitted.n_calibration_
    q = np.sort(fitted.calibration_scores_)[int(np.ceil(coverage * (n + 1) - 1e-9)) - 1]
    expected = -logarithms <= q
    expected[np.arange(60), logarithms.argmax(axis=1)] = True
    sets = fitted.predict_set(X, coverage)
    np.testing.assert_array_equal(sets, expected)
    assert sets.sum(axis=1).min() >= 1


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_new_labels_are_covered_whatever_the_model(level):
    """Over many draws of held-out data; the model's probabilities are wrong, and its best label seldom right."""
    rng = np.random.default_rng(0)
    n, repeats = 39, 4000
    covered = 0
    for _ in range(repeats):
        logits, labels = rng.normal(size=(n + 1, 6)), rng.integers(6, size=n + 1)
        scores = -log_softmax(logits, axis=1)[np.arange(n + 1), labels]
        covered += _sets(logits[-1:], conformal_quantile(scores[:-1], level))[0, labels[-1]]
    spread = 3 * np.sqrt(level * (1 - level) / repeats)
    # The best label, always in the set, can only add.
    assert level - spread < covered / repeats < level + 1 / (n + 1) + spread


def test_more_coverage_larger_sets(fitted):
    X, _ = draw(50, seed=2)
    small, large = fitted.predict_set(X, 0.6), fitted.predict_set(X, 0.9)
    assert (large >= small).all()
    assert large.sum() > small.sum()


def test_a_label_a_step_and_series_of_any_length():
    X, _ = draw(40)
    y = np.where(X > 0, "up", "down")
    clf = tiny(calibrate=True).fit(X, y)
    assert clf.predict_set(X, 0.8).shape == (40, 10, 2)
    ragged = clf.predict_set([X[0, :4, None], X[1, :, None]], 0.8)
    assert [rows.shape for rows in ragged] == [(4, 2), (10, 2)]
    np.testing.assert_array_equal(ragged[1], clf.predict_set(X[1:2], 0.8)[0])
    np.testing.assert_allclose(clf.calibration_weights_, 0.1)


def test_a_file_keeps_them_and_a_fit_without_drops_them(fitted, tmp_path):
    X, y = draw(50, seed=3)
    fitted.save(tmp_path / "model")
    np.testing.assert_array_equal(statespace.load(tmp_path / "model").predict_set(X), fitted.predict_set(X))
    again = tiny(calibrate=True).fit(X, y).set_params(calibrate=False).fit(X, y)
    with pytest.raises(ValueError, match="fit with calibrate=True"):
        again.predict_set(X)


def test_what_cannot_be(fitted):
    X, _ = draw(5)
    with pytest.raises(ValueError, match="needs 99 held-out series to be sure of, and there are 40"):
        fitted.predict_set(X, 0.99)
    for coverage in (0, 1, -0.5, np.nan):
        with pytest.raises(ValueError, match="coverage must be between 0 and 1"):
            fitted.predict_set(X, coverage)
