"""triton, CuPy, the driver or a compiler missing or broken: a BackendError that says what to install, and no more."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from statespace.kernels import dispatch

# Modules that cannot be imported, or that fail in another way when they are.
BLOCK = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise {error}

sys.meta_path.insert(0, Blocked())
"""
ABSENT = "ModuleNotFoundError(f'No module named {name!r}', name=name)"
BROKEN = "OSError('libcuda.so.1: cannot open shared object file')"
EVERYTHING = """
import numpy as np, torch
import statespace, statespace.kernels, statespace.layers, statespace.training
from statespace import KalmanRegressor, MambaRegressor
from statespace.kernels import linear_scan, token_shift

u, mix = torch.ones(1, 3, 2), torch.ones(1, 2)
token_shift(u, mix)
linear_scan(np.ones(3), np.ones(3))
with torch.no_grad():  # for gradients torch itself asks for triton, and takes an absent one only
    statespace.layers.Mamba(4, backend="pytorch")(torch.ones(1, 5, 4))
"""


def python(code, **environment):
    """What a new interpreter prints."""
    variables = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "CUDA_VISIBLE_DEVICES")}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=variables | environment
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def refusal(call):
    """Code that prints the BackendError of ``call``."""
    return f"""
from statespace.kernels import BackendError, explain
try:
    {call}
except BackendError as error:
    print(error)
"""


@pytest.mark.parametrize("error", [ABSENT, BROKEN], ids=["absent", "broken"])
def test_without_triton_and_cupy_everything_else_runs_and_they_say_what_to_install(error):
    calls = refusal("token_shift(u, mix, backend='triton')")
    if "cupy" in dispatch.available("long_convolution"):
        calls += refusal("statespace.kernels.long_convolution(np.ones((1, 1, 3)), np.ones((1, 2)), backend='cupy')")
    found = python(BLOCK.format(names={"triton", "cupy"}, error=error) + EVERYTHING + calls).splitlines()
    assert len(found) == 1 + ("cupy" in dispatch.available("long_convolution"))
    what = {ABSENT: "No module named '{}", BROKEN: "OSError: libcuda.so.1: cannot open"}[error]
    for line, package in zip(found, ("triton", "cupy"), strict=False):
        assert line.startswith(f"backend='{package}' cannot run ")
        assert what.format(package) in line
        assert "(pip install --upgrade 'statespace-learn[gpu]'). Usable here: " in line


def test_triton_without_a_device_says_what_is_needed():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    pytest.importorskip("triton", reason="triton is not installed: pip install 'statespace-learn[gpu]'")
    call = "import torch; from statespace.kernels import token_shift" + refusal(
        "token_shift(torch.ones(1, 3, 2), torch.ones(1, 2), backend='triton')"
    )
    found = python(call, TRITON_INTERPRET="0")
    assert f"torch {torch.__version__} finds no CUDA device (a driver, and a torch built for CUDA, are needed)" in found
    assert "Usable here: cpu, pytorch." in found


def test_cupy_without_a_driver_says_what_is_needed():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    pytest.importorskip("cupy", reason="cupy is not installed: pip install 'statespace-learn[gpu]'")
    if "cupy" not in dispatch.available("long_convolution"):
        pytest.skip("long_convolution has no cupy implementation")
    reason = dispatch.reason_against("long_convolution", "cupy", torch.ones(1, 1, 3), torch.ones(1, 2))
    assert "finds no CUDA device" in reason
    assert "driver" in reason


def test_triton_without_a_compiler_says_what_to_install(monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed: pip install 'statespace-learn[gpu]'")
    from statespace.kernels import launching

    monkeypatch.setattr(launching, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(launching.shutil, "which", lambda name: None)
    launching._no_compiler.cache_clear()
    assert "finds none (install gcc, or name one in CC)" in launching.unusable()
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(launching.sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    launching._no_compiler.cache_clear()
    assert "(install python3-dev)" in launching.unusable()
    monkeypatch.undo()
    launching._no_compiler.cache_clear()


def test_an_import_that_fails_in_another_way_is_a_reason(monkeypatch):
    def fail(name):
        raise AttributeError("module 'triton' has no attribute 'knobs'")

    monkeypatch.setattr(dispatch, "import_module", fail)
    reason = dispatch.reason_against("token_shift", "triton")
    assert reason == "AttributeError: module 'triton' has no attribute 'knobs' (" + dispatch.INSTALL["triton"] + ")"


def test_the_page_on_gpus_names_the_backends_that_there_are():
    page = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text()
    columns = ("triton", "cupy", "cpu", "pytorch")
    for folder in sorted(Path(dispatch.__file__).parent.glob("*/README.md")):
        name = folder.parent.name
        cells = [" yes " if column in dispatch.available(name) else " " for column in columns]
        assert f"| `{name}` |" + "|".join(cells) + "|" in page
