"""Every example of the gallery runs, and leaves nothing behind.

Those that train for long train for two epochs or few steps here; with the documents they run as they are.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
LONG = {
    "plot_hybrid", "plot_inside", "plot_irregular_sampling", "plot_pendulum", "plot_predator_prey",
    "plot_selective_copying", "plot_splice_sites", "plot_stream_classifier",
}  # fmt: skip
# What stands for less in one that has a loop of its own.
STEPS = {"plot_fading_flash": ("n_steps=400", "n_steps=20")}


@pytest.fixture(scope="module")
def server():
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests" / "gallery.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path, tmp_path, server):
    folder, printed, script = tmp_path / "folder", tmp_path / "printed", tmp_path / path.name
    folder.mkdir()
    text, (all_steps, some) = path.read_text(), STEPS.get(path.stem, ("", ""))
    assert all_steps in text
    script.write_text(text.replace(all_steps, some))
    print(json.dumps([str(script), str(folder), str(printed), path.stem in LONG]), file=server.stdin, flush=True)
    assert server.stdout.readline().strip() == "0", printed.read_text()
    assert list(folder.iterdir()) == []
