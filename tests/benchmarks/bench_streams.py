"""Microseconds a streamed sample takes, ten million of them in blocks, and the peak memory of predicting a million."""

import os
import resource
import subprocess
import sys
import time

import numpy as np
from harness import machine, race, table

from statespace import KalmanRegressor, S4DRegressor
from statespace.kalman import LocalTrend, Matern

TESTS = ["tests/streaming"]
STEPS = 1000


def kalman(n=2000):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(size=n))
    y = np.sin(times / 5) + 0.1 * rng.standard_normal(n)
    process = LocalTrend(level_variance=0.1, slope_variance=0.01) + Matern(nu=1.5, length_scale=3.0, variance=1.0)
    return KalmanRegressor(process, noise_variance=0.01, optimizer=None).fit(times[:, None], y)


def s4d():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8, 100, 1))
    times = np.cumsum(rng.exponential(size=(8, 100)), axis=1)
    return S4DRegressor(d_model=64, n_layers=4, max_epochs=1, random_state=0).fit(X, X[..., 0].cumsum(1), times=times)


def predict_a_million(kind):
    """Runs in its own process: prints seconds and the growth of the peak memory in MiB."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(size=1_000_000))
    model = kalman() if kind == "kalman" else s4d()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if kind == "kalman":
        model.predict(times[:, None], return_std=True)
    else:
        model.predict(np.sin(times)[None, :, None], times=times[None])
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"  {kind}: predict on 1,000,000 samples: {seconds:.1f} s, peak memory + {grown / 1024:.0f} MiB")


def extend_ten_million(block=100_000, n_blocks=100):
    """Ten million samples through a stream, in blocks: prints the time and the growth of the peak memory in MiB."""
    rng = np.random.default_rng(0)
    stream = kalman().stream()
    y, gaps = rng.standard_normal(block), rng.exponential(size=block)
    stream.extend(y, dt=gaps)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    for _ in range(n_blocks):
        mean, std = stream.extend(y, dt=gaps)
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    n = block * n_blocks
    print(
        f"  stream.extend, n = 4, {n} samples: {seconds / n * 1e9:.0f} ns/sample, peak memory + {grown / 1024:.0f} MiB"
    )
    print(f"  the last: {mean[-1]:.6f} +- {std[-1]:.6f}")


def main():
    print(machine(["numba", "torch"]))
    kalman_stream, s4d_stream = kalman().stream(), s4d().stream()

    def steps(stream, sample):
        return lambda: [stream.step(sample, dt=0.7) for _ in range(STEPS)]

    late_stream = kalman().stream(lag=10.0)
    contenders = {
        "Kalman, n = 4": steps(kalman_stream, 0.3),
        "Kalman, keeping a lag of 14 samples": steps(late_stream, 0.3),
        "S4D, 4 layers, d 64": steps(s4d_stream, [0.3]),
    }
    seconds = race(contenders, rounds=5)
    table("stream().step", seconds, "Kalman, n = 4", per=STEPS, unit="us")
    for kind in ("extend", "kalman", "s4d"):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, __file__, kind], check=True, env=environment)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        extend_ten_million() if sys.argv[1] == "extend" else predict_a_million(sys.argv[1])
    else:
        main()
