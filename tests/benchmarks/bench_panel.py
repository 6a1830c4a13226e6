"""10,000 series of 200 samples: filter, smooth and fit them together, against simdkalman and statsmodels."""

import time
import warnings

import numpy as np
from harness import machine, race, table

from statespace import KalmanRegressor
from statespace.kalman import LocalTrend, Matern
from statespace.kernels.kalman_filter import kalman_filter, kalman_log_likelihood

TESTS = ["tests/filtering/test_panel.py"]
N_SERIES, N_TIMES = 10_000, 200
LEVEL, SLOPE, NOISE = 0.1, 0.01, 0.5


def data(n_series, regular=True):
    rng = np.random.default_rng(0)
    t = np.arange(float(N_TIMES)) if regular else np.cumsum(rng.exponential(size=(n_series, N_TIMES)), axis=1)
    t = np.broadcast_to(t, (n_series, N_TIMES))
    y = np.sin(t / 10) + 0.5 * rng.standard_normal((n_series, N_TIMES)) + rng.normal(size=(n_series, 1)) * 100
    return t[..., np.newaxis].copy(), y


def ours(X, y, process):
    return KalmanRegressor(process, noise_variance=NOISE, optimizer=None).fit(X, y)


def smoothing_contenders(n_series):
    """Filter and smooth on a regular grid: simdkalman knows no other, and no diffuse start."""
    X, y = data(n_series)
    process = LocalTrend(level_variance=LEVEL, slope_variance=SLOPE)
    model = ours(X, y, process)
    contenders = {"statespace, smooth (predict, std)": lambda: model.predict(X, return_std=True)}
    try:
        import simdkalman
    except ImportError:
        print("simdkalman is not installed: no row")
        return contenders
    peer = simdkalman.KalmanFilter(
        state_transition=np.array([[1.0, 1.0], [0.0, 1.0]]),
        process_noise=process.process_noise([1.0])[0],
        observation_model=np.array([[1.0, 0.0]]),
        observation_noise=NOISE,
    )
    # The part of the data that it needs no diffuse start for: each series less its mean.
    centred = y - y.mean(axis=1, keepdims=True)
    contenders["simdkalman, filter + smooth"] = lambda: peer.smooth(
        centred, initial_value=np.zeros(2), initial_covariance=1e6 * np.eye(2)
    )
    return contenders


def likelihood_contenders(n_series):
    """The filter alone, over all series in one call, on irregular times."""
    X, y = data(n_series, regular=False)
    model = ours(X, y, LocalTrend(level_variance=LEVEL, slope_variance=SLOPE))
    posterior = model._posterior()
    binding = posterior._binding(posterior.record.times, posterior.record.covariates, posterior.record.starts)
    column, noise = posterior.scaled_y[:, 0].copy(), posterior.scaled_noise
    contenders = {
        "statespace, log-likelihood": lambda: binding._call(kalman_log_likelihood, column, noise),
        "statespace, likelihood of the estimator": lambda: model.log_marginal_likelihood(),
        "statespace, moments kept": lambda: binding._call(kalman_filter, column, noise),
    }
    try:
        import simdkalman
    except ImportError:
        return contenders
    peer = simdkalman.KalmanFilter(
        np.array([[1.0, 1.0], [0.0, 1.0]]), 0.01 * np.eye(2), np.array([[1.0, 0.0]]), NOISE
    )  # fmt: skip
    given = {"smoothed": False, "observations": False, "log_likelihood": True, "initial_value": np.zeros(2)}
    given["initial_covariance"] = 1e6 * np.eye(2)
    contenders["simdkalman, moments kept (regular grid)"] = lambda: peer.compute(y, 0, filtered=True, **given)
    contenders["simdkalman, log-likelihood (regular)"] = lambda: peer.compute(y, 0, filtered=False, **given)
    return contenders


def statsmodels_likelihood(n_series=20):
    """Seconds for one series, by which the loop over all of them is extrapolated."""
    try:
        import statsmodels.api as sm
    except ImportError:
        return None
    _, y = data(n_series)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in y:
            model = sm.tsa.UnobservedComponents(row, "lltrend", use_exact_diffuse=True)
            model.smooth([NOISE, LEVEL, SLOPE])
    return (time.perf_counter() - start) / n_series


def fits():
    """Seconds of whole fits: one set of parameters for 10,000 series, and one each for 100 of them."""
    X, y = data(N_SERIES, regular=False)
    start = time.perf_counter()
    shared = KalmanRegressor(LocalTrend() + Matern(nu=1.5)).fit(X, y)
    print(f"  fitted together, {N_SERIES} series, 5 parameters: {time.perf_counter() - start:.2f} s")
    print(f"  log-likelihood {shared.log_marginal_likelihood_value_:.2f}")
    start = time.perf_counter()
    KalmanRegressor(LocalTrend(), parameters="separate").fit(X[:100], y[:100])
    print(f"  fitted side by side, 100 series, 3 parameters each: {time.perf_counter() - start:.2f} s")


def main():
    print(machine(["numba", "simdkalman", "statsmodels"]))
    n = N_SERIES * N_TIMES
    title = f"smoothing {N_SERIES} series of {N_TIMES} samples, n = 2"
    table(title, race(smoothing_contenders(N_SERIES), rounds=3), "statespace, smooth (predict, std)", per=n, unit="ns")
    seconds = statsmodels_likelihood()
    if seconds is not None:
        print(f"  statsmodels, one by one: {seconds / N_TIMES * 1e9:.0f} ns/sample, {seconds * N_SERIES:.0f} s for all")
    seconds = race(likelihood_contenders(N_SERIES), rounds=3)
    table(f"filtering {N_SERIES} series, n = 2", seconds, "statespace, log-likelihood", per=n, unit="ns")
    fits()


if __name__ == "__main__":
    main()
