"""Whole maximum-likelihood fits of structural models against statsmodels, each with the likelihood that it reached.

Both count the same constants (exact diffuse start, all of Durbin & Koopman's), so that the likelihoods can be compared.
The cycle of statsmodels starts nearly diffuse although it is stationary; for that model its parameters are given to
ours, to compare their likelihoods under the same start.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from harness import machine, race, table

from statespace import KalmanRegressor
from statespace.kalman import Cycle, DummySeasonal, LevelShift, LocalLevel, LocalTrend, Seasonal

TESTS = ["tests/kalman/test_published.py"]


def classic(name, column):
    """A series of the real data; None, with a line that says so, where they are absent."""
    path = Path(os.environ.get("STATESPACE_DATA", "")) / "classic_univariate" / name
    if not os.environ.get("STATESPACE_DATA") or not path.exists():
        print(f"STATESPACE_DATA names no folder with {name}: no row")
        return None
    return np.log(pd.read_csv(path)[column].to_numpy(float))


def trend_and_cycle(n=10_000):
    """A trend that bends slowly, a cycle of about 37 samples, noise."""
    rng = np.random.default_rng(3)
    trend = np.cumsum(0.02 * rng.standard_normal(n) + np.cumsum(1e-4 * rng.standard_normal(n)))
    cycle, turn = np.zeros(n, dtype=complex), 0.98 * np.exp(2j * np.pi / 37)
    shocks = 0.3 * (rng.standard_normal(n) + 1j * rng.standard_normal(n))
    for t in range(1, n):
        cycle[t] = turn * cycle[t - 1] + shocks[t]
    return trend + cycle.real + 0.5 * rng.standard_normal(n)


def contend(title, y, process, options, exog=None, rounds=7):
    """Race both fits of one model and print what they reached."""
    try:
        import statsmodels.api as sm
    except ImportError:
        print("statsmodels is not installed: no row")
        return
    t, fits = np.arange(float(len(y)))[:, None], {}

    def ours():
        fits["ours"] = KalmanRegressor(process).fit(t, y)

    def theirs():
        model = sm.tsa.UnobservedComponents(y, exog=exog, use_exact_diffuse=True, **options)
        fits["theirs"] = model.fit(disp=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table(title, race({"statespace": ours, "statsmodels": theirs}, rounds=rounds), "statespace", unit="ms")
    own, peer = fits["ours"], fits["theirs"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours()
    reached, converged = peer.llf, peer.mle_retvals["converged"]
    if options.get("cycle"):
        reached = own.log_marginal_likelihood(np.log(as_ours(peer)))
    print(f"  log-likelihood: statespace {own.log_marginal_likelihood_value_:.5f} (converged: {not caught}), ", end="")
    print(f"statsmodels {reached:.5f} (converged: {converged})")


def as_ours(result):
    """statsmodels' parameters in the order and the meaning of ours."""
    values = dict(zip(result.model.param_names, result.params, strict=True))
    rho = min(values["damping.cycle"], 1 - 1e-12)
    parameters = [
        values["sigma2.level"], values["sigma2.trend"], 2 * np.pi / values["frequency.cycle"], -np.log(rho),
        values["sigma2.cycle"] / (1 - rho**2), values["sigma2.irregular"],
    ]  # fmt: skip
    return np.maximum(parameters, 1e-300)


def main():
    print(machine(["numba", "scipy", "statsmodels"]))
    airline, drivers = classic("Airline.csv", "Passengers"), classic("seatbelts.csv", "KSI")
    if airline is not None:
        twelve = {"freq_seasonal": [{"period": 12}]}
        contend(
            "airline, trend + seasonal (trigonometric), 144 samples", airline, LocalTrend() + Seasonal(12),
            {"level": "lltrend", **twelve},
        )  # fmt: skip
        contend(
            "airline, trend + seasonal (dummies), 144 samples", airline, LocalTrend() + DummySeasonal(12),
            {"level": "lltrend", "seasonal": 12},
        )  # fmt: skip
    if drivers is not None:
        contend(
            "UK drivers, level + seasonal (trigonometric), 192 samples", drivers, LocalLevel() + Seasonal(12),
            {"level": "llevel", **twelve},
        )  # fmt: skip
        contend(
            "UK drivers, the same with the seat belt law", drivers, LocalLevel() + Seasonal(12) + LevelShift(169.0),
            {"level": "llevel", "mle_regression": False, **twelve}, exog=1.0 * (np.arange(192) >= 169),
        )  # fmt: skip
    cycle = {"level": "lltrend", "cycle": True, "stochastic_cycle": True, "damped_cycle": True}
    y = trend_and_cycle()
    cycle["cycle_period_bounds"] = (2, 1000)
    contend("trend + cycle, 10,000 samples", y, LocalTrend() + Cycle(), cycle, rounds=3)


if __name__ == "__main__":
    main()
