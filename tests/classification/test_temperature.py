"""Probabilities that mean what they say: the temperature against its definition, and log loss and ECE on new series."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

import statespace
from statespace import S4DClassifier
from statespace.classification.temperature import fit_temperature


def tiny(**options):
    defaults = {"d_model": 8, "n_layers": 1, "d_state": 4, "max_epochs": 2, "random_state": 0, "device": "cpu"}
    return S4DClassifier(**(defaults | options))


def calibration_error(probabilities, labels, n_bins=10):
    """Expected calibration error: mean of |accuracy - confidence| over bins of equal numbers."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.array_split(np.argsort(confidence), n_bins)
    return sum(len(b) * abs(right[b].mean() - confidence[b].mean()) for b in bins) / len(labels)


def draw(n, true, seed=0, n_classes=3):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, n_classes))
    labels = (softmax(logits / true, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits, labels


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(true):
    logits, labels = draw(30_000, true)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.03)


def test_the_temperature_is_the_minimum():
    logits, labels = draw(200, 2.0)
    weights = np.random.default_rng(1).random(200)

    def loss(u):
        return 8 * u**2 - weights @ log_softmax(logits / np.exp(u), axis=1)[np.arange(200), labels]

    expected = minimize_scalar(loss, bracket=(-1, 2)).x
    assert fit_temperature(logits, labels, weights) == pytest.approx(np.exp(expected), rel=1e-6)


def test_few_labels_that_are_all_right_are_no_reason_to_be_sure():
    logits = np.tile([0.0, 3.0], (20, 1))
    assert 0.7 < fit_temperature(logits, np.ones(20, dtype=int)) < 1
    assert 1 < fit_temperature(logits, np.zeros(20, dtype=int)) < 20
    assert fit_temperature(np.zeros((4, 1)), np.zeros(4, dtype=int)) == pytest.approx(1.0, abs=1e-6)


def noisy(n, seed=0):
    """Two classes that overlap: a network that learns its few series by heart is much too sure."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, size=n)
    return rng.normal(size=(n, 10, 2)) + 0.25 * y[:, None, None], np.array(["down", "up"])[y]


@pytest.fixture(scope="module")
def by_heart():
    X, y = noisy(280)
    options = {
        "batch_size": 8,
        "max_epochs": 60,
        "learning_rate": 0.02,
        "validation_fraction": 0,
        "dropout": 0.0,
        "pooling": "last",
    }
    return tiny(calibrate=True, calibration_fraction=0.8, **options).fit(X, y)


def test_calibrated_probabilities_mean_what_they_say(by_heart):
    X, y = noisy(2000, seed=1)
    labels = (y == "up").astype(int)
    honest = by_heart.predict_proba(X)
    logits = by_heart._outputs(by_heart._read(X, None))
    loud = softmax(logits, axis=1)
    assert by_heart.temperature_ > 1.5
    np.testing.assert_allclose(honest, softmax(logits / by_heart.temperature_, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(honest.argmax(axis=1), loud.argmax(axis=1))
    assert log_loss(labels, honest) < log_loss(labels, loud) - 0.5
    assert calibration_error(honest, labels) < 0.5 * calibration_error(loud, labels)
    assert calibration_error(honest, labels) < 0.2


def test_nothing_is_learned_from_the_series_that_calibrate():
    X, y = noisy(40)
    model = tiny(calibrate=True, random_state=3).fit(X, y)
    numbers = (y == "up").astype(float)[:, None]
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    held = model._split(numbers, torch.Generator().manual_seed(seed))[2]
    assert len(held) == 8
    outputs = model._outputs(model._read(X[held], None))
    assert model.temperature_ == pytest.approx(fit_temperature(outputs, numbers[held, 0].astype(int)), rel=1e-9)
    other = X.copy()
    other[held] = 1e3
    again = tiny(calibrate=True, random_state=3).fit(other, y)
    for name, value in model.model_.state_dict().items():
        assert torch.equal(value, again.model_.state_dict()[name])


def test_streams_and_files_keep_the_temperature(by_heart, tmp_path):
    X, _ = noisy(3, seed=2)
    stream = by_heart.stream()
    for x in X[0]:
        running = stream.step(x)
    np.testing.assert_allclose(running, by_heart.predict_proba(X[:1])[0], rtol=1e-9)
    by_heart.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    assert again.temperature_ == by_heart.temperature_
    np.testing.assert_array_equal(again.predict_proba(X), by_heart.predict_proba(X))


def test_labels_a_step():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(n, 1)) for n in rng.integers(3, 9, size=20)]
    y = [np.where(rng.random(len(x)) < 0.2, np.nan, (x[:, 0] > 0).astype(float)) for x in X]
    model = tiny(calibrate=True, calibration_fraction=0.5).fit(X, y)
    assert model.temperature_ != 1.0
    assert tiny().fit(X, y).temperature_ == 1.0
    assert [row.shape for row in model.predict_proba(X)] == [(len(x), 2) for x in X]
    with pytest.raises(ValueError, match="none of n_samples=4"):
        tiny(calibrate=True).fit(X[:4], y[:4])
