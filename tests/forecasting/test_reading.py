"""What is read once is not read again: states that are carried on, and in-sample forecasts in one pass."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from sktime.forecasting.base import ForecastingHorizon

from statespace.forecasting import SSMForecaster
from statespace.models import ResidualStack

TINY = {
    "d_model": 4, "n_layers": 1, "max_epochs": 1, "windows_per_epoch": 8, "batch_size": 4, "queries_per_window": 4,
    "context_length": 16, "device": "cpu", "random_state": 0,
}  # fmt: skip
LAYERS = {
    "s4d": {"layer": "s4d", "layer_options": {"d_state": 4}},
    "mamba": {"layer": "mamba", "layer_options": {"d_state": 4}},
    "rwkv": {"layer": "rwkv"},
    "attention": {"layer": ["s4d", "attention"], "n_layers": 2, "layer_options": {"s4d": {"d_state": 4}}},
    "sashimi": {"layer": "s4d", "layer_options": {"d_state": 4}, "backbone": "sashimi",
                "backbone_options": {"factors": (2,)}},
}  # fmt: skip


def wave(n=120, seed=0):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.integers(1, 5, size=n))
    return pd.Series(np.sin(t / 6) + 0.1 * rng.normal(size=n), index=pd.Index(t), name="wave")


@pytest.fixture
def steps(monkeypatch):
    """How many samples of the history the network reads."""
    count = {"read": 0}
    features = ResidualStack.features

    def counted(self, x, dt=None, state=None):
        count["read"] += int((dt > 0).sum())
        return features(self, x, dt, state)

    monkeypatch.setattr(ResidualStack, "features", counted)
    return count


@pytest.mark.parametrize("layer", LAYERS)
def test_updates_carry_the_state_on_and_equal_reading_anew(layer):
    y = wave()
    options = TINY | LAYERS[layer]
    carried, anew = (SSMForecaster(**options).fit(y[:70]) for _ in range(2))
    for cut in (71, 72, 78, 79, 101):
        carried.update(y[carried._records.lengths[0] : cut], update_params=False)
    # An update that repeats what is known has to read all of it again.
    anew.update(y[:101], update_params=False)
    fh = [1, 4, 20]
    np.testing.assert_allclose(*(model.predict_quantiles(fh, alpha=[0.1, 0.5]) for model in (carried, anew)))
    # And both are what the same end of a longer history would have got.
    anew.update(y[101:], update_params=False)
    known = ForecastingHorizon(y.index[[101]], is_relative=False)
    np.testing.assert_allclose(anew.predict(known), carried.predict(known))


def test_an_update_reads_what_is_new_and_no_more(steps):
    y = wave(4000)
    model = SSMForecaster(**TINY | LAYERS["s4d"]).fit(y[:300])
    read = []
    for cut in range(300, 4000, 37):
        steps["read"] = 0
        model.update(y[cut : cut + 37], update_params=False)
        model.predict([1, 2, 3])
        read.append(steps["read"])
    # A window is sixteen samples: never more, however long the history, and one alone within a stretch.
    assert max(read) <= 16
    steps["read"] = 0
    for cut in range(4):
        later = pd.Series([0.0], index=[y.index[-1] + 1 + cut], name="wave")
        model.update(later, update_params=False)
    assert steps["read"] <= 4 + 16
    steps["read"] = 0
    model.predict([1, 5, 100])
    assert steps["read"] == 0


def test_fitted_values_are_one_step_ahead_in_one_pass(steps):
    y = wave(600)
    model = SSMForecaster(**TINY | LAYERS["s4d"] | {"context_length": 64}).fit(y)
    steps["read"] = 0
    residuals = model.predict_residuals()
    assert steps["read"] <= 5 * len(y)
    inside = ForecastingHorizon(y.index, is_relative=False)
    np.testing.assert_allclose(residuals, y - model.predict(inside))
    # Each is the forecast of its time by a model that has the same weights and only the past.
    past = deepcopy(model)
    for k in (1, 2, 3, 15, 16, 17, 65, 333):
        past._history = y.iloc[:k]
        past._records, past._readings = past._read_records(), []
        past._read_on()
        time = ForecastingHorizon(y.index[[k]], is_relative=False)
        np.testing.assert_allclose(past.predict(time), model.predict(time))
    assert np.isfinite(residuals).all()


def panel(lengths, seed=0):
    parts = {name: wave(n, seed + k).to_frame("y") for k, (name, n) in enumerate(lengths.items())}
    return pd.concat(parts, names=["series", "time"])


@pytest.mark.parametrize("layer", ["s4d", "attention"])
def test_panels_in_which_only_some_series_go_on(layer, steps):
    # The last one ends at an anchor.
    y = panel({"b": 61, "c": 45, "d": 32})
    options = TINY | LAYERS[layer]
    model = SSMForecaster(**options).fit(y)
    before = model.predict([1, 3])
    c = y.loc[["c"]]
    later = pd.DataFrame(
        {"y": [0.3, 0.1]},
        index=pd.MultiIndex.from_product([["c"], c.index[-1][1] + np.array([2, 3])], names=y.index.names),
    )
    first = panel({"a": 7}, seed=9)
    steps["read"] = 0
    model.update(pd.concat([first, later]), update_params=False)
    assert steps["read"] <= 2 + 7 + 16
    after = model.predict([1, 3])
    pd.testing.assert_frame_equal(after.loc[["b", "d"]], before.loc[["b", "d"]])
    anew = SSMForecaster(**options).fit(y)
    anew.update(pd.concat([first, y, later]).sort_index(), update_params=False)
    np.testing.assert_allclose(after, anew.predict([1, 3]))


def test_a_value_in_the_past_is_taken_in():
    y = wave()
    model, anew = (SSMForecaster(**TINY | LAYERS["s4d"]).fit(y[:70]) for _ in range(2))
    corrected = y[:75].copy()
    corrected.iloc[66] = 3.0
    model.update(y[70:75], update_params=False)
    model.update(corrected[66:67], update_params=False)
    anew.update(corrected, update_params=False)
    np.testing.assert_allclose(model.predict([1, 2]), anew.predict([1, 2]))
