"""`make gpu-check` without a GPU: it says so; its cases are tried small; what fails is entered and the rest goes on."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parents[1] / "benchmarks"
PIECES = sorted(path.stem for path in HERE.glob("gpu_*.py"))


@pytest.fixture
def benchmark_modules(monkeypatch):
    """``benchmark_modules(name)``: a file of the benchmarks, imported."""
    monkeypatch.syspath_prepend(HERE)
    return importlib.import_module


def test_without_a_gpu_it_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    result = subprocess.run([sys.executable, HERE / "gpu.py"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"gpu-check: no CUDA device here: torch {torch.__version__} finds none")
    assert len(result.stderr.splitlines()) == 1
    wrong = subprocess.run([sys.executable, HERE / "gpu.py", "token"], capture_output=True, text=True)
    assert "gpu-check: no piece is called token; there are " in wrong.stderr


@pytest.mark.parametrize("piece", PIECES)
def test_cases_run_small_and_agree_with_their_peers(benchmark_modules, triton_device, cuda_runtime, piece):
    trial, module = benchmark_modules("trial"), benchmark_modules(piece)
    assert module.CASES
    assert [name for name in module.TESTS if not (HERE.parents[1] / name).exists()] == []
    for case in module.CASES:
        entry, callables = trial.try_out(case, triton_device, True)
        assert entry["failed"] == {}, entry["name"]
        assert entry["disagree"] == [], (entry["name"], entry["differences"])
        assert entry["bytes"] > 0
        assert "ours" in callables


FAILING = """
import os
import torch

TESTS = []


def case(name, **other):
    one = torch.ones(2)
    given = {"name": name, "shape": "2", "dtype": torch.float32, "ours": lambda: one, "bytes": 8, "flops": 2}
    return given | other


def fine(device, small):
    peers = {"absent": "it is not here", "broken": lambda: 1 / 0, "wrong": lambda: torch.ones(2) * 1.1}
    return case("fine", peers=peers, host={"same": lambda: torch.ones(2)})


def raises(device, small):
    raise RuntimeError("it does not work")


def dies(device, small):
    os._exit(3)


def hangs(device, small):
    import time
    time.sleep(60)


def last(device, small):
    return case("last")


CASES = [fine, raises, dies, hangs, last]
"""


def test_what_fails_is_entered_and_the_rest_goes_on(benchmark_modules, tmp_path, monkeypatch, capsys):
    gpu = benchmark_modules("gpu")
    (tmp_path / "gpu_failing.py").write_text(FAILING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gpu, "CASE_LIMIT", 3)
    monkeypatch.setattr(gpu, "digest_of", lambda *paths: "code")
    ledger = gpu.Ledger(tmp_path / "results.json")
    ceilings = {"copy": 1e9, "float32": 1e12}
    ledger.begin({"device": "none", "versions": {"torch": "2"}, "date": "today"}, ceilings)
    assert gpu.run_cases("gpu_failing", ledger, time.monotonic() + 100, "cpu", "small") == 0

    found = json.loads((tmp_path / "results.json").read_text())["cases"]
    found = {name.removeprefix("gpu_failing."): entry for name, entry in found.items()}
    assert found.keys() == {"fine", "raises", "dies", "hangs", "last"}
    assert "RuntimeError: it does not work" in found["raises"]["error"]
    assert "(3)" in found["dies"]["error"]
    assert "(hung)" in found["hangs"]["error"]
    fine = found["fine"]
    assert fine["missing"] == {"absent": "it is not here"}
    assert fine["failed"].keys() == {"broken"}
    assert fine["disagree"] == ["wrong"]
    assert fine["seconds"].keys() == {"ours", "same", "wrong"}
    assert ledger.failures() == [f"gpu_failing.{name}" for name in ("fine", "raises", "dies", "hangs")]

    ledger.print()
    printed = capsys.readouterr().out
    assert "wrong disagrees by 1.0e-01 of our largest value" in printed
    assert "without absent: it is not here" in printed
    assert "of limit" in printed

    # What is there is not done again; of other code it is.
    before = (tmp_path / "results.json").stat().st_mtime_ns
    assert gpu.run_cases("gpu_failing", gpu.Ledger(ledger.path), time.monotonic() + 100, "cpu", "small") == 0
    assert (tmp_path / "results.json").stat().st_mtime_ns == before
    monkeypatch.setattr(gpu, "digest_of", lambda *paths: "other code")
    assert gpu.run_cases("gpu_failing", ledger, time.monotonic(), "cpu", "small") == 5
    with pytest.raises(SystemExit, match="is of another device"):
        gpu.Ledger(ledger.path).begin({"device": "another", "versions": {"torch": "2"}}, ceilings)


def test_failing_tests_are_not_timed(benchmark_modules, tmp_path, monkeypatch):
    gpu = benchmark_modules("gpu")
    ledger = gpu.Ledger(tmp_path / "results.json")
    ledger.begin({"device": "none", "versions": {}}, {})
    module = benchmark_modules("gpu_token_shift")
    for name in module.TESTS:
        ledger.enter("tests", name, "code", {"passed": False, "summary": "1 failed"})
    assert gpu.run_cases("gpu_token_shift", ledger, time.monotonic() + 100, "cpu", "small") == 0
    assert {entry["error"] for entry in ledger.data["cases"].values()} == {f"not timed: {module.TESTS[0]} failed"}


def test_the_limit_is_the_slower_of_bytes_and_operations(benchmark_modules):
    limit = benchmark_modules("ledger").limit
    ceilings = {"copy": 1e9, "float32": 1e12}
    assert limit({"bytes": 2e9, "flops": 1e12, "rate": "float32"}, ceilings) == (2.0, "copy")
    assert limit({"bytes": 2e9, "flops": 3e12, "rate": "float32"}, ceilings) == (3.0, "float32")
