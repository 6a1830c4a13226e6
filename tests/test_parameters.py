"""The estimators' parameters: every layer's own with the layer's defaults, in signatures that all tools can read."""

import inspect
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import statespace
from statespace import SSMClassifier, SSMRegressor, forecasting
from statespace.forecasting import SSMForecaster
from statespace.layers import LAYERS
from statespace.models import BACKBONES, ResidualStack

# What the estimators have in common for all layers, or decide themselves.
SHARED = {"d_model", "mode", "bidirectional", "backend"}
# What a layer has and its estimators have not: S4's bilinear rule is the only one there is; and what is for people who
# write PyTorch: weights to be taken from elsewhere, chunks of a computation, a place in a stack.
NOT_SHOWN = {
    "s4": {"discretization"},
    "mamba": {"conv_bias", "bias"},
    "mamba2": {"chunk_size"},
    "rwkv": {"gated_unit", "position", "zero_init"},
}
KINDS = ("Regressor", "Classifier", "Forecaster")
LINEAR = ("S4", "S4D", "S5", "H3")
SELECTIVE = ("Mamba", "Mamba2", "RWKV", "DeltaNet")
NAMES = [f"{layer}{kind}" for layer in (*LINEAR, *SELECTIVE) for kind in KINDS]
TINY = {"d_model": 4, "n_layers": 1, "max_epochs": 1, "device": "cpu", "random_state": 0}
X = np.random.default_rng(0).normal(size=(10, 8))


def find(name):
    return getattr(statespace, name)


def defaults(function):
    return {name: p.default for name, p in inspect.signature(function).parameters.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_named_estimator_has_its_layers_arguments_and_defaults(name):
    kind = find(name)
    layer = defaults(LAYERS[kind._layer])
    own = {key: value for key, value in defaults(kind).items() if key in layer and key not in SHARED}
    if name.endswith("Forecaster") and "d_state" in own:
        assert own.pop("d_state") == 16
        layer.pop("d_state")
    assert own == {key: layer[key] for key in own}
    assert set(layer) - set(own) - SHARED == NOT_SHOWN.get(kind._layer, set())


@pytest.mark.parametrize("name", NAMES)
def test_a_named_estimator_shares_all_other_parameters(name):
    suffix = next(kind for kind in KINDS if name.endswith(kind))
    general, kind = defaults(find(f"SSM{suffix}")), defaults(find(name))
    shared = set(general) - {"layer", "layer_options"}
    assert {key: kind[key] for key in shared} == {key: general[key] for key in shared}
    positional = [p for p in inspect.signature(find(name)).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == ["d_model", "n_layers", *(["d_state"] if "d_state" in kind else [])]


@pytest.mark.parametrize("name", [*NAMES, *(f"SSM{kind}" for kind in KINDS)])
def test_parameters_are_stored_copied_and_pickled(name):
    given = {"d_model": 5, "learning_rate": 0.1, "ssm_learning_rate": {"A": 0.2}, "random_state": 3}
    model = find(name)(**given)
    assert {key: model.get_params()[key] for key in given} == given
    assert set(model.get_params()) == set(defaults(type(model)))
    for other in (clone(model), pickle.loads(pickle.dumps(model)), type(model)().set_params(**given)):
        assert other.get_params() == model.get_params()
    assert "d_model=5" in repr(model)


@pytest.mark.parametrize(("general", "name"), [(SSMRegressor, "S5Regressor"), (SSMClassifier, "S5Classifier")])
def test_a_layer_by_name_is_the_named_estimator(general, name):
    y = (X[:, 0] > 0).astype(int)
    options = {"d_state": 4, "n_blocks": 2, "dt_max": 0.5}
    one = general("s5", layer_options=options, bidirectional=True, **TINY).fit(X, y)
    other = find(name)(**options, bidirectional=True, **TINY).fit(X, y)
    pd.testing.assert_frame_equal(one.history_, other.history_)
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    assert one.model_.config["layer_options"]["bidirectional"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("S4Regressor", {"measure": "fourier"}),
        ("S4Regressor", {"measure": "legt", "rank": 2, "bidirectional": True}),
        ("S4Classifier", {"dt_min": 0.01, "dt_max": 0.5}),
        ("S5Classifier", {"n_blocks": 2, "init": "fourier", "discretization": "bilinear"}),
        ("S5Regressor", {"bidirectional": True, "dt_min": 0.01, "dt_max": 0.5}),
        ("H3Regressor", {"head_dim": 2, "d_shift": 3, "init": "inv"}),
        ("H3Classifier", {"discretization": "bilinear", "init": "real", "bidirectional": True}),
        ("MambaRegressor", {"d_conv": 2, "expand": 1.5, "dt_rank": 2}),
        ("MambaClassifier", {"d_state": 3, "dt_min": 0.1, "dt_max": 0.5, "bidirectional": True}),
        ("Mamba2Regressor", {"head_dim": 2, "n_groups": 2, "d_conv": 3}),
        ("Mamba2Classifier", {"expand": 1, "dt_min": 0.1, "dt_max": 0.5, "bidirectional": True}),
        ("RWKVRegressor", {}),
        ("RWKVClassifier", {"bidirectional": True}),
        ("DeltaNetRegressor", {"gated": True, "n_heads": 2, "moe": {"n_experts": 3, "every": 1}}),
        ("DeltaNetClassifier", {"d_conv": None, "bidirectional": True}),
    ],
    ids=str,
)
def test_every_option_of_a_layer_works_on_irregular_times(name, options):
    times = np.cumsum(np.random.default_rng(1).exponential(size=X.shape) + 0.1, axis=1)
    y = (X.sum(1) > 0).astype(int)
    small = {"d_state": 4} if "d_state" in defaults(find(name)) else {}
    model = find(name)(**small | options, **TINY).fit(X, y, times=times)
    answer = model.predict_proba if name.endswith("Classifier") else model.predict
    expected = answer(X, times=times)
    assert np.isfinite(expected).all()
    if not model.bidirectional:
        stream = model.stream()
        for x, gap in zip(X[0], np.diff(times[0], prepend=0.0), strict=True):
            running = stream.step(x, dt=gap)
        np.testing.assert_allclose(running, expected[0], rtol=1e-9)


def test_dss_is_a_layer_by_name():
    options = {"d_state": 4, "kernel": "softmax", "horizon": 8}
    assert np.isfinite(SSMRegressor("dss", layer_options=options, **TINY).fit(X, X.sum(1)).predict(X)).all()


def test_a_forecaster_reads_forwards_only():
    with pytest.raises(ValueError, match="must have bidirectional=False"):
        SSMForecaster(layer_options={"bidirectional": True}, **TINY).fit(pd.Series(np.arange(20.0)))


def test_a_forecaster_by_name_is_the_named_one():
    y = pd.Series(np.sin(np.arange(40.0)))
    tiny = TINY | {"windows_per_epoch": 4}
    one = SSMForecaster("s5", layer_options={"d_state": 4}, **tiny).fit(y)
    pd.testing.assert_series_equal(
        one.predict([1, 5]), forecasting.S5Forecaster(d_state=4, **tiny).fit(y).predict([1, 5])
    )


@pytest.mark.parametrize(
    ("layer", "moe"),
    [
        (["s4d", "s5"], None),
        (("h3", "s4d", "s5"), {"n_experts": 2, "top_k": 1, "every": 1}),
        (["mamba", "mamba", "attention"], 4),
    ],
)
def test_a_pattern_of_layers(layer, moe, tmp_path):
    options = {name: {"d_state": 4} for name in layer if name != "attention"}
    model = SSMRegressor(layer, layer_options=options, moe=moe, **(TINY | {"n_layers": 4})).fit(X, X.sum(1))
    names = [type(block.mixer).__name__.lower() for block in model.model_.blocks]
    assert names == (list(layer) * 2)[:4]
    assert all(block.mixer.d_state == 4 for block in model.model_.blocks if hasattr(block.mixer, "d_state"))
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(statespace.load(tmp_path / "model").predict(X), model.predict(X))
    stream = model.stream()
    running = [stream.step(x) for x in X[0]]
    np.testing.assert_allclose(running[-1], model.predict(X)[0], rtol=1e-9)


def test_a_pattern_may_leave_options_out_and_is_bidirectional_throughout():
    options = TINY | {"n_layers": 2, "bidirectional": True}
    model = SSMRegressor(["s4d", "s5"], layer_options={"s5": {"d_state": 4}}, **options)
    mixers = [block.mixer for block in model.fit(X, X.sum(1)).model_.blocks]
    assert [mixer.d_state for mixer in mixers] == [64, 4]
    assert all(mixer.bidirectional for mixer in mixers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "s6"}, "layer must be one of"),
        ({"layer": []}, "at least one name"),
        ({"layer": ["s4d", "s6"]}, "layer must be one of"),
        ({"layer_options": 4}, "layer_options must be a mapping"),
        ({"layer_options": {"d_stat": 4}}, "'d_stat'.*It takes d_state, init"),
        ({"layer": ["s4d"], "layer_options": {"d_state": 4}}, "map its names to mappings.* Got 'd_state': 4"),
        ({"layer": ["s4d"], "layer_options": {"s5": {}}}, "Got 's5'"),
        ({"backbone": "heap"}, "backbone must be one of 'stack', 'sashimi'"),
        ({"backbone_options": {"d_model": 3}}, "'stack' has no option 'd_model'. It takes none"),
        ({"ssm_learning_rate": {"C": 0.1}}, "ssm_learning_rate has rates for 'A', 'B' and 'dt'"),
        ({"ssm_learning_rate": -1.0}, "ssm_learning_rate"),
        ({"moe": {"n_expert": 4}}, "moe has no option 'n_expert'. It takes n_experts, top_k, every"),
        ({"moe": 4, "n_layers": 1}, "a mixture in every 2 blocks, and there are 1: take more layers"),
    ],
)
def test_bad_parameters_are_named(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        SSMRegressor(**TINY | {"n_layers": 2} | options).fit(X, X.sum(1))


def test_another_backbone_by_name(monkeypatch, tmp_path):
    class Other(ResidualStack):
        def __init__(self, depth=1, **config):
            super().__init__(**config)
            self.config["depth"] = self.depth = depth

    monkeypatch.setitem(BACKBONES, "other", Other)
    options = {"backbone": "other", "backbone_options": {"depth": 3}, "layer_options": {"d_state": 4}}
    model = SSMRegressor(**options, **TINY).fit(X, X.sum(1))
    assert type(model.model_) is Other
    assert model.model_.depth == 3
    model.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    assert type(again.model_) is Other
    assert again.model_.depth == 3
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("kind", ["S4DRegressor", "S5Classifier"])
def test_the_sashimi_backbone(kind, tmp_path):
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(n, 1)) for n in (9, 13, 8, 21)]
    times = [np.cumsum(rng.exponential(size=len(x)) + 0.1) for x in series]
    y = [(x > 0).astype(float)[:, 0] for x in series]
    options = {"backbone": "sashimi", "backbone_options": {"factors": [2, 2]}, "d_state": 4}
    model = find(kind)(**options, **TINY).fit(series, y, times=times)
    model.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    stream = model.stream()
    answer = model.predict_proba if kind == "S5Classifier" else model.predict
    expected = answer(series[:1], times=times[:1])[0]
    for k, gap in enumerate(np.diff(times[0], prepend=0.0)):
        np.testing.assert_allclose(stream.step(series[0][k], dt=gap), expected[k], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(again.predict(series, times=times)[1], model.predict(series, times=times)[1])
    both = find(kind)(bidirectional=True, **options, **TINY).fit(series, y, times=times)
    assert len(both.predict(series, times=times)[3]) == 21


def test_a_forecaster_on_the_sashimi_backbone():
    y = pd.Series(np.sin(np.arange(40.0)))
    options = TINY | {"windows_per_epoch": 4, "backbone": "sashimi", "backbone_options": {"factors": [2]}}
    model = forecasting.S4DForecaster(d_state=4, **options).fit(y)
    many, few = model.predict(np.arange(-10, 20)), model.predict([-3, 7])
    np.testing.assert_allclose(many.loc[few.index], few, rtol=1e-9)


def test_the_balance_of_experts_reaches_training():
    options = {"layer_options": {"d_state": 4}} | TINY | {"max_epochs": 3}
    free, pulled = (
        SSMRegressor(moe={"n_experts": 3, "every": 1, "load_balance": factor}, **options).fit(X, X.sum(1))
        for factor in (0.0, 100.0)
    )
    routers = [model.model_.blocks[0].feed_forward.router.weight for model in (free, pulled)]
    assert bool((routers[0] != routers[1]).any())
    # What training reports is the loss of the targets alone.
    assert pulled.history_["loss"].iloc[0] < 3


def test_a_file_from_before_there_were_experts_loads():
    model = statespace.S4DRegressor(d_state=4, **TINY).fit(X, X.sum(1))
    state, arrays = model._export()
    del state["params"]["moe"], state["model"]["moe"]
    again = statespace.S4DRegressor._import(state, arrays)
    assert again.moe is None
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_a_forecaster_of_a_hybrid(tmp_path):
    y = pd.Series(np.sin(np.arange(40.0)), index=pd.RangeIndex(40))
    layers = {"layer": ["s4d", "attention"], "layer_options": {"s4d": {"d_state": 4}}, "moe": {"n_experts": 3}}
    model = SSMForecaster(**layers, **TINY | {"windows_per_epoch": 4, "n_layers": 2}).fit(y, fh=[1, 5])
    many, few = model.predict(np.arange(-10, 20)), model.predict([-3, 7])
    np.testing.assert_allclose(many.loc[few.index], few, rtol=1e-9)
    model.save(tmp_path / "model")
    pd.testing.assert_series_equal(statespace.load(tmp_path / "model").predict([1, 5]), model.predict([1, 5]))


def test_the_rates_reach_the_dynamics():
    frozen = {"A": 0.0, "B": 0.0, "dt": 0.0}
    first, second = (
        statespace.S5Regressor(d_state=4, ssm_learning_rate=frozen, **TINY | {"max_epochs": n}).fit(X, X.sum(1))
        for n in (1, 5)
    )
    for (name, p), q in zip(first.model_.named_parameters(), second.model_.parameters(), strict=True):
        moves = name.split(".")[-1] not in ("log_step", "log_Lambda_real", "Lambda_imag", "B")
        assert bool((p != q).any()) == moves, name
