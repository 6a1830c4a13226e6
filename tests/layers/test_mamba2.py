"""Mamba-2 against the paper's equations written out, and what the gap does to them."""

import math

import pytest
import torch

from statespace.layers import Mamba2, make_layer

OPTIONS = dict(d_state=5, head_dim=2, n_groups=2, dt_min=0.02, dt_max=0.5)


def build(d_model=6, **options):
    torch.manual_seed(0)
    layer = Mamba2(d_model, **OPTIONS | options).double()
    with torch.no_grad():
        for vector in (layer.D, layer.norm.weight):  # no neutral values, which would hide a wrong place
            vector.add_(torch.randn_like(vector))
    return layer


def paper(layer, u, dt):
    """One record, one sample after the other, one head after the other."""
    W = layer.state_dict()
    E, H, P, G, N = layer.d_inner, layer.n_heads, layer.head_dim, layer.n_groups, layer.d_state
    taps, silu = W["conv1d.weight"].shape[-1], lambda x: x / (1 + torch.exp(-x))
    past = torch.zeros(E + 2 * G * N, taps, dtype=u.dtype)
    h, outputs = torch.zeros(H, P, N, dtype=u.dtype), []
    for u_k, gap in zip(u, dt, strict=True):
        projected = W["in_proj.weight"] @ u_k
        z, sample, delta = projected[:E], projected[E:-H], projected[-H:]
        past = torch.cat([past[:, 1:], sample[:, None]], dim=1)
        sample = silu((past * W["conv1d.weight"][:, 0]).sum(1) + W["conv1d.bias"])
        x, B, C = sample[:E].view(H, P), sample[E : E + G * N].view(G, N), sample[E + G * N :].view(G, N)
        y = torch.empty(H, P, dtype=u.dtype)
        for i in range(H):
            g = i // (H // G)
            step = torch.log(1 + torch.exp(delta[i] + W["dt_bias"][i])) * gap
            h[i] = torch.exp(-step * torch.exp(W["A_log"][i])) * h[i] + step * torch.outer(x[i], B[g])
            y[i] = h[i] @ C[g] + W["D"][i] * x[i]
        y = (y.flatten() * silu(z)).view(G, -1)
        y = (y / torch.sqrt((y * y).mean(1, keepdim=True) + 1e-5)).flatten() * W["norm.weight"]
        outputs.append(W["out_proj.weight"] @ y)
    return torch.stack(outputs), past[:, 1:], h


@pytest.mark.parametrize("gaps", ["unit", "irregular"])
@pytest.mark.parametrize("options", [{}, dict(head_dim=12, n_groups=1), dict(d_conv=2, expand=4, n_groups=4)], ids=str)
@torch.no_grad()
def test_it_is_the_papers_block(options, gaps):
    layer = build(**options)
    u = torch.randn(2, 70, 6, dtype=torch.float64)
    dt = None if gaps == "unit" else torch.rand(2, 70, dtype=torch.float64) * 3
    y, (register, h) = layer(u, dt)
    for i in range(2):
        expected = paper(layer, u[i], torch.ones(70) if dt is None else dt[i])
        for got, one in zip((y[i], register[i], h[i]), expected, strict=True):
            torch.testing.assert_close(got, one, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_the_gap_is_how_much_time_passes():
    """What is kept goes to the power of the gap, what is written with it; after a long one only that is left."""
    layer = build()
    u = torch.randn(1, 9, 6, dtype=torch.float64)
    _, (register, h) = layer(u)
    dt = torch.tensor([3.0], dtype=torch.float64)
    _, (_, after) = layer.step(u[:, 0], (register, h), dt)
    _, (_, written) = layer.step(u[:, 0], (register, torch.zeros_like(h)), dt)
    _, (_, once) = layer.step(u[:, 0], (register, h), dt / 3)
    _, (_, written_once) = layer.step(u[:, 0], (register, torch.zeros_like(h)), dt / 3)
    torch.testing.assert_close((after - written) / h, ((once - written_once) / h) ** 3, rtol=1e-9, atol=0)
    torch.testing.assert_close(written, 3 * written_once, rtol=1e-12, atol=0)
    _, (_, long) = layer.step(u[:, 0], (register, h), 1e6 * dt)
    torch.testing.assert_close(long, 1e6 * written, rtol=1e-12, atol=0)


@torch.no_grad()
def test_weights_in_half_precision_keep_states_in_single():
    exact = build(d_conv=1)
    layer, u = build(d_conv=1).bfloat16(), torch.randn(2, 20, 6, dtype=torch.bfloat16)
    y, (_, h) = layer(u)
    state, outputs = layer.initial_state(2), []
    for k in range(20):
        y_t, state = layer.step(u[:, k], state)
        outputs.append(y_t)
    assert {y.dtype, y_t.dtype} == {torch.bfloat16}
    assert {h.dtype, state[1].dtype} == {torch.float32}
    expected, _ = exact(u.double())
    for got in (y, torch.stack(outputs, dim=1)):
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=0.05 * expected.abs().max().item())


@pytest.mark.parametrize(("d_model", "heads", "head_dim"), [(64, 2, 64), (4, 1, 8), (10, 5, 4), (3, 3, 2), (96, 3, 64)])
def test_heads_of_small_layers(d_model, heads, head_dim):
    layer = Mamba2(d_model)
    assert (layer.n_heads, layer.head_dim) == (heads, head_dim)


def test_it_starts_as_in_the_paper():
    torch.manual_seed(0)
    layer = Mamba2(512, dt_min=1e-3, dt_max=1e-1, head_dim=4)
    step, A = torch.nn.functional.softplus(layer.dt_bias), layer.A_log.exp()
    assert 1e-3 - 1e-8 < step.min() < 2e-3
    assert 0.05 < step.max() < 0.1 + 1e-6
    assert abs(step.log().mean() - math.log(1e-2)) < 0.3
    assert 1 - 1e-6 < A.min() < 2
    assert 15 < A.max() < 16 + 1e-5
    assert (torch.cat([layer.D, layer.norm.weight]) == 1).all()


def test_names_and_shapes_are_those_of_mamba_ssm():
    shapes = {name: tuple(value.shape) for name, value in make_layer("mamba2", 64, d_state=16).state_dict().items()}
    assert shapes == {
        "dt_bias": (2,), "A_log": (2,), "D": (2,), "in_proj.weight": (290, 64), "conv1d.weight": (160, 1, 4),
        "conv1d.bias": (160,), "norm.weight": (128,), "out_proj.weight": (64, 128),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(d_state=0), "d_state must be a positive integer. Got 0"),
        (dict(d_conv=0), "d_conv must be a positive integer"),
        (dict(head_dim=5), "head_dim must divide the expand \\* d_model = 12 inner channels. Got 5"),
        (dict(head_dim=0), "head_dim must be a positive integer"),
        (dict(n_groups=4), "n_groups must divide the 6 heads \\(of head_dim=2\\). Got 4"),
        (dict(expand=0), "expand \\* d_model must be at least 1"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Mamba2(6, **OPTIONS | options)
