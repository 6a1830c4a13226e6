"""The convolution in blocks against the recurrence: outputs, states at records' ends, every gradient, any length."""

import numpy as np
import pytest
import torch

from statespace.kernels import diagonal_convolution, diagonal_scan

BACKENDS = ["cpu", "pytorch"]
RULES = ["zoh", "bilinear"]
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def problem(B=2, H=3, L=71, nodes=5, dtype=np.float64, slowest=-4.0, ragged=False):
    """u, rate, c, the initial state, the lengths and the skip."""
    rng = np.random.default_rng(0)
    complex_dtype = np.result_type(dtype, np.complex64)
    draw = lambda *shape: (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(complex_dtype)  # noqa: E731
    rate = -(10 ** rng.uniform(slowest, 0.5, (H, nodes))) + 1j * rng.normal(size=(H, nodes))
    lengths = rng.integers(0, L, B, endpoint=True) if ragged else None
    u, skip = rng.normal(size=(B, H, L)).astype(dtype), rng.normal(size=H).astype(dtype)
    return u, rate, draw(H, nodes), draw(B, H, nodes), lengths, skip


SHAPES = [
    dict(L=1), dict(L=2, nodes=1), dict(L=31), dict(L=32), dict(L=65), dict(L=257, nodes=32),
    dict(B=1, H=1, L=1000, nodes=33), dict(B=1, H=1, L=8200, nodes=2), dict(L=128, ragged=True),
    dict(B=5, L=150, ragged=True), dict(B=3, H=16, L=70, ragged=True), dict(L=300, slowest=-8.0),
    dict(L=300, slowest=0.4),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("discretization", RULES)
@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_reference(backend, discretization, options, dtype):
    arguments = problem(dtype=dtype, **options)
    expected = diagonal_convolution(*arguments, discretization=discretization, backend="reference")
    got = diagonal_convolution(*arguments, discretization=discretization, backend=backend)
    if arguments[4] is not None:
        padding = np.arange(got[0].shape[-1]) >= arguments[4][:, None]
        for y in (got[0], expected[0]):
            y[np.broadcast_to(padding[:, None], y.shape)] = 0  # of no meaning there
    for x, y in zip(got, expected, strict=True):
        assert x.dtype == np.result_type(dtype, np.complex64 if np.iscomplexobj(y) else dtype)
        np.testing.assert_allclose(x, y, rtol=0, atol=TOLERANCE[dtype] * max(1, np.abs(y).max()))


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
def test_a_record_of_padding_alone_keeps_its_state(backend):
    u, rate, c, initial, *_ = problem()
    _, state = diagonal_convolution(u, rate, c, initial, np.array([0, 71]), backend=backend)
    np.testing.assert_array_equal(state[0], initial[0])


@pytest.mark.parametrize("discretization", RULES)
def test_is_the_scan_on_a_regular_grid(discretization):
    u, rate, c, initial, *_ = problem(L=200)
    expected = diagonal_scan(u, None, rate, c, initial, discretization=discretization, backend="reference")
    got = diagonal_convolution(u, rate, c, initial, discretization=discretization, backend="reference")
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("discretization", RULES)
@pytest.mark.parametrize("options", [dict(L=5), dict(L=66, H=1, B=2, nodes=2, ragged=True), dict(L=1)], ids=str)
def test_gradients(backend, discretization, options):
    *arguments, lengths, skip = problem(**options)
    arguments.append(skip)
    arguments = [torch.from_numpy(np.ascontiguousarray(x)).requires_grad_() for x in arguments]
    lengths = None if lengths is None else torch.from_numpy(lengths)
    options = dict(discretization=discretization, backend=backend)
    real = 1.0 if lengths is None else (torch.arange(arguments[0].shape[-1]) < lengths[:, None])[:, None]

    def convolve(*x):
        y, state = diagonal_convolution(*x[:-1], lengths, x[-1], **options)
        return y * real, state

    assert torch.autograd.gradcheck(convolve, arguments, atol=1e-7)


def test_gradients_of_many_blocks_agree_with_the_scan():
    *arguments, _, _ = problem(L=500, nodes=7)
    arguments = [torch.from_numpy(x).requires_grad_() for x in arguments]
    weights = torch.randn(2, 3, 500, dtype=torch.float64)
    results = []
    for y, state in (diagonal_convolution(*arguments), diagonal_scan(arguments[0], None, *arguments[1:])):
        results.append(torch.autograd.grad((y * weights).sum() + state.abs().square().sum(), arguments))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    u, rate, c = (torch.from_numpy(x) for x in problem(L=100)[:3])
    y, state = diagonal_convolution(u.to(dtype), rate, c)
    expected, _ = diagonal_convolution(u.to(dtype).double(), rate, c)
    assert (y.dtype, state.dtype) == (dtype, torch.complex64)
    assert (y.double() - expected).abs().max() <= torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(u=np.ones((2, 3))), "u must have shape"),
        (dict(rate=np.ones((2, 5))), "rate must have shape"),
        (dict(c=np.ones((3, 4))), "c must have shape"),
        (dict(initial=np.ones((3, 5))), "initial must have shape"),
        (dict(lengths=np.array([-1, 4])), "lengths must lie between 0 and 71"),
        (dict(lengths=np.array([1, 72])), "lengths must lie between 0 and 71"),
        (dict(skip=np.ones(2)), "skip must have shape"),
        (dict(discretization="foh"), "discretization must be"),
        (dict(c=torch.ones(3, 5)), "Got both"),
    ],
)
def test_refuses(change, message):
    given = dict(zip(("u", "rate", "c", "initial", "lengths", "skip"), problem(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        diagonal_convolution(**given)
