"""The README's code runs as it stands, given the data that it speaks of."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def gaussian_process():
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 10, (80, 1))
    y = np.sin(2 * np.pi * X[:, 0]) + X[:, 0] + 0.1 * rng.normal(size=80)
    return {"X": X, "y": y, "X_new": np.linspace(0, 12, 7)[:, None], "theta": np.zeros(6), "y_t": 1.0}


def classic():
    rng = np.random.default_rng(1)
    t = np.cumsum(rng.exponential(0.4, size=90))
    months = np.arange(72)
    monthly = np.log(100 + months + 20 * np.sin(2 * np.pi * months / 12) + rng.normal(size=72))
    return {
        "X": t[:, None], "y": np.sin(t) + 0.1 * t + 0.1 * rng.normal(size=90), "t": t, "u": rng.normal(size=(90, 1)),
        "angles": rng.normal(size=90), "monthly": monthly,
        "A": [[1.0, 1.0], [0.0, 1.0]], "H": [[1.0, 0.0]], "Q": np.eye(2), "R": [[1.0]],
    }  # fmt: skip


def collection():
    rng = np.random.default_rng(0)
    t = np.cumsum(rng.exponential(size=(10, 8)), axis=1)
    return {"X": np.sin(t), "y": t[:, -1], "t": t, "x_t": 0.5}


def team():
    import statespace

    rng = np.random.default_rng(0)
    t = np.cumsum(rng.exponential(size=(40, 8)), axis=1)
    records = np.lib.format.open_memmap("records.npy", mode="w+", dtype=np.float32, shape=(4, 30, 1))
    records[:] = rng.normal(size=records.shape)
    return {
        "S": statespace.SeriesCollection(np.sin(t), times=t), "y": t[:, -1], "w": np.ones(40), "records": records,
        "targets": np.cumsum(records[..., 0], axis=1), "S4DRegressor": statespace.S4DRegressor,
        "MambaRegressor": statespace.MambaRegressor,
    }  # fmt: skip


def genes():
    rng = np.random.default_rng(0)
    records = ["".join(rng.choice(list("ACGT"), size=12)) for _ in range(10)]
    Path("genes.fasta").write_text("".join(f">gene{i}\n{record}\n" for i, record in enumerate(records)))
    return {"labels": np.arange(10) % 2}


def months():
    index = pd.period_range("2001-01", periods=84, freq="M")
    y = pd.Series(np.arange(84) + 5 * np.sin(2 * np.pi * np.arange(84) / 12), index=index)
    return {"y": y[:72], "y_new": y[72:]}


def tensors():
    torch = pytest.importorskip("torch")
    return {"u": torch.randn(2, 9, 64), "dt": torch.rand(2, 9), "u_t": torch.randn(2, 64), "dt_t": torch.rand(2)}


DATA = [gaussian_process, classic, collection, team, genes, months, tensors]


# What the code writes, by the call that writes it.
WRITTEN = {"model": "save(", "run": 'checkpoint="run"', "step.onnx": "export_onnx("}


@pytest.mark.parametrize(("block", "data"), list(zip(BLOCKS, DATA, strict=True)))
@pytest.mark.filterwarnings("ignore")
def test_code_runs(block, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = data()
    before = set(os.listdir(tmp_path))
    exec(compile(block, "README.md", "exec"), names)
    assert set(os.listdir(tmp_path)) - before == {file for file, call in WRITTEN.items() if call in block}


def test_picture_is_there():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", README):
        assert (Path(__file__).parents[1] / path).is_file()
