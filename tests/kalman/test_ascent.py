"""The search for a maximum within bounds."""

import numpy as np
import pytest
from scipy.optimize import minimize

from statespace.kalman.ascent import Ascent, definite, learned, within

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("seed", range(20))
def test_the_step_is_the_best_within_the_box(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 7))
    root = rng.normal(size=(k, k))
    hessian, slope = root @ root.T + 0.01 * np.eye(k), 3.0 * rng.normal(size=k)
    low, high = -rng.uniform(0.0, 1.0, k), rng.uniform(0.0, 1.0, k)
    low[rng.random(k) < 0.2] = 0.0
    step = within(slope, hessian, low, high)
    expected = minimize(
        lambda p: 0.5 * p @ hessian @ p - slope @ p, np.zeros(k), jac=lambda p: hessian @ p - slope,
        method="L-BFGS-B", bounds=list(zip(low, high, strict=True)), options={"ftol": 1e-16, "gtol": 1e-12},
    )  # fmt: skip
    assert 0.5 * step @ hessian @ step - slope @ step <= expected.fun + 1e-10
    assert ((low <= step) & (step <= high)).all()


def test_what_was_learned_holds_along_the_step():
    hessian, step = definite(RNG.normal(size=(4, 4)) @ np.diag([1.0, 2.0, 3.0, 4.0])), RNG.normal(size=4)
    hessian = hessian @ hessian.T
    change = 1.5 * hessian @ step + 0.1 * step
    np.testing.assert_allclose(learned(hessian, step, change) @ step, change, rtol=1e-10)
    # against the curvature it stays positive definite
    assert np.linalg.eigvalsh(learned(hessian, step, -change)).min() > 0.0


@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_quadratic_and_a_curved_valley(k):
    root = np.random.default_rng(k).normal(size=(k, k))
    hessian, centre = root @ root.T + np.eye(k), np.arange(float(k))

    def function(x):
        off = x - centre
        rest = np.sin(off)
        return -0.5 * off @ hessian @ off - 0.1 * rest @ rest, -hessian @ off - 0.1 * np.sin(2.0 * off)

    search = Ascent(function, np.tile([-20.0, 20.0], (k, 1)), np.zeros(k, dtype=bool), 1e-6, 1.0)
    theta, value = search.climb(centre + 5.0)
    np.testing.assert_allclose(theta, centre, atol=1e-5)
    assert value > -1e-9
    assert search.message == ""


def test_a_maximum_at_a_bound():
    def function(x):
        return -((x[0] - 3.0) ** 2) - (x[1] - x[0]) ** 2, np.array(
            [-2 * (x[0] - 3.0) + 2 * (x[1] - x[0]), -2 * (x[1] - x[0])]
        )

    bounds = np.array([[-5.0, 1.0], [-5.0, 5.0]])
    theta, value = Ascent(function, bounds, np.zeros(2, dtype=bool), 1e-6, 1.0).climb(np.array([-4.0, 4.0]))
    np.testing.assert_allclose(theta, [1.0, 1.0], atol=1e-5)
    assert value == pytest.approx(-4.0, abs=1e-8)


def test_what_vanishes_goes_to_its_bound_at_once():
    calls = []

    def function(x):
        calls.append(x.copy())
        rest = -50.0 * (x[1] - 1.0) ** 2
        return rest - 5.0 * np.exp(x[0]), np.array([-5.0 * np.exp(x[0]), -100.0 * (x[1] - 1.0)])

    bounds = np.array([[-40.0, 10.0], [-10.0, 10.0]])
    theta, _ = Ascent(function, bounds, np.array([True, False]), 1e-5, 100.0).climb(np.array([0.0, 0.0]))
    assert theta[0] == -40.0
    assert theta[1] == pytest.approx(1.0, abs=1e-5)
    assert len(calls) < 15


def test_what_seems_to_vanish_but_does_not():
    """It levels off towards its bound, but for a higher hill on the way."""

    def function(x):
        v = np.exp(x[0])
        return -0.01 * v - 1e3 * np.exp(-20.0 * v), np.array([v * (-0.01 + 2e4 * np.exp(-20.0 * v))])

    theta, value = Ascent(function, np.array([[-30.0, 5.0]]), np.ones(1, dtype=bool), 1e-6, 1.0).climb(np.array([3.0]))
    expected = np.log(np.log(2e6) / 20.0)
    assert theta[0] == pytest.approx(expected, abs=1e-3)
    assert value == pytest.approx(function(np.array([expected]))[0], abs=1e-9)


def test_places_without_a_value_are_left():
    def function(x):
        if x[0] > 1.0:
            return -np.inf, np.zeros(1)
        return -((x[0] - 0.9) ** 2), np.array([-2.0 * (x[0] - 0.9)])

    theta, _ = Ascent(function, np.array([[-50.0, 50.0]]), np.zeros(1, dtype=bool), 1e-6, 1e-3).climb(np.array([-20.0]))
    assert theta[0] == pytest.approx(0.9, abs=1e-5)


def test_the_information_guides():
    """With it, a sharp direction beside a flat one takes few evaluations."""
    scale = np.array([1e6, 1.0])
    seen = []

    def function(x, *, known):
        seen.append(x)
        rest = np.cosh(x) - 1.0
        answer = -scale @ rest, -scale * np.sinh(x)
        return (*answer, np.diag(scale * np.cosh(x))) if known else answer

    bounds = np.tile([-50.0, 50.0], (2, 1))
    counts = []
    for known in (True, False):
        seen.clear()
        search = Ascent(lambda x, known=known: function(x, known=known), bounds, np.zeros(2, dtype=bool), 1e-6, 10.0)
        theta, _ = search.climb(np.array([1.0, 3.0]))
        np.testing.assert_allclose(theta, 0.0, atol=1e-5)
        counts.append(len(seen))
    assert counts[0] < 10
    assert counts[0] <= counts[1]


def test_a_search_that_is_cut_short_says_so(monkeypatch):
    monkeypatch.setattr("statespace.kalman.ascent._MOST_EVALUATIONS", 2)
    search = Ascent(lambda x: (-x @ x, -2.0 * x), np.tile([-90.0, 90.0], (2, 1)), np.zeros(2, dtype=bool), 1e-6, 2.0)
    search.climb(np.array([80.0, -50.0]))
    assert search.message == "it took more than 2 evaluations"
