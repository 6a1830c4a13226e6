"""Residual tests and auxiliary residuals of one model, at given parameters, against statsmodels: equal, then timed."""

import warnings

import numpy as np
from harness import machine, race, table

from statespace import KalmanRegressor
from statespace.kalman import LocalLevel, Seasonal

TESTS = ["tests/kalman/test_diagnostics.py", "tests/kalman/test_disturbances.py", "tests/filtering/test_diagnosis.py"]


def contenders(n_samples):
    """Level and trigonometric seasonal of period 12 with five harmonics: 11 states."""
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    time = np.arange(n_samples, dtype=float)
    y = np.cumsum(0.3 * rng.normal(size=n_samples)) + np.cos(2 * np.pi * time / 12) + rng.normal(size=n_samples)
    gp = KalmanRegressor(
        LocalLevel(0.1) + Seasonal(12, harmonics=5, variance=0.01), noise_variance=1.0, optimizer=None
    ).fit(time[:, np.newaxis], y)
    model = sm.tsa.UnobservedComponents(
        y, "llevel", freq_seasonal=[{"period": 12, "harmonics": 5}], use_exact_diffuse=True
    )
    parameters = [1.0, 0.1, 0.01]

    def ours():
        return gp.diagnostics(lags=10)

    def theirs():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = model.filter(parameters)
            return (
                result.test_serial_correlation("ljungbox", lags=[10])[0, 0, 0],
                result.test_normality("jarquebera")[0, 0],
                result.test_heteroskedasticity("breakvar")[0][0],
            )

    def our_shocks():
        return gp.auxiliary_residuals()

    def their_shocks():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = model.smooth(parameters)
            return result.smoothed_measurement_disturbance, result.smoothed_state_disturbance

    statistics = ours()["statistic"]
    names = {"ljung_box": "Q(10)", "jarque_bera": "N", "heteroscedasticity": "H"}
    for name, value in zip(names, theirs(), strict=True):
        print(f"{names[name]}: statespace {statistics[name]:.6f}, statsmodels {value:.6f}")
    return {"statespace": ours, "statsmodels": theirs}, {"statespace": our_shocks, "statsmodels": their_shocks}


def main():
    print(machine(["numba", "statsmodels"]))
    n_samples = 2000
    tests, shocks = contenders(n_samples)
    title = f"{n_samples} samples, 11 states"
    table(f"filter, Ljung-Box, Jarque-Bera, heteroscedasticity: {title}", race(tests), "statespace", unit="ms")
    table(f"smoothed disturbances: {title}", race(shocks), "statespace", unit="ms")


if __name__ == "__main__":
    main()
