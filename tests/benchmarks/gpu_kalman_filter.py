"""Many records at once, one thread each, against the loops on the CPU."""

from functools import partial

import numpy as np

from statespace.kernels import cuda
from statespace.kernels.kalman_filter import Blocks, kalman_filter, kalman_smoother
from statespace.kernels.kalman_filter.blocks import MATERN32
from statespace.kernels.kalman_filter.prepared import Prepared

TESTS = ["tests/kernels/test_kalman_filter_cupy.py"]
# records, samples, numbers written for a sample, and how many sweeps forth its operations amount to
SIZES = {
    "log-likelihood": (100_000, 1000, 0, 1),
    "gradient": (100_000, 1000, 0, 4),
    "filtered moments": (20_000, 1000, 22, 1),
    "smoother, one row read out": (100_000, 1000, 2, 3),
}
# Of one sample, four states in two blocks, multiplications and additions apart: A and Q of two Matérn 3/2 (an
# exponential of 13 terms and a series of 11 each); A P Aᵀ + Q in three pairs of blocks; m = P h, F, v, k; the update.
SWEEP = 2 * 90 + 112 + 60 + 40


def records(device, small, what):
    R, T, written, sweeps = SIZES[what]
    R, T = (40, 30) if small else (R, T)
    generator = np.random.default_rng(0)
    y, dt = generator.normal(size=R * T), generator.exponential(size=R * T)
    blocks = Blocks([MATERN32, MATERN32], [2, 2], [[0.8, 0.5], [3.0, 0.2]])
    start = np.zeros(4), np.diag([0.5, 0.32, 0.2, 1.8])
    model, starts = (blocks, np.array([1.0, 0.0, 1.0, 0.0]), 0.1, *start), np.arange(R + 1) * T

    def call(backend):
        given = [cuda.borrowed(x, np.float64) if backend == "cupy" else x for x in (y, dt)]
        options = {"starts": starts, "backend": backend}
        if what == "filtered moments":
            return lambda: kalman_filter(*given, *model, **options).mean
        if what.startswith("smoother"):
            return lambda: kalman_smoother(*given, *model, readout=model[1][np.newaxis], **options)[1:]
        prepared = Prepared(*given, *model, **options)
        return prepared.log_likelihood if what == "log-likelihood" else lambda: prepared.gradient()[1].parameters

    return {
        "name": f"kalman_filter, {what}",
        "shape": f"{R} records, T {T}, n 4",
        "dtype": "float64",
        "ours": call("cupy"),
        "host": {"cpu": call("cpu")},
        "bytes": 8 * (2 + written) * R * T,
        "flops": SWEEP * sweeps * R * T,
        "rate": "float64",
        "tolerance": 1e-8,
    }


CASES = [partial(records, what=what) for what in SIZES]
