"""The linear scan in Triton: states and every gradient, any shape, type and direction; the code for GPUs."""

import pytest
import torch

from statespace.kernels import linear_scan
from tests.kernels.compilation import compile_for_gpus, launches

TOLERANCE = {
    torch.float64: 1e-11, torch.complex128: 1e-11, torch.float32: 3e-5, torch.complex64: 3e-5, torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
}  # fmt: skip


def problem(rows=(2, 3), L=61, factors=None, dtype=torch.float32, device="cpu"):
    """Factors of size up to 1, inputs and an initial state."""
    generator = torch.Generator().manual_seed(L)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=wide)  # noqa: E731
    a = draw(*((*rows, L) if factors is None else factors))
    a = a / torch.clamp(1.001 * a.abs(), min=1)
    return [x.to(device, dtype).requires_grad_() for x in (a, draw(*rows, L), draw(*rows))]


def with_gradients(arguments, backend, reverse=False):
    x = linear_scan(*arguments, reverse=reverse, backend=backend)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(x.device)
    weights = weights * (1 - 0.7j) if x.is_complex() else weights
    return x, *torch.autograd.grad((x * weights).real.sum() if x.is_complex() else (x * weights).sum(), arguments)


def in_full_precision(arguments):
    wide = torch.complex128 if arguments[1].is_complex() else torch.float64
    return [x.detach().to(wide).requires_grad_() for x in arguments]


def assert_equal_results(got, expected, tolerance):
    for name, x, y in zip(("x", "a", "b", "initial"), got, expected, strict=True):
        assert x.shape == y.shape, name
        largest = y.abs().max().clamp(min=1e-300)
        torch.testing.assert_close(
            x.to(y.dtype) / largest, y / largest, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture
def filled_with_nan(monkeypatch):
    """New memory that holds NaN: what a kernel forgets to write shows."""
    like, new = torch.empty_like, torch.Tensor.new_empty
    monkeypatch.setattr(torch, "empty_like", lambda *x, **o: like(*x, **o).fill_(float("nan")))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *x, **o: new(*x, **o).fill_(float("nan")))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "options",
    [dict(L=1), dict(rows=(), L=2), dict(rows=(17,), L=33), dict(rows=(1,), L=293)],
    ids=["one", "two", "rows", "stretches"],
)
def test_states_and_gradients(triton_device, filled_with_nan, options, dtype):
    arguments = problem(**options, dtype=dtype, device=triton_device)
    # Both directions of real and of complex numbers, the single and the double ones.
    reverse = dtype in (torch.float32, torch.complex128, torch.float16)
    got = with_gradients(arguments, "triton", reverse)
    assert {x.dtype for x in got} == {dtype}
    assert_equal_results(got, with_gradients(in_full_precision(arguments), "pytorch", reverse), TOLERANCE[dtype])


SHARED = [(1, 61), (3, 1, 61), (2, 1, 5, 61), (5, 1), (3, 5, 1), (61,), (), (2, 1, 5, 1, 1)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("factors", SHARED, ids=str)
def test_factors_that_rows_or_steps_share(triton_device, filled_with_nan, factors, dtype):
    rows = (2, 3, 5, 2) if len(factors) == 5 else (2, 3, 5)
    arguments = problem(rows, 61, factors, dtype, triton_device)
    reverse = len(factors) % 2 == 0
    expected = with_gradients(arguments, "pytorch", reverse)
    assert_equal_results(with_gradients(arguments, "triton", reverse), expected, 1e-11)


@pytest.mark.parametrize("radius", [0.0, 1e-30, 0.999, 1.0])
def test_hard_radii(triton_device, radius):
    b = torch.randn(2, 409, dtype=torch.float64).to(triton_device)
    for a in (torch.full_like(b, radius), torch.full((2, 1), radius).to(b)):
        expected = linear_scan(a, b, backend="pytorch")
        torch.testing.assert_close(linear_scan(a, b, backend="triton"), expected, rtol=1e-12, atol=1e-12)


def test_mixed_types(triton_device):
    a, b, initial = problem(dtype=torch.float64, device=triton_device)
    for mixed in (
        (a, b.cfloat(), initial),
        (a.cfloat(), b, initial.float()),
        (a.bfloat16(), b.float(), initial.half()),
    ):
        exact = [x.detach().to(torch.complex128 if x.is_complex() else torch.float64) for x in mixed]
        x = linear_scan(*mixed, backend="triton")
        assert x.dtype == linear_scan(*mixed, backend="pytorch").dtype
        torch.testing.assert_close(x, linear_scan(*exact, backend="pytorch").to(x.dtype), rtol=3e-5, atol=3e-5)


def test_no_rows(triton_device):
    b = torch.zeros(0, 5, device=triton_device, requires_grad=True)
    a = torch.ones(1, device=triton_device, requires_grad=True)
    x = linear_scan(a, b, backend="triton")
    assert x.shape == b.shape
    assert [g.shape for g in torch.autograd.grad(x.sum(), (a, b))] == [a.shape, b.shape]


def test_arrays_and_memory_that_is_not_contiguous(triton_device):
    a, b, initial = (x.detach() for x in problem((3, 4), 40, dtype=torch.complex128, device=triton_device))
    expected = linear_scan(a, b, initial, backend="pytorch")
    views = a.transpose(0, 2).contiguous().transpose(0, 2), b.mT.contiguous().mT, initial
    torch.testing.assert_close(linear_scan(*views, backend="triton"), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(linear_scan(a.conj(), b, backend="triton"), linear_scan(a.conj(), b, backend="pytorch"))
    if triton_device == "cpu":
        arrays = linear_scan(a.numpy(), b.numpy(), initial.numpy(), backend="triton")
        torch.testing.assert_close(torch.from_numpy(arrays), expected, rtol=0, atol=1e-12)


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = problem((2,), 70, (70,), torch.complex64, triton_device)
    compiled = torch.compile(lambda *x: linear_scan(*x, backend="triton"), fullgraph=True, backend="aot_eager")
    expected = with_gradients(arguments, "triton")
    x = compiled(*arguments)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(x.device)
    got = x, *torch.autograd.grad((x * (weights * (1 - 0.7j))).real.sum(), arguments)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_it_compiles_for_gpus_without_spilling(triton_device, monkeypatch):
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    from statespace.kernels.linear_scan import gpu_triton

    monkeypatch.setattr(gpu_triton, "STEPS", 1024)
    monkeypatch.setattr(gpu_triton, "TILE", 1024)
    with launches() as found:
        with_gradients(problem((1,), 1100, dtype=torch.bfloat16), "triton")
        with_gradients(problem((1,), 600, dtype=torch.complex64), "triton", reverse=True)
        with_gradients(problem((1,), 600, (1,)), "triton", reverse=True)
    code = compile_for_gpus(found, [90])
    assert {entry["kernel"] for entry in code} == {"_sums", "_states", "_backward"}
    assert [entry for entry in code if entry["spilled"]] == []
    assert (
        max(entry["registers"] for entry in code) <= 168
    )  # three programs of 128 threads on a multiprocessor at least


@pytest.mark.gpu
@pytest.mark.parametrize(("rows", "L"), [(4, 65_536), (1, 1_048_576), (2048, 4099)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_long_records_on_a_gpu(dtype, rows, L):
    arguments = problem((rows,), L, dtype=dtype, device="cuda")
    expected = with_gradients(in_full_precision(arguments), "pytorch")
    assert_equal_results(with_gradients(arguments, "triton"), expected, 3e-5)


@pytest.mark.gpu
def test_more_numbers_than_32_bits_count():
    rows, L = 70_000, 32_768
    a, b = torch.full((rows, 1), 0.5, device="cuda"), torch.ones(rows, L, dtype=torch.bfloat16, device="cuda")
    x = linear_scan(a.bfloat16(), b, backend="triton")
    assert x[-1, -1].item() == 2
    assert x[:, 40].min().item() == 2
