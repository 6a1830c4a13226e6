"""RWKV's time mixing, channel mixing and block against the paper's equations, in plain float64 loops; and the gaps."""

import math

import numpy as np
import pytest
import torch

from statespace.layers import RWKV, ChannelMixing, RWKVBlock


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights_of(layer):
    return {name: p.detach().numpy() for name, p in layer.state_dict().items()}


def mixed(u, mix):
    """Equations 11 to 13: each sample and the one before, zero before the first."""
    before = np.concatenate([np.zeros_like(u[:1]), u[:-1]])
    return mix * u + (1 - mix) * before


def papers_time_mixing(layer, u, times=None):
    """One record u (L, D): equation 16 with all its exponentials, then the gate and W_o. Without times: the paper's."""
    weights = weights_of(layer)
    D, L = layer.d_model, len(u)
    W = weights["in_proj.weight"]
    r, k, v = (mixed(u, weights[f"mix_{name}"]) @ W[i * D : (i + 1) * D].T for i, name in enumerate("rkv"))
    w, bonus = np.exp(weights["log_decay"]), weights["bonus"]
    outputs = np.empty_like(u)
    for t in range(L):
        numerator, denominator = np.exp(bonus + k[t]) * v[t], np.exp(bonus + k[t])
        for i in range(t):
            steps = t - 1 - i if times is None else times[t] - times[i] - 1
            numerator = numerator + np.exp(-steps * w + k[i]) * v[i]
            denominator = denominator + np.exp(-steps * w + k[i])
        outputs[t] = weights["out_proj.weight"] @ (sigmoid(r[t]) * numerator / denominator)
    return outputs


def papers_channel_mixing(layer, u):
    """Equations 20 to 22."""
    weights = weights_of(layer)
    r = mixed(u, weights["mix_r"]) @ weights["gate.weight"].T
    k = mixed(u, weights["mix_k"]) @ weights["in_proj.weight"].T
    return sigmoid(r) * (np.maximum(k, 0) ** 2 @ weights["out_proj.weight"].T)


def norm(x, layer):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    return scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def drawn(layer):
    """All of its weights drawn, so that none hides behind a starting value."""
    layer = layer.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * (1.0 if p.ndim == 1 else 0.7))
            if name.endswith("log_decay"):
                p.sub_(1)
    return layer


def record(length=60, D=5):
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(2, length, D, generator=generator, dtype=torch.float64)
    return u, torch.empty(2, length, dtype=torch.float64).exponential_(generator=generator)


@pytest.mark.parametrize("regular", [True, False])
def test_time_mixing_is_the_papers(regular):
    layer = drawn(RWKV(5))
    u, dt = record()
    y, _ = layer(u, None if regular else dt)
    for i in range(2):
        times = None if regular else np.cumsum(dt[i].numpy())
        expected = papers_time_mixing(layer, u[i].numpy(), times)
        np.testing.assert_allclose(y[i].detach().numpy(), expected, rtol=0, atol=1e-11)


def test_channel_mixing_is_the_papers():
    layer = drawn(ChannelMixing(5, d_hidden=7))
    u, dt = record()
    y, _ = layer(u)
    for i in range(2):
        np.testing.assert_allclose(y[i].detach().numpy(), papers_channel_mixing(layer, u[i].numpy()), atol=1e-11)
    torch.testing.assert_close(layer(u, dt)[0], y, rtol=0, atol=0)


def test_the_block_is_the_papers():
    block = drawn(RWKVBlock(5))
    u, _ = record()
    y, _ = block(u)
    for i in range(2):
        h = u[i].numpy()
        h = h + papers_time_mixing(block.time_mixing, norm(h, block.time_norm))
        h = h + papers_channel_mixing(block.channel_mixing, norm(h, block.channel_norm))
        np.testing.assert_allclose(y[i].detach().numpy(), h, rtol=0, atol=1e-10)


@torch.no_grad()
def test_the_block_keeps_the_contract_of_layers():
    """Steps, cuts and padding anywhere."""
    block = drawn(RWKVBlock(5))
    u, dt = record(20)
    u, dt = u.clone(), dt.clone()
    dt[0, 15:], dt[1, 4:7] = 0, 0
    u[dt == 0] = 0
    whole, end = block(u, dt)
    state, outputs = block.initial_state(2), []
    for t in range(20):
        y, state = block.step(u[:, t], state, dt[:, t])
        outputs.append(torch.where(dt[:, t : t + 1] > 0, y, 0))
    head, middle = block(u[:, :6], dt[:, :6])
    tail, last = block(u[:, 6:], dt[:, 6:], middle)
    for other, final in ((torch.stack(outputs, 1), state), (torch.cat([head, tail], 1), last)):
        torch.testing.assert_close(other, whole, rtol=0, atol=1e-11)
        torch.testing.assert_close(final, end, rtol=0, atol=1e-11)
    real = dt[1] > 0
    alone, _ = block(u[1:, real], dt[1:, real])
    torch.testing.assert_close(whole[1:, real], alone, rtol=0, atol=1e-11)
    assert (whole[dt == 0] == 0).all()
    assert RWKVBlock(5, bidirectional=True)(u.float(), dt.float())[1] is None


@torch.no_grad()
def test_after_a_long_gap_only_the_present_counts():
    """The newest gap enters the newest output: what is stale has no weight, though the shift still sees it."""
    layer = drawn(RWKV(5))
    layer.mix_r[:], layer.mix_k[:], layer.mix_v[:] = 1, 1, 1  # no token shift
    u, dt = record(9)
    dt[:, 8] = 1e6
    y, _ = layer(u, dt)
    alone, _ = layer(u[:, 8:])
    torch.testing.assert_close(y[:, 8:], alone, rtol=0, atol=1e-12)
    fresh, _ = layer(u)
    assert (fresh[:, 8:] - alone).abs().max() > 1e-2


@torch.no_grad()
def test_leaving_a_sample_out_leaves_the_weights_of_the_others():
    """A value counts by the time since it came, whatever lies between: one of weight 0 is as good as none."""
    layer = drawn(RWKV(5))
    layer.mix_r[:], layer.mix_k[:], layer.mix_v[:] = 1, 1, 1
    layer.in_proj.weight[5:10] = 0
    layer.in_proj.weight[5:10, 0] = 1  # every key is the first input
    u, dt = record(12)
    u[:, 5, 0] = -1e4
    whole, _ = layer(u, dt)
    kept = [t for t in range(12) if t != 5]
    gaps = dt.clone()
    gaps[:, 6] += gaps[:, 5]
    rest, _ = layer(u[:, kept], gaps[:, kept])
    torch.testing.assert_close(whole[:, kept], rest, rtol=0, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_huge_keys_overflow_nowhere(scale):
    layer = drawn(RWKV(5)).float()
    layer.in_proj.weight[5:10] *= scale
    u, dt = (x.float() for x in record())
    y, (_, sums) = layer(u, dt)
    assert torch.isfinite(y).all()
    assert torch.isfinite(sums).all()


def test_starting_values_are_those_of_the_appendix():
    """Written out for channel i of d in layer l of L."""
    d = 7
    for index, count in [(0, 1), (0, 4), (2, 4), (3, 4)]:
        deep, left = index / max(count - 1, 1), 1 - index / count
        layer = RWKV(d, position=(index, count)).requires_grad_(False)
        other = ChannelMixing(d, position=(index, count)).requires_grad_(False)
        for i in range(d):
            rate = -5 + 8 * (i / (d - 1)) ** (0.7 + 1.3 * deep)
            assert math.isclose(layer.log_decay[i], rate, rel_tol=1e-5, abs_tol=1e-6)
            assert math.isclose(layer.bonus[i], math.log(0.3) + 0.5 * ((i + 1) % 3 - 1), rel_tol=1e-5)
            for mix in (layer.mix_k, other.mix_k, other.mix_r):
                assert math.isclose(mix[i], (i / d) ** left, rel_tol=1e-5)
            assert math.isclose(layer.mix_v[i], (i / d) ** left + 0.3 * deep, rel_tol=1e-5)
            assert math.isclose(layer.mix_r[i], (i / d) ** (0.5 * left), rel_tol=1e-5)
    assert (layer.in_proj.weight[: 2 * d] == 0).all()
    torch.testing.assert_close(layer.in_proj.weight[2 * d :] @ layer.in_proj.weight[2 * d :].T, torch.eye(d))
    assert (layer.out_proj.weight == 0).all()
    torch.testing.assert_close(other.in_proj.weight.T @ other.in_proj.weight, 4 * torch.eye(d))
    assert (other.gate.weight == 0).all()
    assert (other.out_proj.weight == 0).all()
    RWKV(1)


def test_a_block_at_its_start_is_the_identity_and_learns():
    torch.manual_seed(0)
    block = RWKVBlock(8)
    u = torch.randn(4, 30, 8)
    torch.testing.assert_close(block(u)[0], u, rtol=0, atol=0)
    # What stood three samples before: the token shifts of one block reach two back at most.
    target = torch.cat([torch.zeros(4, 3, 8), u[:, :-3]], dim=1)
    optimizer = torch.optim.Adam(block.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = (block(u)[0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad.abs().max() > 0 for p in block.parameters())


@pytest.mark.parametrize("kind", [RWKV, ChannelMixing, RWKVBlock])
@pytest.mark.parametrize("position", [(1, 1), (-1, 2), 0.5, (0,), (0, 2.5)])
def test_bad_positions(kind, position):
    with pytest.raises(ValueError, match=r"position must be \(index, number of layers\).* Got "):
        kind(4, position=position)


def test_bad_widths():
    with pytest.raises(ValueError, match="d_hidden must be a positive integer"):
        ChannelMixing(4, d_hidden=0)
    with pytest.raises(ValueError, match="d_model must be a positive integer"):
        RWKV(0)
