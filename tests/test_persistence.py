"""Model files: what is saved comes back bit by bit; what is no whole model file is refused, and nothing in it runs."""

import importlib
import json
import os
import pickle

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.exceptions import NotFittedError

import statespace
from statespace import S4DRegressor, persistence
from statespace.persistence import FileError, load, save


def fitted(per_step=False, gappy=False, **options):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(14, 9, 2))
    if gappy:
        X[rng.uniform(size=X.shape) < 0.2] = np.nan
    times = np.cumsum(rng.exponential(size=(14, 9)), axis=1)
    y = np.nancumsum(X[:, :, 0], axis=1)
    model = S4DRegressor(d_model=4, n_layers=2, d_state=4, max_epochs=2, random_state=0, device="cpu", **options)
    return model.fit(X, y if per_step else y[:, -1], times=times), X, times


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"per_step": True},
        {"gappy": True},
        {"pooling": "last", "init": "real"},
        {"bidirectional": True, "discretization": "bilinear"},
        {"validation_fraction": 0},
    ],
)
def test_a_loaded_model_predicts_the_same_bits(options, tmp_path):
    model, X, times = fitted(**options)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(X, times=times), model.predict(X, times=times))
    assert again.get_params() == model.get_params()
    assert vars(again).keys() == vars(model).keys()
    pd.testing.assert_frame_equal(again.history_, model.history_)
    if model.model_.causal:
        assert again.stream().step(X[0, 0]) == model.stream().step(X[0, 0])
    assert os.listdir(tmp_path) == ["model"]


def test_every_class_of_the_closed_list_exists_and_takes_part():
    for name, module in persistence._MODULES.items():
        kind = getattr(importlib.import_module(module), name)
        assert callable(kind._import)
        assert callable(kind._export)
        assert kind.__module__.startswith(module)


def test_the_package_loads_and_so_does_pickle(tmp_path):
    model, X, times = fitted()
    model.save(str(tmp_path / "model.safetensors"))
    expected = model.predict(X, times=times)
    for again in (statespace.load(str(tmp_path / "model.safetensors")), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.predict(X, times=times), expected)


def test_parameters_changed_after_fit_do_not_spoil_the_file(tmp_path):
    model, X, times = fitted()
    expected = model.predict(X, times=times)
    model.set_params(d_model=16, pooling="last")
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X, times=times), expected)


def test_names_of_columns_come_back(tmp_path):
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(8, 3)), columns=["a", "b", "c"])
    model = S4DRegressor(d_model=2, n_layers=1, d_state=2, max_epochs=1).fit(X, np.arange(8.0))
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").feature_names_in_, model.feature_names_in_)
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X), model.predict(X))


def test_a_random_state_that_is_no_integer_is_left_out(tmp_path):
    model = S4DRegressor(d_model=2, n_layers=1, d_state=2, max_epochs=1, random_state=np.random.RandomState(0))
    model.fit(np.zeros((3, 4)), np.arange(3.0)).save(tmp_path / "model")
    assert load(tmp_path / "model").random_state is None


def test_only_fitted_models_of_the_package_are_saved(tmp_path):
    class Mine(S4DRegressor):
        pass

    with pytest.raises(NotFittedError):
        S4DRegressor().save(tmp_path / "model")
    with pytest.raises(TypeError, match="Mine instead"):
        Mine().save(tmp_path / "model")
    with pytest.raises(TypeError, match="save knows KalmanRegressor"):
        save(object(), tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    model, _, _ = fitted()
    model.save(tmp_path / "model")
    before = (tmp_path / "model").read_bytes()

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(persistence.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]
    assert (tmp_path / "model").read_bytes() == before


def rewrite(path, **changes):
    """The same file with other metadata."""
    with safe_open(path, framework="np") as file:
        metadata, arrays = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    document = json.loads(metadata["document"])
    document.update(changes.pop("document", {}))
    metadata.update(document=json.dumps(document, sort_keys=True, ensure_ascii=False), **changes)
    if "checksum" not in changes:
        metadata["checksum"] = persistence._checksum(metadata["document"], arrays)
    save_file(arrays, path, metadata)


def test_a_file_that_was_altered_is_refused(tmp_path):
    path = tmp_path / "model"
    fitted()[0].save(path)
    whole = path.read_bytes()
    for position in (-1, -100, len(whole) // 2):
        altered = bytearray(whole)
        altered[position] ^= 1
        path.write_bytes(altered)
        with pytest.raises(FileError):
            load(path)
    for length in (0, 5, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match="truncated"):
            load(path)
    path.write_bytes(whole)
    load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": "3"}, "format version '3', newer than 2"),
        ({"format_version": "9" * 5000}, "format version"),
        ({"format_version": "²"}, "format version"),
        ({"format_version": "one"}, "format version"),
        ({"format": "pt"}, "not one that statespace wrote"),
        ({"document": {"class": "os.system"}}, "holds a 'os.system'; this statespace loads KalmanRegressor"),
        ({"document": {"class": ["S4DRegressor"]}}, "holds a"),
        ({"document": {"state": {}}}, "does not describe a whole S4DRegressor"),
        ({"document": {"state": {"params": {"d_modal": 4}}}}, "does not describe a whole S4DRegressor"),
        ({"checksum": "0"}, "its checksum does not fit"),
    ],
)
def test_a_file_that_says_something_else_is_refused(changes, message, tmp_path):
    fitted()[0].save(tmp_path / "model")
    rewrite(tmp_path / "model", **changes)
    with pytest.raises(FileError, match=message):
        load(tmp_path / "model")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model file at"):
        load(tmp_path / "nothing")
    (tmp_path / "model").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FileError, match="no complete model file"):
        load(tmp_path / "model")
    save_file({"a": np.zeros(3)}, tmp_path / "model")
    with pytest.raises(FileError, match="not one that statespace wrote"):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.arange(6).reshape(2, 3)[:, ::2],
        np.array(["2024-01-01", "NaT"], dtype="datetime64[ns]"),
        np.array([[1 + 2j, 3j]]),
        np.array([1 + 2j], dtype=np.complex64),
        np.zeros((0, 2)),
        np.array([True, False]),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays_of_every_kind_come_back(array, tmp_path):
    plain, kind = persistence._plain(array)
    save_file({"a": plain}, tmp_path / "a")
    with safe_open(tmp_path / "a", framework="np") as file:
        again = persistence._restored(file.get_tensor("a"), kind)
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


def every_estimator():
    """Each public estimator that fits series, in its smallest size."""
    sizes = {"d_model": 4, "n_layers": 1, "max_epochs": 1, "random_state": 0, "device": "cpu"}
    for name in sorted(persistence._MODULES):
        if name.endswith(("Regressor", "Classifier")) and name not in ("KalmanRegressor", "LTIRegressor"):
            options = {} if name.startswith(("SSM", "RWKV", "DeltaNet")) else {"d_state": 4}
            yield pytest.param(getattr(statespace, name), sizes | options, id=name)


@pytest.mark.parametrize(("kind", "options"), list(every_estimator()))
def test_every_estimator_comes_back_bit_by_bit(kind, options, tmp_path):
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(n, 2)) for n in (3, 7, 1, 5)]
    times = [np.cumsum(rng.exponential(size=len(x)) + 0.1) for x in X]
    X[1][2, 0] = np.nan
    y = ["a", "b", "a", "b"] if kind.__name__.endswith("Classifier") else [x[:, 1] for x in X]
    model = kind(**options).fit(X, y, times=times)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    method = "predict_proba" if kind.__name__.endswith("Classifier") else "predict"
    for one, other in zip(getattr(again, method)(X, times=times), getattr(model, method)(X, times=times), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.get_params() == model.get_params()
