"""Attention: rotary embedding on a regular grid, time differences on any clock, a window, both directions."""

import math

import pytest
import torch

from statespace.kernels.dispatch import BackendError
from statespace.layers import Attention


def make(d_model=8, **options):
    torch.manual_seed(0)
    return Attention(d_model, **options).double()


def record(length, batch=2, d_model=8):
    generator = torch.Generator().manual_seed(length)
    u = torch.randn(batch, length, d_model, generator=generator, dtype=torch.float64)
    return u, torch.empty(batch, length, dtype=torch.float64).exponential_(generator=generator)


def rotation(t, P):
    """R(t) of a head of P channels, equation 15 of the paper: blocks of 2 x 2, and 1 for a channel alone."""
    R = torch.eye(P, dtype=torch.float64)
    for i in range(P // 2):
        angle = t * 10000 ** (-2 * i / P)
        c, s = math.cos(angle), math.sin(angle)
        R[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return R


def attention_by_loops(layer, u, times, sees):
    """The formulas of the paper, one pair of samples after the other; ``sees(k, j)`` says which pairs there are."""
    D, H = layer.d_model, layer.n_heads
    P = D // H
    W, out = layer.in_proj.weight, torch.zeros_like(u)
    for b in range(len(u)):
        q, k, v = ((u[b] @ W[part * D : (part + 1) * D].T).reshape(-1, H, P) for part in range(3))
        for m in range(u.shape[1]):
            heads = []
            for h in range(H):
                seen = [n for n in range(u.shape[1]) if sees(m, n)]
                scores = [
                    (rotation(times[b, m].item(), P) @ q[m, h]) @ (rotation(times[b, n].item(), P) @ k[n, h])
                    for n in seen
                ]
                weights = torch.softmax(torch.stack(scores) / math.sqrt(P), dim=0)
                heads.append(sum(w * v[n, h] for w, n in zip(weights, seen, strict=True)))
            out[b, m] = layer.out_proj.weight @ torch.cat(heads)
    return out


def sees(options):
    reach = options.get("window") or 10**9
    if options.get("bidirectional"):
        return lambda m, n: abs(m - n) <= reach
    return lambda m, n: 0 <= m - n <= reach


OPTIONS = [
    {},
    {"n_heads": 1},
    {"n_heads": 8},
    {"window": 3},
    {"bidirectional": True},
    {"bidirectional": True, "window": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.no_grad()
def test_positions_on_a_grid_and_times_elsewhere(options):
    layer = make(**options)
    u, dt = record(9)
    positions = torch.arange(9, dtype=torch.float64).expand(2, 9)
    torch.testing.assert_close(layer(u)[0], attention_by_loops(layer, u, positions, sees(options)))
    torch.testing.assert_close(layer(u, dt)[0], attention_by_loops(layer, u, dt.cumsum(1), sees(options)))


@torch.no_grad()
def test_a_channel_alone_has_no_phase():
    layer = make(d_model=6, n_heads=2)
    u, dt = record(7, d_model=6)
    torch.testing.assert_close(layer(u, dt)[0], attention_by_loops(layer, u, dt.cumsum(1), sees({})))


@pytest.mark.parametrize("options", [*OPTIONS, {"window": 9}, {"bidirectional": True, "window": 9}], ids=str)
def test_queries_in_chunks_and_blocks_are_queries_at_once(options, monkeypatch):
    layer = make(**options)
    u, dt = record(37)
    dt[0, 5:8], dt[1, 30:] = 0, 0
    weights = record(36)[0][:, :1]

    def results(*arguments):
        y, state = layer(*arguments)
        return [y, state, *torch.autograd.grad((y * weights).sum(), [*layer.parameters()])]

    state = None if layer.bidirectional else layer(*record(11))[1].detach()
    whole = [results(u, dt, before) for before in ([None] if state is None else [None, state])]
    for pairs, queries in ((300, 256), (10**6, 5), (300, 5)):
        monkeypatch.setattr("statespace.layers.attention._PAIRS", pairs)
        monkeypatch.setattr("statespace.layers.attention._QUERIES", queries)
        for before, expected in zip((None, state), whole, strict=False):
            torch.testing.assert_close(results(u, dt, before), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_both_directions_do_not_see_padding():
    layer = make(bidirectional=True)
    u, dt = record(12)
    u[1, 7:], dt[1, 7:] = 0, 0
    torch.testing.assert_close(layer(u, dt)[0][1:, :7], layer(u[1:, :7], dt[1:, :7])[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", [None, 5])
@torch.no_grad()
def test_only_time_differences_count(window):
    """What went before the first sample is a gap like any other: a constant added to all times."""
    layer = make(window=window)
    u, dt = record(20)
    later = dt.clone()
    later[:, 0] += 1e6
    torch.testing.assert_close(layer(u, later)[0], layer(u, dt)[0], rtol=0, atol=1e-8)


@torch.no_grad()
def test_single_precision_stays_exact_over_a_long_stream():
    """A float32 sum would lose small gaps behind a large one: at a million the next number is 1/16 away."""
    layer, single = make(window=8), make(window=8).float()
    u, _ = record(50)
    gaps = torch.full((2, 50), 5 * 2.0**-8)
    gaps[:, 4] = 1e6
    states = [None, None]
    for k in range(50):
        expected, states[0] = layer.step(u[:, k], states[0], gaps[:, k].double())
        y, states[1] = single.step(u[:, k].float(), states[1], gaps[:, k])
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)
    first = layer(u[:, :4])[1], single(u[:, :4].float())[1]
    whole = (one(u.to(s.dtype), gaps.to(s.dtype), s)[0] for one, s in zip((layer, single), first, strict=True))
    expected, y = whole
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_state_holds_no_more_than_it_needs():
    layer, windowed = make(), make(window=6)
    u, dt = record(15)
    dt[0, 9:], dt[1, 4:] = 0, 0
    _, state = layer(u, dt)
    assert state.shape == (2, 9, 19)
    assert bool((state[1, :5] == 0).all())
    _, state = layer.step(torch.zeros(2, 8).double(), state, torch.zeros(2).double())
    assert state.shape == (2, 9, 19)
    _, state = layer.step(torch.ones(2, 8).double(), state, torch.tensor([0.0, 1.0]).double())
    assert state.shape == (2, 9, 19)
    assert windowed(u, dt)[1].shape == windowed.initial_state(2).shape == (2, 6, 19)
    assert layer.initial_state(2).shape == (2, 0, 19)


@torch.no_grad()
def test_memory_of_a_long_record_does_not_grow_with_its_square():
    layer = Attention(4, n_heads=1, window=8)
    y, _ = layer(torch.randn(1, 200_000, 4), torch.rand(1, 200_000) + 0.5)
    assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_heads": 3}, ValueError, "n_heads must be a divisor of d_model = 8. Got 3"),
        ({"n_heads": 0}, ValueError, "n_heads must be a divisor"),
        ({"window": 0}, ValueError, "window must be a positive integer, or None"),
        ({"backend": "cpu"}, BackendError, "backend='cpu' cannot run attention"),
    ],
)
def test_unknown_options(options, error, message):
    with pytest.raises(error, match=message):
        Attention(8, **options)


@pytest.mark.parametrize(("d_model", "n_heads"), [(64, 4), (8, 4), (4, 2), (2, 1), (12, 2), (6, 1), (3, 1), (1, 1)])
def test_heads_that_fit(d_model, n_heads):
    layer = Attention(d_model)
    assert layer.n_heads == n_heads
    assert layer(torch.randn(2, 3, d_model))[0].shape == (2, 3, d_model)
    assert layer.step(torch.randn(1, d_model), None)[0].shape == (1, d_model)
