"""One long record, filtered, smoothed and differentiated in parallel over time, against the loops on the CPU."""

from functools import partial

import numpy as np

from statespace.kernels import cuda
from statespace.kernels.kalman_filter import Blocks, kalman_gradient, kalman_log_likelihood, kalman_smoother
from statespace.kernels.kalman_filter.blocks import MATERN32, RANDOM_WALK

TESTS = ["tests/kernels/test_kalman_filter_associative_cupy.py"]
FUNCTIONS = {
    "log-likelihood": kalman_log_likelihood,
    "smoother, one row read out": lambda *given, **options: kalman_smoother(*given, [[1.0, 1.0, 0.0]], **options)[1:],
    "gradient": lambda *given, **options: kalman_gradient(*given, **options)[1].parameters,
}


def one_record(device, small, what):
    T = 5000 if small else 1 << 20
    generator = np.random.default_rng(0)
    y, dt = np.cumsum(generator.normal(size=T)) * 0.3, generator.exponential(size=T)
    blocks = Blocks([RANDOM_WALK, MATERN32], [1, 2], [[0.1, 0.0], [0.8, 0.5]])
    model = blocks, np.array([1.0, 1.0, 0.0]), 0.1, np.zeros(3), np.diag([0, 0.5, 0.32]), np.eye(3)[:, :1]

    def call(backend):
        return lambda: cuda.runtime.fetched(FUNCTIONS[what](y, dt, *model, backend=backend))

    return {
        "name": f"kalman_filter, {what}",
        "shape": f"T {T}, n 3, arrays in main memory",
        "dtype": "float64",
        "ours": call("cupy"),
        "host": {"cpu": call("cpu")},
        "bytes": 8 * (4 if "smoother" in what else 2) * T,
        # a step of three states: prediction, update
        "flops": 100 * T * (1 if what == "log-likelihood" else 3),
        "rate": "float64",
        "tolerance": 1e-8,
    }


CASES = [partial(one_record, what=what) for what in FUNCTIONS]
