"""Noise with heavy tails: densities, the bound and its gradient, weights."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from statespace.kalman import LocalLevel, LocalTrend, Matern, robust
from statespace.kalman.binding import Binding
from statespace.kalman.robust import Huber, RobustLikelihood, StudentT, Tails, reweigh, sample_weight, weights_at

FAMILIES = [StudentT(1.0), StudentT(4.0), StudentT(300.0), Huber(1.345), Huber(0.3)]
NAMES = [f"{type(f).__name__}-{f.df or f.threshold}" for f in FAMILIES]


def density(family, e, R=1.0):
    return np.exp(family.log_density(np.asarray(e) ** 2 / R)) / np.sqrt(R)


@pytest.mark.parametrize("family", FAMILIES, ids=NAMES)
def test_densities(family):
    points = [-getattr(family, "threshold", 1.0), getattr(family, "threshold", 1.0)]
    mass = integrate.quad(lambda e: density(family, e), -5, 5, points=points, epsabs=1e-13)[0]
    tail = integrate.quad(lambda e: density(family, e), 5, np.inf, epsabs=1e-13)[0]
    assert mass + 2 * tail == pytest.approx(1.0, abs=1e-9)
    if np.isfinite(family.variance):
        second = [integrate.quad(lambda e: e**2 * density(family, e), *part)[0] for part in ((0, 5), (5, np.inf))]
        assert 2 * sum(second) == pytest.approx(family.variance, rel=1e-7)
    s, step = np.array([0.05, 1.0, 7.0]), 1e-6
    slope = (family.log_density(s + step) - family.log_density(s - step)) / (2 * step)
    np.testing.assert_allclose(family.weight(s), -2 * slope, rtol=1e-7)
    if family.df:
        up, down = StudentT(family.df * np.exp(1e-5)), StudentT(family.df * np.exp(-1e-5))
        by = (up.log_density(s) - down.log_density(s)) / 2e-5
        np.testing.assert_allclose(family.by_log_df(s), by, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(family.log_density(s), stats.t(family.df).logpdf(np.sqrt(s)), rtol=1e-10)
    drawn = family.draw(np.random.RandomState(0), 40_000)
    for bound in (0.5, 1.5, 3.0):
        expected = 2 * integrate.quad(lambda e: density(family, e), 0, bound)[0]
        assert np.mean(np.abs(drawn) < bound) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("family", FAMILIES, ids=NAMES)
@pytest.mark.parametrize(("v", "V", "R"), [(0.3, 1.0, 0.5), (5.0, 0.01, 2.0), (5.0, 30.0, 0.1), (-9.0, 1.0, 1.0)])
def test_predictive_densities(family, v, V, R):
    def convolved(x):
        # Split where the integrand bends.
        bends = [x, *(k * getattr(family, "threshold", 1.0) * np.sqrt(R) for k in (-1, 1)), 0.0]
        low, high = -12 * np.sqrt(V), 12 * np.sqrt(V)
        inside = sorted(b for b in {*bends, *(x - b for b in bends)} if low < b < high)
        edges = [low, *inside, high]
        return sum(integrate.quad(joint, a, b, args=(x,), epsrel=1e-9)[0] for a, b in pairwise(edges))

    def joint(f, x):
        return density(family, x - f, R) * stats.norm.pdf(f, 0, np.sqrt(V))

    log_density, p_value = family.predictive(np.array([v]), np.array([V]), np.array([R]))
    assert log_density[0] == pytest.approx(np.log(convolved(v)), abs=1e-6)
    tail = 2 * integrate.quad(convolved, abs(v), abs(v) + 20, epsrel=1e-5, limit=60)[0]
    rest = 2 * integrate.quad(lambda e: density(family, e, R), abs(v) + 20, np.inf)[0]
    assert p_value[0] == pytest.approx(tail + rest, rel=0.02 if family.df == 1.0 else 1e-3, abs=1e-12)


def data(n=60, seed=0):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.exponential(size=n))
    y = np.sin(t / 6) + 0.3 * rng.standard_t(3, size=n)
    y[[5, 20]] = [12.0, -9.0]
    y[[7, 30]] = np.nan
    return np.diff(t, prepend=t[0]), y


@pytest.mark.parametrize(
    "tails", [Tails("student_t", 4.0, 0.0), Tails("student_t", None, 0.0), Tails("huber", 0.0, 1.3)]
)
@pytest.mark.parametrize("known", [None, "each"])
def test_gradient(tails, known):
    gaps, y = data()
    process = LocalTrend() + Matern()
    noise = None if known is None else np.linspace(0.05, 0.3, len(y))
    y = np.column_stack([y, np.roll(y, 11)])
    likelihood = RobustLikelihood(process, [(Binding(process, gaps), y, noise)], tails)
    theta = np.r_[process.theta - 1, [] if known else np.log(0.1), np.log(5.0) if tails.fits_df else []].astype(float)
    likelihood.freeze(theta)
    value, gradient = likelihood.gradient(theta)
    assert value == pytest.approx(likelihood.value(theta), rel=1e-12)
    for j, by in enumerate(gradient):
        shift = np.zeros(len(theta))
        shift[j] = 1e-4
        difference = (likelihood.value(theta + shift) - likelihood.value(theta - shift)) / 2e-4
        assert by == pytest.approx(difference, rel=1e-5, abs=2e-5)


@pytest.mark.parametrize("family", FAMILIES[1:], ids=NAMES[1:])
def test_the_bound_rises_to_a_fixed_point_below_the_likelihood(family, monkeypatch):
    gaps, y = data()
    binding = Binding(LocalLevel(0.2), gaps)
    seen = []
    climb = robust._climb

    def watched(step, x, cycles):
        def recorded(x):
            following, bound = step(x)
            seen.append(bound)
            return following, bound

        plain = [x]
        for _ in range(8):
            plain.append(recorded(plain[-1])[0])
        return climb(step, x, cycles)

    monkeypatch.setattr(robust, "_climb", watched)
    s, bound = reweigh(binding, y, 0.1, family)
    assert (np.diff(seen) > -1e-9).all()
    assert bound >= seen[-1] - 1e-9
    # At the fixed point s₀ is what the smoother expects.
    mean, variance = binding.smooth(y, 0.1 / weights_at(family, s), np.ones((1, 1)))
    expected = ((y - mean[:, 0]) ** 2 + variance[:, 0]) / 0.1
    np.testing.assert_allclose(s, expected, rtol=1e-5)
    assert np.isnan(s[[7, 30]]).all()


def test_it_is_a_lower_bound_of_the_likelihood():
    """Of two samples of a level that starts known: the integral over both states, by quadrature."""
    process = Matern(0.5, 1.0, 2.0)
    y, R = np.array([0.4, 3.5]), 0.5
    for family in (StudentT(3.0), Huber(1.0)):
        _, bound = reweigh(Binding(process, np.array([0.0, 1.0])), y, R, family)
        a = np.exp(-1.0)
        grid = np.linspace(-12, 12, 1601)
        first, second = grid[:, None], grid[None, :]
        prior = stats.norm.pdf(first, 0, np.sqrt(2.0)) * stats.norm.pdf(second, a * first, np.sqrt(2 * (1 - a**2)))
        joint = prior * density(family, y[0] - first, R) * density(family, y[1] - second, R)
        exact = np.log(joint.sum() * (grid[1] - grid[0]) ** 2)
        assert exact - 0.6 < bound < exact


def test_a_normal_limit():
    gaps, y = data()
    y = np.where(np.abs(y) > 5, 0.0, y)
    binding = Binding(LocalLevel(0.2), gaps)
    exact = binding.log_likelihood(y, 0.1)
    for family in (StudentT(1e7), Huber(50.0)):
        assert reweigh(binding, y, 0.1, family)[1] == pytest.approx(exact, abs=1e-3)


def test_many_series_are_weighed_one_by_one():
    gaps, y = data()
    starts = np.array([0, 25, 60])
    gaps[25] = 0.0
    whole = reweigh(Binding(LocalLevel(0.2), gaps, starts=starts), y, 0.1, StudentT(4.0))
    parts = [reweigh(Binding(LocalLevel(0.2), gaps[a:b]), y[a:b], 0.1, StudentT(4.0)) for a, b in ((0, 25), (25, 60))]
    np.testing.assert_allclose(whole[0], np.concatenate([s for s, _ in parts]), rtol=1e-5)
    assert whole[1] == pytest.approx(sum(bound for _, bound in parts), rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES, ids=NAMES)
def test_the_weight_of_one_sample_is_its_own_smoother(family):
    process = Matern(0.5, 1.0, 2.0)
    binding = Binding(process, np.array([0.0]))
    for y in (0.3, 4.0):
        s, _ = reweigh(binding, np.array([y]), 0.5, family)
        assert sample_weight(family, y, 2.0, 0.5) == pytest.approx(float(family.weight(s[0])), rel=1e-5)


def test_noise_free_samples_keep_normal_noise():
    gaps, y = data()
    noise = np.where(np.arange(60) % 2, 0.1, 0.0)
    s, bound = reweigh(Binding(LocalLevel(0.2), gaps), y, noise, StudentT(4.0))
    assert np.isnan(s[::2]).all()
    assert np.isfinite(bound)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cauchy", "fit", 1.3), "noise must be 'gaussian', 'student_t' or 'huber'. Got 'cauchy'"),
        (("student_t", 0.0, 1.3), "df, the degrees of freedom, must be 'fit' or a number > 0. Got 0.0"),
        (("student_t", "auto", 1.3), "Got 'auto'"),
        (("huber", "fit", -1.0), "huber_threshold must be a number > 0. Got -1.0"),
    ],
)
def test_wrong_names_and_shapes(arguments, words):
    with pytest.raises(ValueError, match=words):
        Tails.of(*arguments)
