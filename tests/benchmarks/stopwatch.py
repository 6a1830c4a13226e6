"""Seconds on a device: of calls, of a copy, of matrix products; and what the device is."""

import platform
import statistics
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("numpy", "torch", "triton", "cupy-cuda12x", "cupy-cuda13x")
PEERS = ("mamba-ssm", "causal-conv1d", "flash-linear-attention", "accelerated-scan", "flashfftconv", "cupy")
RATES = ("float64", "float32", "tf32", "bfloat16", "float16")


class Stopwatch:
    """Times calls with the device's own events, from a cold cache, as often as fits into a budget.

    On a CPU, where cases are only tried, it reads the clock.
    """

    def __init__(self, device):
        self.device = torch.device(device)
        self._dirt = None
        if self.device.type == "cuda":
            cache = torch.cuda.get_device_properties(self.device).L2_cache_size
            self._dirt = torch.empty(max(2 * cache, 2**26), dtype=torch.uint8, device=self.device)

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def time(self, run, budget=1.0, on_host=False):
        """Median, 10th and 90th percentile of the seconds of ``run()``, and how many calls these are.

        Parameters
        ----------
        run : callable
            It is called before the clock runs: compilation, choice of variants, caches.
        budget : float
            Seconds that the calls may take together; at least three and at most a hundred are made.
        on_host : bool
            Read the host's clock instead, for work on the CPU or that waits for the device by itself.
        """
        several = self._on_host if self._dirt is None or on_host else self._by_events
        for _ in range(2):
            run()
        first = several(run, 1)[0]
        seconds = sorted(several(run, min(100, max(3, int(budget / max(first, 1e-6))))))
        n = len(seconds)
        return {
            "median": statistics.median(seconds),
            "low": seconds[n // 10],
            "high": seconds[-1 - n // 10],
            "calls": n,
        }

    def replayed(self, run, budget=0.5):
        """The same for replays of a CUDA graph of ``run``, without what launches cost the host; None if it refuses."""
        if self._dirt is None:
            return None
        try:
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                run()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                run()
        except Exception as error:  # a peer may fail in any way; its time without a graph stands
            torch.cuda.synchronize()
            return {"refused": str(error).splitlines()[0] if str(error) else type(error).__name__}
        return self.time(graph.replay, budget)

    def _on_host(self, run, n):
        seconds = []
        for _ in range(n):
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            seconds.append(time.perf_counter() - start)
        return seconds

    def _by_events(self, run, n):
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(n)]
        # All are queued before the first is waited for: the host's own pauses stay out.
        for start, end in events:
            self._dirt.zero_()
            start.record()
            run()
            end.record()
        self.wait()
        return [start.elapsed_time(end) / 1e3 for start, end in events]


def describe(device):
    """What the numbers belong to: date, device, driver, versions."""
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES + PEERS if _version(name)},
    }
    device = torch.device(device)
    if device.type != "cuda":
        return found | {"device": platform.processor() or platform.machine()}
    properties = torch.cuda.get_device_properties(device)
    return found | {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory": properties.total_memory,
        "cache": properties.L2_cache_size,
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def ceilings(device):
    """What the device reaches: bytes a second of a copy, read and written, and operations a second of matrix products.

    Random numbers: products of zeros run faster.
    """
    clock, on_gpu = Stopwatch(device), torch.device(device).type == "cuda"
    size, width = (2**32, 8192) if on_gpu else (2**24, 256)
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    found = {"copy": 2 * size / clock.time(lambda: target.copy_(source))["median"]}
    source = target = None
    strict = torch.backends.cuda.matmul.allow_tf32
    for rate in RATES:
        if rate == "tf32" and not on_gpu:
            continue
        n = width if rate in ("tf32", "bfloat16", "float16") else width // 2
        dtype = torch.float32 if rate == "tf32" else getattr(torch, rate)
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = rate == "tf32"
        found[rate] = 2 * n**3 / clock.time(lambda a=a, b=b: a @ b)["median"]
    torch.backends.cuda.matmul.allow_tf32 = strict
    return found


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _driver():
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"unknown: {error}"
