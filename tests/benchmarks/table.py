"""Rows of a table of accuracies: measured once, kept in a ledger of JSON, printed with the losses."""

import hashlib
import inspect
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tasks import Missing

SEEDS = (0, 1, 2)


@dataclass
class Row:
    """One contender for one task.

    Attributes
    ----------
    name : str
    measure : callable
        ``measure(options, seed, validate)`` -> figures by name. With ``validate`` it keeps to the training part.
    make : callable
        What the options are given to; its source is part of the fingerprint of a figure.
    candidates : tuple of dict
        Options; the first are those that did best in validation, and the table's.
    seeds : tuple of int
        One for what no seed changes.
    ours : bool
    """

    name: str
    measure: Callable
    make: Callable
    candidates: tuple = ({},)
    seeds: tuple = SEEDS
    ours: bool = False

    def fingerprint(self, number):
        """What a figure of candidate ``number`` depends on: the options, and the source of what makes and measures."""
        told = repr(sorted(self.candidates[number].items(), key=str)) + _source(self.make) + _source(self.measure)
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def _source(function):
    """The source of a function or class; of a partial one also what it was given, functions by their source."""
    if not isinstance(function, partial):
        return inspect.getsource(function)
    given = [*function.args, *function.keywords.values()]
    return _source(function.func) + "".join(_source(part) if callable(part) else repr(part) for part in given)


@dataclass
class Table:
    """The rows of one task.

    Attributes
    ----------
    title : str or callable
        The task, its parts and its split; called when it is printed, for it may need the data.
    figures : tuple of str
        Names of the figures in print; the first is what the rows are compared by.
    greater_is_better : bool
    rows : list of Row
    aim : float, optional
        What one of our rows has to reach.
    """

    title: str | Callable
    figures: tuple
    greater_is_better: bool
    rows: list
    aim: float | None = None


class Ledger:
    """Figures by task, row and seed in one file of JSON, which is whole at any moment."""

    def __init__(self, path):
        self.path = Path(path)
        self.entries = json.loads(self.path.read_text()) if self.path.exists() else {}

    def get(self, key, fingerprint):
        """The entry of ``key``, or None if there is none or it was made by something else."""
        entry = self.entries.get(key)
        return entry if entry is not None and entry["fingerprint"] == fingerprint else None

    def enter(self, key, entry):
        self.entries[key] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partly = self.path.with_suffix(".part")
        partly.write_text(json.dumps(self.entries, indent=1))
        partly.replace(self.path)


def default_ledger():
    """In the user's cache, outside the repository."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "statespace" / "accuracy.json"


def fill(ledger, name, row, say, validate=False, n_seeds=None, until=float("inf")):
    """Measure what the ledger lacks of a row: each seed, or each candidate on the validation part.

    Of the first ``n_seeds`` alone, if that is given; nothing begins when the clock is at ``until`` (`time.monotonic`).
    """
    wanted = [(i, 0) for i in range(len(row.candidates))] if validate else [(0, seed) for seed in row.seeds]
    if validate and len(wanted) == 1:
        return
    for number, seed in wanted[:n_seeds]:
        key, fingerprint = _key(name, row, seed, validate, number), row.fingerprint(number)
        known = ledger.get(key, fingerprint)
        if (known is not None and "figures" in known) or time.monotonic() >= until:
            continue
        start = time.process_time()
        try:
            found = {"figures": row.measure(row.candidates[number], seed, validate)}
        except Missing:
            raise
        except Exception as error:  # a contender's own limits are part of the result, and the others go on
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        ledger.enter(key, {"fingerprint": fingerprint, "seconds": round(time.process_time() - start, 1)} | found)
        say(f"{key}: {_short(ledger.entries[key])}")


def results(ledger, name, row, validate=False):
    """The entries of a row that are there: of its seeds, or of its candidates."""
    wanted = [(i, 0) for i in range(len(row.candidates))] if validate else [(0, seed) for seed in row.seeds]
    return [ledger.get(_key(name, row, seed, validate, i), row.fingerprint(i)) for i, seed in wanted]


def _key(name, row, seed, validate, number):
    return f"{name} | {row.name} | " + (f"candidate {number}" if validate else f"seed {seed}")


def _short(entry):
    if "error" in entry:
        return entry["error"]
    return ", ".join(f"{k} {v:.4g}" for k, v in entry["figures"].items()) + f" ({entry['seconds']:.0f} s)"


def lines(ledger, name, table):
    """A task in the table: each row's mean over seeds with its range, the losses, and how far from the aim we are."""
    found = ["", table.title if isinstance(table.title, str) else table.title(), ""]
    found.append(f"| {'':34s} | " + " | ".join(table.figures) + " | CPU s a fit |")
    found.append("|" + " --- |" * (len(table.figures) + 2))
    means = {}
    for row in table.rows:
        entries = [entry for entry in results(ledger, name, row) if entry is not None]
        label = f"**{row.name}**" if row.ours else row.name
        good = [entry for entry in entries if "figures" in entry]
        if not good:
            reason = entries[0]["error"] if entries else "not run"
            found.append(f"| {label:34s} | {reason} |")
            continue
        cells = [_cell([entry["figures"].get(figure) for entry in good]) for figure in table.figures]
        if len(good) < len(row.seeds):
            cells[0] += f" ({len(good)} of {len(row.seeds)} seeds)"
        seconds = np.mean([entry["seconds"] for entry in good])
        found.append(f"| {label:34s} | " + " | ".join(cells) + f" | {seconds:.0f} |")
        means[row.name] = np.mean([entry["figures"][table.figures[0]] for entry in good])
    return found + _verdict(table, means)


def _cell(values):
    values = [value for value in values if value is not None]
    if not values:
        return ""
    text = f"{np.mean(values):.4g}"
    return text if len(values) == 1 else f"{text} ({min(values):.4g} to {max(values):.4g})"


def _verdict(table, means):
    """Who is ahead of the best of ours, and whether that reaches the aim."""
    sign = 1 if table.greater_is_better else -1
    ours = {row.name: means[row.name] for row in table.rows if row.ours and row.name in means}
    if not ours:
        return []
    best = max(ours, key=lambda name: sign * ours[name])
    ahead = [name for name in means if name not in ours and sign * means[name] > sign * means[best]]
    said = [f"  behind {name}: {means[best]:.4g} against {means[name]:.4g}" for name in ahead]
    if table.aim is not None:
        short = sign * (table.aim - means[best])
        aim = f"  aim {table.figures[0]} {'>=' if sign > 0 else '<='} {table.aim:g}: "
        said.append(aim + (f"reached by {best}" if short <= 0 else f"missed by {short:.4g}"))
    return said
