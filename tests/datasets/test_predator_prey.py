"""Predators and prey: the answers follow the system, and each sample shows what it should."""

import numpy as np
import pytest

from statespace.datasets import make_predator_prey


def test_shapes_and_what_is_seen():
    X, y = make_predator_prey(30, n_times=(5, 12), together=0.5, random_state=0)
    assert y.shape == (30, 2)
    assert set(X.lengths) == set(range(6, 14))
    seen = np.concatenate([~np.isnan(values[:-1]) for values in X.values])
    assert seen.any(axis=1).all()
    assert 0.3 < seen.all(axis=1).mean() < 0.7
    assert np.isnan(np.stack([values[-1] for values in X.values])).all()
    horizons = [times[-1] - times[-2] for times in X.times]
    assert 0.5 <= min(horizons) <= max(horizons) <= 3


def test_the_cycles_keep_what_the_system_keeps():
    """a (e^v - v) + b (e^u - u) is constant; here over the noiseless samples that show both."""
    X, y = make_predator_prey(5, n_times=60, noise=0.0, together=1.0, random_state=1)
    for values, answer in zip(X.values, y, strict=True):
        u, v = np.concatenate([values[:-1], answer[None]]).T
        terms = np.stack([np.exp(v) - v, np.exp(u) - u, -np.ones_like(u)], axis=1)
        # One combination of the three vanishes along the cycle: the least singular value.
        assert np.linalg.svd(terms, compute_uv=False)[-1] < 1e-5


def test_the_same_seed_gives_the_same_data():
    first, second, other = (make_predator_prey(3, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.y, second.y)
    np.testing.assert_array_equal(first.X.values[0], second.X.values[0])
    assert (first.y != other.y).any()


@pytest.mark.parametrize("options", [{"n_series": 0}, {"n_times": (3, 2)}, {"noise": -1}, {"horizon": (2, 1)}])
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match="must be"):
        make_predator_prey(**options)
