"""Standard deviations, quantiles and intervals of regressors: forms, what is learned, and what share they cover."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.model_selection import cross_val_score

import statespace
from statespace import MambaRegressor, S4DRegressor, SSMRegressor
from statespace.conformal import conformal_quantile
from statespace.distributions import DISTRIBUTIONS
from statespace.export import Step

NAMES = list(DISTRIBUTIONS)
UNCERTAIN = [name for name in NAMES if name is not None]
LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]


def tiny(**options):
    defaults = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 2, "random_state": 0, "device": "cpu"}
    return S4DRegressor(**(defaults | options))


def noisy(n, seed=0, per_step=False, n_times=12):
    """A mean and a spread that both change from series to series, in two channels; the noise has heavy tails."""
    rng = np.random.default_rng(seed)
    level, spread = rng.uniform(-1, 1, size=(2, n, 1))
    X = np.stack(np.broadcast_arrays(level + 0 * np.arange(n_times), spread), axis=-1)
    noise = 10 + 3 * level + np.exp(spread) * rng.standard_t(5, size=(n, n_times if per_step else 1))
    return X, noise if per_step else noise[:, 0]


def ragged(n, seed=0):
    """Steps of series of unlike length, whose spread depends on the length: short ones are loud."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 12, size=n)
    X = [rng.normal(size=(k, 1)) for k in lengths]
    y = [np.cumsum(x[:, 0]) + rng.normal(size=len(x)) * 6 / len(x) for x in X]
    for row in y:
        row[rng.random(len(row)) < 0.2] = np.nan
    return X, y


@pytest.mark.parametrize("distribution", NAMES)
@pytest.mark.parametrize("shape", [(40,), (40, 2), (40, 5, 1), (40, 5, 2)])
def test_answers_have_the_form_of_the_targets(distribution, shape):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 5, 2)), rng.normal(size=shape)
    model = tiny(distribution=distribution, calibrate=distribution is None, max_epochs=1).fit(X, y)
    mean, std = model.predict(X, return_std=True)
    lower, upper = model.predict_interval(X, coverage=0.5)
    assert mean.shape == std.shape == lower.shape == upper.shape == shape
    np.testing.assert_array_equal(mean, model.predict(X))
    assert (std > 0).all()
    assert (lower < mean).all()
    assert (mean < upper).all()
    quantiles = model.predict_quantiles(X, [0.25, 0.5, 0.75])
    assert quantiles.shape == (*shape, 3)
    assert (np.diff(quantiles, axis=-1) >= 0).all()
    np.testing.assert_array_equal(model.predict_quantiles(X, 0.25), quantiles[..., 0])
    assert np.isfinite(model.score(X, y))


@pytest.mark.parametrize("distribution", ["gaussian", None])
def test_answers_a_step_of_ragged_series(distribution):
    X, y = ragged(30)
    model = tiny(distribution=distribution, calibrate=True).fit(X, y)
    answers = [*model.predict(X, return_std=True), *model.predict_interval(X, 0.8)]
    assert [row.shape for row in model.predict_quantiles(X, LEVELS[1:4])] == [(len(row), 3) for row in y]
    for answer in answers:
        assert (answer.dtype, answer.shape) == (object, (30,))
        assert [row.shape for row in answer] == [row.shape for row in y]


@pytest.fixture(scope="module")
def learned():
    """Models of every distribution that had the time to learn mean and spread."""
    X, y = noisy(600)
    options = {"d_model": 8, "max_epochs": 12, "learning_rate": 0.02, "dropout": 0.0}
    return {name: tiny(distribution=name, **options).fit(X, y) for name in UNCERTAIN}


@pytest.mark.parametrize("name", UNCERTAIN)
def test_mean_and_spread_are_learned(learned, name):
    X, y = noisy(2000, seed=1)
    mean, std = learned[name].predict(X, return_std=True)
    true = np.sqrt(5 / 3) * np.exp(X[:, 0, 1])
    np.testing.assert_allclose(mean, 10 + 3 * X[:, 0, 0], atol=0.9)
    assert np.abs(np.log(std / true)).mean() < 0.2
    # What no distribution could do without knowing where it is loud: better than the best constant spread.
    assert np.mean(norm.logpdf(y, mean, std)) > np.mean(norm.logpdf(y, 10 + 3 * X[:, 0, 0], true.mean())) - 0.02
    quantiles = learned[name].predict_quantiles(X, LEVELS)
    np.testing.assert_allclose((y[:, None] <= quantiles).mean(axis=0), LEVELS, atol=0.05)
    lower, upper = learned[name].predict_interval(X, coverage=0.9)
    np.testing.assert_allclose(np.stack([lower, upper], axis=-1), learned[name].predict_quantiles(X, [0.05, 0.95]))


def test_heavy_tails_are_seen(learned):
    X, y = noisy(20, seed=2)
    assert learned["student_t"].history_["loss"].iloc[-1] < learned["gaussian"].history_["loss"].iloc[-1]
    wide = [learned[name].predict_quantiles(X, 0.9999) - learned[name].predict_quantiles(X, 0.5) for name in UNCERTAIN]
    assert (wide[UNCERTAIN.index("student_t")] > 1.2 * wide[UNCERTAIN.index("gaussian")]).all()


def test_training_starts_at_the_spread_of_all_targets():
    X, y = noisy(50)
    options = {"max_epochs": 1, "learning_rate": 0.0, "ssm_learning_rate": 0.0}
    for name in ("gaussian", "quantile"):
        mean, std = tiny(distribution=name, **options).fit(X, y).predict(X, return_std=True)
        np.testing.assert_allclose(std, np.std(y), rtol=1e-6)
        np.testing.assert_allclose(mean, tiny(distribution=name, **options).fit(X, y).predict(X))
    strands = SSMRegressor(
        alphabet="dna", reverse_complement="equivariant", d_model=4, n_layers=1, distribution="gaussian", **options
    )
    _, std = strands.fit(["ACGT", "AACC", "GGTT"], [1.0, 2.0, 4.0]).predict(["ACGT"], return_std=True)
    np.testing.assert_allclose(std, np.std([1.0, 2.0, 4.0]), rtol=1e-6)


@pytest.mark.parametrize("name", UNCERTAIN)
def test_the_loss_is_the_mean_over_known_targets_of_scaled_losses(name):
    X, y = ragged(12)
    options = {"max_epochs": 1, "learning_rate": 0.0, "ssm_learning_rate": 0.0, "dropout": 0.0, "batch_size": 5}
    model = tiny(distribution=name, **options).fit(X, y)
    outputs = np.concatenate(model._outputs(model._read(X, None)))
    scaled = (np.concatenate(y) - model.y_mean_) / model.y_scale_
    known = ~np.isnan(scaled)
    expected = DISTRIBUTIONS[name].loss(torch.from_numpy(outputs[known]), torch.from_numpy(scaled[known])).mean()
    held_out = model.history_[["loss", "validation_loss"]].to_numpy() @ [11, 1] / 12
    assert model.history_["loss"].iloc[0] == pytest.approx(float(expected), rel=0.3)
    assert np.isfinite(held_out).all()
    model = tiny(distribution=name, validation_fraction=0, **options).fit(X, y)
    assert model.history_["loss"].iloc[0] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", UNCERTAIN)
def test_outputs_with_missing_targets_are_learned_by_themselves(name):
    X, y = noisy(80)
    both = np.stack([y, -5 * y], axis=1)
    both[::3, 0] = both[1::3, 1] = np.nan
    model = tiny(distribution=name, calibrate=True).fit(X, both)
    mean, std = model.predict(X, return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    assert all(torch.isfinite(value).all() for value in model.model_.state_dict().values())
    assert (model.calibration_weights_ > 0).sum(axis=0).tolist() == (~np.isnan(model.calibration_scores_)).sum(
        0
    ).tolist()
    lower, upper = model.predict_interval(X, 0.6)
    assert (lower < upper).all()


@pytest.fixture(scope="module")
def calibrated():
    """Models of every distribution that learned next to nothing, calibrated."""
    X, y = noisy(1000, seed=3)
    options = {"max_epochs": 1, "calibrate": True, "calibration_fraction": 0.7}
    return {name: tiny(distribution=name, **options).fit(X, y) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_calibrated_answers_cover_what_they_say(calibrated, name):
    X, y = noisy(4000, seed=4)
    model = calibrated[name]
    for coverage in (0.5, 0.9, 0.99):
        lower, upper = model.predict_interval(X, coverage)
        assert abs(np.mean((lower <= y) & (y <= upper)) - coverage) < 0.035
    quantiles = model.predict_quantiles(X, LEVELS)
    np.testing.assert_allclose((y[:, None] <= quantiles).mean(axis=0), LEVELS, atol=0.05)
    assert (np.diff(quantiles, axis=-1) > 0).all()
    mean, std = model.predict(X, return_std=True)
    assert np.sqrt(np.mean(((y - mean) / std) ** 2)) == pytest.approx(1.0, abs=0.1)
    if name is not None:  # what was not calibrated is off
        raw = pickle.loads(pickle.dumps(model))
        for attribute in [a for a in vars(raw) if a.startswith("calibration") and a.endswith("_")]:
            delattr(raw, attribute)
        lower, upper = raw.predict_interval(X, 0.5)
        assert abs(np.mean((lower <= y) & (y <= upper)) - 0.5) > 0.05


def test_steps_of_new_series_are_covered_on_average_and_jointly():
    X, y = ragged(400, seed=5)
    model = tiny(calibrate=True, calibration_fraction=0.8, max_epochs=1).fit(X, y)
    X, y = ragged(2000, seed=6)
    for joint, share in [(False, lambda hits: np.mean(hits)), (True, lambda hits: float(np.all(hits)))]:
        lower, upper = model.predict_interval(X, 0.9, joint=joint)
        covered = []
        for low, high, row in zip(lower, upper, y, strict=True):
            known = ~np.isnan(row)
            if known.any():
                covered.append(share((low[known] <= row[known]) & (row[known] <= high[known])))
        assert 0.88 < np.mean(covered) < 0.93


def test_nothing_is_learned_from_the_series_that_calibrate():
    X, y = noisy(60)
    times = np.cumsum(np.random.default_rng(0).exponential(size=(60, 12)), axis=1)
    model = tiny(calibrate=True, distribution="gaussian").fit(X, y, times=times)
    held = model._split(y[:, None], torch.Generator().manual_seed(_seed()))[2]
    assert len(held) == 12
    # Each held-out series stands for its score, in the order of the series.
    mean, std = model.predict(X[held], times=times[held], return_std=True)
    scores = (y[held] - mean) / (std / model.std_scale_)
    np.testing.assert_allclose(model.calibration_scores_[:, 0], scores, rtol=1e-10)
    np.testing.assert_allclose(model.std_scale_, np.sqrt(np.mean(scores**2)), rtol=1e-10)
    lower, upper = model.predict_interval(X[:3], 0.8, times=times[:3])
    mean, std = model.predict(X[:3], times=times[:3], return_std=True)
    half = conformal_quantile(np.abs(scores), 0.8) * std / model.std_scale_
    np.testing.assert_allclose([lower, upper], [mean - half, mean + half], rtol=1e-9)
    # Whatever these series are, the model is the same.
    X, y, times = X.copy(), y.copy(), times.copy()
    X[held], y[held], times[held] = np.nan, 1e6, 7 * times[held]
    other = tiny(calibrate=True, distribution="gaussian").fit(X, y, times=times)
    for name, value in model.model_.state_dict().items():
        assert torch.equal(value, other.model_.state_dict()[name])
    for name in ("x_mean_", "x_scale_", "y_mean_", "y_scale_", "time_scale_", "has_missing_"):
        assert np.array_equal(getattr(model, name), getattr(other, name))


def test_going_on_never_calibrates_with_what_was_learned_from():
    X, y = noisy(60)
    model = tiny(calibrate=True, max_epochs=1, warm_start=True).fit(X, y)
    assert model.n_calibration_ == 12
    first = model.calibration_scores_
    assert not np.array_equal(model.fit(X, y).calibration_scores_, first)
    for options in ({"random_state": None}, {"calibrate": False}):
        other = tiny(**{"calibrate": True, "max_epochs": 1, "warm_start": True} | options).fit(X, y)
        with pytest.raises(ValueError, match="needs an earlier fit that held out the same series"):
            other.set_params(calibrate=True).fit(X, y)
    with pytest.raises(ValueError, match="partial_fit holds out no series"):
        tiny(calibrate=True).partial_fit(X, y)
    other = tiny(calibrate=True, max_epochs=1).fit(X, y).set_params(calibrate=False).partial_fit(X, y)
    assert other.n_calibration_ == 0
    with pytest.raises(ValueError, match="or with calibrate=True"):
        other.predict_interval(X)


@pytest.mark.parametrize("per_step", [False, True])
def test_stored_series_calibrate_as_those_in_memory(per_step, tmp_path):
    X, y = noisy(60, per_step=per_step)
    np.save(tmp_path / "X.npy", X)
    stored = np.load(tmp_path / "X.npy", mmap_mode="r")
    options = {"calibrate": True, "distribution": "gaussian", "max_epochs": 1}
    model, other = tiny(**options).fit(X, y), tiny(**options).fit(stored, y)
    np.testing.assert_array_equal(other.predict_interval(stored, 0.7), model.predict_interval(X, 0.7))


def _seed():
    return int(np.random.RandomState(0).randint(2**31 - 1))


def test_of_long_series_a_part_of_the_steps_is_kept():
    rng = np.random.default_rng(7)
    X = [rng.normal(size=(n, 1)) for n in (1500, 20, 2400, 30)]
    y = [np.where(rng.random(len(x)) < 0.5, x[:, 0], np.nan) for x in X]
    model = tiny(calibrate=True, calibration_fraction=0.75, validation_fraction=0, max_epochs=1).fit(X, y)
    assert len(model.calibration_maxima_) == 3
    assert not np.isnan(model.calibration_scores_).any()
    assert model.calibration_weights_.sum() == pytest.approx(3.0)
    assert len(model.calibration_scores_) <= 2030


def test_streams_answer_with_mean_and_spread():
    X, y = noisy(30, per_step=True)
    model = tiny(distribution="student_t", calibrate=True).fit(X, y, times=np.arange(12.0))
    mean, std = model.predict(X[:1], times=np.arange(12.0), return_std=True)
    stream = model.stream()
    answers = [stream.step(x, dt=1.0) for x in X[0]]
    np.testing.assert_allclose(answers, np.stack([mean[0], std[0]], axis=1), rtol=1e-9)
    X, y = noisy(30)
    model = tiny(distribution="gaussian").fit(X, np.stack([y, -y], axis=1))
    stream = model.stream()
    for x in X[0]:
        running = stream.step(x)
    np.testing.assert_allclose(running, [row[0] for row in model.predict(X[:1], return_std=True)], rtol=1e-9)
    assert isinstance(tiny(calibrate=True).fit(X, y).stream().step(X[0, 0]), float)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_bit_by_bit(calibrated, name, tmp_path):
    X, _ = noisy(20, seed=8)
    model = calibrated[name]
    model.save(tmp_path / "model")
    for again in (statespace.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.predict_interval(X), model.predict_interval(X))
        np.testing.assert_array_equal(again.predict_quantiles(X), model.predict_quantiles(X))
        np.testing.assert_array_equal(again.predict(X, return_std=True), model.predict(X, return_std=True))


def test_a_model_is_read_as_it_was_fitted(calibrated):
    X, y = noisy(20, seed=9)
    model = pickle.loads(pickle.dumps(calibrated["gaussian"]))
    before = model.predict_interval(X)
    model.set_params(distribution="quantile", calibrate=False)
    np.testing.assert_array_equal(model.predict_interval(X), before)
    model.fit(X, y)
    assert not hasattr(model, "calibration_scores_")
    assert not hasattr(model, "std_scale_")


def test_models_without_a_spread_say_what_to_do():
    X, y = noisy(20)
    model = tiny().fit(X, y)
    for call in (
        lambda: model.predict(X, return_std=True),
        lambda: model.predict_quantiles(X),
        lambda: model.predict_interval(X),
    ):
        with pytest.raises(
            ValueError, match="fit with distribution='gaussian', 'student_t' or 'quantile', or with cal"
        ):
            call()


def test_what_held_out_series_are_too_few_for(calibrated):
    X, y = noisy(100)
    model = tiny(calibrate=True, max_epochs=1).fit(X, y)
    assert np.isfinite(model.predict_interval(X, 0.95)).all()
    with pytest.raises(ValueError, match=r"0\.96 needs 24 held-out series to be sure of, and there are 20"):
        model.predict_interval(X, 0.96)
    with pytest.raises(ValueError, match=r"0\.96 needs 24"):
        model.predict_interval(X, 0.96, joint=True)
    with pytest.raises(ValueError, match=r"0\.97 needs 33"):
        model.predict_quantiles(X, [0.5, 0.03])
    with pytest.raises(ValueError, match="none of n_samples=4"):
        tiny(calibrate=True).fit(X[:4], y[:4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "normal"}, "distribution must be None, 'gaussian', 'student_t' or 'quantile'"),
        ({"calibrate": 0.2}, "calibrate must be True or False"),
        ({"calibration_fraction": 1.0}, "calibration_fraction"),
    ],
)
def test_bad_parameters(options, message):
    X, y = noisy(20)
    with pytest.raises(ValueError, match=message):
        tiny(**options).fit(X, y)


def test_bad_levels(calibrated):
    X, _ = noisy(3)
    for quantiles in (0.0, 1.0, [0.5, np.nan], [[0.5]], -0.1):
        with pytest.raises(ValueError, match="quantiles must be between 0 and 1"):
            calibrated["gaussian"].predict_quantiles(X, quantiles)
    for coverage in (0.0, 1.0, 90, np.nan):
        with pytest.raises(ValueError, match="coverage must be between 0 and 1"):
            calibrated["gaussian"].predict_interval(X, coverage)
    raw = tiny(distribution="gaussian", max_epochs=1).fit(*noisy(20))
    with pytest.raises(ValueError, match="joint=True needs"):
        raw.predict_interval(X, joint=True)


def test_other_layers_and_tools():
    X, y = noisy(30)
    options = {"d_model": 4, "n_layers": 1, "max_epochs": 1, "random_state": 0, "device": "cpu"}
    model = MambaRegressor(distribution="student_t", calibrate=True, **options)
    assert np.isfinite(cross_val_score(model, X, y, cv=2, error_score="raise")).all()
    frames = [pd.DataFrame(x, index=np.arange(len(x)) / 2) for x in X]
    lower, upper = model.fit(frames, y).predict_interval(frames, 0.7)
    assert (lower < upper).all()
    with pytest.raises(ValueError, match="fitted with times, and X has none"):
        model.predict_interval(X)


@pytest.mark.parametrize("per_step", [False, True])
def test_a_held_out_series_of_weight_two_is_two(per_step):
    X, y = ragged(60) if per_step else noisy(60)
    model = tiny(distribution="gaussian", calibrate=True, max_epochs=1).fit(X, y, sample_weight=np.arange(60) % 3)
    collection = model._read(X, None)
    targets = y if per_step else list(y[:, None])
    counts = np.arange(60) % 3
    model._learn_calibration(collection, targets, counts.astype(float))
    weighted = [*model.predict_interval(X[:5], 0.7), model.predict(X[:5], return_std=True)[1]]
    twice = np.repeat(np.arange(60), counts)
    model._learn_calibration(collection[twice], [targets[i] for i in twice], None)
    repeated = [*model.predict_interval(X[:5], 0.7), model.predict(X[:5], return_std=True)[1]]
    for one, other in zip(weighted, repeated, strict=True):
        for row, expected in zip(one, other, strict=True):
            np.testing.assert_allclose(row, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "student_t"])
def test_exported_faces_answer_with_mean_and_spread(calibrated, name):
    X, _ = noisy(3, seed=10)
    step = Step(calibrated[name], torch.float64)
    state = step.initial_state(3)
    for k in range(12):
        mean, std, *state = step(torch.from_numpy(X[:, k]), *state)
    expected = calibrated[name].predict(X, return_std=True)
    np.testing.assert_allclose(np.stack([mean[:, 0], std[:, 0]]), expected, rtol=1e-9)


@pytest.mark.parametrize("distribution", [None, "gaussian"])
def test_real_intervals_cover_what_they_say(distribution):
    """ItalyPowerDemand: the next six hours of load from the first twelve of a day."""
    datatypes, datasets = pytest.importorskip("sktime.datatypes"), pytest.importorskip("sktime.datasets")
    frames = datatypes.convert_to(datasets.load_italy_power_demand(return_X_y=True)[0], "df-list")
    days = np.stack([frame.to_numpy()[:, 0] for frame in frames])[np.random.default_rng(0).permutation(1096)]
    X, y = days[:, :12], days[:, 12:18]
    options = {"d_model": 8, "max_epochs": 8, "learning_rate": 0.01, "distribution": distribution, "calibrate": True}
    model = tiny(**options, calibration_fraction=0.5).fit(X[:600], y[:600])
    lower, upper = model.predict_interval(X[600:])
    covered = (lower <= y[600:]) & (y[600:] <= upper)
    assert 0.88 <= covered.mean() <= 0.92
    lower, upper = model.predict_interval(X[600:], joint=True)
    assert 0.87 <= ((lower <= y[600:]) & (y[600:] <= upper)).all(axis=1).mean() <= 0.93
