"""The dual form in Triton: outputs, final states and every gradient against the exact ones; the code for GPUs."""

import importlib

import numpy as np
import pytest
import torch

from statespace.kernels import ssd
from tests.kernels.compilation import compile_for_gpus, launches
from tests.kernels.test_ssd import INPUTS, problem, with_gradients

BURSTS = np.resize([0.5, 0.0, 1e6, 1e-6, 1e-4, 1e3, 0.5, 2.0, 1e-6], 37)
PROBLEMS = {
    "one": dict(L=1),
    "two": dict(L=2, packed=True, batch=1),
    "odd": dict(L=37, H=4, P=5, N=7, G=2, batch=1),
    "packed": dict(L=53, H=2, P=6, N=18, batch=1, packed=True, per_channel=True),
    "blocks": dict(L=17, H=1, P=70, N=3, batch=1),
    "limits": dict(L=19, dt_limit=(0.1, 0.9), batch=1),
    "bursts": dict(L=37, gaps=BURSTS, H=2, P=4, N=8, batch=1),
    "slow": dict(L=97, batch=1, H=1, rates=(1e-5, 1e-3)),
    "fast": dict(L=37, rates=(1e2, 1e6), batch=1),
}
TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
DTYPES = {torch.float64: tuple(PROBLEMS), torch.float32: ("bursts", "packed"), torch.bfloat16: ("odd",),
          torch.float16: ("odd",)}  # fmt: skip


@pytest.fixture
def module(triton_device, monkeypatch):
    """The backend; interpreted, with short chunks."""
    found = importlib.import_module("statespace.kernels.ssd.gpu_triton")
    if triton_device == "cpu":
        monkeypatch.setattr(found, "CHUNK", dict.fromkeys(found.CHUNK, 16))
    return found


@pytest.fixture
def memory_of_nan(monkeypatch):
    """What is never written shows."""

    def filling(original):
        def filled(*arguments, **options):
            x = original(*arguments, **options)
            return x.fill_(torch.nan) if x.is_floating_point() else x

        return filled

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, filling(getattr(owner, name)))


def compare(arguments, device, dtype, tolerance=None, backend="triton"):
    """Of everything float64 and the dual form in torch say on the same numbers; relative to the largest."""
    rounded = {n: a.to(dtype) if n in INPUTS else a for n, a in arguments.items()}
    exact = {n: a.double() if n in INPUTS else a for n, a in rounded.items()}
    expected = with_gradients(lambda **a: ssd(**a, backend="pytorch"), exact)
    here = {n: a.to(device) if isinstance(a, torch.Tensor) else a for n, a in rounded.items()}
    got = with_gradients(lambda **a: ssd(**a, backend=backend), here)
    for name, value in expected.items():
        assert got[name].dtype == (torch.promote_types(dtype, torch.float32) if name == "final_states" else dtype)
        scale = max(1.0, value.abs().max().item())
        np.testing.assert_allclose(
            got[name].detach().double().cpu() / scale, value.detach() / scale, rtol=0,
            atol=tolerance or TOLERANCE[dtype], err_msg=name,
        )  # fmt: skip


@pytest.mark.parametrize(("dtype", "name"), [(d, n) for d, names in DTYPES.items() for n in names], ids=str)
def test_outputs_and_every_gradient(module, triton_device, memory_of_nan, dtype, name):
    compare(problem(**PROBLEMS[name]), triton_device, dtype)


def test_few_programs_and_little_memory(module, triton_device, memory_of_nan, monkeypatch):
    """One segment for a whole record, and segments of several chunks, whose states do not fit together."""
    arguments = problem(L=70, batch=1, H=2, P=3, N=5, packed=True)
    monkeypatch.setattr(module, "PROGRAMS", 1)
    compare(arguments, triton_device, torch.float64)
    monkeypatch.setattr(module, "SCRATCH", 2 * 2 * 2 * 3 * 5 * 8)  # two chunks
    compare(arguments, triton_device, torch.float64)


def test_states_larger_than_a_tile(module, triton_device, monkeypatch):
    monkeypatch.setattr(module, "TILE", dict.fromkeys(module.TILE, 16))
    compare(problem(L=18, batch=1, H=1, P=3, N=19), triton_device, torch.float64)


def test_decays_apart_from_the_steps_and_nothing_else(module, triton_device):
    a = {n: v.to(triton_device) for n, v in problem(21).items() if n in ("x", "dt", "B", "C")}
    a["dt"] = a["dt"].abs()
    decay = -3 * torch.rand(2, 21, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    decay[:, 7], decay[:, 15] = 0.0, -torch.inf
    a["decay"] = decay.to(triton_device)
    results = {}
    for backend in ("triton", "pytorch"):
        given = {n: v.clone().requires_grad_() for n, v in a.items()}
        y = ssd(given["x"], given["dt"], None, given["B"], given["C"], decay=given["decay"], backend=backend)
        results[backend] = y, *torch.autograd.grad(y.sin().sum(), [given[n] for n in a if n != "decay"])
        if backend == "triton":
            (slope,) = torch.autograd.grad(
                ssd(*(given[n] for n in ("x", "dt")), None, given["B"], given["C"], decay=given["decay"],
                    backend=backend).sin().sum(), given["decay"],
            )  # fmt: skip
            assert slope.isfinite().all()
            assert not slope[:, 15].any()
    for got, expected in zip(*results.values(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def test_arrays_and_defaults(module, triton_device):
    if triton_device != "cpu":
        pytest.skip("arrays stay in main memory")
    a = {n: problem(9)[n].numpy() for n in ("x", "dt", "A", "B", "C")}
    np.testing.assert_allclose(ssd(**a, backend="triton"), ssd(**a, backend="reference"), atol=1e-12)
    a["x"] = (10 * a["x"]).astype(int)
    np.testing.assert_allclose(ssd(**a, backend="triton"), ssd(**a, backend="reference"), rtol=1e-5, atol=1e-4)


def test_small_steps_behind_a_long_gap_keep_their_digits(module, triton_device):
    gap = torch.full((1, 64), 1e-3, device=triton_device)
    gap[0, 5] = 1e6
    ones = torch.ones(1, 64, 1, 1, device=triton_device)
    arguments = ones, ones[..., 0], torch.tensor([-16.0], device=triton_device), ones, ones
    y = ssd(*arguments, gap=gap, backend="triton")
    exact = ssd(*(a.double() for a in arguments), gap=gap.double(), backend="pytorch")
    torch.testing.assert_close(y.double(), exact, rtol=2e-6, atol=0)


def test_it_is_one_piece_of_a_compiled_program(module, triton_device):
    arguments = {
        n: a.to(triton_device) if isinstance(a, torch.Tensor) else a for n, a in problem(9, batch=1, H=1).items()
    }
    compiled = torch.compile(lambda **a: ssd(**a, backend="triton"), fullgraph=True, backend="aot_eager")
    expected = with_gradients(lambda **a: ssd(**a, backend="triton"), arguments)
    for name, got in with_gradients(compiled, arguments).items():
        torch.testing.assert_close(got, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_the_code_for_gpus_keeps_its_sums_in_registers(triton_device, monkeypatch, dtype):
    """Chunks and tiles as on a GPU, loops over several of each; launches are recorded, and nothing is computed."""
    if triton_device != "cpu":
        pytest.skip("launches are recorded by the interpreter")
    from triton.runtime.interpreter import InterpretedFunction

    module = importlib.import_module("statespace.kernels.ssd.gpu_triton")
    monkeypatch.setattr(module, "PROGRAMS", 8)
    monkeypatch.setattr(InterpretedFunction, "run", lambda *arguments, **options: None)
    arguments = {n: a.to(dtype) if n in INPUTS else a for n, a in problem(1000, H=8, P=64, N=128, packed=True).items()}
    with launches() as found:
        with_gradients(lambda **a: ssd(**a, backend="triton"), arguments)
    found = [launch for launch in found if launch["module"] != "statespace.kernels.ssd.triton_steps"]
    names = {launch["kernel"] for launch in found}
    assert names == {"sum_up", "score", "carry", "outputs", "ungate", "of_products", "of_inputs", "of_rows"}
    code = compile_for_gpus(found, [80, 90] if dtype == torch.bfloat16 else [90])
    assert [entry for entry in code if entry["spilled"] or entry["shared"] > 96 * 1024] == []


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(64, 128, 1), (64, 64, 2), (33, 16, 1), (80, 256, 1)], ids=str)
def test_realistic_sizes_on_a_gpu(dtype, size):
    P, N, G = size
    arguments = problem(700, H=4, P=P, N=N, G=G, packed=True)
    compare(arguments, "cuda", dtype, 3e-2 if dtype == torch.bfloat16 else None)


@pytest.mark.gpu
@pytest.mark.parametrize("L", [65_536, 1_000_003])
def test_long_records_on_a_gpu(L):
    """A record cut in two is one record; the gradients of long ones reach their beginnings."""
    a = {n: v.cuda().float() if n in INPUTS else v for n, v in problem(L, batch=1, H=2, P=16, N=16).items()}
    a["A"] = -torch.tensor([1e-6, 1.0], device="cuda")
    exact = {n: v.double() if n in INPUTS else v for n, v in a.items()}
    y, final = ssd(**a, backend="triton")
    cut = L // 3
    head = {n: v[:, :cut] if n in ("x", "dt", "B", "C", "z", "gap") else v for n, v in exact.items()}
    tail = {n: v[:, cut:] if n in ("x", "dt", "B", "C", "z", "gap") else v for n, v in exact.items()}
    first, state = ssd(**head, backend="triton")
    second, last = ssd(**(tail | {"initial_states": state}), backend="triton")
    for got, expected in ((y, torch.cat([first, second], dim=1)), (final, last)):
        assert (got - expected).abs().max() < 3e-5 * expected.abs().max()
    got = with_gradients(lambda **k: ssd(**k, backend="triton"), a)
    expected = with_gradients(lambda **k: ssd(**k, backend="triton"), exact)
    for name, value in expected.items():
        assert (got[name] - value).abs().max() < 3e-4 * value.abs().max(), name


@pytest.mark.gpu
def test_more_numbers_than_32_bits_count():
    L, H, P = 2**20 + 5, 32, 64
    x = torch.randn(1, L, H, P, device="cuda", dtype=torch.bfloat16)
    B, C = (torch.randn(1, L, 1, 16, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    dt, A = torch.full((1, L, H), 0.5, device="cuda"), -torch.ones(H, device="cuda")
    last = slice(L - 4096, L)
    with torch.no_grad():
        y, final = ssd(x, dt, A, B, C, return_final_states=True, backend="triton")
        expected, state = ssd(*(a[:, last] for a in (x, dt)), A, *(a[:, last].float() for a in (B, C)),
                              return_final_states=True, backend="pytorch")  # fmt: skip
    torch.testing.assert_close(final, state, rtol=0, atol=2e-2 * state.abs().max().item())
    got, expected = y[:, -1000:].float(), expected[:, -1000:].float()
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-2 * expected.abs().max().item())


@pytest.mark.gpu
def test_a_cuda_graph_captures_it():
    a = {n: v.cuda().float() if n in INPUTS else v for n, v in problem(300, H=2, P=16, N=16).items()}
    a["seq_idx"] = (torch.arange(300, device="cuda") // 70).expand(2, -1).contiguous()
    expected = with_gradients(lambda **k: ssd(**k, backend="triton"), a)
    given = {n: v.requires_grad_() if n in INPUTS else v for n, v in a.items()}
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        y, final = ssd(**given, backend="triton")
        torch.autograd.grad((y.sum() + final.sum()), [given[n] for n in INPUTS])
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y, final = ssd(**given, backend="triton")
    graph.replay()
    torch.testing.assert_close(y, expected["y"], rtol=0, atol=0)
    torch.testing.assert_close(final, expected["final_states"], rtol=0, atol=0)
