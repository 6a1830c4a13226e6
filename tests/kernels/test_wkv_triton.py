"""RWKV's weighted average in Triton: outputs, final state, every gradient; segments, hard keys and gaps; GPU code."""

from importlib import import_module

import numpy as np
import pytest
import torch

from statespace.kernels import wkv
from tests.kernels.compilation import compile_for_gpus, launches
from tests.kernels.test_wkv import HARD, papers_sums, problem

NAMES = "w", "u", "k", "v", "state", "dt"
TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def with_gradients(function, arguments):
    """Outputs and the gradients by name of the same function of them; an argument may be None."""
    y, state = function(*arguments)
    generator = torch.Generator().manual_seed(0)
    loss = sum((x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum() for x in (y, state))
    given = {name: x for name, x in zip(NAMES, arguments, strict=False) if x is not None}
    gradients = torch.autograd.grad(loss, given.values())
    return {"y": y, "final state": state, **{f"d{n}": g for n, g in zip(given, gradients, strict=True)}}


def tensors(arrays, dtype, device):
    """k and v in the type, the rest in float32 at least."""
    wide = torch.promote_types(dtype, torch.float32)
    types = [dtype if i in (2, 3) else wide for i in range(6)]
    return [torch.from_numpy(x).to(device, t).requires_grad_() for x, t in zip(arrays, types, strict=True)]


def compare(got, expected, tolerance):
    for name, y in expected.items():
        error = (got[name].double().cpu() - y).abs().max() / max(1, y.abs().max())
        assert error < tolerance, f"{name}: {error:.1e}"


def segments(monkeypatch, steps=8):
    """Split even short records."""
    backend = import_module("statespace.kernels.wkv.gpu_triton")
    monkeypatch.setattr(backend, "SHORTEST", steps)
    monkeypatch.setattr(backend, "isqrt", lambda n: n)


CASES = [
    dict(L=1), dict(L=2, D=70), dict(L=19, gaps=1.0), dict(L=16, gaps=HARD, D=5), dict(L=3, gaps=0.0),
    dict(L=9, gaps=1e-6, B=1), dict(L=9, gaps=1e6, B=1), dict(L=9, keys=1e3, B=1), dict(L=17, keys=1e3, gaps=HARD, B=1),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("options", CASES, ids=str)
def test_equals_the_papers_sums(triton_device, options, dtype):
    arguments = tensors(problem(**options), dtype, triton_device)
    exact = [x.detach().double().cpu().requires_grad_() for x in arguments]
    # Keys of a thousand against decays of a thousand: the rounding of either is 6e-5 in an exponent.
    loose = dtype == torch.float32 and {"keys", "gaps"} <= options.keys()
    got = with_gradients(lambda *x: wkv(*x, backend="triton"), arguments)
    assert all(x.dtype == dtype for x in got.values())
    compare(got, with_gradients(papers_sums, exact), 2e-4 if loose else TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("options", [dict(L=37), dict(L=41, gaps=HARD, keys=3.0, B=1)], ids=str)
def test_a_record_in_segments(triton_device, monkeypatch, options, dtype):
    segments(monkeypatch)
    arguments = tensors(problem(**options), dtype, triton_device)
    exact = [x.detach().double().cpu().requires_grad_() for x in arguments]
    got = with_gradients(lambda *x: wkv(*x, backend="triton"), arguments)
    compare(got, with_gradients(papers_sums, exact), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_types(triton_device, dtype):
    arguments = tensors(problem(L=13, D=5), dtype, triton_device)
    exact = [x.detach().double().cpu().requires_grad_() for x in arguments]
    got = with_gradients(lambda *x: wkv(*x, backend="triton"), arguments)
    assert (got["y"].dtype, got["final state"].dtype, got["dk"].dtype) == (dtype, torch.float32, dtype)
    compare(got, with_gradients(papers_sums, exact), TOLERANCE[dtype])


@pytest.mark.parametrize("split", [False, True])
def test_defaults_and_a_past_without_samples(triton_device, monkeypatch, split):
    if split:
        segments(monkeypatch)
    arrays = problem(L=18, D=3)
    arguments = tensors(arrays, torch.float64, triton_device)[:4]
    exact = [x.detach().cpu().requires_grad_() for x in arguments]
    got = with_gradients(lambda *x: wkv(*x, backend="triton"), arguments)
    compare(got, with_gradients(papers_sums, exact), 1e-11)


@pytest.mark.parametrize("split", [False, True])
def test_padding_may_hold_anything(triton_device, monkeypatch, split):
    if split:
        segments(monkeypatch)
    w, u, k, v, state, dt = problem(L=24, D=5)
    state[1], dt[1, 12:], dt[0] = 0, 0, 0
    # As if the state of nothing had next to no weight.
    exact = [torch.from_numpy(x.copy()).requires_grad_() for x in (w, u, k, v)]
    exact += [torch.from_numpy(x).requires_grad_() for x in (np.where(state == 0, [0.0, 1e-300, -600.0], state), dt)]
    expected = with_gradients(papers_sums, exact)
    k[1, 12:], v[1, 12:] = np.nan, np.inf
    arguments = tensors((w, u, k, v, state, dt), torch.float64, triton_device)
    got = with_gradients(lambda *x: wkv(*x, backend="triton"), arguments)
    assert (got["dstate"][1] == 0).all()
    compare({**got, "dstate": expected["dstate"]}, expected, 1e-11)


def test_results_are_written_whole(triton_device, monkeypatch):
    """Memory that holds NaN before changes nothing."""
    segments(monkeypatch)
    arguments = tensors(problem(L=20, D=3, B=1), torch.float32, triton_device)
    expected = with_gradients(lambda *x: wkv(*x, backend="triton"), arguments)
    empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **o: empty(*a, **o).fill_(torch.nan))
    got = with_gradients(lambda *x: wkv(*x, backend="triton"), arguments)
    for name, x in expected.items():
        torch.testing.assert_close(got[name], x, rtol=0, atol=0, msg=name)


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = tensors(problem(L=9, D=3), torch.float32, triton_device)
    compiled = torch.compile(lambda *x: wkv(*x, backend="triton"), fullgraph=True, backend="aot_eager")
    expected = with_gradients(lambda *x: wkv(*x, backend="triton"), arguments)
    for name, x in with_gradients(compiled, arguments).items():
        torch.testing.assert_close(x, expected[name], rtol=1e-6, atol=1e-6, msg=name)


def test_it_compiles_for_gpus_without_spilling(triton_device, monkeypatch):
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    segments(monkeypatch)
    for dtype, capability in [(torch.float32, 90), (torch.bfloat16, 80)]:
        arguments = tensors(problem(L=16, D=64, B=2), dtype, triton_device)
        with launches() as found:
            with_gradients(lambda *x: wkv(*x, backend="triton"), arguments)
        code = compile_for_gpus(found, [capability])
        assert len(code) == 4
        assert [entry for entry in code if entry["spilled"]] == []


@pytest.mark.gpu
@pytest.mark.parametrize(
    "sizes", [(16, 4096, 1024), (1, 65_536, 256), (2, 1_000_003, 33), (1, 40_000_000, 64)], ids=str
)
def test_large_problems(sizes):
    """A record cut anywhere is one pass, in outputs and gradients; the largest one has more than 2^31 numbers."""
    B, L, D = sizes
    generator = torch.Generator("cuda").manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, device="cuda", dtype=torch.bfloat16)  # noqa: E731
    w, u = torch.linspace(1e-3, 3, D, device="cuda"), torch.linspace(-1, 1, D, device="cuda")
    k, v = draw(B, L, D), draw(B, L, D)
    with torch.no_grad():
        y, state = wkv(w, u, k, v, backend="triton")
        cut = L - min(L // 3, 100_000)
        _, between = wkv(w, u, k[:, :cut], v[:, :cut], backend="triton")
    del y
    tail = [x[:, cut:].double().requires_grad_() for x in (k, v)]
    expected, last = wkv(w.double(), u.double(), *tail, between.double(), backend="pytorch")
    k, v = (x[:, cut:].float().requires_grad_() for x in (k, v))
    got, final = wkv(w, u, k, v, between, backend="triton")
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=3e-5)
    torch.testing.assert_close(final.double(), last, rtol=0, atol=3e-5)
    torch.testing.assert_close(final, state, rtol=0, atol=3e-5)
