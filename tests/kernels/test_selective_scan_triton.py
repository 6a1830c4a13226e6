"""The selective scan in Triton against the definition: outputs, last state, every gradient; the code for GPUs."""

import numpy as np
import pytest
import torch

from statespace.kernels import selective_scan
from tests.kernels.compilation import compile_for_gpus, launches
from tests.kernels.test_selective_scan import cast, compare, loop, problem, with_gradients

TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-11}
ALONG = {"u", "delta", "z", "B", "C", "dt"}


@pytest.fixture
def tiles(triton_device, monkeypatch):
    """The kernels' module, with small tiles, and records cut into as many stretches as are asked for."""
    from statespace.kernels.selective_scan import gpu_triton

    def set_(stretches=1, steps=4, states=8, channels=16):
        monkeypatch.setattr(gpu_triton, "STEPS", steps)
        monkeypatch.setattr(gpu_triton, "STATES", states)
        monkeypatch.setattr(gpu_triton, "STATES_BACK", states)
        monkeypatch.setattr(gpu_triton, "CHANNELS", channels)
        monkeypatch.setattr(gpu_triton, "_stretches", lambda u, *_: cut(u.shape[2], stretches, steps))

    def cut(length, stretches, steps):
        each = -(-length // stretches // steps) * steps
        return -(-length // each), each

    set_()
    return set_


@pytest.fixture
def nan_filled(monkeypatch):
    """Memory that has not been written to holds NaN."""
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda x, *s, **k: new_empty(x, *s, **k).fill_(float("nan")))


def scan_of(arguments, soft=True, last=True, **more):
    return selective_scan(**arguments | more, delta_softplus=soft, return_last_state=last, backend="triton")


def check(arguments, dtype, device, soft=True, tolerance=None):
    expected = with_gradients(lambda **x: loop(**x, softplus=soft), arguments)
    given = {name: x.to(device) for name, x in cast(arguments, dtype).items()}

    def on_cpu(**x):
        return tuple(y.cpu() for y in scan_of(x, soft))

    got = {name: x.cpu() for name, x in with_gradients(on_cpu, given).items()}
    compare(got, expected, tolerance or TOLERANCE[dtype])


CASES = [
    dict(length=1), dict(length=2, states=1, stretches=2), dict(length=13, channels=19, stretches=3),
    dict(batch=1, channels=6, groups=2, B="grouped", C="grouped", length=7, stretches=2),
    dict(batch=1, B="constant", length=6, stretches=2), dict(batch=1, C="constant", length=6, stretches=2, plain=True),
    dict(batch=1, B="constant", C="constant", length=3, states=9),
    dict(complex_=True, length=7, stretches=2), dict(batch=1, complex_=True, B="constant", C="constant", length=5),
    dict(batch=1, length=9, gaps=np.array([0.5, 0.0, 1e3, 1e-4, 1e6, 1e-6, 2.0, 0.0, 0.0]), stretches=2),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_the_loop_with_every_gradient(triton_device, tiles, nan_filled, options, dtype):
    options = dict(options)
    tiles(options.pop("stretches", 1))
    check(problem(**options, dtype=dtype), dtype, triton_device, soft="plain" not in options)


def test_tiles_as_they_are_on_a_gpu(triton_device, nan_filled):
    check(problem(batch=1, channels=2, length=17, states=3), torch.float32, triton_device)


def test_mixed_kinds_of_coefficients(triton_device, tiles):
    """Complex rates with real B, a complex state alone, groups of B and C that differ."""
    arguments = problem(batch=1, length=5, complex_=True) | {"B": problem(batch=1, length=5)["B"]}
    check(arguments, torch.float64, triton_device)
    arguments = problem(batch=1, channels=6, length=5, groups=2, B="grouped")
    arguments["C"] = problem(batch=1, channels=6, length=5, groups=3, C="grouped")["C"]
    check(arguments, torch.float64, triton_device)


def test_hard_steps_and_rates(triton_device, tiles):
    """Every step from 1e-6 to 1e6 with every rate from 0 to -1e6, each relative to its own size."""
    tiles(stretches=2, states=16)
    steps, length = 10.0 ** torch.arange(-6, 7, 2), 5
    rates = -torch.cat([torch.zeros(1), 10.0 ** torch.arange(-8, 7)])
    arguments = problem(batch=len(steps), channels=2, length=length, states=len(rates), plain=True)
    arguments["A"] = rates.expand(2, -1).double()
    arguments["delta"] = steps[:, None, None].expand(-1, 2, length).double() * (1 + 0.5 * arguments["delta"].tanh())
    arguments = {name: x.float().double() for name, x in arguments.items()}
    arguments["u"] = (arguments["u"] / arguments["delta"]).float().double()
    expected = with_gradients(lambda **x: loop(**x, softplus=False), arguments)
    given = {name: x.to(triton_device) for name, x in cast(arguments, torch.float32).items()}
    got = with_gradients(lambda **x: tuple(y.cpu() for y in scan_of(x, False)), given)
    for name in ("y", "state", "u", "delta", "B", "C"):
        scale = expected[name].abs().flatten(1).amax(1).clamp(min=1e-30)
        error = (got[name].cpu().double() - expected[name]).abs().flatten(1).amax(1) / scale
        assert error.max() < TOLERANCE[torch.float32], f"{name}: {error}"


def test_a_slow_state_keeps_its_digits(triton_device, tiles):
    """A rounded decay would err alike at equal steps, by 512 times as much in the end: exp(h A) - 1 does not."""
    tiles(states=16)
    length, h, rates = 512, float(torch.tensor(0.7)), -torch.logspace(-5, -2, 16)
    ones = torch.ones(1, 1, length, device=triton_device)
    given = {"A": rates[None].to(triton_device), "B": ones[0, :, :16], "C": ones[0, :, :16]}
    _, state = scan_of({"u": ones, "delta": h * ones, **given}, soft=False)
    expected = h * torch.expm1(h * length * rates.double()) / torch.expm1(h * rates.double())
    torch.testing.assert_close(state[0, 0].cpu().double(), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("backwards", [False, True], ids=["forth", "back"])
def test_gap_of_zero_leaves_everything(triton_device, tiles, backwards):
    arguments = cast(problem(batch=1, channels=2, length=9), torch.float32)
    arguments["dt"][:, 5:] = 0
    given = {name: x.to(triton_device) for name, x in arguments.items()}
    short = {name: x[..., :5] if name in ALONG else x for name, x in given.items()}
    if not backwards:
        torch.testing.assert_close(scan_of(given)[1], scan_of(short)[1], rtol=0, atol=0)
        return
    results = []
    for x in (given, short):
        leaf = x["initial_state"].clone().requires_grad_()
        state = scan_of(x | {"initial_state": leaf})[1]
        results.append(torch.autograd.grad(state.sum(), leaf)[0])
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_inputs_have_float32_states(triton_device, tiles, half):
    arguments = problem(batch=1, length=6)
    single = ("A", "D", "initial_state")
    leaves = {
        name: x.to(triton_device, torch.float32 if name in single else half).requires_grad_()
        for name, x in arguments.items()
    }
    y, state = scan_of(leaves)
    assert (y.dtype, state.dtype) == (half, torch.float32)
    exact = {name: x.detach().cpu().double() for name, x in leaves.items()}
    expected = with_gradients(lambda **x: loop(**x), exact)
    torch.testing.assert_close(state.detach().cpu().double(), expected["state"], rtol=0,
                               atol=3e-5 * expected["state"].abs().max())  # fmt: skip
    rng = np.random.default_rng(1)
    loss = sum((x.cpu().double() * torch.from_numpy(rng.normal(size=x.shape))).sum() for x in (y, state))
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    eps = torch.finfo(half).eps
    for (name, leaf), x in zip(leaves.items(), gradients, strict=True):
        assert x.dtype == leaf.dtype, name
        largest = expected[name].abs().max()
        torch.testing.assert_close(x.cpu().double() / largest, expected[name] / largest, rtol=0, atol=2 * eps)
    largest = expected["y"].abs().max()
    torch.testing.assert_close(y.detach().cpu().double() / largest, expected["y"] / largest, rtol=0, atol=eps)


def test_any_order_in_memory_gives_the_same(triton_device, tiles):
    arguments = problem(batch=1, channels=18, length=6)
    given = {name: x.to(triton_device) for name, x in arguments.items()}

    def last(x):
        return x.transpose(1, 2).contiguous().transpose(1, 2) if x.ndim == 3 else x

    def sliced(x):
        return torch.stack([x, x], -1).flatten(-2)[..., ::2]

    results = []
    for change in (lambda x: x, last, sliced):
        leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
        y, state = scan_of({name: change(x) for name, x in leaves.items()})
        results.append((y, state, *torch.autograd.grad(y.square().sum() + state.sum(), list(leaves.values()))))
    assert results[1][0].stride(1) == 1
    for other in results[1:]:
        for x, y in zip(other, results[0], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-13, atol=1e-13)


def test_it_is_one_piece_of_a_compiled_program(triton_device, tiles):
    arguments = {name: x.to(triton_device) for name, x in problem(batch=1, length=5).items()}
    compiled = torch.compile(lambda x: scan_of(x), fullgraph=True, backend="aot_eager")
    results = []
    for scan in (scan_of, compiled):
        leaves = {name: x.clone().requires_grad_() for name, x in arguments.items()}
        y, state = scan(leaves)
        results.append((y, state, *torch.autograd.grad(y.square().sum() + state.sum(), list(leaves.values()))))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_without_gradients_no_states_are_kept(triton_device, tiles, monkeypatch):
    """Forward alone: one state for each stretch; and only what was asked for is returned."""
    from statespace.kernels.selective_scan import gpu_triton

    sizes, compute = [], gpu_triton._outputs
    arguments = {name: x.to(triton_device) for name, x in problem(batch=1, length=9).items()}
    expected = scan_of({name: x.clone().requires_grad_() for name, x in arguments.items()})
    torch.testing.assert_close(scan_of(arguments, last=False), expected[0], rtol=0, atol=0)
    given = [arguments["u"], *(None,) * 3, *(arguments[x].unsqueeze(0) for x in ("A", "B", "C")), *(None,) * 3, True]
    for keep in (False, True):
        sizes.append(compute(*given, keep)[2].shape[1])
    assert sizes == [1, 3]


def test_numpy_and_refusals(triton_device, tiles):
    if triton_device != "cpu":
        pytest.skip("NumPy arrays are refused by compiled kernels")
    arrays = {name: x.numpy() for name, x in problem(batch=1, length=2).items()}
    y, state = scan_of(arrays)
    expected = selective_scan(**arrays, delta_softplus=True, return_last_state=True, backend="reference")
    np.testing.assert_allclose(y, expected[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(state, expected[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_compiles_for_gpus(triton_device, monkeypatch, dtype):
    """A layer's sizes, channels last; float32 in stretches. Compiled only: interpreted they would take minutes."""
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    from triton.runtime.interpreter import GridExecutor

    from statespace.kernels.selective_scan import gpu_triton

    monkeypatch.setattr(GridExecutor, "__call__", lambda *a, **k: None)
    monkeypatch.setattr(gpu_triton, "_stretches", lambda u, *_: (2, 32) if dtype == torch.float32 else (1, 64))
    arguments = cast(problem(batch=1, channels=64, length=64, states=16), torch.float32)
    for name in ("u", "delta", "z", "B", "C"):
        arguments[name] = arguments[name].to(dtype)
    for name in ("u", "delta", "z"):
        arguments[name] = arguments[name].transpose(1, 2).contiguous().transpose(1, 2)
    leaves = {name: x.requires_grad_() for name, x in arguments.items()}
    with launches() as found:
        y, state = scan_of(leaves)
        torch.autograd.grad(y.float().sum() + state.sum(), list(leaves.values()))
    names = ["forward", "connect", "forward", "ends", "connect", "reverse"]
    assert [entry["kernel"] for entry in found] == (names if dtype == torch.float32 else ["forward", "reverse"])
    code = compile_for_gpus(found, [90 if dtype == torch.float32 else 80])
    # Back, a thread has what its tile needs before and after the states (inputs, gates, slopes) beside the states of
    # all steps: some of that may wait in memory, once a tile of 8 steps, where the recurrence itself may not.
    spilled = {entry["kernel"]: entry["spilled"] for entry in code if entry["spilled"]}
    assert spilled.pop("reverse", 0) <= 128
    assert spilled == {}


@pytest.mark.gpu
@pytest.mark.parametrize(
    "sizes",
    [dict(batch=2, channels=64, length=65_536), dict(batch=1, channels=16, length=1_000_003, states=4),
     dict(batch=4, channels=96, length=4099, complex_=True), dict(batch=64, channels=2048, length=130)],
    ids=str,
)  # fmt: skip
def test_large_records_on_a_gpu(sizes):
    """In float32 against the same in float64 by torch's operations, outputs, last state and every gradient."""
    arguments = problem(**{"states": 16, **sizes}, dtype=torch.float32)
    results = []
    for dtype, backend in ((torch.float64, "pytorch"), (torch.float32, "triton")):
        leaves = {name: x.cuda().requires_grad_() for name, x in cast(arguments, dtype).items()}
        y, state = selective_scan(**leaves, delta_softplus=True, return_last_state=True, backend=backend)
        loss = (y * torch.linspace(-1, 1, y.shape[-1], device="cuda")).sum() + state.abs().square().sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        results.append(dict(zip(("y", "state", *leaves), (y.detach(), state.detach(), *gradients), strict=True)))
    compare(results[1], results[0], 1e-4)


@pytest.mark.gpu
def test_more_numbers_than_an_int32_counts():
    """2.1e9 inputs in bfloat16: the last channels of the last record are where they should be."""
    B, D, L = 2, 16_384, 65_600
    u = torch.ones(B, D, L, device="cuda", dtype=torch.bfloat16)
    u[-1, -1] = 2
    A, one = -torch.ones(D, 1, device="cuda"), torch.ones(D, 1, device="cuda")
    y = selective_scan(u, u, A, one, one, backend="triton")
    assert y.numel() > 2**31
    # h u / (1 - exp(-h)) in the steady state.
    for value, at in ((1.0, (0, 0)), (1.0, (-1, -2)), (2.0, (-1, -1))):
        expected = value**2 / -np.expm1(-value)
        np.testing.assert_allclose(y[at][-1].item(), expected, rtol=1e-2)
