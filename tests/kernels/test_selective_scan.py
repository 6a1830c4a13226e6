"""Selective scans against the reference: outputs, last state, every gradient, hard steps, any shape."""

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, selective_scan

BACKENDS = ["cpu", "pytorch"]
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-11}


def problem(batch=2, channels=3, length=63, states=5, B="variable", C="variable", groups=1, complex_=False, gaps=None,
            dtype=torch.float64, plain=False):  # fmt: skip
    """The arguments of a call by name, in float64 or complex128, but rounded to ``dtype``."""
    rng = np.random.default_rng(0)

    def draw(*shape, complex_=False):
        x = torch.from_numpy(rng.normal(size=shape)).to(dtype).double()
        return torch.complex(x, torch.from_numpy(rng.normal(size=shape)).to(dtype).double()) if complex_ else x

    def coefficients(kind):
        shapes = {"constant": (channels, states), "variable": (batch, states, length)}
        return draw(*shapes.get(kind, (batch, groups, states, length)), complex_=complex_)

    A = -torch.from_numpy(10 ** rng.uniform(-3, 1, (channels, states))).to(dtype).double()
    arguments = {
        "u": draw(batch, channels, length),
        "delta": draw(batch, channels, length) - 1 if not plain else draw(batch, channels, length).abs(),
        "A": torch.complex(A, draw(channels, states)) if complex_ else A,
        "B": coefficients(B),
        "C": coefficients(C),
    }
    if not plain:
        rates = torch.from_numpy(rng.exponential(size=(batch, length))).to(dtype).double()
        arguments |= {
            "D": draw(channels),
            "z": draw(batch, channels, length),
            "delta_bias": draw(channels),
            "initial_state": draw(batch, channels, states, complex_=complex_),
            "dt": rates if gaps is None else torch.as_tensor(gaps).to(dtype).double().expand(batch, length).clone(),
        }
    return arguments


def cast(arguments, dtype):
    of = {torch.float32: torch.complex64, torch.float64: torch.complex128}
    return {name: x.to(of[dtype] if x.is_complex() else dtype) for name, x in arguments.items()}


def loop(u, delta, A, B, C, D=None, z=None, delta_bias=None, initial_state=None, dt=None, softplus=True):
    """The definition in torch, sample by sample, for its gradients."""
    batch, channels, length = u.shape
    h = delta if delta_bias is None else delta + delta_bias[:, None]
    h = torch.logaddexp(h, torch.zeros_like(h)) if softplus else h
    h = h if dt is None else h * dt[:, None]
    kind = torch.complex128 if A.is_complex() or B.is_complex() else torch.float64
    x = torch.zeros(batch, *A.shape, dtype=kind) if initial_state is None else initial_state

    def at(m, k):
        m = m if m.ndim != 3 else m[:, None]
        return m if m.ndim == 2 else m[..., k].repeat_interleave(channels // m.shape[1], 1)

    ys = []
    for k in range(length):
        x = torch.exp(h[..., k, None] * A) * x + h[..., k, None] * at(B, k) * u[..., k, None]
        y = (at(C, k) * x).sum(-1)
        ys.append(2 * y.real if kind.is_complex else y)
    y = torch.stack(ys, -1)
    y = y if D is None else y + D[:, None] * u
    return (y if z is None else y * z * torch.sigmoid(z)), x


def with_gradients(function, arguments):
    """Outputs and the gradients of every argument by name, for a loss that weighs outputs and last state at random."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in arguments.items()}
    y, state = function(**leaves)
    rng = np.random.default_rng(1)
    outputs = [y, *(torch.view_as_real(state).unbind(-1) if state.is_complex() else (state,))]
    loss = sum((x.double() * torch.from_numpy(rng.normal(size=x.shape))).sum() for x in outputs)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {"y": y.detach(), "state": state.detach()} | dict(zip(leaves, gradients, strict=True))


def compare(got, expected, tolerance):
    assert got.keys() == expected.keys()
    for name, x in got.items():
        true = expected[name]
        assert x.shape == true.shape, name
        error = (x.to(true.dtype) - true).abs().max() / true.abs().max().clamp(min=1)
        assert error <= tolerance, f"{name}: {error}"


CASES = [
    dict(length=1), dict(length=2, states=1), dict(length=63, states=16), dict(length=257, channels=17, states=3),
    dict(batch=1, channels=32, length=1000, states=4),
    dict(channels=6, groups=2, B="grouped", C="grouped"), dict(channels=64, groups=2, B="grouped", length=37),
    dict(B="constant"), dict(C="constant", channels=18), dict(B="constant", C="constant"),
    dict(complex_=True), dict(complex_=True, B="constant", C="constant", length=257),
    dict(complex_=True, channels=20, groups=4, B="grouped"),
    dict(plain=True), dict(gaps=0.0), dict(gaps=1e-6), dict(gaps=1e6),
    dict(gaps=np.repeat([0.5, 0.0, 1e3, 1e-4, 1e6, 1e-6, 2.0], 9)),
]  # fmt: skip


@pytest.mark.parametrize("options", CASES, ids=str)
def test_the_reference_is_the_definition(options):
    arguments = problem(**options)
    softplus = not options.get("plain", False)
    expected = loop(**arguments, softplus=softplus)
    arrays = {name: x.numpy() for name, x in arguments.items()}
    got = selective_scan(**arrays, delta_softplus=softplus, return_last_state=True, backend="reference")
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y.numpy(), rtol=0, atol=1e-12 * max(1, y.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_the_loop_with_every_gradient(options, backend, dtype):
    own = "constant" in (options.get("B"), options.get("C")) and "complex_" not in options
    if backend == "cpu" and dtype == torch.float32 and own:
        pytest.skip("the same source as in float64, which takes seconds to compile")
    arguments = problem(**options, dtype=dtype)
    softplus = not options.get("plain", False)
    expected = with_gradients(lambda **x: loop(**x, softplus=softplus), arguments)
    scan = lambda **x: selective_scan(  # noqa: E731
        **x, delta_softplus=softplus, return_last_state=True, backend=backend
    )
    compare(with_gradients(scan, cast(arguments, dtype)), expected, TOLERANCE[dtype])


def scan_of(arguments, backend=None, **more):
    return selective_scan(**arguments | more, delta_softplus=True, return_last_state=True, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cut", [1, 64, 69])
def test_a_record_may_be_split(backend, cut):
    arguments = problem(length=70, channels=17, states=6, groups=1, B="grouped")
    y, state = scan_of(arguments, backend)
    along = {"u", "delta", "z", "B", "C", "dt"}
    first = {name: x[..., :cut] if name in along else x for name, x in arguments.items()}
    rest = {name: x[..., cut:] if name in along else x for name, x in arguments.items()}
    y_first, between = scan_of(first, backend)
    y_rest, last = scan_of(rest, backend, initial_state=between)
    torch.testing.assert_close(torch.cat([y_first, y_rest], -1), y, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(last, state, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_gap_of_zero_leaves_the_state(backend, dtype):
    """Exactly, whatever the padded steps hold; and the steps before it are as they were."""
    arguments = cast(problem(length=100, channels=16), dtype)
    arguments["dt"][:, 60:] = 0
    y, state = scan_of(arguments, backend)
    along = {"u", "delta", "z", "B", "C", "dt"}
    short = {name: x[..., :60] if name in along else x for name, x in arguments.items()}
    y_short, state_short = scan_of(short, backend)
    torch.testing.assert_close(state, state_short, rtol=0, atol=0 if backend == "cpu" else 1e-5)
    torch.testing.assert_close(y[..., :60], y_short, rtol=0, atol=0 if backend == "cpu" else 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hard_steps_and_rates(backend, dtype):
    """Every step from 1e-6 to 1e6 with every rate from 0 to -1e6, forward and gradients, relative to the reference."""
    steps = 10.0 ** torch.arange(-6, 7)
    rates = -torch.cat([torch.zeros(1), 10.0 ** torch.arange(-8, 7)])
    arguments = problem(batch=len(steps), channels=3, length=40, states=len(rates), plain=True)
    arguments["A"] = rates.expand(3, -1).double()
    arguments["delta"] = steps[:, None, None].expand(-1, 3, 40).double() * (1 + 0.5 * arguments["delta"].tanh())
    arguments = {name: x.to(dtype).double() for name, x in arguments.items()}
    # Of one size at all steps, so that each counts.
    arguments["u"] = (arguments["u"] / arguments["delta"]).to(dtype).double()
    expected = with_gradients(lambda **x: loop(**x, softplus=False), arguments)
    scan = lambda **x: selective_scan(**x, return_last_state=True, backend=backend)  # noqa: E731
    got = with_gradients(scan, cast(arguments, dtype))
    for name in ("y", "state", "u", "delta", "B", "C"):
        scale = expected[name].abs().flatten(1).amax(1).clamp(min=1e-30)
        error = (got[name].double() - expected[name]).abs().flatten(1).amax(1) / scale
        assert error.max() < TOLERANCE[dtype], f"{name}: {error}"


@pytest.mark.parametrize("length", [1000, 20_000])
def test_float32_holds_over_a_long_record(length):
    """A slow state at equal steps: a rounded decay would err alike at every step, exp(h A) - 1 does not."""
    ones = torch.ones(1, 1, length)
    A = torch.tensor([[-1e-4]])
    y, state = selective_scan(ones, 0.7 * ones, A, ones, ones, return_last_state=True, backend="cpu")
    exact, _ = loop(ones[..., :1].double(), 0.7 * ones[..., :1].double(), A.double(), ones[..., :1].double(),
                    ones[..., :1].double(), softplus=False)  # fmt: skip
    h, rate = float(torch.tensor(0.7)), float(A)
    k = torch.arange(1, length + 1, dtype=torch.float64)
    expected = h * torch.expm1(rate * h * k) / np.expm1(rate * h)
    torch.testing.assert_close(exact[0, 0, 0], expected[0])
    torch.testing.assert_close(y[0, 0].double(), expected, rtol=5e-6, atol=0)
    torch.testing.assert_close(state[0, 0].double(), expected[-1:], rtol=5e-6, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_inputs_have_float32_states(backend, half):
    arguments = problem(channels=16, length=80)
    single = ("A", "D", "initial_state")
    leaves = {name: x.to(torch.float32 if name in single else half).requires_grad_() for name, x in arguments.items()}
    y, state = scan_of(leaves, backend)
    assert (y.dtype, state.dtype) == (half, torch.float32)
    (y.float().sum() + state.sum()).backward()
    exact, last = loop(**{name: x.detach().double() for name, x in leaves.items()})
    size = exact.abs().max()
    torch.testing.assert_close(y.double(), exact, rtol=torch.finfo(half).eps, atol=1e-4 * size)
    torch.testing.assert_close(state.double(), last, rtol=0, atol=3e-5 * last.abs().max())
    for name, x in leaves.items():
        assert x.grad.dtype == x.dtype, name
        assert x.grad.isfinite().all(), name


@pytest.mark.parametrize("channels", [32, 18])
def test_any_order_in_memory_gives_the_same(channels):
    """Channels last, time last, slices of something larger."""
    arguments = problem(channels=channels, length=75)
    y, state = scan_of(arguments, "cpu")
    results = [with_gradients(lambda **x: scan_of(x, "cpu"), arguments)]

    def last(x):
        return x.transpose(1, 2).contiguous().transpose(1, 2) if x.ndim == 3 else x

    def sliced(x):
        return torch.stack([x, x], -1).flatten(-2)[..., ::2]

    for change in (last, sliced):
        changed = lambda change=change, **x: scan_of({k: change(v) for k, v in x.items()}, "cpu")  # noqa: E731
        results.append(with_gradients(changed, arguments))
    for result in results:
        torch.testing.assert_close(result["y"], y, rtol=0, atol=0)
        compare(result, results[0], 1e-14)
    torch.testing.assert_close(results[1]["state"], state, rtol=0, atol=0)


def test_threads_change_nothing_and_memory_is_not_read_before_it_is_written(monkeypatch):
    arguments = cast(problem(batch=4, channels=70, length=150, states=9), torch.float32)
    results, threads = [], torch.get_num_threads()
    new_empty = torch.Tensor.new_empty
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(with_gradients(lambda **x: scan_of(x, "cpu"), arguments))
            monkeypatch.setattr(torch.Tensor, "new_empty", lambda x, *s, **k: new_empty(x, *s, **k).fill_(float("nan")))
    finally:
        torch.set_num_threads(threads)
    for name, x in results[0].items():
        torch.testing.assert_close(results[1][name], x, rtol=0, atol=0)


def test_memory_does_not_grow_with_the_states():
    """What a call keeps for its gradients: one state in 64, and the inputs."""
    arguments = cast(problem(batch=1, channels=64, length=640, states=32, plain=True), torch.float32)
    leaves = {name: x.requires_grad_() for name, x in arguments.items()}
    y = selective_scan(**leaves, backend="cpu")
    saved = sum(x.numel() for x in y.grad_fn.saved_tensors if x is not None)
    assert saved < 64 * 640 * 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_is_not_hidden(backend):
    for name in ("u", "delta", "z", "B", "C"):
        arguments = cast(problem(channels=16, length=70), torch.float32)
        arguments[name][0, 0, 65] = torch.nan
        y, _ = scan_of(arguments, backend)
        assert y[0, 0, 65].isnan(), name
        assert y[..., :65].isfinite().all(), name


def test_numpy_in_numpy_out():
    arrays = {name: x.numpy().astype(np.float32) for name, x in problem(channels=16).items()}
    y, state = scan_of(arrays)
    assert isinstance(y, np.ndarray)
    assert y.dtype == state.dtype == np.float32
    assert isinstance(selective_scan(**arrays, delta_softplus=True), np.ndarray)


def test_devices_are_refused_with_the_reason():
    arguments = problem()
    with pytest.raises(BackendError, match="a tensor is on meta"):
        scan_of(arguments | {"dt": arguments["dt"].to("meta")}, "cpu")
    with pytest.raises(BackendError, match="not torch tensors"):
        scan_of(arguments, "reference")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(u=torch.ones(2, 3)), "u must have shape"),
        (dict(u=torch.ones(2, 3, 0)), "no axis empty"),
        (dict(delta=torch.ones(2, 3, 62)), r"delta must have shape \(2, 3, 63\)"),
        (dict(A=torch.ones(4, 5)), "with 3 channels"),
        (dict(B=torch.ones(2, 5, 62)), "B must have shape"),
        (dict(C=torch.ones(2, 2, 5, 63)), "number of groups dividing that of channels, 3"),
        (dict(D=torch.ones(2)), r"D must have shape \(3,\)"),
        (dict(z=torch.ones(2, 3, 1)), r"z must have shape \(2, 3, 63\)"),
        (dict(initial_state=torch.ones(3, 5)), r"initial_state must have shape \(2, 3, 5\)"),
        (dict(dt=torch.ones(63)), r"dt must have shape \(2, 63\)"),
        (dict(dt=np.ones((2, 63))), "all torch tensors"),
    ],
    ids=str,
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        scan_of(problem() | change)
