"""Runs cases of one piece in a process of its own and prints a line of JSON for each: see gpu.py, which reads them."""

import importlib
import json
import sys
import traceback
from functools import partial

import torch
from stopwatch import Stopwatch, ceilings, describe

# By the type of the inputs: sums in another order, and half numbers rounded in other places.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
KEYS = {"name", "shape", "dtype", "ours", "peers", "host", "bytes", "flops", "rate", "tolerance"}


def name_of(module, case):
    """The name of a case in the JSON."""
    if isinstance(case, partial):
        given = [*map(str, case.args), *(f"{k}={v}" for k, v in case.keywords.items())]
        return f"{module}.{case.func.__name__}({', '.join(given)})"
    return f"{module}.{case.__name__}"


def try_out(case, device, small):
    """A case's inputs made, ours and every peer run once and compared.

    Returns
    -------
    entry : dict
        What goes into the JSON: the case in words, and how far each peer's result is from ours.
    callables : dict
        By name, ours first: the callable, and whether the host's clock times it.
    """
    given = case(device, small)
    if unknown := given.keys() - KEYS:
        raise ValueError(f"a case has the keys {', '.join(sorted(KEYS))}. Got {', '.join(sorted(unknown))} as well.")
    entry = {k: given[k] for k in ("name", "shape")} | {"dtype": str(given["dtype"]).removeprefix("torch.")}
    entry |= {"bytes": int(given["bytes"]), "flops": int(given["flops"]), "rate": given.get("rate", "float32")}
    entry |= {"missing": {}, "failed": {}, "differences": {}, "disagree": []}
    tolerance = given.get("tolerance", TOLERANCE.get(given["dtype"]))
    ours = given["ours"]()
    callables = {"ours": (given["ours"], False)}
    for on_host, peers in ((False, given.get("peers", {})), (True, given.get("host", {}))):
        for name, run in peers.items():
            if isinstance(run, str):
                entry["missing"][name] = run
                continue
            try:
                theirs = run()
            except Exception as error:  # a peer's own limits are part of the result
                entry["failed"][name] = f"{type(error).__name__}: {error}"[:300]
                continue
            callables[name] = run, on_host
            if tolerance is not None:
                entry["differences"][name] = apart = difference(ours, theirs)
                if not apart <= tolerance:
                    entry["disagree"].append(name)
    return entry, callables


def difference(ours, theirs):
    """The largest difference between two results, relative to ours' largest value; of several results the worst."""
    if isinstance(ours, tuple | list):
        if not isinstance(theirs, tuple | list):
            return difference(ours[0], theirs)
        return max(difference(x, y) for x, y in zip(ours, theirs, strict=False) if x is not None and y is not None)
    if isinstance(theirs, tuple | list):
        return difference(ours, theirs[0])
    ours, theirs = (torch.as_tensor(x).detach().cpu() for x in (ours, theirs))
    wide = torch.promote_types(ours.dtype, torch.float64)
    ours, theirs = ours.to(wide), theirs.to(wide)
    return float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-300))


def measure(case, device, small, clock):
    """The entry of a case with the times of ours and of every peer that runs."""
    entry, callables = try_out(case, device, small)
    entry["seconds"] = {name: clock.time(run, on_host=on_host) for name, (run, on_host) in callables.items()}
    if clock.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        callables["ours"][0]()
        entry["memory"] = torch.cuda.max_memory_allocated() - before
    return entry, callables


def main(device, small, module, *names):
    """The cases called ``names`` of a piece, or without names what they are called; for the piece ``describe`` what the
    device is and reaches.
    """
    say = lambda **entry: print(json.dumps(entry), flush=True)  # noqa: E731
    if module == "describe":
        say(device=describe(device), ceilings=ceilings(device))
        return
    piece = importlib.import_module(module)
    cases = {name_of(module, case): case for case in piece.CASES}
    if not names:
        say(cases=list(cases), tests=piece.TESTS)
        return
    clock = Stopwatch(device)
    for name in names:
        say(begun=name)
        try:
            entry, callables = measure(cases[name], device, small == "small", clock)
            say(case=name, entry=entry)
            # Apart, and after the times are safe: a graph that cannot be captured may take the process along.
            graphs = {k: clock.replayed(run) for k, (run, on_host) in callables.items() if not on_host}
            say(case=name, entry=entry | {"replayed": {k: v for k, v in graphs.items() if v is not None}})
        except Exception:
            say(case=name, entry={"error": traceback.format_exc()[-3000:]})
        entry = callables = None  # the inputs go before the next ones come
        if clock.device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main(*sys.argv[1:])
