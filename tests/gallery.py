"""Runs examples one by one, as ``tests/test_examples.py`` asks for them: each in a process of its own.

That process is a fork of this one, which has loaded the libraries that examples use; to load them takes longer than
many an example does. The package is not among them: an example imports what it uses of it. A line of standard input is
a list in JSON of the example's path, the folder to work in, the file for what it prints, and whether it trains for two
epochs only; a line of standard output is the exit code.
"""

import importlib
import json
import os
import runpy
import sys

LIBRARIES = ("matplotlib.pyplot", "numba", "numpy", "pandas", "scipy.signal", "sklearn.model_selection", "torch")


def serve():
    """Answer until there is no line any more; in a forked process, return what it has to run."""
    for line in sys.stdin:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def train_briefly():
    """At most two epochs, for whoever trains."""
    import statespace.deep
    import statespace.training

    whole = statespace.training.fit

    def brief(*args, max_epochs=50, **options):
        return whole(*args, max_epochs=min(max_epochs, 2), **options)

    statespace.deep.fit = statespace.training.fit = brief


def run(path, folder, printed, briefly):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(printed, os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(1, 2)
    os.chdir(folder)
    sys.argv, sys.path[0] = [path], os.path.dirname(path)
    if briefly:
        train_briefly()
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    asked = serve()
    if asked is not None:
        run(*asked)
