"""The JSON of a check on a GPU: what was done, for which code, and the table of it."""

import hashlib
import json
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Ledger:
    """The JSON: what was done, for which code, and what is left."""

    def __init__(self, path):
        self.path = Path(path)
        self.data = json.loads(self.path.read_text()) if self.path.exists() else {}
        self._lock = threading.Lock()

    def begin(self, device, ceilings):
        """The device of this run; entries of another are refused."""
        same = ("device", "driver", "python", "versions")
        before = self.data.get("device")
        if before is not None and any(before.get(k) != device.get(k) for k in same):
            sys.exit(f"gpu-check: {self.path} is of another device or other versions. Name another file by --json.")
        self.data = {"device": device, "ceilings": ceilings, "tests": {}, "cases": {}} | self.data
        self.write()

    def knows(self, kind, name, digest):
        return self.data[kind].get(name, {}).get("code") == digest

    def enter(self, kind, name, digest, entry):
        with self._lock:
            self.data[kind][name] = {"code": digest} | entry
            self.write()

    def write(self):
        partly = self.path.with_suffix(".part")
        partly.write_text(json.dumps(self.data, indent=1))
        partly.replace(self.path)

    def failures(self):
        """The names of the test files that failed and of the cases without a time."""
        tests = [name for name, entry in self.data["tests"].items() if not entry["passed"]]
        return tests + [name for name, entry in self.data["cases"].items() if "error" in entry or entry["disagree"]]

    def print(self):
        """One line for each test file and each case, with everything in which ours is behind or a peer disagrees."""
        device, ceilings = self.data["device"], self.data["ceilings"]
        versions = ", ".join(f"{name} {number}" for name, number in device["versions"].items())
        print(f"\n{device['device']}, driver {device.get('driver')}, {versions}, {device['date']}")
        rates = ", ".join(f"{name} {value / 1e12:.4g}" for name, value in ceilings.items() if name != "copy")
        print(f"copy {ceilings['copy'] / 1e9:.4g} GB/s, read and written; products of matrices in TFLOP/s: {rates}\n")
        for name, entry in sorted(self.data["tests"].items()):
            print(f"  {'passed' if entry['passed'] else 'FAILED'}  {name}: {entry['summary']}")
        heads = f"{'ms':>9s}{'10-90 %':>16s}{'graph':>9s}{'GB/s':>8s}{'TFLOP/s':>9s}{'of limit':>10s}"
        print(f"\n  {'':70s}{heads}  peer / ours")
        for name, entry in sorted(self.data["cases"].items()):
            for line in lines(name, entry, ceilings):
                print(line)


def digest_of(*paths):
    """A fingerprint of the kernels and of the files ``paths``: entries of other code are done again."""
    found = hashlib.sha256()
    kernels = (p for p in (ROOT / "kernels").rglob("*") if p.suffix in (".py", ".cu", ".cuh"))
    for path in sorted([*kernels, *map(Path, paths)]):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def limit(entry, ceilings):
    """The least seconds in which the bytes can be moved and the operations be done, and which of the two it is."""
    moved, done = entry["bytes"] / ceilings["copy"], entry["flops"] / ceilings[entry["rate"]]
    return (moved, "copy") if moved >= done else (done, entry["rate"])


def lines(name, entry, ceilings):
    """A case in the table: ours, its fraction of the limit, and the peers' times over ours."""
    if "error" in entry:
        return [f"  {name}: {(entry['error'].strip().splitlines() or ['no word'])[-1]}"]
    ours, replayed = entry["seconds"]["ours"], entry.get("replayed", {}).get("ours", {})
    least, of = limit(entry, ceilings)
    best = min(ours["median"], replayed.get("median", ours["median"]))
    peers = {k: v["median"] / ours["median"] for k, v in entry["seconds"].items() if k != "ours"}
    spread = f"{ours['low'] * 1e3:.4g}-{ours['high'] * 1e3:.4g}"
    graph = f"{replayed['median'] * 1e3:.4g}" if "median" in replayed else ""
    found = [
        f"  {entry['name'] + ', ' + entry['shape'] + ', ' + entry['dtype']:70s}{ours['median'] * 1e3:9.4g}{spread:>16s}"
        f"{graph:>9s}{entry['bytes'] / best / 1e9:8.4g}{entry['flops'] / best / 1e12:9.3g}"
        f"{least / best:6.2f} {of:8s}  " + ", ".join(f"{k} {v:.2f}" for k, v in peers.items())
    ]
    found += [f"    behind {k} here" for k, v in peers.items() if v < 1]
    found += [f"    {k} disagrees by {entry['differences'][k]:.1e} of our largest value" for k in entry["disagree"]]
    found += [f"    {k} fails: {reason}" for k, reason in entry["failed"].items()]
    found += [f"    without {k}: {reason}" for k, reason in entry["missing"].items()]
    if "refused" in replayed:
        found.append(f"    no CUDA graph: {replayed['refused']}")
    return found
