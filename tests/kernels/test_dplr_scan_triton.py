"""The scan in Triton: outputs, state and gradients by name, hard gaps, layouts, ranks, types; the code for GPUs."""

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, dplr_scan, explain
from tests.kernels.compilation import compile_for_gpus, launches
from tests.kernels.test_dplr_scan import problem

NAMES = ("y", "state", "u", "dt", "Lambda", "P", "B", "C", "initial")
TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
HARD = np.repeat([0.5, 0.0, 1e3, 1e-4, 0.5, 1e-6, 2.0], 3)
SHAPES = [
    dict(L=1, H=5), dict(L=2, H=1, pairs=33, rank=2), dict(L=35, batch=1), dict(L=17, batch=1, rank=2),
    dict(L=21, batch=1, gaps=HARD, rank=2), dict(L=2, batch=1, gaps=0.0),
]  # fmt: skip


@pytest.fixture(autouse=True)
def memory_full_of_nan():
    """What torch leaves uninitialised is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def tensors(device, dtype=torch.float64, **options):
    """u of this type, and the rest in what the kernels compute with."""
    arguments = [torch.from_numpy(np.ascontiguousarray(x)) for x in problem(**options)]
    real = torch.promote_types(dtype, torch.float32)
    types = dtype, real, *[torch.promote_types(real, torch.complex64)] * 5
    return [x.to(device, t).requires_grad_() for x, t in zip(arguments, types, strict=True)]


def exact(arguments):
    return [x.detach().cpu().to(torch.complex128 if x.is_complex() else torch.float64) for x in arguments]


def with_gradients(arguments, backend, run=dplr_scan):
    y, state = run(*arguments, backend=backend)
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(y.shape, generator=draw, dtype=torch.float64).to(y)
    of_state = torch.randn(state.shape, generator=draw, dtype=torch.complex128).to(state)
    loss = (y * weights).sum() + (state * of_state).real.sum()
    return y, state, *torch.autograd.grad(loss, [x for x in arguments if x is not None and x.requires_grad])


def check(got, expected, tolerance, names=NAMES):
    for name, x, y in zip(names, got, expected, strict=True):
        assert x.shape == y.shape
        error = (x.cpu().to(y) - y).abs().max() / y.abs().max().clamp(min=1e-300)
        assert error < tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_equals_the_reference(triton_device, options):
    arguments = tensors(triton_device, **options)
    got = with_gradients(arguments, "triton")
    check(got[:2], map(torch.from_numpy, dplr_scan(*(x.numpy() for x in exact(arguments)), backend="reference")), 1e-11,
          NAMES[:2])  # fmt: skip
    expected = with_gradients([x.requires_grad_() for x in exact(arguments)], "pytorch")
    check(got, expected, 1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_other_types(triton_device, dtype):
    arguments = tensors(triton_device, dtype, L=18, batch=1)
    got = with_gradients(arguments, "triton")
    assert [x.dtype for x in got[:4]] == [dtype, torch.complex64, dtype, torch.float32]
    check(got, with_gradients([x.requires_grad_() for x in exact(arguments)], "pytorch"), TOLERANCE[dtype])


@pytest.mark.parametrize("gap", [1e-6, 1e6])
def test_a_far_gap_keeps_the_digits_of_float32(triton_device, gap):
    """The state before and after a large gap are opposite, and their mean a millionth of them."""
    arguments = tensors(triton_device, torch.float32, L=4, batch=1, gaps=gap)
    got = with_gradients(arguments, "triton")
    check(got, with_gradients([x.requires_grad_() for x in exact(arguments)], "pytorch"), 3e-5)


def test_channels_last_unit_gaps_from_rest_and_no_gradients(triton_device):
    """As a layer hands its input on: outputs lie as inputs do, and nothing is kept for a way back that is not taken."""
    u, _, *system, _ = tensors(triton_device, L=5, batch=2)
    u = u.detach().transpose(1, 2).contiguous().transpose(1, 2)
    got = dplr_scan(u, None, *system, backend="triton")
    check(got, dplr_scan(u.cpu(), None, *(x.cpu() for x in system), backend="pytorch"), 1e-11, NAMES[:2])
    assert got[0].stride() == u.stride()
    with torch.no_grad():
        check(dplr_scan(u, None, *system, backend="triton"), [x.detach().cpu() for x in got], 1e-15, NAMES[:2])


@pytest.mark.parametrize("rank", [1, 2])
def test_chunks_of_long_records_side_by_side(triton_device, monkeypatch, rank):
    from statespace.kernels.dplr_scan import gpu_triton

    monkeypatch.setattr(gpu_triton, "LONG", 32)
    arguments = tensors(triton_device, L=33, batch=1, H=1, pairs=3, rank=rank)
    assert gpu_triton._cut(arguments[0], 3) == (3, 16)
    expected = with_gradients([x.requires_grad_() for x in exact(arguments)], "pytorch")
    check(with_gradients(arguments, "triton"), expected, 1e-11)
    with torch.no_grad():
        check(dplr_scan(*arguments, backend="triton"), expected[:2], 1e-11, NAMES[:2])


def test_a_higher_rank_is_refused(triton_device):
    arguments = tensors(triton_device, L=1, rank=3)
    with pytest.raises(BackendError, match="its kernels take rank 1 and 2, not 3"):
        dplr_scan(*arguments, backend="triton")
    assert "triton: its kernels take" in explain("dplr_scan", *arguments)


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = tensors(triton_device, L=3, batch=1)
    compiled = torch.compile(lambda *x, backend: dplr_scan(*x, backend=backend), fullgraph=True, backend="aot_eager")
    got = with_gradients(arguments, "triton", compiled)
    check(got, [x.cpu() for x in with_gradients(arguments, "triton")], 1e-15)


def test_it_compiles_for_gpus_without_spilling(triton_device, monkeypatch):
    """A layer's 32 pairs of states: a channel for a warp, or four where there are many; the chunks of long records."""
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    from statespace.kernels.dplr_scan import gpu_triton

    with launches() as found:
        for dtype, rank in ((torch.float32, 1), (torch.bfloat16, 2)):
            with_gradients(tensors("cpu", dtype, L=1, H=1, batch=1, pairs=32, rank=rank), "triton")
        found += [launch | {"values": launch["values"] | {"CHANNELS": 4}} for launch in found[:2]]
        monkeypatch.setattr(gpu_triton, "LONG", 16)
        with torch.no_grad():
            dplr_scan(*tensors("cpu", torch.float32, L=17, H=1, batch=1, pairs=32), backend="triton")
    found = [x for x in found if x["kernel"] != "forward" or x["values"]["KEEP"]]
    assert [x["kernel"] for x in found] == [*["forward", "backward"] * 3, "transfer", "join"]
    code = compile_for_gpus(found[:4]) + compile_for_gpus(found[4:], [90])
    assert len(code) == 2 * 4 + 4
    assert [entry for entry in code if entry["spilled"]] == []


@pytest.mark.gpu
@pytest.mark.parametrize(
    "options",
    [
        dict(batch=1, H=2, L=1 << 20, pairs=32),
        dict(batch=4, H=64, L=65_536, pairs=32),
        dict(batch=64, H=256, L=1024, pairs=32, rank=2),
    ],
    ids=str,
)
def test_long_records_and_many_channels(triton_device, options):
    """In float64 against the compiled loops on a few channels; in float32 against float64 on all."""
    arguments = tensors(triton_device, **options)
    got = with_gradients(arguments, "triton")
    u, dt, *system, initial = exact(arguments)
    few = dplr_scan(u[:1, :3], dt[:1], *(x[:3] for x in system), initial[:1, :3])
    check([x[:1, :3] for x in got[:2]], few, 1e-10, NAMES[:2])
    single = [x.detach().to(torch.complex64 if x.is_complex() else torch.float32).requires_grad_() for x in arguments]
    check(with_gradients(single, "triton"), [x.cpu() for x in got], 1e-3)
