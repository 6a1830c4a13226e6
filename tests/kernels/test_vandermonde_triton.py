"""The two-level product in Triton against the sum of powers: values and gradients, any length; the code for GPUs."""

import numpy as np
import pytest
import torch

from statespace.kernels import vandermonde
from tests.kernels.compilation import compile_for_gpus, launches

TOLERANCE = {torch.complex128: 2e-13, torch.complex64: 1e-6}


@pytest.fixture(autouse=True)
def memory_full_of_nan():
    """What torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def system(shape, device="cpu", dtype=torch.complex128):
    """Weights, and logarithms of nodes: slow and fast decays, slow and fast turns."""
    draw = torch.Generator().manual_seed(len(shape))
    c = torch.randn(shape, generator=draw, dtype=torch.complex128)
    decay, turn = (torch.rand(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    rate = torch.complex(-(10 ** (9 * decay - 7)), 10 ** (7.5 * turn - 6))
    return [x.to(device, dtype).requires_grad_() for x in (c, rate)]


def with_gradients(arguments, L, real, backend, run=vandermonde, **options):
    kernel = run(*arguments, L, real=real, backend=backend, **options)
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(kernel.shape, generator=draw, dtype=torch.float64 if real else torch.complex128).to(kernel)
    gradients = torch.autograd.grad((kernel * weights).real.sum(), arguments, allow_unused=True)
    return kernel, *(torch.zeros_like(x) if g is None else g for g, x in zip(gradients, arguments, strict=True))


def check(got, expected, tolerance):
    for name, x, y in zip(("kernel", "c", "x")[: len(expected)], got, expected, strict=True):
        assert x.shape == y.shape
        error = (x.cpu().to(y) - y).abs().max() / y.abs().max().clamp(min=1e-300)
        assert error < tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize(
    ("L", "shape", "dtype"),
    [
        (1, (2, 1), torch.complex128),
        (3, (1, 2), torch.complex128),
        (257, (2, 1, 17), torch.complex128),
        (4099, (3,), torch.complex128),
        (4099, (3,), torch.complex64),
    ],
    ids=str,
)
def test_values_and_gradients(triton_device, L, shape, dtype, real):
    arguments = system(shape, triton_device, dtype)
    exact = [x.detach().cpu().cdouble().requires_grad_() for x in arguments]
    got = with_gradients(arguments, L, real, "triton", log_nodes=True)
    assert got[0].dtype == (dtype.to_real() if real else dtype)
    check(got, with_gradients(exact, L, real, "pytorch", log_nodes=True), TOLERANCE[dtype])
    arrays = (x.detach().numpy() for x in exact)
    reference = torch.from_numpy(vandermonde(*arrays, L, real=real, log_nodes=True, backend="reference"))
    # Powers by squares and logarithms times l differ by the rounding of l times the turn.
    check(got[:1], [reference], 2e-6 if dtype == torch.complex64 else 1e-11)


# Squares that no power takes may overflow.
@pytest.mark.filterwarnings("ignore:.*encountered in multiply")
@pytest.mark.parametrize("nodes", [[0.0, 0.0], [1e6j, -3.0], [1.0, -1.0]], ids=str)
def test_nodes_of_zero_that_grow_and_on_the_circle(triton_device, nodes):
    """Of a single node broadcast over the weights' rows as well."""
    x = torch.tensor(nodes, dtype=torch.complex128, device=triton_device).requires_grad_()
    c = torch.randn(2, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).to(triton_device)
    arguments = c.requires_grad_(), x
    exact = [v.detach().cpu().requires_grad_() for v in arguments]
    check(with_gradients(arguments, 7, True, "triton"), with_gradients(exact, 7, True, "pytorch"), 1e-14)


def test_logarithms_of_float32_keep_their_digits(triton_device):
    rate = torch.tensor([-1e-5 + 2.5j], dtype=torch.complex64)
    expected = torch.exp(rate.cdouble() * torch.arange(65_536)).real
    one = torch.ones(1, dtype=torch.complex64)
    arguments = one.to(triton_device), rate.to(triton_device)
    got = vandermonde(*arguments, 65_536, log_nodes=True, real=True, backend="triton")
    np.testing.assert_allclose(got.cpu(), expected, rtol=0, atol=5e-7)


def test_extreme_decay_gives_no_nan(triton_device):
    rate = torch.tensor([[-1e6 + 1e3j, -1e-12 + 0j]], device=triton_device, requires_grad=True)
    one = torch.ones(1, 2, dtype=torch.complex64, device=triton_device)
    kernel = vandermonde(one, rate, 1000, log_nodes=True, real=True, backend="triton")
    torch.testing.assert_close(kernel[0, 1:].cpu(), torch.ones(999))
    kernel.sum().backward()
    assert torch.isfinite(torch.view_as_real(rate.grad)).all()


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = system((1, 2), triton_device)
    compiled = torch.compile(vandermonde, fullgraph=True, backend="aot_eager")
    expected = with_gradients(arguments, 5, True, "triton", log_nodes=True)
    check(with_gradients(arguments, 5, True, "triton", compiled, log_nodes=True), [x.cpu() for x in expected], 1e-15)


def test_it_compiles_for_gpus_without_spilling(triton_device):
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    with launches() as found:
        for dtype, real in ((torch.complex64, True), (torch.complex64, False), (torch.complex128, True)):
            with_gradients(system((1, 1), dtype=dtype), 4096, real, "triton", log_nodes=True)
    code = compile_for_gpus(found[:2], [90]) + compile_for_gpus(found[2:4], [90]) + compile_for_gpus(found[4:], [80])
    assert len(code) == 2 * (1 + 1 + 1)
    assert [entry for entry in code if entry["spilled"]] == []


@pytest.mark.gpu
@pytest.mark.parametrize("L", [65_536, 1 << 20])
def test_long_kernels(triton_device, L):
    arguments = system((64, 32), triton_device, torch.complex64)
    exact = [x.detach().cdouble().requires_grad_() for x in arguments]
    got = with_gradients(arguments, L, True, "triton", log_nodes=True)
    check(got, [x.cpu() for x in with_gradients(exact, L, True, "pytorch", log_nodes=True)], 3e-5)
