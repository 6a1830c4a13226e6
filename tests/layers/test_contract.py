"""The layer contract, one list of checks for every layer in each of its options."""

import copy
import pickle
from functools import partial
from operator import attrgetter

import pytest
import torch

from statespace.layers import (
    DSS,
    H3,
    RWKV,
    S4,
    S4D,
    S5,
    TIDES,
    Attention,
    ChannelMixing,
    DeltaNet,
    LinearMixer,
    Mamba,
    Mamba2,
    Mamba3,
)

D = 4
STEPS = dict(dt_min=0.02, dt_max=0.5)
# Layer and options of each case. What stands here keeps the whole contract; each layer's own tests have its formulas.
CASES = {
    "dss-exp": (DSS, STEPS),
    "dss-softmax": (DSS, dict(kernel="softmax", horizon=30, **STEPS)),
    "h3": (H3, STEPS),
    "h3-heads": (H3, dict(head_dim=2, d_shift=3, discretization="bilinear", **STEPS)),
    "s4-fourier": (S4, dict(measure="fourier", **STEPS)),
    "s4-lagt": (S4, dict(measure="lagt", **STEPS)),
    "s4-legs": (S4, STEPS),
    "s4-legt": (S4, dict(measure="legt", **STEPS)),
    "s4d-lin": (S4D, STEPS),
    "s4d-inv-bilinear": (S4D, dict(init="inv", discretization="bilinear", **STEPS)),
    "s4d-legs": (S4D, dict(init="legs", **STEPS)),
    "s4d-random": (S4D, dict(init="random", discretization="bilinear", **STEPS)),
    "s4d-real": (S4D, dict(init="real", **STEPS)),
    "s5": (S5, STEPS),
    "s5-blocks-bilinear": (S5, dict(n_blocks=2, discretization="bilinear", **STEPS)),
    "s5-fourier": (S5, dict(init="fourier", n_blocks=2, **STEPS)),
}
# Layers whose system depends on their input, with all their options, for d_model 4 and, where gradients are checked, 2.
SELECTIVE: dict[str, tuple] = {
    "deltanet": (DeltaNet, {}),
    "deltanet-gated": (DeltaNet, dict(gated=True, d_conv=3, n_heads=1)),
    "deltanet-no-conv": (DeltaNet, dict(d_conv=None)),
    "deltanet-gated-no-conv": (DeltaNet, dict(gated=True, d_conv=None)),
    "mamba": (Mamba, dict(d_state=4, **STEPS)),
    "mamba-narrow": (
        Mamba,
        dict(d_state=3, d_conv=1, expand=1.5, dt_rank=2, conv_bias=False, bias=True, **STEPS),
    ),
    "mamba2": (Mamba2, dict(d_state=3, **STEPS)),
    "mamba2-groups": (Mamba2, dict(d_state=2, d_conv=2, head_dim=1, n_groups=2, **STEPS)),
    "mamba3": (Mamba3, dict(d_state=4, expand=1, chunk_size=16)),
    "mamba3-mimo": (Mamba3, dict(d_state=6, expand=2, head_dim=2, mimo_rank=2, rope_fraction=1, chunk_size=5)),
    "attention": (Attention, {}),
    "attention-window": (Attention, dict(n_heads=1, window=4)),
    "rwkv": (RWKV, dict(zero_init=False)),
    "rwkv-deep": (RWKV, dict(zero_init=False, position=(1, 3))),
    "rwkv-channels": (ChannelMixing, dict(zero_init=False, d_hidden=3)),
    "tides": (TIDES, dict(d_state=4, rank=3, init_scale=0.5, **STEPS)),
    "tides-factors": (TIDES, dict(d_state=4, n_blocks=2, rank=0, rate="softplus", init_scale=0.5, **STEPS)),
    "tides-bilinear": (TIDES, dict(d_state=4, rank=2, normalize=False, discretization="bilinear", init_scale=0.5)),
}
# Layers whose outputs at the old samples stay when each gap is halved and each input repeated: the zero-order hold.
HOLDS = ["dss-exp", "dss-softmax", "s4d-lin", "s4d-legs", "s4d-real", "s5", "s5-fourier"]
HOLDS += ["deltanet-no-conv", "deltanet-gated-no-conv", "tides", "tides-factors"]
# Weights that a bidirectional layer has once and adds once, with the forward direction: skips and biases of the output.
ADDED_ONCE = {"D", "output.bias"}
EXACT = dict(rtol=1e-9, atol=1e-9)


def build(name, mode="auto", d_model=D, d_state=8, **more):
    torch.manual_seed(0)
    if name in SELECTIVE:
        layer, options = SELECTIVE[name]
        return layer(d_model, **options, **more).double()
    layer, options = CASES[name]
    return layer(d_model, **{"d_state": d_state, **options}, mode=mode, **more).double()


@pytest.fixture(params=[*CASES, *SELECTIVE])
def make(request):
    return partial(build, request.param)


@pytest.fixture(params=CASES)
def make_linear(request):
    return partial(build, request.param)


MODES = [*((name, mode) for name in CASES for mode in ("auto", "scan")), *((name, "auto") for name in SELECTIVE)]


@pytest.fixture(params=MODES, ids="-".join)
def make_in_mode(request):
    """Layers in each of the modes that they have."""
    return partial(build, *request.param)


def record(length, gaps="irregular", batch=2, d_model=D):
    generator = torch.Generator().manual_seed(length)
    u = torch.randn(batch, length, d_model, generator=generator, dtype=torch.float64)
    if gaps == "none":
        return u, None
    dt = torch.empty(batch, length, dtype=torch.float64).exponential_(generator=generator)
    return u, (torch.full_like(dt, 0.7) if gaps == "regular" else dt)


def each(function, state):
    """``function`` of every tensor of a state, which is a tensor or a tuple of states."""
    return function(state) if isinstance(state, torch.Tensor) else tuple(each(function, part) for part in state)


def tensors(state):
    return [state] if isinstance(state, torch.Tensor) else [x for part in state for x in tensors(part)]


def of_record(layer, state, i):
    """The state of record i alone; one that grows with its record without what longer ones of the batch need."""
    own = each(lambda s: s[i : i + 1], state)
    if None not in layer._state_shapes(1):
        return own
    return own[:, int((own[0] != 0).any(dim=-1).int().argmax()) :]


def random_state(layer, batch=2):
    """Any state of a linear system; of another layer one that a record leads to."""
    generator = torch.Generator().manual_seed(0)
    if not isinstance(layer, LinearMixer):
        u = torch.randn(batch, 5, layer.d_model, generator=generator, dtype=torch.float64)
        return each(torch.Tensor.detach, layer(u.to(next(layer.parameters())))[1])
    return each(lambda s: torch.randn(s.shape, generator=generator, dtype=s.dtype), layer.initial_state(batch))


def fold(layer, u, dt, state):
    outputs = []
    for k in range(u.shape[1]):
        y, state = layer.step(u[:, k], state, None if dt is None else dt[:, k])
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def assert_same(got, expected):
    for x, y in zip(tensors(got), tensors(expected), strict=True):
        torch.testing.assert_close(x, y, **EXACT)


@pytest.mark.parametrize("gaps", ["irregular", "regular", "none"])
@pytest.mark.parametrize("length", [1, 2, 101])
@torch.no_grad()
def test_folding_step_equals_forward(make, gaps, length):
    layer = make()
    u, dt = record(length, gaps)
    for state in (None, random_state(layer)):
        whole = layer(u, dt, state)
        assert_same(whole, fold(layer, u, dt, state))
        assert_same(whole, fold(layer, u, dt, layer.initial_state(2) if state is None else state))


@pytest.mark.parametrize("gaps", ["irregular", "regular", "none"])
@torch.no_grad()
def test_cutting_anywhere_equals_one_shot(make, gaps):
    layer = make()
    u, dt = record(67, gaps)
    whole = layer(u, dt)
    for cut in range(1, 67):
        head, state = layer(u[:, :cut], None if dt is None else dt[:, :cut])
        tail, state = layer(u[:, cut:], None if dt is None else dt[:, cut:], state)
        assert_same((torch.cat([head, tail], dim=1), state), whole)


@pytest.mark.parametrize("gaps", ["irregular", "regular"])
@torch.no_grad()
def test_padding_changes_nothing(make_in_mode, gaps):
    layer = make_in_mode()
    u, dt = record(40, gaps)
    lengths = (40, 23)
    padded_u, padded_dt = torch.zeros(2, 47, D, dtype=u.dtype), torch.zeros(2, 47, dtype=u.dtype)
    for i, n in enumerate(lengths):
        padded_u[i, :n], padded_dt[i, :n] = u[i, :n], dt[i, :n]
    state = random_state(layer)
    y, final = layer(padded_u, padded_dt, state)
    for i, n in enumerate(lengths):
        before, after = of_record(layer, state, i), of_record(layer, final, i)
        assert_same((y[i : i + 1, :n], after), layer(u[i : i + 1, :n], dt[i : i + 1, :n], before))
    # In steps, too.
    _, after = layer.step(torch.zeros_like(u[:, 0]), state, torch.zeros_like(dt[:, 0]))
    assert_same(after, state)


@pytest.mark.parametrize("gaps", ["irregular", "regular"])
@torch.no_grad()
def test_a_padded_step_may_stand_anywhere(make, gaps):
    layer = make()
    u, dt = record(30, gaps)
    state = random_state(layer)
    nothing = torch.zeros(2, 3, D, dtype=u.dtype)
    inserted = torch.cat([nothing, u[:, :11], nothing, u[:, 11:]], dim=1)
    gaps = torch.cat([nothing[..., 0], dt[:, :11], nothing[..., 0], dt[:, 11:]], dim=1)
    y, final = layer(inserted, gaps, state)
    assert_same((torch.cat([y[:, 3:14], y[:, 17:]], dim=1), final), layer(u, dt, state))


@torch.no_grad()
def test_a_record_of_padding_alone_keeps_its_state(make_in_mode):
    """Of records read in pieces, the short ones end early."""
    layer = make_in_mode()
    u, dt = record(9, "regular")
    u[1], dt[1] = 0, 0
    state = random_state(layer)
    _, final = layer(u, dt, state)
    assert_same(of_record(layer, final, 1), of_record(layer, state, 1))


@pytest.mark.parametrize("name", HOLDS)
@pytest.mark.parametrize("gaps", ["irregular", "regular"])
@torch.no_grad()
def test_halving_gaps_and_repeating_inputs_keeps_the_old_outputs(name, gaps):
    layer = build(name)
    u, dt = record(29, gaps)
    y, state = layer(u, dt)
    fine, fine_state = layer(u.repeat_interleave(2, dim=1), (dt / 2).repeat_interleave(2, dim=1))
    assert_same((fine[:, 1::2], fine_state), (y, state))


@torch.no_grad()
def test_unit_gaps_are_the_regular_grid(make):
    layer = make()
    u, _ = record(53)
    assert_same(layer(u, torch.ones(2, 53, dtype=u.dtype)), layer(u))


@pytest.mark.parametrize("gaps", ["regular", "none"])
@torch.no_grad()
def test_convolution_equals_scan(make_linear, gaps):
    convolution, scan = make_linear("convolution"), make_linear("scan")
    for length in (1, 2, 61, 256, 509):
        u, dt = record(length, gaps)
        for state in (None, random_state(scan)):
            assert_same(convolution(u, dt, state), scan(u, dt, state))


@torch.no_grad()
@pytest.mark.parametrize("gap", [1e-6, 1e3, 1e6])
def test_bursts_and_long_gaps_stay_exact(make, gap):
    """Gaps of every size in one record; after a long one a decaying state is as if it had never been."""
    layer = make()
    u, dt = record(24)
    dt[:, 7], dt[:, 15:19] = gap, gap
    whole = layer(u, dt)
    assert_same(whole, fold(layer, u, dt, None))
    assert all(torch.isfinite(x).all() for x in tensors(whole))


@torch.no_grad()
def test_steps_of_gap_zero_are_alike_on_both_faces(make_linear):
    """Whatever comes with them: they move no state, and read out the one that is there."""
    layer = make_linear()
    u, dt = record(24)
    dt[:, 9], dt[0, 0] = 0, 0
    assert_same(layer(u, dt), fold(layer, u, dt, None))


@torch.no_grad()
def test_nothing_hides_a_nan(make_in_mode):
    """A loss that is NaN stops a training: no loop may take one for a state that has died away."""
    layer = make_in_mode()
    u, dt = record(70)
    for name in layer.slow_parameters.keys() & dict(layer.named_parameters()).keys():
        broken = copy.deepcopy(layer)
        weight = attrgetter(name)(broken)
        weight[(0,) * weight.ndim] = torch.nan
        assert broken(u, dt)[0][0, -1].isnan().any(), name
    u[0, 5] = torch.nan
    y, _ = layer(u, dt)
    assert y[0, 5].isnan().any()
    assert y[0, -1].isnan().any() or isinstance(layer, ChannelMixing)
    assert y[1].isfinite().all()


@pytest.mark.parametrize("gaps", ["irregular", "regular"])
def test_gradients(make, gaps):
    layer = make(d_model=2, d_state=4)
    u, dt = record(5, gaps, d_model=2)
    state = random_state(layer)
    names = [name for name, _ in layer.named_parameters()]
    n = len(tensors(state))

    def call(u, *rest):
        parts = iter(rest[:n])
        weights = dict(zip(names, rest[n:], strict=True))
        return tuple(tensors(torch.func.functional_call(layer, weights, (u, dt, each(lambda s: next(parts), state)))))

    inputs = [u, *tensors(state), *layer.parameters()]
    assert torch.autograd.gradcheck(call, [x.detach().requires_grad_() for x in inputs], atol=1e-6, rtol=1e-4)


def test_gradients_of_step_and_gap(make):
    layer = make(d_model=2, d_state=4)
    u, dt = record(1, d_model=2)
    state = random_state(layer)

    def step(u_t, gap, *parts):
        parts = iter(parts)
        return tuple(tensors(layer.step(u_t, each(lambda s: next(parts), state), gap)))

    assert torch.autograd.gradcheck(step, [x.requires_grad_() for x in (u[:, 0], dt[:, 0], *tensors(state))])
    u, dt = record(4, d_model=2)
    assert torch.autograd.gradcheck(lambda dt: tuple(tensors(layer(u, dt))), dt.requires_grad_())


def test_gradients_of_both_modes_agree(make_linear):
    u, dt = record(67, "regular")
    weights = torch.randn(2, 67, D, dtype=u.dtype, generator=torch.Generator().manual_seed(1))
    results = []
    for mode in ("convolution", "scan"):
        layer = make_linear(mode)
        u = u.detach().requires_grad_()
        state = each(lambda s: s.requires_grad_(), random_state(layer))
        y, final = layer(u, dt, state)
        ((y * weights).sum() + sum(s.square().sum() for s in tensors(final))).backward()
        results.append([u.grad, *(s.grad for s in tensors(state)), *(p.grad for p in layer.parameters())])
    assert_same(*results)


def direction(make, both, backward):
    """A layer of one direction, with the weights that ``both`` has for it: they lie one after the other on an axis."""
    layer = make()
    weights = {}
    for name, own in layer.state_dict().items():
        if hasattr(both, "reverse"):
            weights[name] = both.state_dict()["reverse." * backward + name]
            continue
        value = both.state_dict()[name]
        if value.shape == own.shape:
            weights[name] = torch.zeros_like(value) if backward and name in ADDED_ONCE else value
        else:
            axis = next(i for i, (m, n) in enumerate(zip(value.shape, own.shape, strict=True)) if m != n)
            weights[name] = value.chunk(2, dim=axis)[backward]
    layer.load_state_dict(weights)
    return layer


@pytest.mark.parametrize("gaps", ["irregular", "regular", "none"])
@torch.no_grad()
def test_bidirectional_is_explicit_reversal_with_the_gaps_shifted(make_in_mode, gaps):
    """The backward half is a forward layer on the reversed record, whose gaps are the same intervals."""
    both = make_in_mode(bidirectional=True)
    if isinstance(both, Attention):
        pytest.skip("one attention over the whole record, no sum of two directions; its own tests have it")
    forward, backward = (direction(make_in_mode, both, i) for i in (0, 1))
    lengths, L = ((20, 20) if gaps == "none" else (17, 11)), 20
    u, dt = record(L, gaps)
    for i, n in enumerate(lengths):
        u[i, n:] = 0
        if dt is not None:
            dt[i, n:] = 0
    y, state = both(u, dt)
    assert state is None
    for i, n in enumerate(lengths):
        one = u[i : i + 1, :n]
        gap = torch.ones_like(one[..., 0]) if dt is None else dt[i : i + 1, :n]
        # Reversed, sample n - 1 comes first with the entry gap; then come the intervals from the last to the first.
        reversed_gap = torch.cat([gap[:, :1], gap[:, 1:].flip(1)], dim=1)
        expected = forward(one, gap)[0] + backward(one.flip(1), reversed_gap)[0].flip(1)
        assert_same(y[i : i + 1, :n], expected)


def test_bidirectional_has_no_recurrent_face(make):
    layer, one = make(bidirectional=True), make()
    for call in (
        lambda: layer.initial_state(2),
        lambda: layer.step(torch.ones(2, D), one.initial_state(2)),
        lambda: layer(torch.ones(2, 5, D), None, one.initial_state(2)),
    ):
        with pytest.raises(ValueError, match=r"bidirectional .* reads the whole record"):
            call()


def test_convolution_on_irregular_gaps_names_the_first_unequal_gap(make_linear):
    layer = make_linear("convolution")
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
    assert_same(pickle.loads(pickle.dumps(layer))(u, dt), expected)
    other = make()
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        assert_same(other(u, dt), expected)


@torch.no_grad()
def test_a_frozen_layer_steps_the_same(make):
    layer, frozen = make(), make().freeze()
    u, dt = record(3)
    for gaps in (dt, None):
        assert_same(fold(frozen, u, gaps, frozen.initial_state(2)), fold(layer, u, gaps, layer.initial_state(2)))


@torch.no_grad()
def test_single_and_half_precision(make):
    layer = make()
    u, dt = record(11)
    expected, _ = layer(u, dt)
    single = layer.float()
    for gaps in (dt.float(), None):
        y, state = single(u.float(), gaps)
        assert {x.dtype for x in (y, *tensors(state))} == {torch.float32}
        y_t, after = single.step(u[:, 0].float(), state)
        assert {x.dtype for x in (y_t, *tensors(after))} == {torch.float32}
    torch.testing.assert_close(single(u.float(), dt.float())[0].double(), expected, rtol=0, atol=1e-4)
    for dtype in (torch.bfloat16, torch.float16):
        y, state = single(u.to(dtype), dt.to(dtype))
        assert y.dtype == dtype
        assert {x.dtype for x in tensors(state)} == {torch.float32}
        scale = expected.abs().max().item()
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=0.05 * scale)


def test_slow_parameters_are_marked(make):
    layer = copy.deepcopy(make())
    marked = {name for name, p in layer.named_parameters() if getattr(p, "_optim", {}).get("group") == "ssm"}
    assert marked == set(layer.slow_parameters) & dict(layer.named_parameters()).keys()
    assert marked or not isinstance(layer, LinearMixer)
    assert not marked & {"C", "W", "D"}


@pytest.mark.parametrize(
    ("u", "dt", "message"),
    [
        ((2, 5, D + 1), None, "d_model = 4"),
        ((2, 0, D), None, "no empty axis"),
        ((5, D), None, "u must have shape"),
        ((2, 5, D), (2, 4), r"dt must have shape \(2, 5\)"),
    ],
)
def test_bad_shapes(make, u, dt, message):
    u, dt = (None if shape is None else torch.ones(shape, dtype=torch.float64) for shape in (u, dt))
    with pytest.raises(ValueError, match=message):
        make()(u, dt)


def test_bad_states(make):
    layer = make()
    u, dt = record(5)
    wrong = each(lambda s: s[:1], layer.initial_state(2))
    for call in (lambda: layer(u, dt, wrong), lambda: layer.step(u[:, 0], wrong, dt[:, 0])):
        with pytest.raises(ValueError, match="state must have shape"):
            call()


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf")])
def test_bad_gaps_are_named(make, value):
    u, dt = record(5)
    dt[1, 3] = value
    with pytest.raises(ValueError, match=r"dt must be finite and not negative: dt\[1, 3\] = "):
        make()(u, dt)
