"""Explicit models: seasonal ARIMA fits, vector observations, EM, against statsmodels, filterpy and pykalman."""

import warnings

import numpy as np
from harness import machine, race, table

from statespace.kalman import LinearGaussianModel, arima, dynamic_factor, vector_autoregression

TESTS = ["tests/kalman/test_model.py", "tests/kalman/test_model_fit.py", "tests/kalman/test_arima.py"]


def quietly(run):
    def silent():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run()

    return silent


def airline():
    from sktime.datasets import load_airline

    return np.log(load_airline().to_numpy(dtype=float))


def seasonal(n_samples):
    """A simulated (1, 1, 1)(0, 1, 1) of period 12."""
    rng = np.random.default_rng(0)
    model = arima((1, 1, 1), (0, 1, 1, 12)).with_params(ar=[0.5], ma=[-0.3], seasonal_ma=[-0.6], variance=1.0)
    return model.sample(n_samples, random_state=rng).observation[0, :, 0]


def arima_contenders(y, order, seasonal_order):
    """Whole fits with standard errors; the likelihoods are printed by `main`."""
    import statsmodels.api as sm

    fits = {}

    def ours():
        fits["statespace"] = arima(order, seasonal_order).fit(y)

    def peer():
        fits["statsmodels"] = sm.tsa.SARIMAX(y, order=order, seasonal_order=seasonal_order).fit(disp=False)

    def peer_differenced():
        fits["statsmodels, simple differencing"] = sm.tsa.SARIMAX(
            y, order=order, seasonal_order=seasonal_order, simple_differencing=True
        ).fit(disp=False)

    return {
        "statespace": quietly(ours),
        "statsmodels": quietly(peer),
        "statsmodels, simple differencing": quietly(peer_differenced),
    }, fits


def multivariate_model(n, p, seed=0):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n))
    A *= 0.9 / np.abs(np.linalg.eigvals(A)).max()
    return A, rng.normal(size=(p, n)), 0.5 * np.eye(n), np.eye(p)


def filter_contenders(n, p, n_samples):
    """Filtered means and covariances of a constant model with a known start."""
    A, H, Q, R = multivariate_model(n, p)
    model = LinearGaussianModel(A, H, Q, R, np.zeros(n), np.eye(n))
    y = model.sample(n_samples, random_state=0).observation[0]
    likelihoods = {"statespace": lambda: model.log_likelihood(y)}
    filters = {"statespace": lambda: model.filter(y)}
    import statsmodels.api as sm

    class Explicit(sm.tsa.statespace.MLEModel):
        def __init__(self):
            super().__init__(
                y, k_states=n, initialization="known", initial_state=np.zeros(n), initial_state_cov=np.eye(n)
            )
            self["transition"], self["design"], self["selection"] = A, H, np.eye(n)
            self["state_cov"], self["obs_cov"] = Q, R

    peer = Explicit()
    filters["statsmodels"] = lambda: peer.ssm.filter()
    likelihoods["statsmodels"] = lambda: peer.ssm.loglike()
    print(f"log-likelihoods: statespace {model.log_likelihood(y):.6f}, statsmodels {peer.ssm.loglike():.6f}")
    try:
        from filterpy.kalman import KalmanFilter
    except ImportError:
        print("filterpy is not installed: no row")
        return likelihoods, filters

    def looped():
        kf = KalmanFilter(dim_x=n, dim_z=p)
        kf.F, kf.H, kf.Q, kf.R, kf.P = A, H, Q, R, np.eye(n)
        kf.x = np.zeros((n, 1))
        kf.batch_filter(y[:, :, None])

    filters["filterpy"] = looped
    return likelihoods, filters


def em_contenders(n, p, n_samples, n_iter=10):
    """Ten iterations of EM in all matrices, a fifth of the observations missing row by row (pykalman's way)."""
    A, H, Q, R = multivariate_model(n, p)
    y = LinearGaussianModel(A, H, Q, R, np.zeros(n), np.eye(n)).sample(n_samples, random_state=0).observation[0]
    y[np.random.default_rng(1).random(n_samples) < 0.2] = np.nan
    names = ("transition", "observation", "process_noise", "observation_noise", "initial_mean", "initial_covariance")

    def ours():
        model = LinearGaussianModel(A, H, np.eye(n), np.eye(p), np.zeros(n), np.eye(n))
        return model.fit(y, method="em", free=names, max_iter=n_iter, tolerance=1e-300, standard_errors=False)

    contenders = {"statespace": quietly(ours)}
    try:
        from pykalman import KalmanFilter
    except ImportError:
        print("pykalman is not installed: no row")
        return contenders
    masked = np.ma.masked_invalid(y)

    def peer():
        model = KalmanFilter(
            A, H, np.eye(n), np.eye(p), initial_state_mean=np.zeros(n), initial_state_covariance=np.eye(n)
        )
        model = model.em(
            masked, n_iter=n_iter,
            em_vars=["transition_matrices", "observation_matrices", "transition_covariance", "observation_covariance",
                     "initial_state_mean", "initial_state_covariance"],
        )  # fmt: skip
        return model.loglikelihood(masked)

    ours_value = contenders["statespace"]().log_likelihood_
    print(f"log-likelihoods after {n_iter}: statespace {ours_value:.4f}, pykalman {peer():.4f}")
    contenders["pykalman"] = peer
    return contenders


def factor_contenders(n_samples):
    """One factor, six series, a tenth missing."""
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    f = np.zeros(n_samples)
    for t in range(1, n_samples):
        f[t] = 0.8 * f[t - 1] + rng.normal()
    y = np.outer(f, [1.0, 2.0, -1.0, 0.5, 1.5, -0.3]) + rng.normal(size=(n_samples, 6))
    y[rng.random(y.shape) < 0.1] = np.nan
    fits = {}

    def ours():
        fits["statespace"] = dynamic_factor(1, trend=None).fit(y)

    def peer():
        fits["statsmodels"] = sm.tsa.DynamicFactor(y, k_factors=1, factor_order=1).fit(disp=False, maxiter=500)

    return {"statespace": quietly(ours), "statsmodels": quietly(peer)}, fits


def autoregression_contenders(n_samples):
    """A vector autoregression of order 1 in three series, a tenth missing; both count all observations."""
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    A = [[[0.5, 0.2, 0.0], [0.0, 0.4, 0.1], [0.1, 0.0, 0.6]]]
    y = vector_autoregression(1, trend=None).with_params(A, np.eye(3)).sample(n_samples, random_state=rng)
    y = y.observation[0]
    y[rng.random(y.shape) < 0.1] = np.nan
    fits = {}

    def ours():
        fits["statespace"] = vector_autoregression(1).fit(y)

    def peer():
        fits["statsmodels"] = sm.tsa.VARMAX(y, order=(1, 0)).fit(disp=False, maxiter=500)

    return {"statespace": quietly(ours), "statsmodels": quietly(peer)}, fits


def show(fits):
    for name, fit in fits.items():
        if name == "statespace":
            print(f"  {name}: log-likelihood {fit.log_likelihood_:.5f}, converged {fit.converged_}")
        else:
            print(f"  {name}: log-likelihood {fit.llf:.5f}, converged {fit.mle_retvals['converged']}")


def main():
    print(machine(["numba", "statsmodels", "filterpy", "pykalman"]))
    for title, y, order, seasonal_order in (
        ("airline, SARIMA (0,1,1)(0,1,1)12, fit with standard errors", airline(), (0, 1, 1), (0, 1, 1, 12)),
        ("1000 simulated samples, SARIMA (1,1,1)(0,1,1)12, fit", seasonal(1000), (1, 1, 1), (0, 1, 1, 12)),
    ):
        contenders, fits = arima_contenders(y, order, seasonal_order)
        table(title, race(contenders, rounds=3), "statespace", unit="ms")
        show(fits)
    for n, p in ((2, 2), (4, 3), (8, 10)):
        # statsmodels stops updating a covariance that has converged
        for name, contenders in zip(("log-likelihood", "filter"), filter_contenders(n, p, 1000), strict=True):
            title = f"{name}, {n} states, {p} observations, 1000 samples"
            table(title, race(contenders, rounds=7), "statespace", per=1000, unit="us")
    table("ten iterations of EM, 3 states, 4 observations, 500 samples", race(em_contenders(3, 4, 500), rounds=3),
          "statespace", unit="ms")  # fmt: skip
    contenders, fits = factor_contenders(300)
    table("one factor of six series, 300 samples, fit", race(contenders, rounds=3), "statespace", unit="ms")
    show(fits)
    contenders, fits = autoregression_contenders(300)
    table("vector autoregression of three series, 300 samples", race(contenders, rounds=3), "statespace", unit="ms")
    show(fits)


if __name__ == "__main__":
    main()
