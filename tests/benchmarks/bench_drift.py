"""An hour at 1 kHz, sample by sample with the time stamps of today: how far a stream drifts from `predict`.

python tests/benchmarks/bench_drift.py [samples]
"""

import sys
import time

import numpy as np

from statespace import S4DRegressor

REPORTS = 6


def main(n=3_600_000):
    """Prints the difference of the answers so far, in units of the targets' standard deviation."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(8, 100, 1))
    y = X.mean(axis=(1, 2))
    options = {"d_model": 2, "n_layers": 1, "d_state": 2, "max_epochs": 1, "random_state": 0, "device": "cpu"}
    model = S4DRegressor(pooling="mean", **options).fit(X, y, times=1.7e9 + np.arange(100) / 1000)
    record, times = rng.normal(size=(n, 1)), 1.7e9 + np.arange(n) / 1000
    stream, start = model.stream(), time.perf_counter()
    for k, (x, t) in enumerate(zip(record, times, strict=True), start=1):
        answer = stream.step(x, time=t)
        if k % (n // REPORTS) == 0:
            seconds = (time.perf_counter() - start) / k
            away = abs(answer - model.predict([record[:k]], times=[times[:k]])[0]) / y.std()
            print(f"{k:10d} samples {away:9.1e} {seconds * 1e6:7.0f} µs a step", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
