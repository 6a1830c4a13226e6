"""Runs the benchmarks named on the command line, or all of them: ``python tests/benchmarks/run.py [name ...]``.

A benchmark is a file ``bench_<name>.py`` beside this one. The tests of what it times (its ``TESTS``) run first: what is
wrong is not timed.
"""

import importlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def main(names):
    sys.path[:0] = [str(HERE), str(ROOT)]
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in names or known:
        module = importlib.import_module(f"bench_{name}")
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", *module.TESTS]
        tests = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        print(f"\n=== {name}: {tests.stdout.strip().splitlines()[-1]}", flush=True)
        if tests.returncode:
            sys.exit(tests.stdout)
        module.main()


if __name__ == "__main__":
    main(sys.argv[1:])
