"""The residual stack: both faces agree, a record can be cut and padded, and pooling sees real steps only."""

from inspect import signature

import numpy as np
import pytest
import torch

from statespace.layers import LAYERS, RWKVBlock
from statespace.models import ResidualStack, predict_series, predict_steps
from statespace.training import SeriesBatches


def make_stack(pooling=None, layer="s4d", **options):
    torch.manual_seed(0)
    small = {"d_state": 4} if "d_state" in signature(LAYERS[layer]).parameters else {}
    model = ResidualStack(
        3, 2, d_model=8, n_layers=2, layer=layer, layer_options=small | options, dropout=0.3, pooling=pooling
    )
    return model.double().eval()


def make_record(irregular, length=23):
    torch.manual_seed(1)
    x = torch.randn(2, length, 3, dtype=torch.float64)
    dt = torch.rand(2, length, dtype=torch.float64) + 0.2 if irregular else None
    return x, dt


def part(dt, *slices):
    return None if dt is None else dt[slices]


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_folding_step_equals_forward(irregular, layer):
    model = make_stack(layer=layer)
    x, dt = make_record(irregular)
    whole, end = model(x, dt)
    state, outputs = model.initial_state(2), []
    for k in range(x.shape[1]):
        y, state = model.step(x[:, k], state, part(dt, slice(None), k))
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, dim=1), whole, rtol=1e-10, atol=1e-11)
    for a, b in zip(state, end, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_a_frozen_stack_steps_the_same(irregular, layer):
    model, frozen = make_stack(layer=layer), make_stack(layer=layer).freeze()
    x, dt = make_record(irregular)
    state, other = model.initial_state(2), frozen.initial_state(2)
    for k in range(3):
        y, state = model.step(x[:, k], state, part(dt, slice(None), k))
        same, other = frozen.step(x[:, k], other, part(dt, slice(None), k))
        torch.testing.assert_close(same, y, rtol=0, atol=0)


def test_a_pattern_of_both_halves_is_a_stack_of_rwkv_blocks():
    options = {"rwkv": {"gated_unit": False, "zero_init": False}, "channel_mixing": {"zero_init": False}}
    model = ResidualStack(3, 2, 8, 4, ["rwkv", "channel_mixing"], options).double()
    x, dt = make_record(True)
    h = model.encoder(x)
    for time, channels in zip(model.blocks[::2], model.blocks[1::2], strict=True):
        block = RWKVBlock(8).double()
        block.time_mixing.load_state_dict(time.mixer.state_dict())
        block.channel_mixing.load_state_dict(channels.mixer.state_dict())
        h, _ = block(h, dt)
    torch.testing.assert_close(model(x, dt)[0], model.head(model.norm(h)))


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("cut", [1, 7, 22])
def test_a_record_can_be_cut(irregular, cut):
    model = make_stack()
    x, dt = make_record(irregular)
    whole, _ = model(x, dt)
    first, state = model(x[:, :cut], part(dt, slice(None), slice(cut)))
    second, _ = model(x[:, cut:], part(dt, slice(None), slice(cut, None)), state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", [None, "mean", "last"])
def test_padding_changes_nothing(pooling, bidirectional):
    model = make_stack(pooling, bidirectional=bidirectional)
    x, dt = make_record(True, length=11)
    alone, _ = model(x, dt, lengths=torch.tensor([11, 11]))
    padded = torch.cat([x, torch.zeros(2, 6, 3, dtype=x.dtype)], dim=1)
    longer = torch.cat([dt, torch.zeros(2, 6, dtype=x.dtype)], dim=1)
    together, _ = model(padded, longer, lengths=torch.tensor([11, 11]))
    torch.testing.assert_close(together[:, :11] if pooling is None else together, alone, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_pooling_never_reads_a_padded_step(pooling):
    model = make_stack(pooling)
    h = torch.randn(2, 5, 8, dtype=torch.float64)
    expected = torch.stack([h[0].mean(0), h[1, :3].mean(0)]) if pooling == "mean" else torch.stack([h[0, 4], h[1, 2]])
    h[1, 3:] = torch.nan
    torch.testing.assert_close(model.pool(h, torch.tensor([5, 3])), expected)
    torch.testing.assert_close(model.pool(h[:1]), expected[:1])


def test_gradients_reach_every_parameter():
    model = make_stack().train()
    y, _ = model(*make_record(True))
    y.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_pattern_of_layers_repeats(monkeypatch):
    class Wide(LAYERS["s4d"]):
        pass

    monkeypatch.setitem(LAYERS, "wide", Wide)
    options = {"s4d": {"d_state": 4}, "wide": {"d_state": 2}}
    model = ResidualStack(1, 1, d_model=4, n_layers=3, layer=["s4d", "wide"], layer_options=options)
    assert [type(block.mixer).__name__ for block in model.blocks] == ["S4D", "Wide", "S4D"]
    assert [block.mixer.d_state for block in model.blocks] == [4, 2, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "s5d"}, "layer must be one of '"),
        ({"layer": []}, "at least one name"),
        ({"pooling": "sum"}, "pooling must be None, 'mean' or 'last'. Got 'sum'"),
    ],
)
def test_unknown_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResidualStack(1, 1, d_model=4, **arguments)


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("pooling", [None, "mean", "last"])
def test_chunks_equal_one_shot(pooling, irregular):
    model = make_stack(pooling)
    rng = np.random.default_rng(0)
    lengths = [1, 40, 3, 17, 40, 2]
    inputs = [rng.normal(size=(n, 3)) for n in lengths]
    gaps = [rng.uniform(0.5, 2, size=n) for n in lengths] if irregular else None
    data = SeriesBatches(inputs, gaps, dtype=torch.float64)
    predict = predict_steps if pooling is None else predict_series
    for chunked, whole in zip(predict(model, data, max_steps=7), predict(model, data, max_steps=10**6), strict=True):
        np.testing.assert_allclose(chunked, whole, rtol=1e-10, atol=1e-11)


def test_a_bidirectional_model_is_not_cut():
    model = make_stack(bidirectional=True)
    assert not model.causal
    data = SeriesBatches([np.random.default_rng(0).normal(size=(30, 3))], dtype=torch.float64)
    np.testing.assert_array_equal(predict_steps(model, data, max_steps=7)[0], predict_steps(model, data)[0])
