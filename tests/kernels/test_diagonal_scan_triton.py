"""The diagonal scan in Triton: outputs, final state and every gradient, both rules, hard gaps; the code for GPUs."""

import numpy as np
import pytest
import torch

from statespace.kernels import diagonal_scan
from tests.kernels.compilation import compile_for_gpus, launches
from tests.kernels.test_diagonal_scan import problem

TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
NAMES = "y", "state", "u", "dt", "rate", "c", "initial", "skip"
BURSTS = np.array([0.5, 0.0, 1e3, 1e-4, 0.5, 0.5, 2.0, 1e-6, 1e6, 0.1, 0.7])


def tensors(dtype, device, leave_out=(), **options):
    """The arguments by name; dt and skip in float32 beside a half input, as the layers have them."""
    u, *rest = (torch.from_numpy(np.array(x)) for x in problem(**options))
    given = dict(zip(NAMES[2:], (u, *rest, torch.linspace(-1, 1, u.shape[1], dtype=torch.float64)), strict=True))
    single = torch.promote_types(dtype, torch.float32)
    double = {"u": dtype, "dt": single, "skip": single, "rate": torch.complex128}
    result = {}
    for name, x in given.items():
        kind = double.get(name, torch.promote_types(single, torch.complex64))
        result[name] = None if name in leave_out else x.to(device, kind).requires_grad_()
    return result


def with_gradients(arguments, backend, discretization="zoh"):
    y, state = diagonal_scan(*arguments.values(), discretization=discretization, backend=backend)
    draw = lambda x: torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(x.device)  # noqa: E731
    loss = (y * draw(y)).sum() + (state * (draw(state) * (1 - 0.7j))).real.sum()
    given = {name: x for name, x in arguments.items() if x is not None}
    return {"y": y, "state": state} | dict(zip(given, torch.autograd.grad(loss, given.values()), strict=True))


def in_full_precision(arguments):
    wide = lambda x: x.detach().to(torch.complex128 if x.is_complex() else torch.float64).requires_grad_()  # noqa: E731
    return {name: None if x is None else wide(x) for name, x in arguments.items()}


def assert_equal_results(got, expected, tolerance):
    assert got.keys() == expected.keys()
    for name, y in expected.items():
        largest = y.abs().max().clamp(min=1e-300)
        torch.testing.assert_close(
            got[name].to(y.dtype) / largest, y / largest, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture
def filled_with_nan(monkeypatch):
    """New memory that holds NaN: what a kernel forgets to write shows."""
    like, new = torch.empty_like, torch.Tensor.new_empty
    monkeypatch.setattr(torch, "empty_like", lambda *x, **o: like(*x, **o).fill_(float("nan")))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *x, **o: new(*x, **o).fill_(float("nan")))


@pytest.mark.parametrize(
    ("dtype", "discretization", "options"),
    [
        (torch.float64, "zoh", dict(B=2, L=1, nodes=1)),
        (torch.float64, "bilinear", dict(B=1, L=13, leave_out=("skip",))),
        (torch.float64, "zoh", dict(B=1, H=2, L=17, nodes=33)),
        (torch.float64, "zoh", dict(B=1, L=11, gaps=BURSTS, leave_out=("initial",))),
        (torch.float64, "zoh", dict(B=1, L=9, leave_out=("dt",))),
        (torch.float64, "bilinear", dict(B=1, L=3, nodes=2, leave_out=("dt", "skip"))),
        (torch.float32, "zoh", dict(B=1, L=11, gaps=BURSTS)),
        (torch.float32, "bilinear", dict(B=1, L=11, gaps=BURSTS)),
        (torch.bfloat16, "zoh", dict(B=1, L=7, H=2)),
        (torch.float16, "zoh", dict(B=1, L=7, H=2, leave_out=("dt",))),
    ],
    ids=str,
)
def test_outputs_and_gradients(triton_device, filled_with_nan, dtype, discretization, options):
    arguments = tensors(dtype, triton_device, **options)
    got = with_gradients(arguments, "triton", discretization)
    assert got["y"].dtype == got["u"].dtype == dtype
    assert got["state"].dtype == torch.promote_types(dtype, torch.complex64)
    expected = with_gradients(in_full_precision(arguments), "pytorch", discretization)
    assert_equal_results(got, expected, TOLERANCE[dtype])


def test_float32_keeps_the_digits_of_a_slow_node(triton_device):
    """A rounded Ā would leave three of them: Ā - 1 = 1e-5, and Ā errs by 3e-8."""
    L = 20 if triton_device == "cpu" else 20_000
    u = torch.ones(1, 1, L, device=triton_device)
    rate = torch.tensor([[-1e-5 + 2e-5j]], dtype=torch.complex128, device=triton_device)
    for dt in (None, torch.ones(1, L, device=triton_device)):
        y, _ = diagonal_scan(u, dt, rate, torch.ones_like(rate).cfloat(), backend="triton")
        expected = torch.expm1(rate * torch.arange(1, L + 1, device=triton_device)).real
        torch.testing.assert_close(y[0].double(), expected, rtol=0, atol=3e-6 * expected.abs().max().item())


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = tensors(torch.float32, triton_device, B=1, L=9, H=2)
    compiled = torch.compile(lambda *x: diagonal_scan(*x, backend="triton"), fullgraph=True, backend="aot_eager")
    expected = diagonal_scan(*arguments.values(), backend="triton")
    got = compiled(*arguments.values())
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    losses = [(y.square().sum() + s.abs().sum()) for y, s in (got, expected)]
    results = [torch.autograd.grad(x, list(arguments.values())) for x in losses]
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


def test_it_compiles_for_gpus_without_spilling(triton_device):
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    with launches() as found:
        with_gradients(tensors(torch.float32, "cpu", B=1, H=2, L=9, nodes=32), "triton")
        with_gradients(tensors(torch.bfloat16, "cpu", B=1, H=2, L=2, nodes=32), "triton")  # one stretch
    for launch in found:
        if "CHUNK" in launch["values"]:
            launch["values"]["CHUNK"] = 64
    # What runs once more before the others has nothing that those do not have.
    code = compile_for_gpus([launch for launch in found if launch["values"].get("BACK", True)], [90])
    assert {entry["kernel"] for entry in code} == {"_sums", "_forward", "_backward", "through"}
    assert [entry for entry in code if entry["spilled"]] == []
    # The forward pass has as many programs of one warp as a multiprocessor holds.
    assert max(entry["registers"] for entry in code if entry["kernel"] == "_forward") <= 80


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(8, 256, 1024, 32), (1, 3, 65_536, 32), (2, 65, 4099, 70)], ids=str)
def test_long_records_on_a_gpu(shape):
    B, H, L, nodes = shape
    arguments = tensors(torch.float32, "cuda", B=B, H=H, L=L, nodes=nodes)
    got = with_gradients(arguments, "triton")
    wide = in_full_precision(arguments)
    assert_equal_results(got, with_gradients(wide, "triton"), 3e-5)
    few = {name: None if x is None else x.detach() for name, x in wide.items()}
    y, state = diagonal_scan(*few.values(), backend="pytorch")
    assert_equal_results({"y": got["y"], "state": got["state"]}, {"y": y, "state": state}, 3e-5)
