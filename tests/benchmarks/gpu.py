"""Checks the kernels on the GPU at hand, times them beside their peers, prints a table and writes a JSON (``make
gpu-check``).

    python tests/benchmarks/gpu.py [piece ...] [--seconds 540] [--json gpu-check.json] [--jobs 4]

First the tests that need a GPU and those of the GPU backends, then the benchmarks. What the JSON holds already, of the
same code on the same device, is not done again: where the seconds do not suffice, the same command goes on.

A piece is a file ``gpu_<piece>.py`` beside this one. It has ``TESTS``, the test files that have to pass before anything
is timed, and ``CASES``, functions ``case(device, small)`` that make their inputs and return a dict. ``small`` asks for
the least shapes with which the code still takes its paths: so the cases are tried where there is no GPU.

name       the kernel and what is timed of it: "selective_scan, forward"
shape      of the inputs, in the field's letters: "B 8, D 2048, L 4096, N 16"
dtype      torch's type of the inputs, or a word
ours       a callable without arguments that returns a tensor or several: results are compared before they are timed
peers      {name: callable}, or in its place the reason why this peer is not here (see ``optional``)
host       the same for what runs on the CPU: the host's clock times it (optional)
bytes      that any implementation has to move: every input read once, every result written once
flops      operations that any implementation has to do
rate       where they are done: "float32" (default), "float64", "tf32", "bfloat16" or "float16" products of matrices
tolerance  largest difference of a peer's result relative to our largest value; None: not compared; by dtype if left out
"""

import argparse
import importlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from ledger import Ledger, digest_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Seconds after which a test file, a process that starts, or a case counts as hung.
TESTS_LIMIT, START_LIMIT, CASE_LIMIT = 480, 120, 180


def optional(module, name):
    """What a peer's module calls ``name``, or in words the reason why it cannot be had."""
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # peers fail at import in many ways: no package, no compiled part, another torch
        return f"{module}: {type(error).__name__}: {error}".splitlines()[0]


def together(function, tensors):
    """A callable that runs ``function(*tensors)`` and its backward, and returns the results and the gradients.

    The loss weighs the results at random: a plain sum would forgive errors that cancel.
    """
    import torch

    wanted, weights = [x for x in tensors if isinstance(x, torch.Tensor) and x.requires_grad], []

    def run():
        results = function(*tensors)
        results = [x for x in (results if isinstance(results, tuple | list) else (results,)) if x is not None]
        if not weights:
            seeded = torch.Generator(results[0].device).manual_seed(1)
            weights.extend(torch.randn(x.shape, generator=seeded, device=x.device).to(x.dtype) for x in results)
        return *(x.detach() for x in results), *torch.autograd.grad(results, wanted, weights)

    return run


def test_files():
    """The test files of the GPU backends, and whatever else has tests marked ``gpu``, with pytest's selection."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path.stem.endswith(("_triton", "_cupy")):
            yield path, []
        elif "mark.gpu" in path.read_text():
            yield path, ["-m", "gpu"]


def no_device():
    """Why there is no device to check on, in a sentence, or None."""
    try:
        import torch
    except ImportError as error:
        return f"no torch here ({error}): {sys.executable} has to be the Python that has one built for CUDA."
    if not torch.cuda.is_available():
        return f"no CUDA device here: torch {torch.__version__} finds none (a driver, and a torch built for CUDA)."
    return None


def name_and_digest(path):
    return path.relative_to(ROOT).as_posix(), digest_of(path)


def run_tests(path, selection, ledger, deadline):
    """One test file in a process of its own; without an entry if there was no time for it."""
    name, digest = name_and_digest(path)
    left = deadline - time.monotonic()
    if ledger.knows("tests", name, digest) or left < 15:
        return
    command = [sys.executable, "-m", "pytest", "-q", "-rfEs", "-n", "0", "--no-header", name, *selection]
    command = command if importlib.util.find_spec("xdist") else [x for x in command if x not in ("-n", "0")]
    start = time.monotonic()
    try:
        result = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=min(left, TESTS_LIMIT), env=environment()
        )
    except subprocess.TimeoutExpired:
        if left > TESTS_LIMIT:
            ledger.enter("tests", name, digest, {"passed": False, "summary": f"hung: more than {TESTS_LIMIT} s"})
        return
    # 5: nothing was collected.
    entry = {"passed": result.returncode in (0, 5), "summary": (result.stdout.strip().splitlines() or ["no word"])[-1]}
    if not entry["passed"]:
        entry["output"] = (result.stdout + result.stderr)[-6000:]
    ledger.enter("tests", name, digest, entry | {"seconds": round(time.monotonic() - start, 1)})
    print(f"{'passed' if entry['passed'] else 'FAILED'}  {name}: {entry['summary']}", flush=True)


def pieces(names=()):
    """The modules of the pieces named, or of all."""
    known = sorted(path.stem for path in HERE.glob("gpu_*.py"))
    if unknown := {f"gpu_{name}" for name in names} - set(known):
        there = ", ".join(x.removeprefix("gpu_") for x in known)
        sys.exit(f"gpu-check: no piece is called {', '.join(sorted(x[4:] for x in unknown))}; there are {there}")
    return [f"gpu_{name}" for name in names] or known


def lines_of(*arguments, limit):
    """What a process of trial.py says, line by line, and at its end, or if it says nothing for ``limit()``, why."""
    command = [sys.executable, str(HERE / "trial.py"), *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=environment()
        )
        said = queue.Queue()
        reader = threading.Thread(target=lambda: [said.put(x) for x in chain(process.stdout, [None])], daemon=True)
        reader.start()
        try:
            while (line := said.get(timeout=limit())) is not None:
                if line.startswith("{"):
                    yield json.loads(line)
            process.wait()
            errors.seek(0)
            yield {"ended": process.returncode, "words": errors.read()[-3000:]}
        except queue.Empty:
            yield {"ended": "hung", "words": ""}
        finally:
            process.kill()
            process.wait()
            reader.join()


def run_cases(module, ledger, deadline, device, small):
    """The cases of a piece that the ledger lacks, in as few processes as failures allow; how many remain."""
    digest = digest_of(HERE / f"{module}.py")
    said = next(lines_of(device, small, module, limit=lambda: START_LIMIT))
    if "cases" not in said:
        ledger.enter("cases", module, digest, {"error": f"the process ended ({said['ended']}): {said['words']}"})
        return 0
    left = [name for name in said["cases"] if not ledger.knows("cases", name, digest)]
    failing = [test for test in said["tests"] if not ledger.data["tests"].get(test, {}).get("passed", True)]
    current = None

    def limit():
        return min(START_LIMIT if current is None else CASE_LIMIT, max(deadline - time.monotonic(), 0.1))

    while left and not failing and time.monotonic() < deadline - 20:
        current, done = None, []
        for said in lines_of(device, small, module, *left, limit=limit):
            if "begun" in said:
                current = said["begun"]
            elif "case" in said:
                ledger.enter("cases", current, digest, said["entry"])
                done.append(current)
            elif (current or left[0]) not in done and time.monotonic() < deadline:
                done.append(current or left[0])
                ledger.enter(
                    "cases", done[-1], digest, {"error": f"the process ended ({said['ended']}): {said['words']}"}
                )
        left = [name for name in left if name not in done]
    for name in left if failing else ():
        ledger.enter("cases", name, digest, {"error": f"not timed: {', '.join(failing)} failed"})
    return 0 if failing else len(left)


def environment():
    """The variables of the processes: this package and the files beside this one are found, and kernels compiled."""
    path = os.pathsep.join(filter(None, [str(HERE), str(ROOT), os.environ.get("PYTHONPATH")]))
    return {"TRITON_INTERPRET": "0"} | os.environ | {"PYTHONPATH": path}


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__.splitlines()[0])
    parser.add_argument("pieces", nargs="*", help="what is timed, such as selective_scan; all if none is named")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing that would end later")
    parser.add_argument("--json", default="gpu-check.json", help="where results go, and where they go on from")
    parser.add_argument("--jobs", type=int, default=4, help="test files at a time")
    parser.add_argument("--only", choices=["tests", "benchmarks"])
    given = parser.parse_args(arguments)
    deadline, modules = time.monotonic() + given.seconds, pieces(given.pieces)
    if reason := no_device():
        sys.exit(f"gpu-check: {reason} Nothing was checked.")
    ledger = Ledger(given.json)
    said = next(lines_of("cuda", "large", "describe", limit=lambda: START_LIMIT))
    if "device" not in said:
        sys.exit(f"gpu-check: the device cannot be used: {said['words']}")
    ledger.begin(**said)
    remaining = 0
    if given.only != "benchmarks":
        with ThreadPoolExecutor(given.jobs) as pool:
            for done in [pool.submit(run_tests, *each, ledger, deadline) for each in test_files()]:
                done.result()
        remaining += sum(not ledger.knows("tests", *name_and_digest(path)) for path, _ in test_files())
    if given.only != "tests":
        for module in modules:
            remaining += run_cases(module, ledger, deadline, "cuda", "large")
    ledger.print()
    if remaining:
        sys.exit(f"gpu-check: {remaining} test files and cases remain. The same command goes on with them.")
    if ledger.failures():
        sys.exit("gpu-check: there were failures, see above.")


if __name__ == "__main__":
    main()
