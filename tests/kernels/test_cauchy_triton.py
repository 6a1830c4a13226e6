"""Cauchy products in Triton against the sum as it is written: values, gradients, poles near; the code for GPUs."""

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, cauchy
from tests.kernels.compilation import compile_for_gpus, launches

TOLERANCE = {torch.complex128: 1e-13, torch.complex64: 3e-6}
# Shapes of v, z and w: more nodes than a block has, more sums than a program takes, everything broadcast, one of each.
SHAPES = [((5,), (130,), (5,)), ((2, 9, 3), (7,), (2, 1, 3)), ((2, 1, 1), (1, 3, 9), (5,)), ((1,), (1,), (1,))]


@pytest.fixture(autouse=True)
def memory_full_of_nan():
    """What torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def problem(shapes, dtype=torch.complex128, device="cpu"):
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.complex128) for shape in shapes]
    return [x.to(device, dtype).requires_grad_() for x in drawn]


def with_gradients(arguments, conjugate, backend):
    k = cauchy(*arguments, conjugate=conjugate, backend=backend)
    weights = torch.randn(k.shape, generator=torch.Generator().manual_seed(1), dtype=torch.complex128).to(k)
    return k, *torch.autograd.grad((k * weights).real.sum(), arguments)


def relative_error(got, expected):
    return ((got.to(expected) - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize(
    ("shapes", "dtype"),
    [*((s, torch.complex128) for s in SHAPES), (SHAPES[1], torch.complex64)],
    ids=str,
)
def test_values_and_gradients(triton_device, shapes, dtype, conjugate):
    arguments = problem(shapes, dtype, triton_device)
    exact = [x.detach().cpu().cdouble().requires_grad_() for x in arguments]
    expected = with_gradients(exact, conjugate, "pytorch")
    for name, x, y in zip("kvzw", with_gradients(arguments, conjugate, "triton"), expected, strict=True):
        assert (x.dtype, x.shape) == (dtype, y.shape)
        assert relative_error(x, y) < TOLERANCE[dtype], name
    reference = cauchy(*(x.detach().numpy() for x in exact), conjugate=conjugate, backend="reference")
    assert relative_error(expected[0], torch.from_numpy(reference)) < 1e-13


def test_sums_over_many_nodes_are_cut(triton_device, monkeypatch):
    from statespace.kernels.cauchy import gpu_triton

    monkeypatch.setattr(gpu_triton, "FEWEST_NODES", 100)
    arguments = problem(((2,), (300,), (2,)), device=triton_device)
    of_triton = with_gradients(arguments, True, "triton")
    for x, y in zip(of_triton, with_gradients(arguments, True, "pytorch"), strict=True):
        assert relative_error(x, y) < 1e-13


def test_digits_stay_near_a_pole_and_far_away(triton_device):
    """On the imaginary axis, at distances from 1e-9 of a pole whose conjugate is far away."""
    pole, distance = complex(-1e-6, 300.0), 10.0 ** np.arange(-9.0, 3.0)
    z = 1j * (300.0 + distance)
    on_device = [torch.from_numpy(np.array(x)).to(triton_device) for x in ([0.3 - 0.7j], z, [pole])]
    expected = cauchy(*(x.cpu().numpy() for x in on_device), conjugate=True, backend="reference")
    got = cauchy(*on_device, conjugate=True, backend="triton").cpu().numpy()
    np.testing.assert_allclose(got, expected, rtol=2e-12)
    far = [torch.full((1,), x, dtype=torch.complex64, device=triton_device) for x in (1.0, 3e25j, -1.0)]
    torch.testing.assert_close(cauchy(*far, backend="triton").cpu(), torch.tensor([-1j / 3e25]), rtol=1e-6, atol=0)


def test_numpy_arrays_and_the_missing_gradients(triton_device):
    """Of the nodes alone, and of the states alone."""
    arguments = problem(SHAPES[0], device=triton_device)
    if triton_device == "cpu":
        arrays = [x.detach().numpy() for x in arguments]
        assert relative_error(torch.from_numpy(cauchy(*arrays, backend="triton")), cauchy(*arguments).detach()) < 1e-13
    else:
        with pytest.raises(BackendError, match="an array is in main memory"):
            cauchy(*(x.detach().cpu().numpy() for x in arguments), backend="triton")
    v, z, w = arguments
    for chosen in ([v], [z]):
        given = [x if any(x is y for y in chosen) else x.detach() for x in (v, z, w)]
        results = [torch.autograd.grad(cauchy(*given, backend=b).real.sum(), chosen) for b in ("triton", "pytorch")]
        assert relative_error(results[0][0], results[1][0]) < 1e-13


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = problem(SHAPES[0], device=triton_device)
    compiled = torch.compile(
        lambda *x: torch.view_as_real(cauchy(*x, conjugate=True, backend="triton")), fullgraph=True, backend="aot_eager"
    )
    got = torch.view_as_complex(compiled(*arguments))
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=torch.complex128).to(got)
    results = got, *torch.autograd.grad((got * weights).real.sum(), arguments)
    for x, y in zip(results, with_gradients(arguments, True, "triton"), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-15, atol=0)


def test_it_compiles_for_gpus_without_spilling(triton_device):
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    with launches() as found:
        for dtype in (torch.complex64, torch.complex128):
            with_gradients(problem(((1, 8, 2), (5,), (1, 1, 2)), dtype), True, "triton")
    code = compile_for_gpus(found[:3]) + compile_for_gpus(found[3:], [80])
    assert len(code) == 3 * (2 + 1)
    assert [entry for entry in code if entry["spilled"]] == []


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_a_layer_of_long_records(triton_device, dtype):
    """S4's own: 64 channels, four sums over 32 pairs, a quarter of a million roots of unity."""
    H, n, L = 64, 32, 1 << 18
    angle = torch.arange(L, dtype=torch.float64, device=triton_device) * (torch.pi / L / 1.001)
    z = 2j * torch.tan(angle / 2)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(H, 4, n, generator=generator, dtype=torch.complex128).to(triton_device)
    w = torch.complex(torch.full((H, 1, n), -0.5), torch.arange(n).expand(H, 1, n) * 0.1).to(v)
    arguments = [x.to(dtype).requires_grad_() for x in (v, z, w)]
    exact = [x.detach().cdouble().requires_grad_() for x in arguments]
    results = with_gradients(arguments, True, "triton")
    for name, x, y in zip("kvzw", results, with_gradients(exact, True, "pytorch"), strict=True):
        assert relative_error(x, y) < {torch.complex128: 1e-11, torch.complex64: 3e-5}[dtype], name
