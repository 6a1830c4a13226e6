"""Times alternatives in turn, several rounds each, and prints every ratio, also where ours is behind."""

import gc
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version


def machine(packages):
    """One line that names the processor, the number of cores, Python and the versions of ``packages``."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), name)
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(found)}"


def race(contenders, rounds=7, calls=1):
    """Seconds of each contender in every round.

    The contenders take turns within a round, so that a machine whose speed drifts treats them alike.

    Parameters
    ----------
    contenders : dict of str to callable
        Each is called once before the clock runs (compilation, caches).
    rounds : int
    calls : int
        How often a contender runs in a row in its turn, as an optimiser calls a likelihood; the mean is the round's.

    Returns
    -------
    dict of str to list of float
    """
    for run in contenders.values():
        run()
    seconds = {name: [] for name in contenders}
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in contenders.items():
                start = time.perf_counter()
                for _ in range(calls):
                    run()
                seconds[name].append((time.perf_counter() - start) / calls)
    finally:
        gc.enable()
    return seconds


def table(title, seconds, ours, per=None, unit="s"):
    """Print best and worst of each contender and the ratio of its best to ours: above 1, ours is faster.

    ``per`` divides the seconds (a number of samples), ``unit`` is one of s, ms, us, ns.
    """
    scale = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit] / (per or 1)
    best = min(seconds[ours])
    print(f"\n{title}")
    label = f"{unit}{'/sample' if per else ''}"
    print(f"  {'':34s}{'best ' + label:>16s}{'worst':>12s}{'peer / ours':>14s}")
    for name, values in seconds.items():
        ratio = "" if name == ours else f"{min(values) / best:.2f}"
        print(f"  {name:34s}{min(values) * scale:16.4g}{max(values) * scale:12.4g}{ratio:>14s}")
    for name, values in seconds.items():
        if name != ours and min(values) < best:
            print(f"  behind {name} here")


def measures_memory():
    """Whether the peak of a process's memory can be read and reset here."""
    return os.path.exists("/proc/self/clear_refs")


def peak(script, *arguments):
    """Megabytes that ``script`` prints, run by itself with "memory" and the arguments; NaN if it fails."""
    command = [sys.executable, script, "memory", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    return float(result.stdout.split()[-1]) if result.returncode == 0 else float("nan")


def print_memory(run):
    """Print the megabytes that ``run`` needs above the process's size before it."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark starts again at the present size
    before = _kilobytes("VmRSS")
    run()
    print((_kilobytes("VmHWM") - before) / 1024)


def _kilobytes(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))
