"""The Kalman log-likelihood against celerite2, and whole maximum-likelihood fits against statsmodels."""

import warnings

import numpy as np
from harness import machine, race, table

from statespace import KalmanRegressor
from statespace.kalman import LocalLevel, Matern, Seasonal

TESTS = ["tests/kernels/test_kalman_filter.py", "tests/kalman"]


def likelihood_contenders(n_samples):
    """The likelihood of Matérn 3/2, which celerite2 approximates by its own two terms (eps = 0.01)."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(size=n_samples))
    y = np.sin(times / 5) + 0.3 * rng.standard_normal(n_samples)
    model = KalmanRegressor(Matern(nu=1.5, length_scale=3.0, variance=1.0), noise_variance=0.09, optimizer=None)
    model.fit(times[:, None], y)
    contenders = {"statespace": lambda: model.log_marginal_likelihood(model.theta_)}
    try:
        import celerite2
    except ImportError:
        print("celerite2 is not installed: no row")
        return contenders
    process = celerite2.GaussianProcess(celerite2.terms.Matern32Term(sigma=1.0, rho=3.0), mean=0.0)

    def celerite():
        process.compute(times, diag=np.full(n_samples, 0.09), quiet=True)
        return process.log_likelihood(y)

    contenders["celerite2 (J = 2)"] = celerite
    print(f"log-likelihoods: statespace {model.log_marginal_likelihood():.6f}, celerite2 {celerite():.6f}")
    return contenders


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
    print(machine(["numba", "celerite2", "statsmodels"]))
    n_samples = 100_000
    contenders = likelihood_contenders(n_samples)
    # As an optimiser calls it, and with the data driven from the cache by the other one.
    for calls, how in ((10, "ten calls in a row"), (1, "call by call in turn")):
        title = f"log-likelihood, Matérn 3/2 (n = 2), {n_samples} irregular samples, {how}"
        table(title, race(contenders, rounds=15, calls=calls), "statespace", per=n_samples, unit="ns")
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
