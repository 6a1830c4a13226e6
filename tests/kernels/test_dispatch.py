"""An explicit backend is obeyed or refused with the reason; nothing is loaded before it is needed."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, dispatch, explain, linear_scan, vandermonde

ONE = np.ones(3)


def test_explicit_backend_is_obeyed(monkeypatch):
    called = []
    module = dispatch.import_module("statespace.kernels.linear_scan.reference")
    monkeypatch.setattr(module, "linear_scan", lambda *arguments: called.append(arguments))
    linear_scan(ONE, ONE, backend="reference")
    assert len(called) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: linear_scan(ONE, ONE, backend="cuda"),
            r"backend='cuda' cannot run linear_scan here: no backend has this name; the names are triton, .*"
            r"reference\. Usable here: (triton, )?cpu, pytorch, reference\.",
        ),
        (lambda: linear_scan(ONE, ONE, backend="cupy"), "linear_scan has no cupy implementation"),
        (
            lambda: vandermonde(torch.ones(2), torch.ones(2), 3, backend="reference"),
            r"it takes NumPy arrays, not torch tensors\. Usable here: (triton, )?pytorch\.",
        ),
        (lambda: linear_scan(torch.ones(2, device="meta"), torch.ones(2), backend="cpu"), "a tensor is on meta"),
    ],
)
def test_refusals_say_why_and_what_can(call, message):
    with pytest.raises(BackendError, match=message):
        call()


def test_a_backend_that_does_not_import(monkeypatch):
    def fail(name):
        raise ImportError("No module named 'numba'")

    monkeypatch.setattr(dispatch, "import_module", fail)
    with pytest.raises(BackendError, match=r"No module named 'numba' \(pip install numba\)"):
        linear_scan(ONE, ONE, backend="cpu")
    with pytest.raises(BackendError, match="no backend can run linear_scan here:\nlinear_scan\n"):
        linear_scan(ONE, ONE)


@pytest.mark.parametrize("file", ["cpu", "gpu_triton"])
def test_a_fault_of_our_own_does_not_turn_into_a_slower_backend(monkeypatch, file):
    true = dispatch.import_module

    def fail(name):
        if name.endswith(file):
            raise NameError("name 'WIDTH' is not defined")
        return true(name)

    monkeypatch.setattr(dispatch, "import_module", fail)
    if file == "cpu":
        with pytest.raises(NameError, match="WIDTH"):
            linear_scan(ONE, ONE)
    else:
        with pytest.raises(BackendError, match="NameError: name 'WIDTH' is not defined"):
            linear_scan(ONE, ONE, backend="triton")


def test_explain():
    lines = explain("linear_scan", ONE, ONE).splitlines()
    assert lines[0] == "linear_scan"
    assert "  cpu: usable (chosen)" in lines
    assert "  pytorch: usable" in lines
    assert "  cupy: linear_scan has no cupy implementation" in lines
    half = torch.ones(3, dtype=torch.float16)
    assert "  cpu: it has no torch.float16" in explain("linear_scan", half, half)
    with pytest.raises(ValueError, match="no primitive is called 'fft'"):
        explain("fft")


def test_importing_the_kernels_loads_no_backend():
    code = "import sys, statespace.kernels; print([m for m in ('torch', 'numba', 'scipy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
