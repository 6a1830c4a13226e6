"""Quantiles: in order, scored rightly, interpolated as a normal distribution where they are one."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from statespace.quantiles import (
    LEVELS,
    MEDIAN,
    N_OUTPUTS,
    ordered_quantiles,
    pinball,
    quantiles_at,
    variance,
)


def test_quantiles_never_cross_and_start_as_a_standard_normal():
    assert (np.diff(LEVELS) > 0).all()
    assert LEVELS[MEDIAN] == 0.5
    start = ordered_quantiles(torch.zeros(N_OUTPUTS, dtype=torch.float64))
    np.testing.assert_allclose(start, norm.ppf(LEVELS), atol=1e-12)
    wild = 10 * torch.randn(500, N_OUTPUTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (ordered_quantiles(wild).diff(dim=-1) >= 0).all()
    assert torch.equal(ordered_quantiles(wild)[:, MEDIAN], wild[:, 0])


def test_the_pinball_loss_is_least_at_the_quantiles():
    sample = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=20_001))
    true = torch.from_numpy(np.quantile(sample.numpy(), LEVELS))
    least = pinball(true.expand(len(sample), -1), sample).mean()
    for j in range(len(LEVELS)):
        for shift in (-0.05, 0.05):
            other = true.clone()
            other[j] += shift
            assert pinball(other.expand(len(sample), -1), sample).mean() > least


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (-300.0, 1e-3), (1e6, 50.0)])
def test_a_normal_distribution_is_met_exactly(mean, scale):
    quantiles = mean + scale * norm.ppf(LEVELS)[None]
    asked = [1e-4, 0.013, 0.3, 0.5, 0.62, 0.9999]
    np.testing.assert_allclose(quantiles_at(quantiles, asked)[0], mean + scale * norm.ppf(asked), rtol=1e-12)
    np.testing.assert_allclose(variance(quantiles), scale**2, rtol=1e-8)


def test_the_variance_of_a_skew_distribution():
    quantiles = np.sort(np.random.default_rng(1).gamma(1.0, size=(1, len(LEVELS))))
    draws = quantiles_at(quantiles, np.random.default_rng(2).random(400_000))[0]
    np.testing.assert_allclose(variance(quantiles), draws.var(), rtol=0.02)
