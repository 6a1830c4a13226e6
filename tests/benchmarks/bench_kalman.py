"""The Kalman kernels against statsmodels, celerite2 and simdkalman, and whole maximum-likelihood fits."""

import warnings

import numpy as np
from harness import machine, race, table

from statespace import KalmanRegressor
from statespace.kalman import LocalLevel, Seasonal
from statespace.kernels.kalman_filter import (
    Blocks,
    discretize_blocks,
    kalman_filter,
    kalman_gradient,
    kalman_log_likelihood,
)
from statespace.kernels.kalman_filter.blocks import MATERN32, OU, ROTATION, TREND
from statespace.kernels.threads import number_of_threads

TESTS = ["tests/kernels/test_kalman_filter.py", "tests/kernels/test_kalman_filter_batch.py", "tests/kalman"]


# Matérn 3/2 terms have two states each, here and as celerite2 writes them; the last model is trend, five harmonics, OU.
STATES = (1, 2, 4, 8, 13)


def kernel_arguments(n, times, y):
    """What ``kalman_log_likelihood`` takes for a model of ``n`` states."""
    if n == 1:
        items = [(OU, 1, 0.7, 1.0)]
    elif n == 13:
        items = [(TREND, 2, 0.1, 0.1), *[(ROTATION, 2, 0.5 * k, 0.1) for k in range(1, 6)], (OU, 1, 1.0, 1.0)]
    else:
        items = [(MATERN32, 2, 0.7 / (k + 1), 1.0) for k in range(n // 2)]
    kind, size, *parameters = zip(*items, strict=True)
    blocks = Blocks(np.array(kind), np.array(size), np.array([*parameters, np.zeros(len(kind))]).T)
    h = np.concatenate([np.eye(s)[0] for s in size])
    return y, np.diff(times, prepend=times[0]), blocks, h, 0.1, np.zeros(n), np.eye(n)


def celerite_contender(n, times, y):
    import celerite2

    terms = celerite2.terms
    process = terms.RealTerm(a=1.0, c=0.7) if n == 1 else terms.Matern32Term(sigma=1.0, rho=np.sqrt(3) / 0.7)
    for k in range(1, n // 2):
        process = process + terms.Matern32Term(sigma=1.0, rho=np.sqrt(3) / 0.7 * (k + 1))
    gaussian_process = celerite2.GaussianProcess(process, mean=0.0)
    noise = np.full(len(y), 0.1)

    def run():
        gaussian_process.compute(times, diag=noise, quiet=True)
        return gaussian_process.log_likelihood(y)

    return run


def statsmodels_contender(given):
    """The compiled filter alone, on matrices that are already there: it is not asked to form them."""
    from statsmodels.tsa.statespace.kalman_filter import (
        MEMORY_NO_FORECAST,
        MEMORY_NO_PREDICTED,
        MEMORY_NO_SMOOTHING,
        KalmanFilter,
    )

    y, dt, blocks, h, R, mean, covariance = given
    n = len(mean)
    A, Q = discretize_blocks(blocks, dt)
    model = KalmanFilter(k_endog=1, k_states=n, k_posdef=n)
    model.bind(y[:, None].copy())
    model["design"], model["obs_cov"], model["selection"] = h[None], np.array([[R]]), np.eye(n)
    # its transition t leads from sample t to t + 1
    model["transition"] = np.ascontiguousarray(np.roll(A, -1, axis=0).transpose(1, 2, 0))
    model["state_cov"] = np.ascontiguousarray(np.roll(Q, -1, axis=0).transpose(1, 2, 0))
    model.initialize_known(mean, covariance)
    model.set_conserve_memory(MEMORY_NO_FORECAST | MEMORY_NO_PREDICTED | MEMORY_NO_SMOOTHING)
    return model.loglike


def variances(blocks):
    """The parameters that leave A as it is: what is free in a structural model with known periods."""
    free = np.zeros_like(blocks.parameters, dtype=bool)
    free[:, 1] = True
    free[blocks.kind == TREND, 0] = True
    return free


def likelihood_rows(n_samples):
    """Every number of states: the likelihood, the same with its gradient, and the peers, in one race each."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(size=n_samples))
    y = np.sin(times / 5) + 0.3 * rng.standard_normal(n_samples)
    for n in STATES:
        given = kernel_arguments(n, times, y)
        free = variances(given[2])
        contenders = {
            "statespace": lambda given=given: kalman_log_likelihood(*given),
            "statespace, with gradient": lambda given=given: kalman_gradient(*given, by_observation=False),
            "statespace, by the variances only": lambda given=given, free=free: kalman_gradient(
                *given, by_observation=False, free_parameters=free
            ),
            "statsmodels, time-varying": statsmodels_contender(given),
        }
        values = [contenders["statespace"](), contenders["statsmodels, time-varying"]()]
        if n != 13:
            contenders[f"celerite2 (J = {n})"] = celerite_contender(n, times, y)
            values.append(contenders[f"celerite2 (J = {n})"]())
        title = f"log-likelihood, n = {n}, {n_samples} irregular samples"
        # three calls in a row, as an optimiser makes them
        table(title, race(contenders, rounds=9, calls=3), "statespace", per=n_samples, unit="ns")
        print("  log-likelihoods: " + ", ".join(f"{value:.6f}" for value in values))


def batch_rows(n_records, length):
    """Filtered moments and log-likelihoods of many short series, n = 2; the peer wants equal lengths and equal gaps."""
    rng = np.random.default_rng(3)
    T = n_records * length
    y = rng.standard_normal(T)
    starts = np.arange(n_records + 1) * length
    blocks = Blocks([TREND], [2], [[0.1, 0.1, 0.0]])
    model = (blocks, np.array([1.0, 0.0]), 0.5, np.zeros(2), np.eye(2))
    contenders = {
        "statespace, irregular": lambda: kalman_filter(y, gaps, *model, starts=starts),
        "statespace, regular": lambda: kalman_filter(y, ones, *model, starts=starts),
        "statespace, likelihood": lambda: kalman_log_likelihood(y, gaps, *model, starts=starts),
        "statespace, likelihood, regular": lambda: kalman_log_likelihood(y, ones, *model, starts=starts),
        "statespace, with gradient": lambda: kalman_gradient(y, gaps, *model, by_observation=False, starts=starts),
    }
    gaps, ones = rng.exponential(size=T), np.ones(T)
    A, Q = discretize_blocks(blocks, [1.0])
    try:
        import simdkalman
    except ImportError:
        print("simdkalman is not installed: no row")
    else:
        peer = simdkalman.KalmanFilter(A[0], Q[0], np.array([[1.0, 0.0]]), 0.5)
        data = y.reshape(n_records, length)
        given = {"smoothed": False, "observations": False, "log_likelihood": True}
        given |= {"initial_value": np.zeros(2), "initial_covariance": np.eye(2)}
        contenders["simdkalman, regular"] = lambda: peer.compute(data, 0, filtered=True, **given)
        contenders["simdkalman, likelihood, regular"] = lambda: peer.compute(data, 0, filtered=False, **given)
    title = f"filter, {n_records} series of {length} samples, n = 2, {number_of_threads()} threads"
    table(title, race(contenders, rounds=3), "statespace, irregular", per=T, unit="ns")


def gradient_contenders(n_samples):
    """A likelihood and the same with its gradient, at 12 states."""
    times = np.arange(n_samples, dtype=float)[:, None]
    y = np.random.default_rng(2).standard_normal(n_samples).cumsum()
    model = KalmanRegressor(LocalLevel(1.0) + Seasonal(12, 6, 0.1), noise_variance=1.0, optimizer=None).fit(times, y)
    return {
        "statespace, likelihood": lambda: model.log_marginal_likelihood(model.theta_),
        "statespace, with gradient": lambda: model.log_marginal_likelihood(model.theta_, eval_gradient=True),
    }


def fit_contenders(n_samples):
    """Level and trigonometric seasonal of period 12 with all six harmonics: three variances, by maximum likelihood."""
    import statsmodels.api as sm

    rng = np.random.default_rng(1)
    level = np.cumsum(0.3 * rng.standard_normal(n_samples))
    phase = 2 * np.pi * np.arange(n_samples) / 12
    y = level + 2 * np.cos(phase) + np.sin(2 * phase) + 0.5 * rng.standard_normal(n_samples)
    times = np.arange(n_samples, dtype=float)[:, None]
    fits = {}

    def ours():
        fits["statespace"] = KalmanRegressor(LocalLevel() + Seasonal(period=12, harmonics=6)).fit(times, y)

    def peer():
        model = sm.tsa.UnobservedComponents(
            y, "llevel", freq_seasonal=[{"period": 12, "harmonics": 6}], use_exact_diffuse=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits["statsmodels"] = model.fit(disp=False)

    return {"statespace": ours, "statsmodels": peer}, fits


def main():
    print(machine(["numba", "celerite2", "statsmodels", "simdkalman"]))
    likelihood_rows(20_000)
    batch_rows(10_000, 200)
    table(
        "the exact gradient, level + seasonal(12, 6) (n = 12), 2,000 samples",
        race(gradient_contenders(2000), rounds=25), "statespace, likelihood", per=2000, unit="ns",
    )  # fmt: skip
    contenders, fits = fit_contenders(2000)
    table("maximum-likelihood fit, level + seasonal(12, 6), 2,000 samples", race(contenders, rounds=7), "statespace")
    reached, theirs = fits["statespace"].log_marginal_likelihood_value_, fits["statsmodels"]
    converged = theirs.mle_retvals["converged"]
    print(f"  log-likelihood: statespace {reached:.5f}, statsmodels {theirs.llf:.5f} (converged: {converged})")


if __name__ == "__main__":
    main()
