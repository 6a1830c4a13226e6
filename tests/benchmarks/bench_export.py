"""The step of every layer and network as an ONNX graph: how far it is from `predict`, and its time beside the stream's.

    python tests/benchmarks/bench_export.py [name ...]

One line for each layer, network and precision: the largest difference from `predict` in units of the targets' standard
deviation, seconds to export, and microseconds a step of onnxruntime and of `stream()`. Where onnxruntime is behind, the
line says so as well.
"""

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from statespace import SSMRegressor
from statespace.layers import LAYERS

NETWORKS = {"sashimi": {"layer": "s4d", "backbone": "sashimi", "backbone_options": {"factors": (2, 2)}},
            "experts": {"layer": "s4d", "n_layers": 2, "moe": 3}}  # fmt: skip
SIZELESS = ("attention", "channel_mixing", "deltanet", "rwkv")
TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(double)": np.float64}


def options_of(name):
    """The parameters of an estimator for a layer or a network."""
    own = {"d_model": 8, "n_layers": 1, "max_epochs": 1, "random_state": 0, "device": "cpu"}
    own |= NETWORKS.get(name, {"layer": name})
    return own | {"layer_options": {} if own["layer"] in SIZELESS else {"d_state": 8}}


def folded(session, x, dt):
    """Predictions (b, length, n_outputs) of a graph over records, and seconds a step."""
    description = json.loads(session.get_modelmeta().custom_metadata_map["statespace"])
    types = {given.name: TYPES[given.type] for given in session.get_inputs()}
    state = {name: np.zeros([len(x), *shape[1:]], types[name]) for name, shape in description["state"].items()}
    answers, start = [], time.perf_counter()
    for k in range(x.shape[1]):
        feed = {"x": x[:, k].astype(types["x"]), "dt": dt[:, k].astype(types["dt"])} | state
        answer, *after = session.run(None, feed)
        answers.append(answer)
        state = dict(zip(state, after, strict=True))
    return np.stack(answers, axis=1), (time.perf_counter() - start) / x.shape[1]


def main(names):
    """One line for each name and precision."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    rng = np.random.default_rng(0)
    X, gaps = rng.normal(size=(8, 60, 2)), rng.exponential(size=(8, 60)) + 0.01
    times, y = np.cumsum(gaps, axis=1), np.cumsum(X, axis=1)
    print(f"{'':16} {'type':8} {'difference':>10} {'export s':>9} {'onnx µs':>8} {'stream µs':>9}")
    for name in names:
        model = SSMRegressor(**options_of(name)).fit(X, y, times=times)
        expected = model.predict(X, times=times)
        stream, start = model.stream(), time.perf_counter()
        for x, dt in zip(X[0], gaps[0], strict=True):
            stream.step(x, dt=dt)
        of_stream = (time.perf_counter() - start) / len(X[0])
        for dtype in ("float64", "float32"):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                model.export_onnx(Path(folder) / "step.onnx", dtype=dtype)
                seconds = time.perf_counter() - start
                session = onnxruntime.InferenceSession(Path(folder) / "step.onnx", providers=["CPUExecutionProvider"])
            answers, _ = folded(session, X, gaps)
            away = np.max(np.abs(answers - expected) / y.std(axis=(0, 1)))
            _, of_graph = folded(session, X[:1], gaps[:1])
            behind = "  behind the stream" if of_graph > of_stream else ""
            print(
                f"{name:16} {dtype:8} {away:10.1e} {seconds:9.1f} {of_graph * 1e6:8.0f} {of_stream * 1e6:9.0f}{behind}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:] or [*LAYERS, *NETWORKS])
