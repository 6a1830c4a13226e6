"""CARMA processes of orders 1 to 6 against the sum over the roots with 80 digits, as dense Gaussian processes."""

import mpmath
import numpy as np
import pytest
from sklearn.base import clone

from statespace import KalmanRegressor
from statespace.kalman import CARMA, Matern, OrnsteinUhlenbeck
from statespace.kalman.schwarz import contract, discretize, polynomial, rates_of

ROOTS = {
    "1": ([-0.7], (1.0,)),
    "2, real": ([-0.7, -0.9], (1.0, 0.5)),
    "2, a pair": ([-0.1 + 1j, -0.1 - 1j], (2.0,)),
    "3": ([-0.1 + 1j, -0.1 - 1j, -3.0], (1.0, 0.4, 0.2)),
    "4": ([-0.1 + 1j, -0.1 - 1j, -0.3 + 4j, -0.3 - 4j], (1.0, 2.0, 0.5)),
    "5, nearly one root": ([-1 - k * 1e-7 for k in range(5)], (1.0, 0.3)),
    "5, four decades": ([-0.01, -0.1, -1.0, -10.0, -100.0], (1.0, 0.1)),
    "6": ([-0.1 + 1j, -0.1 - 1j, -0.3 + 4j, -0.3 - 4j, -0.01 + 0.1j, -0.01 - 0.1j], (1.0, 2.0, 2.5, 1.0, 0.3)),
    "6, nearly one pair": ([-0.1 - k * 1e-4 + s * (1 + k * 1e-5) * 1j for k in range(3) for s in (1, -1)], (1.0, 2.0)),
}


def coefficients(roots):
    """The polynomial with these roots, but for its leading 1, ascending."""
    with mpmath.workdps(80):
        product = [mpmath.mpc(1)]
        for root in roots:
            lower, upper = [*product, 0], [0, *product]
            product = [u - mpmath.mpc(root) * x for u, x in zip(upper, lower, strict=True)]
        return tuple(float(c.real) for c in product[:-1])


def autocovariance(roots, ma, sigma, lags):
    """Kelly et al. (2014), equation 4."""
    with mpmath.workdps(80):
        roots = [mpmath.mpc(root) for root in roots]
        weights = []
        for k, root in enumerate(roots):
            above = [sum(mpmath.mpf(b) * (s * root) ** i for i, b in enumerate(ma)) for s in (1, -1)]
            below = -2 * root.real
            for other in (*roots[:k], *roots[k + 1 :]):
                below *= (other - root) * (mpmath.conj(other) + root)
            weights.append(above[0] * above[1] / below)
        values = {}
        for lag in np.unique(lags):
            total = sum(w * mpmath.exp(r * mpmath.mpf(lag)) for w, r in zip(weights, roots, strict=True))
            values[lag] = float((sigma**2 * total).real)
    return np.vectorize(values.get)(lags)


@pytest.mark.parametrize("case", ROOTS)
def test_equals_a_dense_gaussian_process(case):
    roots, ma = ROOTS[case]
    rng = np.random.default_rng(1)
    t, y = np.cumsum(rng.exponential(size=30)), rng.normal(size=30)
    process = CARMA(coefficients(roots), ma, 0.7)
    lags = np.abs(np.subtract.outer(t, t))
    K = autocovariance(roots, ma, 0.7, lags)
    np.testing.assert_allclose(process.autocovariance(lags), K, rtol=0, atol=1e-9 * K[0, 0])
    K = K + 0.1 * np.eye(30)
    expected = -0.5 * (y @ np.linalg.solve(K, y) + np.linalg.slogdet(K)[1] + 30 * np.log(2 * np.pi))
    gp = KalmanRegressor(process, noise_variance=0.1, optimizer=None).fit(t[:, None], y)
    assert gp.log_marginal_likelihood_value_ == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(
        np.sort_complex(gp.process_.roots()), np.sort_complex(np.asarray(roots, dtype=complex)), rtol=0.05
    )


@pytest.mark.parametrize("p", range(1, 7))
def test_noise_over_a_gap_has_its_digits(p):
    """From ‖F‖Δ about 1e-6 to 1e4, against I − A Aᵀ with 150 digits, each entry in units of its standard deviations."""
    rates = np.exp(np.random.default_rng(p).normal(size=p))
    gaps = np.geomspace(1e-6, 1e4, 11)
    A, Q = discretize(rates, gaps)
    with mpmath.workdps(150):
        F = mpmath.zeros(p)
        for i in range(p - 1):
            F[i, i + 1], F[i + 1, i] = mpmath.mpf(rates[i]), -mpmath.mpf(rates[i])
        F[p - 1, p - 1] = -mpmath.mpf(rates[-1])
        for t, gap in enumerate(gaps):
            doublings = max(0, int(np.ceil(np.log2(gap))))
            E = mpmath.expm(F * (mpmath.mpf(gap) / 2**doublings), method="taylor")
            for _ in range(doublings):
                E = E * E
            Q_true = np.array((mpmath.eye(p) - E * E.T).tolist(), dtype=float)
            A_true = np.array(E.tolist(), dtype=float)
            scale = np.sqrt(np.diag(Q_true))
            np.testing.assert_allclose(Q[t] / np.outer(scale, scale), Q_true / np.outer(scale, scale), atol=1e-10)
            np.testing.assert_allclose(A[t], A_true, rtol=0, atol=1e-10 * max(np.abs(A_true).max(), 1e-300))


@pytest.mark.parametrize("p", range(1, 7))
def test_the_pullback_is_the_derivative(p):
    rng = np.random.default_rng(p)
    rates, gaps = np.exp(rng.normal(size=p)), np.append(0.0, np.geomspace(1e-4, 10, 12))
    A_bar, Q_bar = rng.normal(size=(2, 13, p, p))

    def value(rates):
        A, Q = discretize(rates, gaps)
        return (A_bar * A).sum() + (Q_bar * Q).sum()

    differences = []
    for j in range(p):
        w = 3e-4 * rates[j] * np.eye(p)[j]
        high, low = value(rates + w) - value(rates - w), value(rates + 2 * w) - value(rates - 2 * w)
        differences.append((8 * high - low) / (12 * w[j]))
    ours = contract(rates, gaps, A_bar, Q_bar)
    np.testing.assert_allclose(ours, differences, rtol=1e-8, atol=1e-8 * np.abs(ours).max())


@pytest.mark.parametrize("p", range(1, 7))
def test_positive_numbers_and_stable_polynomials_are_one_to_one(p):
    rates = np.exp(np.random.default_rng(p).normal(size=p))
    stable = polynomial(rates)
    assert (np.roots(stable[::-1]).real < 0).all()
    np.testing.assert_allclose(rates_of(stable), rates, rtol=1e-9)
    unstable = np.poly(np.append(-np.arange(1.0, p), 0.5))[::-1]
    with pytest.raises(ValueError, match=r"the root 0\.5 is not in the left half-plane"):
        rates_of(unstable)


def test_known_processes_are_members():
    lags = np.linspace(0, 5, 11)
    for process, length_scale, order in ((OrnsteinUhlenbeck(2.0, 3.0), 2.0, 1), (Matern(2.5, 2.0, 3.0), 2.0, 3)):
        rate = np.sqrt(2 * order - 1) / length_scale
        ar = np.poly(np.full(order, -rate))[::-1][:-1]
        carma = CARMA(tuple(ar))
        ours = carma.autocovariance(lags) * 3.0 / carma.autocovariance(0.0)
        row = process.observation()
        np.testing.assert_allclose(
            ours, process.transition(lags) @ process.initial().covariance @ row @ row, rtol=1e-11
        )


def test_the_spectrum_integrates_to_the_variance():
    process = CARMA((1.0, 0.4), (1.0, 0.5), 0.9)
    frequency = np.linspace(-400, 400, 2_000_001)
    assert np.trapezoid(process.power_spectral_density(frequency), frequency) == pytest.approx(
        process.autocovariance(0.0), rel=1e-3
    )


def test_fixed_parameters_and_orders():
    process = CARMA((1.0, 0.4), (1.0, 0.5), 0.9, rate_bounds="fixed")
    assert process.hyperparameters() == ["zero_1", "variance"]
    other = process.clone_with_theta([0.0, 1.0])
    assert other.ar == pytest.approx((1.0, 0.4))
    assert other.ma == pytest.approx((1.0, 1.0))
    assert other.autocovariance(0.0) == pytest.approx(np.e)
    # Changed by hand, it forgets the θ it had.
    other.set_params(ar=(4.0, 0.4))
    np.testing.assert_allclose(np.abs(other.roots()) ** 2, 4.0)
    assert clone(other) == other
    assert CARMA(order=(2, 1)).hyperparameters() == ["rate_1", "rate_2", "zero_1", "variance"]
    assert CARMA((1.0,), rate_bounds="fixed", variance_bounds="fixed").hyperparameters() == []


def test_an_order_is_fitted():
    rng = np.random.default_rng(2)
    t = np.cumsum(rng.exponential(size=400))
    truth = CARMA((1.0, 0.2), (1.0, 0.5), 0.5)
    paths = KalmanRegressor(truth, noise_variance=0.02, optimizer=None).fit([[-1e6]], [0.0])
    y = paths.sample_y(t[:, None], random_state=3, include_noise=True)[:, 0]
    gp = KalmanRegressor(CARMA(order=(2, 1))).fit(t[:, None], y)
    at_truth = KalmanRegressor(truth, noise_variance=0.02, optimizer=None).fit(t[:, None], y)
    assert gp.log_marginal_likelihood_value_ >= at_truth.log_marginal_likelihood_value_
    assert (gp.process_.roots().real < 0).all()
