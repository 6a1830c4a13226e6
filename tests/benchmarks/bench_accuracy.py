"""Real tasks, three seeds, against what users would pick: one table, also where ours is behind.

    python tests/benchmarks/bench_accuracy.py [task ...] [--ledger FILE] [--seconds N] [--seeds N] [--rows TEXT]
        [--select] [--print]

measures what the ledger lacks and prints the table; ``make bench-accuracy`` is the same. Every figure goes into the
ledger, a file of JSON outside the repository (by default in the user's cache), as soon as it is known: a run that was
stopped goes on where it was, and a changed option or contender is measured anew. A change in the package is not
noticed: name a new ledger.

Options are chosen on training parts: ``--select`` prints how each candidate does in validation there; the first of a
row's candidates is the one that did best, and the table's. The test part is looked at once for a seed. Real data are
read from the folder that ``STATESPACE_DATA`` names; tasks without are passed over.
"""

import argparse
import time
import warnings
from functools import partial

import torch
from forecasting_rows import FORECASTS
from harness import machine
from series_rows import SERIES
from table import Ledger, default_ledger, fill, lines, results
from tasks import Missing

TESTS = ["tests/test_accuracy_table.py"]
TABLES = SERIES | FORECASTS


def options(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help=f"of {', '.join(TABLES)}; all of them if none is named")
    parser.add_argument("--ledger", default=default_ledger(), help="the file of figures (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing later than that")
    parser.add_argument("--seeds", type=int, help="measure only so many seeds of each contender")
    parser.add_argument("--rows", default="", help="measure only contenders whose names hold this text")
    parser.add_argument("--select", action="store_true", help="validate the candidates on the training parts instead")
    parser.add_argument("--print", action="store_true", help="print what the ledger has and measure nothing")
    given = parser.parse_args(arguments)
    if unknown := set(given.tasks) - set(TABLES):
        parser.error(f"no task is called {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    return given


def main(arguments=()):
    given, begun = options(arguments), time.monotonic()
    print(machine(["torch", "scikit-learn", "sktime", "numba"]), f"{torch.get_num_threads()} threads")
    warnings.simplefilter("ignore")
    ledger, shown, say = Ledger(given.ledger), [], partial(print, flush=True)
    for name in given.tasks or TABLES:
        try:
            table = TABLES[name]()
            for row in table.rows:
                if given.rows in row.name and not given.print:
                    fill(ledger, name, row, say, given.select, given.seeds, begun + given.seconds)
            shown += candidates(ledger, name, table) if given.select else lines(ledger, name, table)
        except Missing as reason:
            shown += ["", f"{name}: passed over. {reason}"]
    print("\n".join(shown))


def candidates(ledger, name, table):
    """Each row's candidates, as they did in validation on the training part."""
    found = ["", f"{name}, in validation:"]
    for row in table.rows:
        if len(row.candidates) < 2:
            continue
        for entry, given in zip(results(ledger, name, row, validate=True), row.candidates, strict=True):
            figures = "not run" if entry is None else entry.get("figures", entry.get("error"))
            found.append(f"  {row.name}: {figures} by {given}")
    return found


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
