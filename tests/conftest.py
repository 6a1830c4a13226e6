"""What every test shares: threads, the real data, and the tests that need a GPU."""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
from collections import Counter
from pathlib import Path

# Read by the libraries when they are first imported, so they are set before any test module is. Two processes of tests,
# and what they start, would have more threads than there are cores, and those of BLAS and OpenMP spin while they wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# Triton's kernels are compiled where there is a GPU, and interpreted on the CPU elsewhere.
os.environ.setdefault("TRITON_INTERPRET", "0" if Path("/dev/nvidiactl").exists() else "1")

import pytest
from hypothesis import settings

# The same examples in every run, and no time limit for one: a loaded machine is not a wrong result.
settings.register_profile("statespace", derandomize=True, deadline=None)
settings.load_profile("statespace")


class _OneTorchThread(importlib.abc.MetaPathFinder):
    """Set torch to one thread when a test imports it, and import it for no test that does not.

    On tiny nets several threads cost four times as much as one.
    """

    def find_spec(self, name, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name == "torch" else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.set_num_threads(1)

        spec.loader.exec_module = exec_module
        return spec


if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(1)
else:
    sys.meta_path.insert(0, _OneTorchThread())


# A process that was started in the background of a shell ignores Ctrl-C, and so would what the tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Few tests that take long. Neighbours compile different loops.
LONG = [
    "tests/test_examples.py", "tests/layers/test_contract.py", "tests/forecasting/test_checks.py",
    "tests/filtering/test_panel.py", "tests/kernels/test_gpu_check.py",
]  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Files that take long first, then those of many tests, so that several processes end at about the same time."""
    files = [item.nodeid.split("::")[0] for item in items]
    rank = {file: LONG.index(file) if file in LONG else len(LONG) for file in files}
    number = Counter(files)
    items.sort(key=lambda item: (rank[file := item.nodeid.split("::")[0]], -number[file]))
    skip_without_a_gpu(items)


def skip_without_a_gpu(items):
    """Skip what is marked ``gpu`` where there is no CUDA device, asking torch only if such a test was collected."""
    marked = [item for item in items if "gpu" in item.keywords]
    if not marked:
        return
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch finds none"))


@pytest.fixture(scope="session")
def data_path():
    """``data_path(name)``: a file or folder of the real data; without it the test is skipped with the reason."""
    root = os.environ.get("STATESPACE_DATA")

    def find(name):
        if root is None:
            pytest.skip("STATESPACE_DATA is not set: it names the folder with the real data")
        path = Path(root) / name
        if not path.exists():
            pytest.skip(f"STATESPACE_DATA={root} has no {name}")
        return path

    return find
