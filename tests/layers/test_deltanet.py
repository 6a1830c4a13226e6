"""DeltaNet against the equations of its papers as a loop, and its gap against the matrix exponential."""

import pytest
import torch
from torch.nn.functional import conv1d, pad, silu, softplus

from statespace.layers import DeltaNet, make_layer


def build(d_model=8, **options):
    torch.manual_seed(0)
    return DeltaNet(d_model, **options).double()


def record(L=23, d_model=8, batch=2):
    generator = torch.Generator().manual_seed(L)
    u = torch.randn(batch, L, d_model, generator=generator, dtype=torch.float64)
    return u, torch.empty(batch, L, dtype=torch.float64).exponential_(generator=generator)


def quantities(layer, u):
    """q, k, v (B, L, H, D/H), the logits of β and log α (B, L, H) and the gate, as the papers write them."""
    D, H = layer.d_model, layer.n_heads
    weights = layer.in_proj.weight.split([D, D, D, H, *([H, D] if layer.gated else [])])
    q, k, v, beta, *rest = [u @ w.T for w in weights]
    heads = []
    for i, x in enumerate((q, k, v)):
        if layer.d_conv is not None:
            taps = layer.conv_weight[i * D : (i + 1) * D].unsqueeze(1)
            x = conv1d(pad(x.mT, (layer.d_conv - 1, 0)), taps, groups=D).mT
        heads.append(silu(x).unflatten(-1, (H, D // H)))
    q, k, v = heads
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    if not layer.gated:
        return q, k, v, beta, torch.zeros_like(beta), None
    return q, k, v, beta, -layer.A_log.exp() * softplus(rest[0] + layer.dt_bias), rest[1]


def output(layer, o, gate):
    o = o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm.weight
    o = o.flatten(-2)
    return (o if gate is None else o * silu(gate)) @ layer.out_proj.weight.T


@pytest.mark.parametrize(
    "options", [{}, dict(d_conv=None, n_heads=1), dict(gated=True), dict(gated=True, d_conv=2)], ids=str
)
@torch.no_grad()
def test_on_a_regular_grid_it_is_the_paper(options):
    """S_t = S_{t-1} α_t (I - β_t k_t k_tᵀ) + β_t v_t k_tᵀ, o_t = S_t q_t, with values as rows."""
    layer = build(**options)
    layer.norm.weight.copy_(torch.rand(layer.head_dim) + 0.5)
    u, _ = record()
    q, k, v, logits, log_alpha, gate = quantities(layer, u)
    beta, alpha = torch.sigmoid(logits)[..., None, None], log_alpha.exp()[..., None, None]
    identity, S, outputs = torch.eye(layer.head_dim, dtype=u.dtype), 0, []
    for t in range(u.shape[1]):
        key, value = k[:, t].unsqueeze(-1), v[:, t].unsqueeze(-1)
        S = S @ (alpha[:, t] * (identity - beta[:, t] * key @ key.mT)) if t else 0
        S = S + beta[:, t] * value @ key.mT
        outputs.append((S @ q[:, t].unsqueeze(-1)).squeeze(-1))
    y, state = layer(u)
    torch.testing.assert_close(y, output(layer, torch.stack(outputs, 1), gate), rtol=0, atol=1e-11)
    memory = state if layer.d_conv is None else state[0]
    torch.testing.assert_close(memory.mT, S, rtol=0, atol=1e-11)


@pytest.mark.parametrize("gated", [False, True])
@torch.no_grad()
def test_over_a_gap_it_follows_its_differential_equation(gated):
    """S' = -a S - b k kᵀ S + w k vᵀ, by the matrix exponential; w is what writes β in a unit of time."""
    layer = build(gated=gated)
    u, dt = record(9)
    dt[:, 3], dt[:, 5] = 1e-4, 30.0
    q, k, v, logits, log_alpha, gate = quantities(layer, u)
    n = layer.head_dim
    S, outputs = torch.zeros(2, layer.n_heads, n, n, dtype=u.dtype), []
    for t in range(u.shape[1]):
        a, b, key = -log_alpha[:, t, :, None, None], softplus(logits[:, t, :, None, None]), k[:, t].unsqueeze(-1)
        generator = -a * torch.eye(n, dtype=u.dtype) - b * key @ key.mT
        total = a + b
        w = torch.sigmoid(logits[:, t, :, None, None]) * total / -torch.expm1(-total)
        # [S; 1]' = [[generator, w k vᵀ], [0, 0]] [S; 1], its second block of the width of v.
        whole = torch.zeros(2, layer.n_heads, 2 * n, 2 * n, dtype=u.dtype)
        whole[..., :n, :n], whole[..., :n, n:] = generator, w * key @ v[:, t].unsqueeze(-2)
        flow = torch.linalg.matrix_exp(whole * dt[:, t, None, None, None])
        S = flow[..., :n, :n] @ S + flow[..., :n, n:]
        outputs.append((q[:, t].unsqueeze(-2) @ S).squeeze(-2))
    y, (memory, _) = layer(u, dt)
    torch.testing.assert_close(memory, S, rtol=0, atol=1e-9)
    torch.testing.assert_close(y, output(layer, torch.stack(outputs, 1), gate), rtol=0, atol=1e-8)


@torch.no_grad()
def test_a_longer_gap_writes_more_and_without_a_gate_forgets_no_other_key():
    layer = build(n_heads=1, d_conv=None)
    u, _ = record(1, batch=1)
    state = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    _, k, v, *_ = quantities(layer, u)
    key, value = k[0, 0, 0], v[0, 0, 0]
    errors = []
    for gap in (1e-3, 0.5, 1.0, 5.0, 1e3):
        _, after = layer(u, torch.full((1, 1), gap, dtype=torch.float64), state)
        errors.append((after[0, 0].T @ key - value).norm().item())
        change = after - state
        torch.testing.assert_close(change, key[:, None] @ (key @ change[0, 0])[None][None, None], rtol=0, atol=1e-12)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("logit", [-200.0, -20.0, 0.0, 200.0])
def test_saturated_rates_stay_finite_with_their_gradients(gated, logit):
    """Rates of writing near 0 and without bound, over gaps of every size, in float32."""
    torch.manual_seed(0)
    layer = DeltaNet(8, gated=gated, d_conv=None)
    start = 3 * layer.d_model
    with torch.no_grad():
        layer.in_proj.weight[start : start + layer.n_heads] = 0
        layer.in_proj.weight[start : start + layer.n_heads, 0] = logit
    u = torch.randn(1, 12, 8)
    u[..., 0] = 1
    u.requires_grad_()
    dt = torch.tensor([[1e-6, 1e-3, 1, 1e3, 1e6, 0, 1e-6, 1e6, 1, 1, 0, 0]], requires_grad=True)
    y, state = layer(u, dt)
    (y.square().sum() + state.square().sum()).backward()
    for x in (y, state, u.grad, dt.grad, *(p.grad for p in layer.parameters())):
        assert torch.isfinite(x).all()


def test_a_record_of_zeros_has_finite_gradients():
    """Its keys have no direction."""
    layer = build()
    u = torch.zeros(1, 6, 8, dtype=torch.float64, requires_grad=True)
    for y, state in (layer(u), layer.step(u[:, 0], None)):
        (y.sum() + state[0].sum()).backward()
        assert u.grad.abs().max() < 1e6


@pytest.mark.parametrize(("d_model", "n_heads"), [(1, 1), (2, 1), (4, 2), (6, 3), (7, 1), (8, 4), (64, 4), (10, 2)])
def test_heads_fit_the_channels(d_model, n_heads):
    layer = make_layer("deltanet", d_model)
    assert layer.n_heads == n_heads
    y, _ = layer(torch.randn(1, 3, d_model))
    assert y.shape == (1, 3, d_model)


def test_only_a_gate_has_rates_of_the_clock():
    assert build().slow_parameters == {}
    assert build(gated=True).slow_parameters == {"A_log": "A", "dt_bias": "dt"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(n_heads=3), "n_heads must divide d_model = 8. Got 3 instead"),
        (dict(n_heads=0), "n_heads must divide"),
        (dict(d_conv=0), "d_conv must be a positive integer, or None for no convolution. Got 0"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
