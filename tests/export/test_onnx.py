"""The ONNX graph of a step answers as `predict` and `predict_proba` do, whatever the network, in both precisions."""

import json
import os
import warnings

import numpy as np
import pytest

from statespace import SSMClassifier, SSMRegressor

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(double)": np.float64}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 7, 2))
TIMES = 1e6 + np.cumsum(RNG.exponential(size=(6, 7)) + 0.01, axis=1)
SIZES = {"d_model": 4, "n_layers": 1, "max_epochs": 1, "random_state": 0, "device": "cpu"}


def folded(path, x, dt=None):
    """The graph over records (b, length, ...): its answers by name, (b, length, ...), and its description."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    description = json.loads(session.get_modelmeta().custom_metadata_map["statespace"])
    types = {given.name: TYPES[given.type] for given in session.get_inputs()}
    state = {
        name: np.zeros([len(x) if size == "batch" else size for size in shape], types[name])
        for name, shape in description["state"].items()
    }
    n = len(session.get_outputs()) - len(state)
    rows = []
    for k in range(x.shape[1]):
        feed = {"x": x[:, k].astype(types["x"])} | ({} if dt is None else {"dt": dt[:, k].astype(types["dt"])}) | state
        answers = session.run(None, feed)
        rows.append(answers[:n])
        state = dict(zip(state, answers[n:], strict=True))
    names = [output.name for output in session.get_outputs()[:n]]
    return dict(zip(names, (np.stack(part, axis=1) for part in zip(*rows, strict=True)), strict=True)), description


def gaps(times):
    return np.diff(times, axis=1, prepend=np.nan)


def test_a_hybrid_on_irregular_times_equals_predict(tmp_path):
    # A graph takes seconds to make: tests/benchmarks/bench_export.py goes through every layer, network and precision.
    options = {"s4d": {"d_state": 4}, "attention": {"window": 3}}
    model = SSMRegressor([*options], layer_options=options, **SIZES | {"n_layers": 2})
    y = 100 + 10 * np.cumsum(X, axis=1)
    model.fit(X, y, times=TIMES)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        model.export_onnx(tmp_path / "step.onnx", dtype="float64")
    answers, description = folded(tmp_path / "step.onnx", X, gaps(TIMES))
    expected = model.predict(X, times=TIMES)
    np.testing.assert_allclose(answers["prediction"], expected, rtol=1e-12)
    assert description["class"] == "SSMRegressor"
    assert os.listdir(tmp_path) == ["step.onnx"]


def test_a_classifier_with_missing_values_pools_and_knows_its_classes(tmp_path):
    gappy = np.where(RNG.uniform(size=X.shape) < 0.3, np.nan, X)
    model = SSMClassifier("mamba", layer_options={"d_state": 4}, pooling="mean", **SIZES)
    model.fit(gappy, ["b", "a", "c"] * 2)
    model.export_onnx(tmp_path / "step.onnx", dtype="float64")
    answers, description = folded(tmp_path / "step.onnx", gappy)
    for length in (1, 4, 7):
        expected = model.predict_proba(gappy[:, :length])
        np.testing.assert_allclose(answers["probabilities"][:, length - 1], expected, rtol=1e-12)
    assert description["classes"] == ["a", "b", "c"]
    assert description["times"] is None


def test_what_cannot_step_is_refused(tmp_path):
    model = SSMRegressor("s4d", layer_options={"d_state": 4}, bidirectional=True, **SIZES).fit(X, X[:, 0, 0])
    with pytest.raises(ValueError, match="reads the whole record"):
        model.export_onnx(tmp_path / "step.onnx")
    model = SSMRegressor("s4d", layer_options={"d_state": 4}, **SIZES).fit(X, X[:, 0, 0])
    with pytest.raises(ValueError, match=r"'float32' or 'float64'[.] Got 'bfloat16'"):
        model.export_onnx(tmp_path / "step.onnx", dtype="bfloat16")
    assert os.listdir(tmp_path) == []
