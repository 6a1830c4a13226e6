"""HiPPOMemory against the recurrences of the papers, in seconds and in error: LegS by the bilinear rule in 1/t with a
triangular solve a step; windows by a dense matrix exponential for each gap. The error is that of the coefficients
against the projection (LegS) or the exact solution (windows), relative to its norm.
"""

import numpy as np
from harness import machine, race, table
from scipy.linalg import expm, solve_triangular

from statespace import HiPPOMemory
from statespace.lti import hippo

TESTS = ["tests/lti/test_hippo.py", "tests/lti/test_memory.py"]
N = 64


def make_record(length, seed=0):
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(size=length)
    return np.sin(np.cumsum(gaps) * 20.0 / length) + 0.1 * rng.normal(size=length), gaps


def bilinear_legs(u, gaps):
    """HiPPO's rule for dx/dt = (A x + B u)/t, t taken at both ends of a gap; the first sample is a constant."""
    A, B = hippo.matrices("legs", N)
    eye, b = np.eye(N), B[:, 0]
    x, t = np.eye(N)[0] * u[0], gaps[0]
    for value, gap in zip(u[1:], gaps[1:], strict=True):
        after = t + gap
        right = x + gap / (2 * t) * (A @ x) + gap / 2 * (1 / t + 1 / after) * b * value
        x, t = solve_triangular(eye - gap / (2 * after) * A, right, lower=True), after
    return x


def dense_window(measure, window):
    A, B = hippo.matrices(measure, N)
    augmented = np.zeros((N + 1, N + 1))
    augmented[:N, :N], augmented[:N, N:] = A / window, B / window

    def run(u, gaps):
        x = np.zeros(N)
        for value, gap in zip(u, gaps, strict=True):
            E = expm(augmented * gap)
            x = E[:N, :N] @ x + E[:N, N] * value
        return x

    return run


def error(x, expected):
    return np.linalg.norm(x - expected) / np.linalg.norm(expected)


def memory(measure, window=None, **options):
    return HiPPOMemory(measure, N, window=window, **options)


def updates(measure, window, u, gaps):
    kept = memory(measure, window)
    for value, gap in zip(u.tolist(), gaps.tolist(), strict=True):
        kept.update(value, gap)
    return kept.coefficients


def main():
    print(machine(["numba", "scipy"]))
    u, gaps = make_record(2000)
    runs = {
        "extend": lambda: memory("legs").extend(u, gaps).coefficients,
        "update, one by one": lambda: updates("legs", None, u, gaps),
        "bilinear rule, triangular solve": lambda: bilinear_legs(u, gaps),
    }
    table(f"LegS, N {N}, 2000 samples", race(runs, rounds=3), "update, one by one", per=2000, unit="us")
    for name, run in runs.items():
        print(f"    error of {name}: {error(run(), runs['extend']()):.1e}")
    for measure in ("legt", "fourier", "lagt"):
        window = 500.0 if measure != "lagt" else 50.0
        exact = dense_window(measure, window)
        runs = {
            "extend": lambda m=measure, w=window: memory(m, w).extend(u[:300], gaps[:300]).coefficients,
            "update, one by one": lambda m=measure, w=window: updates(m, w, u[:300], gaps[:300]),
            "expm a gap": lambda e=exact: e(u[:300], gaps[:300]),
        }
        table(f"{measure}, N {N}, 300 samples", race(runs, rounds=2), "update, one by one", per=300, unit="us")
        print(f"    difference: {error(runs['extend'](), runs['expm a gap']()):.1e}")
    u, gaps = make_record(1_000_000)
    for hold in ("zoh", "foh"):
        runs = {
            f"{measure}, {hold}": lambda m=measure, w=window, h=hold: memory(m, w, hold=h).extend(u, gaps).coefficients
            for measure, window in (("legs", None), ("legt", 1e6), ("fourier", 1e6), ("lagt", 1e5))
        }
        table(f"a million samples, N {N}, {hold}", race(runs, rounds=3), f"legs, {hold}", unit="s")


if __name__ == "__main__":
    main()
