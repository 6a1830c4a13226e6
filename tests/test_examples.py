"""Every example of the gallery runs, and leaves nothing behind.

Those that train for long train for two epochs here; with the documents they run as they are.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
LONG = {
    "plot_fading_flash", "plot_hybrid", "plot_pendulum", "plot_predator_prey", "plot_selective_copying",
    "plot_splice_sites", "plot_stream_classifier",
}  # fmt: skip
BRIEFLY = """
import runpy, sys
import statespace.deep, statespace.training
whole = statespace.training.fit
def brief(*args, max_epochs=50, **options):
    return whole(*args, max_epochs=min(max_epochs, 2), **options)
statespace.deep.fit = statespace.training.fit = brief
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path):
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *(["-c", BRIEFLY] if path.stem in LONG else []), str(path)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.iterdir()) == []
