"""SaShiMi: both faces agree, records can be cut anywhere and padded, whatever their phases in the pooling windows."""

from inspect import signature

import numpy as np
import pytest
import torch
from torch import nn

from statespace import SSMRegressor, load
from statespace.layers import LAYERS
from statespace.models import ResidualStack, SaShiMi, predict_series, predict_steps
from statespace.training import SeriesBatches

EXACT = dict(rtol=1e-9, atol=1e-10)
FACTORS = [(), (2,), (4, 3), (2, 2, 2)]


def make_model(pooling=None, layer="s4d", factors=(4, 3), d_model=4, n_layers=1, unet=False, **options):
    torch.manual_seed(0)
    small = {"d_state": 4} if "d_state" in signature(LAYERS[layer]).parameters else {}
    own = {**small, **options}
    model = SaShiMi(2, 3, d_model, n_layers, layer, own, 0.3, pooling, factors, unet=unet)
    return model.double().eval()


def make_record(irregular, length=41, batch=2):
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(batch, length, 2, generator=generator, dtype=torch.float64)
    dt = torch.rand(batch, length, generator=generator, dtype=torch.float64) + 0.2
    return x, dt if irregular else None


def part(dt, *slices):
    return None if dt is None else dt[slices]


def tensors(state):
    return [state] if isinstance(state, torch.Tensor) else [x for each in state for x in tensors(each)]


def assert_same(got, expected):
    for a, b in zip(tensors(got), tensors(expected), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def fold(model, x, dt, state):
    outputs = []
    for k in range(x.shape[1]):
        y, state = model.step(x[:, k], state, part(dt, slice(None), k))
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("unet", [False, True])
@pytest.mark.parametrize("factors", FACTORS)
@torch.no_grad()
def test_folding_step_equals_forward(irregular, factors, unet):
    model = make_model(factors=factors, unet=unet)
    assert len(list(model._blocks)) == (2 * len(factors) + 1 if unet else len(factors) + 1)
    for length in (1, 3, 41):
        x, dt = make_record(irregular, length)
        assert_same(fold(model, x, dt, model.initial_state(2)), model(x, dt))


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("layer", sorted(LAYERS))
@torch.no_grad()
def test_any_layer(irregular, layer):
    model, frozen = make_model(layer=layer), make_model(layer=layer).freeze()
    x, dt = make_record(irregular, 17)
    whole = model(x, dt)
    assert_same(fold(model, x, dt, model.initial_state(2)), whole)
    assert_same(fold(frozen, x, dt, frozen.initial_state(2)), whole)


@pytest.mark.parametrize("unet", [False, True])
@pytest.mark.parametrize("irregular", [False, True])
@torch.no_grad()
def test_a_record_can_be_cut_anywhere(irregular, unet):
    model = make_model(factors=(2, 3), unet=unet)
    x, dt = make_record(irregular, 20)
    whole = model(x, dt)
    for cut in range(1, 20):
        first, state = model(x[:, :cut], part(dt, slice(None), slice(cut)))
        second, state = model(x[:, cut:], part(dt, slice(None), slice(cut, None)), state)
        assert_same((torch.cat([first, second], dim=1), state), whole)


@torch.no_grad()
def test_regular_gaps_are_a_grid_on_every_scale():
    model = make_model()
    x, _ = make_record(False)
    ones = torch.ones_like(x[..., 0])
    assert_same(model(x, ones), model(x))
    # Half a record without gaps, half with: the window between them holds both.
    first, state = model(x[:, :18])
    second, state = model(x[:, 18:], ones[:, 18:], state)
    assert_same((torch.cat([first, second], dim=1), state), model(x))
    third, state = model(x[:, :18], ones[:, :18] * 0.5)
    fourth, _ = model(x[:, 18:], None, state)
    mixed = torch.cat([ones[:, :18] * 0.5, ones[:, 18:]], dim=1)
    assert_same(torch.cat([third, fourth], dim=1), model(x, mixed)[0])


@torch.no_grad()
def test_a_coarse_gap_is_the_time_that_passed_in_its_window():
    model = make_model(factors=(4,))
    x, dt = make_record(True, 10)
    seen = []
    model.scales[1].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1]))
    model(x, dt)
    torch.testing.assert_close(seen[0], torch.stack([dt[:, :4].sum(1), dt[:, 4:8].sum(1)], dim=1) / 4)


@pytest.mark.parametrize("layer", sorted(LAYERS))
@torch.no_grad()
def test_records_of_different_phases_share_a_batch(layer):
    # Attention's state has the same shape for a record alone and among longer ones where it keeps a window.
    options = {"window": 8} if layer == "attention" else {}
    model = make_model(factors=(2, 2), layer=layer, **options)
    x, dt = make_record(True, 30)
    lengths = (7, 2)
    # Two heads of different lengths together, then tails of different lengths, then steps of one record alone.
    heads, gaps = torch.zeros(2, 9, 2, dtype=x.dtype), torch.zeros(2, 9, dtype=x.dtype)
    for i, n in enumerate(lengths):
        heads[i, :n], gaps[i, :n] = x[i, :n], dt[i, :n]
    y0, state = model(heads, gaps)
    tails, more = torch.zeros(2, 12, 2, dtype=x.dtype), torch.zeros(2, 12, dtype=x.dtype)
    tails[0, :4], more[0, :4] = x[0, 7:11], dt[0, 7:11]
    tails[1, :12], more[1, :12] = x[1, 2:14], dt[1, 2:14]
    y1, state = model(tails, more, state)
    y2, state = fold(model, x[:, 14:20], dt[:, 14:20] * torch.tensor([[0.0], [1.0]], dtype=dt.dtype), state)
    alone, end = model(x[1:, :20], dt[1:, :20])
    torch.testing.assert_close(torch.cat([y0[1:, :2], y1[1:], y2[1:]], dim=1), alone, **EXACT)
    assert_same([s[1:] for s in tensors(state)], end)
    other, end = model(x[:1, :11], dt[:1, :11])
    torch.testing.assert_close(torch.cat([y0[:1, :7], y1[:1, :4]], dim=1), other, **EXACT)
    assert_same([s[:1] for s in tensors(state)], end)


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", [None, "mean", "last"])
@torch.no_grad()
def test_padding_changes_nothing(pooling, bidirectional, irregular):
    model = make_model(pooling, bidirectional=bidirectional, unet=bidirectional)
    x, dt = make_record(True, length=29)
    dt = dt if irregular else torch.ones_like(dt)
    lengths = torch.tensor([29, 17])
    padded, gaps = torch.zeros(2, 35, 2, dtype=x.dtype), torch.zeros(2, 35, dtype=x.dtype)
    for i, n in enumerate(lengths):
        padded[i, :n], gaps[i, :n] = x[i, :n], dt[i, :n]
    together, _ = model(padded, gaps, lengths=lengths)
    for i, n in enumerate(lengths.tolist()):
        alone, _ = model(x[i : i + 1, :n], dt[i : i + 1, :n] if irregular else None, lengths=lengths[i : i + 1])
        torch.testing.assert_close(together[i : i + 1, :n] if pooling is None else together[i : i + 1], alone, **EXACT)


@torch.no_grad()
def test_an_output_depends_on_the_past_only():
    model, both = make_model(), make_model(bidirectional=True)
    x, dt = make_record(True)
    changed = x.clone()
    changed[:, 20:] += 1.0
    assert model.causal
    assert not both.causal
    torch.testing.assert_close(model(changed, dt)[0][:, :20], model(x, dt)[0][:, :20], rtol=0, atol=0)
    # Every earlier step has its influence, through the fast scale and through windows that were full.
    changed = x.clone()
    changed[:, 0] += 1.0
    assert (model(changed, dt)[0] != model(x, dt)[0]).all()
    changed = x.clone()
    changed[:, -1] += 1.0
    assert (both(changed, dt)[0] != both(x, dt)[0]).all()


@torch.no_grad()
def test_without_pooling_it_is_a_stack():
    sashimi = SaShiMi(2, 3, 8, 2, "s4d", {"d_state": 4}, factors=(), feed_forward=0).double().eval()
    stack = ResidualStack(2, 3, 8, 2, layer_options={"d_state": 4}).double().eval()
    weights = {name.replace("scales.0.", ""): value for name, value in sashimi.state_dict().items()}
    stack.load_state_dict(weights)
    x, dt = make_record(True)
    h, state = stack.encoder(x), None
    for block in stack.blocks:
        h, state = block(h, dt)
    expected = stack.head(stack.norm(h + stack.encoder(x)))  # the skip around the slowest scale
    torch.testing.assert_close(sashimi(x, dt)[0], expected, **EXACT)


def test_gradients():
    model = make_model(factors=(2,), d_model=2, d_state=2)
    x, dt = make_record(True, 4, batch=1)
    head, gaps = make_record(True, 3, batch=1)
    state = model(head, gaps)[1]
    loose = [s.detach().requires_grad_() for s in tensors(state) if s.is_floating_point()]

    def rebuilt(state, parts):
        if isinstance(state, torch.Tensor):
            return next(parts) if state.is_floating_point() else state
        return tuple(rebuilt(each, parts) for each in state)

    def function(x, dt, *parts):
        y, after = model(x, dt, rebuilt(state, iter(parts)))
        return y, *[s for s in tensors(after) if s.is_floating_point()]

    assert torch.autograd.gradcheck(function, (x.requires_grad_(), dt.requires_grad_(), *loose))


@pytest.mark.parametrize("ragged", [False, True])
def test_gradients_reach_every_parameter(ragged):
    model = make_model().train()
    x, dt = make_record(True)
    if ragged:
        dt = dt.clone()
        dt[1, 30:] = 0.0
    model(x, dt)[0].square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("pooling", [None, "mean", "last"])
def test_chunks_equal_one_shot(pooling, irregular):
    model = make_model(pooling)
    rng = np.random.default_rng(0)
    lengths = [1, 40, 3, 17, 40, 2]
    inputs = [rng.normal(size=(n, 2)) for n in lengths]
    gaps = [rng.uniform(0.5, 2, size=n) for n in lengths] if irregular else None
    data = SeriesBatches(inputs, gaps, dtype=torch.float64)
    predict = predict_steps if pooling is None else predict_series
    for chunked, whole in zip(predict(model, data, max_steps=7), predict(model, data, max_steps=10**6), strict=True):
        np.testing.assert_allclose(chunked, whole, rtol=1e-9, atol=1e-10)


def test_rates_and_config():
    model = make_model()
    names = [name for name, p in model.named_parameters() if hasattr(p, "_optim")]
    assert len({name.split(".")[1] for name in names}) == 3  # on every scale
    again = SaShiMi(**model.config)
    again.load_state_dict(model.state_dict())
    assert [scale.maps[0].norm.normalized_shape for scale in model.scales] == [(4,), (8,), (16,)]
    assert isinstance(SaShiMi(1, 1, 4, 1, feed_forward=0).scales[0].maps[0], nn.Identity)


def test_float32_stays_close():
    model = make_model()
    x, dt = make_record(True, 500)
    expected = model(x, dt)[0]
    torch.testing.assert_close(model.float()(x.float(), dt.float())[0], expected.float(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factors": (1,)}, r"factors must be integers of at least 2. Got \[1\]"),
        ({"expand": 0}, "expand must be >= 1"),
        ({"layer": "s4x"}, "layer must be one of"),
        ({"pooling": "sum"}, "pooling must be None, 'mean' or 'last'"),
        (
            {"layer": ["s4d", "s5"], "layer_options": {"s4d": {"bidirectional": True}}},
            "either all layers are bidirectional or none",
        ),
    ],
)
def test_wrong_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        SaShiMi(1, 1, 4, 2, **arguments)


def test_in_an_estimator(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 40))
    times = np.cumsum(rng.uniform(0.5, 2.0, size=X.shape), axis=1)
    model = SSMRegressor(
        layer="s4d",
        layer_options={"d_state": 4},
        d_model=4,
        n_layers=1,
        backbone="sashimi",
        max_epochs=1,
        random_state=0,
    )
    answers = model.fit(X, np.cumsum(X, axis=1), times=times).predict(X, times=times)
    stream = model.stream()
    steps = [stream.step(x, gap) for x, gap in zip(X[0], np.diff(times[0], prepend=0.0), strict=True)]
    np.testing.assert_allclose(steps, answers[0], rtol=1e-10, atol=1e-12)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X, times=times), answers)
