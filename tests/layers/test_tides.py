"""TIDES against its paper: the matrices of every step in a float64 loop, and what physical gaps are good for."""

import numpy as np
import pytest
import torch

from statespace.datasets import make_fading_flash
from statespace.layers import TIDES
from statespace.lti import hippo

RATES = {
    "exp": lambda raw: -np.exp(raw),
    "softplus": lambda raw: -np.log1p(np.exp(raw)),
    "stable": lambda raw: -1 / (raw**2 + 0.5),
    "standard": lambda raw: np.minimum(raw, -1e-4),
}


def normalised(x, axis, weight):
    return x / np.sqrt((np.abs(x) ** 2).mean(axis, keepdims=True) + 1e-6) * weight


def paper(layer, u, dt):
    """One record (L, H): Λ, B and C of each sample as the paper has them, and the zero-order hold of each."""
    value = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    B, C = (value[name][..., 0] + 1j * value[name][..., 1] for name in "BC")
    B = B.swapaxes(1, 2)  # (1 + rank, P, H), as C is (1 + rank, H, P)
    x, y = np.zeros(layer.d_state, complex), np.zeros_like(u)
    for k, sample in enumerate(u):
        raw = value["Lambda_real_weight"] @ sample + value["Lambda_real"]
        factors = [value[f"{name}_proj.weight"] @ sample + value[f"{name}_proj.bias"] for name in "BC"]
        if layer.rank:
            B_k, C_k = (M[0] + np.tensordot(d, M[1:], 1) for M, d in zip((B, C), factors, strict=True))
        else:
            b, c = (np.split(d, 2)[0] + 1j * np.split(d, 2)[1] for d in factors)
        if layer.normalize:
            raw = normalised(raw, 0, value["Lambda_norm"])
            if layer.rank:
                B_k, C_k = normalised(B_k, 0, value["B_norm"][:, None]), normalised(C_k, 1, value["C_norm"])
            else:
                b, c = normalised(b, 0, value["B_norm"]), normalised(c, 0, value["C_norm"])
        if not layer.rank:
            B_k, C_k = b[:, None] * B[0], C[0] * c
        Lambda = RATES[layer.rate](raw) + 1j * value["Lambda_imag"]
        gap = np.exp(value["log_step"]) * dt[k]
        if layer.discretization == "zoh":
            A_bar = np.exp(gap * Lambda)
            B_bar = ((A_bar - 1) / Lambda)[:, None] * B_k
        else:
            A_bar = (1 + gap * Lambda / 2) / (1 - gap * Lambda / 2)
            B_bar = (gap / (1 - gap * Lambda / 2))[:, None] * B_k
        x = A_bar * x + B_bar @ sample
        y[k] = (C_k @ x).real + value["D"] * sample
    return y


def scrambled(layer):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if name != "log_step":
                p.add_(0.5 * torch.randn(p.shape, generator=generator))
    return layer.double()


OPTIONS = [
    dict(),
    dict(rate="softplus", rank=2, n_blocks=2),
    dict(rate="stable", rank=0),
    dict(rate="standard", rank=0, normalize=False, discretization="bilinear"),
    dict(rank=3, normalize=False, d_state=2),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("regular", [True, False])
def test_equals_the_papers_equations(options, regular):
    torch.manual_seed(0)
    layer = scrambled(TIDES(5, **{"d_state": 8, "dt_min": 0.05, "dt_max": 0.5, **options}))
    u = torch.randn(2, 60, 5, dtype=torch.float64)
    dt = torch.ones(2, 60, dtype=torch.float64) if regular else torch.rand(2, 60, dtype=torch.float64) * 3
    y, _ = layer(u, None if regular else dt)
    for i in range(2):
        np.testing.assert_allclose(y[i].detach().numpy(), paper(layer, u[i].numpy(), dt[i].numpy()), atol=1e-10)


@pytest.mark.parametrize("length", [1, 2, 63, 257, 1000])
@torch.no_grad()
def test_any_length_and_gap(length):
    torch.manual_seed(0)
    layer = scrambled(TIDES(3, 4, rank=1))
    generator = torch.Generator().manual_seed(2)
    u = torch.randn(1, length, 3, dtype=torch.float64, generator=generator)
    dt = 10 ** (12 * torch.rand(1, length, dtype=torch.float64, generator=generator) - 6)
    expected = paper(layer, u[0].numpy(), dt[0].numpy())
    np.testing.assert_allclose(layer(u, dt)[0][0], expected, atol=1e-9)
    # A phase that a float32 gap has lost is that of a state which has died away.
    y = layer.float()(u.float(), dt.float())[0][0].numpy()
    assert np.abs(y - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("backend", ["cpu", "pytorch"])
@torch.no_grad()
def test_backends_agree(backend):
    torch.manual_seed(0)
    layer = scrambled(TIDES(3, 4, backend=backend))
    u, dt = torch.randn(1, 150, 3, dtype=torch.float64), torch.rand(1, 150, dtype=torch.float64)
    np.testing.assert_allclose(layer(u, dt)[0][0], paper(layer, u[0].numpy(), dt[0].numpy()), atol=1e-11)


def test_rates_that_vanish_or_explode_stay_finite():
    layer = TIDES(2, 4, rank=0, normalize=False)
    with torch.no_grad():
        layer.Lambda_imag.zero_()
    u, dt = torch.ones(1, 6, 2), torch.tensor([[0.0, 1e-6, 1.0, 1e6, 0.0, 1.0]])
    for raw in (-200.0, 60.0):
        with torch.no_grad():
            layer.Lambda_real.fill_(raw)
        for discretization in ("zoh", "bilinear"):
            layer.discretization = discretization
            layer.zero_grad()
            y, state = layer(u, dt)
            (y.sum() + state.sum()).backward()
            assert all(torch.isfinite(x).all() for x in (y, state, *(p.grad for p in layer.parameters())))


def test_starts_as_s5():
    """Before training the input acts on nothing: eigenvalues of HiPPO, B and C of the right variance."""
    torch.manual_seed(0)
    layer = TIDES(256, 32, n_blocks=2, rank=4, dt_min=0.01, dt_max=0.2)
    expected = hippo.dplr("legsd", 16).Lambda
    expected = np.tile(np.concatenate([expected, expected.conj()]), 2)
    np.testing.assert_allclose(-torch.exp(layer.Lambda_real).detach(), expected.real, rtol=1e-5)
    np.testing.assert_allclose(layer.Lambda_imag.detach(), expected.imag, rtol=1e-5)
    assert not any(p.any() for p in (layer.Lambda_real_weight, layer.B[1:], layer.C[1:]))
    for matrix, variance in ((layer.B[0], 1 / 32), (layer.C[0], 2 / 32)):
        assert matrix.square().sum(-1).mean().item() == pytest.approx(variance, rel=0.1)


def glow():
    """The layer whose weights solve Fading Flash: one state, whose rate is that of the zone."""
    layer = TIDES(4, 2, rank=0, normalize=False, dt_min=1.0, dt_max=1.0).double()
    rates = torch.tensor([1.0, 1.5, 2.0], dtype=torch.float64)
    with torch.no_grad():
        for p in (layer.Lambda_real, layer.Lambda_imag, layer.log_step, layer.D, layer.B, layer.C):
            p.zero_()
        layer.Lambda_real_weight[:, 1:] = torch.log(rates)
        layer.B[0, 0, 0, 0] = 1.0
        layer.C[0, 0, 0, 0] = 1.0
    return layer


@pytest.mark.parametrize("gap", [0.1, 1.0, 5.0, (0.01, 10.0)])
@torch.no_grad()
def test_represents_fading_flash_at_any_gap(gap):
    X, y = make_fading_flash(20, gap=gap, irregular=np.ndim(gap) > 0, random_state=0)
    u = torch.from_numpy(np.stack(X.values))
    dt = torch.from_numpy(np.diff(np.stack(X.times), prepend=-1.0))
    np.testing.assert_allclose(glow()(u, dt)[0][..., 0], y, atol=1e-12)
