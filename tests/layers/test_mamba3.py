"""Mamba-3 against its paper: the recurrence and the rotary embedding as a NumPy loop, and what gaps and rotation do."""

import numpy as np
import pytest
import torch

from statespace.layers import Mamba3


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalised(x, norm):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * norm.weight.detach().numpy()


def rotated(x, angle):
    """The paper's rotary embedding: neighbouring pairs of the last axis, as many as there are angles."""
    x = x.copy()
    for i, phi in enumerate(angle):
        p, q = x[..., 2 * i].copy(), x[..., 2 * i + 1].copy()
        x[..., 2 * i], x[..., 2 * i + 1] = p * np.cos(phi) - q * np.sin(phi), p * np.sin(phi) + q * np.cos(phi)
    return x


def paper(layer, u, dt):
    """One record (L, D) by the paper's equations: rotated B and C, the previous sample's B x in the state."""
    value = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    H, R, N, P = layer.n_heads, layer.mimo_rank, layer.d_state, layer.head_dim
    cuts = np.cumsum([H * P, H * P, R * N, R * N, H, H, H])
    y = np.zeros_like(u)
    state, angle = np.zeros((H, P, N)), np.zeros((H, layer.n_angles))
    before = np.zeros((H, P, N))
    ones = np.ones((H, R, P))
    for k in range(len(u)):
        z, x, b, c, step, rate, weight, theta = np.split(value["in_proj.weight"] @ u[k], cuts)
        b, c = (normalised(v.reshape(R, N), norm) for v, norm in ((b, layer.B_norm), (c, layer.C_norm)))
        step = softplus(step + value["dt_bias"]) * dt[k]
        rate = softplus(rate) if layer.rate == "softplus" else np.where(rate >= 0, 1 + rate, 1 / (1 + np.abs(rate)))
        decay = np.exp(-np.maximum(rate, 1e-4) * step)
        weight = sigmoid(weight)
        gated = np.zeros((H, P))
        for h in range(H):
            angle[h] += np.pi * np.tanh(theta) * step[h]
            b_h = rotated(b + value["B_bias"][h], angle[h])
            c_h = rotated(c + value["C_bias"][h], angle[h])
            x_h = value.get("mimo_x", ones)[h] * x.reshape(H, P)[h]
            z_h = value.get("mimo_z", ones)[h] * z.reshape(H, P)[h]
            now = x_h.T @ b_h
            state[h] = decay[h] * (state[h] + (1 - weight[h]) * step[h] * before[h]) + weight[h] * step[h] * now
            before[h] = now
            y_h = c_h @ state[h].T + value["D"][h] * x_h
            gated[h] = (y_h * z_h * sigmoid(z_h) * value.get("mimo_o", ones)[h]).sum(0)
        y[k] = value["out_proj.weight"] @ gated.ravel()
    return y


def scrambled(layer):
    """Parameters that start alike made different: norms, biases, ranks, skips."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=generator))
        layer.dt_bias.fill_(0.3)
    return layer.double()


@pytest.mark.parametrize(
    "options",
    [dict(), dict(mimo_rank=3, head_dim=2), dict(rope_fraction=0), dict(d_state=7, rope_fraction=1, rate="heavy-tail")],
)
@pytest.mark.parametrize("regular", [True, False])
def test_equals_the_papers_equations(options, regular):
    torch.manual_seed(0)
    layer = scrambled(Mamba3(3, **{"d_state": 8, "chunk_size": 16, **options}))
    u = torch.randn(2, 75, 3, dtype=torch.float64)
    dt = torch.ones(2, 75, dtype=torch.float64) if regular else torch.rand(2, 75, dtype=torch.float64) * 3
    y, _ = layer(u, None if regular else dt)
    for i in range(2):
        np.testing.assert_allclose(y[i].detach().numpy(), paper(layer, u[i].numpy(), dt[i].numpy()), atol=1e-11)


@pytest.mark.parametrize("length", [1, 2, 63, 257, 1000])
@pytest.mark.parametrize("chunk_size", [None, 1, 7])
@torch.no_grad()
def test_any_length_and_chunk(length, chunk_size):
    torch.manual_seed(0)
    layer = scrambled(Mamba3(2, 4, head_dim=1, mimo_rank=2, chunk_size=chunk_size))
    u, dt = torch.randn(1, length, 2, dtype=torch.float64), torch.rand(1, length, dtype=torch.float64)
    np.testing.assert_allclose(layer(u, dt)[0][0], paper(layer, u[0].numpy(), dt[0].numpy()), atol=1e-11)


@torch.no_grad()
def test_single_precision_around_long_gaps():
    """A record of bursts with gaps up to 1e6 between them loses no more digits than its numbers have."""
    torch.manual_seed(0)
    layer = scrambled(Mamba3(3, 8, chunk_size=16)).float()
    u, dt = torch.randn(1, 200, 3), torch.rand(1, 200) * 0.1
    dt[0, 17::40] = torch.tensor([1e6, 1e3, 1e-6, 1e5, 10.0])
    y, _ = layer(u, dt)
    expected, _ = layer.double()(u.double(), dt.double())
    # After a long gap what it wrote is as long as it; elsewhere outputs are of their own size.
    scale = expected.abs().amax(-1, keepdim=True)
    assert ((y - expected).abs() / scale).max() < 1e-3


@torch.no_grad()
def test_a_long_gap_forgets():
    torch.manual_seed(0)
    layer = scrambled(Mamba3(3, 8))
    u = torch.randn(2, 30, 3, dtype=torch.float64)
    u[1, 20:] = u[0, 20:]
    dt = torch.ones(2, 30, dtype=torch.float64)
    dt[:, 20] = 1e6
    y, _ = layer(u, dt)
    torch.testing.assert_close(y[0, 20:], y[1, 20:], rtol=1e-9, atol=1e-9)
    assert (layer(u)[0][0, 20:] - layer(u)[0][1, 20:]).abs().max() > 1e-3


@pytest.mark.parametrize("rope_fraction", [1.0, 0.0])
@torch.no_grad()
def test_counts_parity_by_turning_half_a_circle(rope_fraction):
    """Weights set by hand: a one turns the state by π, so that its sign is the parity of the ones so far. A state that
    cannot turn keeps its sign. Channels: constant, mark of the beginning, bit.
    """
    layer = Mamba3(3, 2, expand=1, rope_fraction=rope_fraction).double()
    for p in layer.parameters():
        p.zero_()
    gate, x, _, _, _, rate, weight, angle = layer.in_proj.weight.split(layer.sizes)
    gate[0, 0] = x[0, 1] = 1.0
    rate[0, 0], weight[0, 0] = -100.0, 100.0  # hardly any decay, no trapezoid
    angle[:, 2] = 100.0  # tanh(θ) = 1 for a one
    layer.dt_bias.fill_(np.log(np.expm1(1.0)))
    layer.B_bias[..., 0] = layer.C_bias[..., 0] = 1.0
    layer.out_proj.weight[0, 0] = 1.0
    bits = torch.randint(0, 2, (200,), generator=torch.Generator().manual_seed(3))
    u = torch.zeros(1, 200, 3, dtype=torch.float64)
    u[0, :, 0] = u[0, 0, 1] = 1.0
    u[0, 1:, 2] = bits[1:]
    parity = 1.0 - 2.0 * (bits[1:].cumsum(0) % 2)
    agrees = torch.sign(layer(u)[0][0, 1:, 0]) == parity
    assert agrees.all() if rope_fraction else 60 < agrees.sum() < 140


def test_initial_values():
    torch.manual_seed(0)
    layer = Mamba3(64, 32, head_dim=2, dt_min=0.01, dt_max=0.2)
    step = softplus(layer.dt_bias.detach().numpy())
    assert 0.01 * (1 - 1e-4) <= step.min() < step.max() <= 0.2 * (1 + 1e-4)
    for p in (layer.B_bias, layer.C_bias, layer.D, layer.B_norm.weight):
        assert (p == 1).all()
    assert (Mamba3(6).n_heads, Mamba3(64).n_heads, Mamba3(96).head_dim) == (1, 2, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(head_dim=3), "head_dim must divide expand . d_model = 8"),
        (dict(mimo_rank=0), "mimo_rank must be a positive integer"),
        (dict(rope_fraction=1.5), r"rope_fraction must lie in \[0, 1\]"),
        (dict(chunk_size=0), "chunk_size must be a positive integer"),
        (dict(dt_min=0.2), "0 < dt_min <= dt_max"),
        (dict(rate="exp"), "rate must be one of 'softplus', 'heavy-tail'"),
        (dict(d_state=0), "d_state must be a positive integer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Mamba3(4, **options)
