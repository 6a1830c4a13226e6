"""The layer contract, one list of checks for every layer in each of its options."""

import copy

import pytest
import torch

from statespace.layers import S4D

D = 3
CASES = {
    f"s4d-{init}-{rule}": lambda mode="auto", init=init, rule=rule: S4D(
        D, 8, init=init, discretization=rule, mode=mode, dt_min=0.02, dt_max=0.5
    )
    for init in ("lin", "inv", "legs", "real")
    for rule in ("zoh", "bilinear")
}
# Layers whose outputs at the old samples stay when each gap is halved and each input repeated.
HOLDS = [name for name in CASES if name.endswith("zoh")]
EXACT = dict(rtol=1e-9, atol=1e-9)


@pytest.fixture(params=CASES)
def make(request):
    def build(mode="auto"):
        torch.manual_seed(0)
        return CASES[request.param](mode).double()

    return build


def record(length, gaps="irregular", batch=2):
    generator = torch.Generator().manual_seed(length)
    u = torch.randn(batch, length, D, generator=generator, dtype=torch.float64)
    if gaps == "none":
        return u, None
    dt = torch.empty(batch, length, dtype=torch.float64).exponential_(generator=generator)
    return u, (torch.full_like(dt, 0.7) if gaps == "regular" else dt)


def random_state(layer, batch=2):
    return torch.randn(layer.initial_state(batch).shape, dtype=torch.float64)


def fold(layer, u, dt, state):
    outputs = []
    for k in range(u.shape[1]):
        y, state = layer.step(u[:, k], state, None if dt is None else dt[:, k])
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def assert_same(got, expected):
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, **EXACT)


@pytest.mark.parametrize("gaps", ["irregular", "regular", "none"])
@pytest.mark.parametrize("length", [1, 2, 37, 101])
def test_folding_step_equals_forward(make, gaps, length):
    layer = make()
    u, dt = record(length, gaps)
    for state in (None, random_state(layer)):
        start = layer.initial_state(2) if state is None else state
        assert_same(layer(u, dt, state), fold(layer, u, dt, start))


@pytest.mark.parametrize("gaps", ["irregular", "regular", "none"])
def test_cutting_anywhere_equals_one_shot(make, gaps):
    layer = make()
    u, dt = record(41, gaps)
    whole = layer(u, dt)
    for cut in (1, 7, 32, 40):
        head, state = layer(u[:, :cut], None if dt is None else dt[:, :cut])
        tail, state = layer(u[:, cut:], None if dt is None else dt[:, cut:], state)
        assert_same((torch.cat([head, tail], dim=1), state), whole)


@pytest.mark.parametrize("gaps", ["irregular", "regular"])
@pytest.mark.parametrize("mode", ["auto", "scan"])
def test_padding_changes_nothing(make, gaps, mode):
    layer = make(mode)
    u, dt = record(40, gaps)
    lengths = (40, 23)
    padded_u, padded_dt = torch.zeros(2, 47, D, dtype=u.dtype), torch.zeros(2, 47, dtype=u.dtype)
    for i, n in enumerate(lengths):
        padded_u[i, :n], padded_dt[i, :n] = u[i, :n], dt[i, :n]
    state = random_state(layer)
    y, final = layer(padded_u, padded_dt, state)
    for i, n in enumerate(lengths):
        one = slice(i, i + 1)
        assert_same((y[one, :n], final[one]), layer(u[one, :n], dt[one, :n], state[one]))


@pytest.mark.parametrize("name", HOLDS)
@pytest.mark.parametrize("gaps", ["irregular", "regular"])
def test_halving_gaps_and_repeating_inputs_keeps_the_old_outputs(name, gaps):
    layer = CASES[name]().double()
    u, dt = record(29, gaps)
    y, state = layer(u, dt)
    fine, fine_state = layer(u.repeat_interleave(2, dim=1), (dt / 2).repeat_interleave(2, dim=1))
    assert_same((fine[:, 1::2], fine_state), (y, state))


def test_unit_gaps_are_the_regular_grid(make):
    layer = make()
    u, _ = record(53)
    assert_same(layer(u, torch.ones(2, 53, dtype=u.dtype)), layer(u))


@pytest.mark.parametrize("gaps", ["regular", "none"])
@pytest.mark.parametrize("length", [1, 2, 61, 256, 1009])
def test_convolution_equals_scan(make, gaps, length):
    u, dt = record(length, gaps)
    convolution, scan = make("convolution"), make("scan")
    for state in (None, random_state(scan)):
        assert_same(convolution(u, dt, state), scan(u, dt, state))


@pytest.mark.parametrize("gaps", ["irregular", "regular"])
def test_gradients(make, gaps):
    layer = make()
    u, dt = record(5, gaps)
    inputs = [u, random_state(layer), *layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def call(u, state, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (u, dt, state))

    assert torch.autograd.gradcheck(call, [x.detach().requires_grad_() for x in inputs], atol=1e-6, rtol=1e-4)


def test_gradients_of_step_and_gap(make):
    layer = make()
    u, dt = record(1)
    state = random_state(layer)
    inputs = [x.detach().requires_grad_() for x in (u[:, 0], state, dt[:, 0])]
    assert torch.autograd.gradcheck(layer.step, inputs)
    u, dt = record(4)
    assert torch.autograd.gradcheck(lambda dt: layer(u, dt), dt.requires_grad_())


def test_gradients_of_both_modes_agree(make):
    u, dt = record(67, "regular")
    results = []
    for mode in ("convolution", "scan"):
        layer = make(mode)
        torch.manual_seed(1)
        state, weights = random_state(layer).requires_grad_(), torch.randn(2, 67, D, dtype=u.dtype)
        y, final = layer(u, dt, state)
        ((y * weights).sum() + final.square().sum()).backward()
        results.append([state.grad, *(p.grad for p in layer.parameters())])
    assert_same(*results)


def test_convolution_on_irregular_gaps_names_the_first_unequal_gap(make):
    layer = make("convolution")
    u, dt = record(9, "regular")
    dt[1, 4] = 1.25
    message = r"mode='convolution' needs one gap throughout: dt\[1, 4\] = 1.25 differs from dt\[0, 0\] = 0.7\."
    with pytest.raises(ValueError, match=message):
        layer(u, dt)


def test_life_as_a_module(make):
    layer = make()
    u, dt = record(11)
    expected = layer(u, dt)
    assert_same(copy.deepcopy(layer)(u, dt), expected)
    other = make()
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        assert_same(other(u, dt), expected)
    single = layer.float()
    for gaps in (dt.float(), None):
        y, state = single(u.float(), gaps)
        assert y.dtype == state.dtype == torch.float32
    torch.testing.assert_close(single(u.float(), dt.float())[0].double(), expected[0], rtol=0, atol=1e-4)
    y, _ = single(u.bfloat16(), dt.bfloat16())
    assert y.dtype == torch.bfloat16


def test_slow_parameters_are_marked(make):
    layer = copy.deepcopy(make())
    marked = {name for name, p in layer.named_parameters() if getattr(p, "_optim", {}).get("group") == "ssm"}
    assert marked
    assert not marked & {"C", "D"}


@pytest.mark.parametrize(
    ("u", "dt", "state", "message"),
    [
        ((2, 5, D + 1), None, None, "d_model = 3"),
        ((2, 0, D), None, None, "no empty axis"),
        ((2, 5, D), (2, 4), None, r"dt must have shape \(2, 5\)"),
        ((2, 5, D), None, (1, 2), "state must have shape"),
    ],
)
def test_bad_shapes(make, u, dt, state, message):
    u, dt, state = (None if shape is None else torch.ones(shape, dtype=torch.float64) for shape in (u, dt, state))
    with pytest.raises(ValueError, match=message):
        make()(u, dt, state)


@pytest.mark.parametrize("value", [-0.5, float("nan")])
def test_bad_gaps_are_named(make, value):
    u, dt = record(5)
    dt[1, 3] = value
    with pytest.raises(ValueError, match=r"dt must not be negative or NaN: dt\[1, 3\] = "):
        make()(u, dt)
