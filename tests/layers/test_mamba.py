"""Mamba against its paper: the block written out sample by sample and channel by channel, in float64."""

import os
import sys

import numpy as np
import pytest
import torch
from scipy.special import expit

from statespace.layers import Mamba


def silu(x):
    return x * expit(x)


def papers_block(layer, u, dt):
    """One record u (L, D): figure 3 and algorithm 2, a channel's system at a time."""
    weights = {name: p.detach().numpy() for name, p in layer.state_dict().items()}
    R, N, E = layer.dt_rank, layer.d_state, layer.d_inner
    A = -np.exp(weights["A_log"])
    taps = weights["conv1d.weight"][:, 0]
    before = np.zeros((E, layer.d_conv))
    s, outputs, steps = np.zeros((E, N)), np.empty_like(u), np.empty((len(u), E))
    for k in range(len(u)):
        projected = weights["in_proj.weight"] @ u[k] + weights.get("in_proj.bias", 0.0)
        x, z = projected[:E], projected[E:]
        before = np.column_stack([before[:, 1:], x])
        x = silu(np.sum(taps * before, axis=1) + weights.get("conv1d.bias", 0.0))
        chosen = weights["x_proj.weight"] @ x
        r, B, C = chosen[:R], chosen[R : R + N], chosen[R + N :]
        h = np.logaddexp(0.0, weights["dt_proj.weight"] @ r + weights["dt_proj.bias"]) * dt[k]
        y, steps[k] = np.empty(E), h
        for e in range(E):
            s[e] = np.exp(h[e] * A[e]) * s[e] + h[e] * B * x[e]
            y[e] = C @ s[e] + weights["D"][e] * x[e]
        outputs[k] = weights["out_proj.weight"] @ (y * silu(z)) + weights.get("out_proj.bias", 0.0)
    return outputs, steps


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(d_conv=2, expand=1, dt_rank=3),
        dict(d_state=5, d_conv=7, expand=1.5, conv_bias=False, bias=True),
        dict(d_state=1, d_conv=1),
    ],
    ids=str,
)
def test_equals_the_papers_block(options, regular):
    torch.manual_seed(0)
    layer = Mamba(6, **options).double()
    u = torch.randn(2, 70, 6, dtype=torch.float64)
    dt = torch.ones(2, 70, dtype=torch.float64) if regular else torch.rand(2, 70, dtype=torch.float64) * 3
    given = u, None if regular else dt
    y, _ = layer(*given)
    for i in range(2):
        expected, steps = papers_block(layer, u[i].numpy(), dt[i].numpy())
        np.testing.assert_allclose(y[i].detach().numpy(), expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(layer.steps(*given)[i], steps, rtol=1e-10)


def test_starts_as_the_paper_says():
    torch.manual_seed(0)
    layer = Mamba(64, d_state=5)
    assert (layer.d_inner, layer.dt_rank) == (128, 4)
    torch.testing.assert_close(-layer.A_log.exp(), -torch.arange(1.0, 6).expand(128, 5))
    torch.testing.assert_close(layer.D, torch.ones(128))
    step = torch.nn.functional.softplus(layer.dt_proj.bias)
    assert 1e-3 * 0.999 < step.min() < 2e-3
    assert 5e-2 < step.max() < 1e-1 * 1.001
    assert 0.4 < layer.dt_proj.weight.abs().max() <= 0.5
    assert layer.in_proj.bias is None
    assert layer.out_proj.bias is None
    assert layer.A_log._optim == {"group": "ssm", "role": "A"}
    assert layer.dt_proj.bias._optim == {"group": "ssm", "role": "dt"}


def without_convolution(**options):
    """A layer whose samples meet in the state alone."""
    torch.manual_seed(0)
    return Mamba(4, d_state=3, d_conv=1, **options).double()


def test_a_gap_multiplies_the_chosen_step():
    """Gaps of Δ are unit gaps of a layer whose steps are Δ times as long."""
    layer = without_convolution()
    u, gap = torch.randn(2, 30, 4, dtype=torch.float64), 2.5
    with torch.no_grad():
        layer.dt_proj.weight.zero_()
        y, (_, s) = layer(u, torch.full((2, 30), gap, dtype=torch.float64))
        step = gap * torch.nn.functional.softplus(layer.dt_proj.bias)
        layer.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))
        expected, (_, state) = layer(u)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(s, state, rtol=1e-10, atol=1e-12)


def test_the_state_decays_over_a_silence_as_long_as_it_lasts():
    """Where samples write nothing and choose one step, a gap is worth as much as its parts."""
    layer = without_convolution(conv_bias=False)
    u = torch.zeros(1, 6, 4, dtype=torch.float64)
    u[:, 0] = 1.0
    _, (_, whole) = layer(u[:, :2], torch.tensor([[1.0, 5.0]], dtype=torch.float64))
    _, (_, parts) = layer(u, torch.ones(1, 6, dtype=torch.float64))
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=1e-14)


def test_the_gap_reaches_only_the_state():
    """The convolution reads the last samples, however long ago they came."""
    layer = Mamba(4).double()
    u = torch.randn(1, 9, 4, dtype=torch.float64)
    register = layer(u, torch.rand(1, 9, dtype=torch.float64) + 0.1)[1][0]
    torch.testing.assert_close(register, layer(u)[1][0], rtol=0, atol=0)
    x = torch.nn.functional.linear(u, layer.in_proj.weight[:8])
    torch.testing.assert_close(register, x[:, -3:].transpose(1, 2))


def test_selection_ignores_what_it_is_told_to():
    """A step driven to zero keeps the state as if the sample had not come: what a fixed system cannot do."""
    layer = without_convolution(dt_rank=1)
    with torch.no_grad():
        layer.x_proj.weight[0] = 0.0
        layer.x_proj.weight[0, 0] = 1.0
        layer.dt_proj.weight[:] = -1e3
        layer.in_proj.weight[0] = torch.eye(4)[0]
        u = torch.randn(1, 12, 4, dtype=torch.float64)
        u[..., 0] = 0.0
        noisy = torch.cat([u[:, :5], torch.full((1, 7, 4), 3.0, dtype=u.dtype), u[:, 5:]], dim=1)
        clean, kept = layer(u)[0], layer(noisy)[0]
    torch.testing.assert_close(kept[:, 12:], clean[:, 5:], rtol=1e-12, atol=1e-14)


@torch.no_grad()
def test_a_frozen_layer_no_longer_notices_its_rates():
    layer = without_convolution().freeze()
    u, state = torch.randn(1, 4, dtype=torch.float64), (torch.zeros(1, 8, 0), torch.ones(1, 8, 3).double())
    before = layer.step(u, state)
    layer.A_log.zero_()
    torch.testing.assert_close(layer.step(u, state), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(d_state=0), "d_state must be a positive integer. Got 0"),
        (dict(d_conv=0), "d_conv must be a positive integer"),
        (dict(dt_rank="full"), "dt_rank must be a positive integer or 'auto'. Got 'full'"),
        (dict(expand=0.1), r"expand \* d_model must be at least 1"),
        (dict(dt_min=0.2), "0 < dt_min <= dt_max"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Mamba(4, **options)


def test_equals_mamba_py():
    """The same block elsewhere, where a clone is at hand."""
    path = os.environ.get("MAMBA_PY_REPOSITORY")
    if path is None:
        pytest.skip("MAMBA_PY_REPOSITORY is not set: it names a clone of alxndrTL/mamba.py")
    sys.path.insert(0, path)
    try:
        from mambapy.mamba import MambaBlock, MambaConfig
    finally:
        sys.path.remove(path)
    torch.manual_seed(0)
    other = MambaBlock(MambaConfig(d_model=12, n_layers=1)).double()
    layer = Mamba(12).double()
    layer.load_state_dict(other.state_dict())
    u = torch.randn(2, 64, 12, dtype=torch.float64)
    # It computes A in float32.
    torch.testing.assert_close(layer(u)[0], other(u), rtol=1e-6, atol=1e-7)
