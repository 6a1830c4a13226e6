"""Variants of Triton kernels: the same numbers; the fastest found once, for a class of sizes, and kept on disk."""

import json
import re
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from statespace import kernels
from statespace.kernels.dispatch import available

pytest.importorskip("triton", reason="triton is not installed: pip install 'statespace-learn[gpu]'")

TRITON = sorted(name for name in kernels.__all__ if "triton" in available(name))


def drawn(*shape, complex_=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.complex128 if complex_ else torch.float64)


def nodes(*shape):
    return torch.complex(-drawn(*shape).abs() - 0.1, 3 * drawn(*shape, seed=1))


def selective(N=8, **more):
    u, delta = drawn(1, 2, 11), drawn(1, 2, 11, seed=1) - 1
    B, C = drawn(1, N, 11, seed=2), drawn(1, N, 11, seed=3)
    return kernels.selective_scan, [u, delta, -drawn(2, N).abs(), B, C, drawn(2)], {"delta_softplus": True, **more}


# One call of each primitive whose kernels have variants of other blocks, of more than one block where that is cheap.
CALLS = {
    "cauchy": lambda: (kernels.cauchy, [drawn(3, complex_=True), 1j * drawn(150), nodes(3)], {"conjugate": True}),
    "delta_rule": lambda: (
        kernels.delta_rule,
        [drawn(1, 18, 1, 8), drawn(1, 18, 1, 8, seed=1) / 4, drawn(1, 18, 1, 40), drawn(1, 18, 1).sigmoid()],
        {"chunk_size": 16},
    ),
    "diagonal_scan": lambda: (
        kernels.diagonal_scan,
        [drawn(1, 2, 19), drawn(1, 19).abs(), nodes(2, 2), drawn(2, 2, complex_=True)],
        {},
    ),
    "diagonal_states": lambda: (kernels.diagonal_states, [drawn(1, 19, 2, 3), drawn(1, 19).abs(), nodes(3)], {}),
    "dplr_scan": lambda: (
        kernels.dplr_scan,
        [
            drawn(1, 33, 5), drawn(1, 5).abs(), nodes(33, 2), drawn(33, 1, 2, complex_=True),
            drawn(33, 2, complex_=True), drawn(33, 2, complex_=True, seed=2),
        ],
        {},
    ),
    "selective_scan": selective,
    "vandermonde": lambda: (kernels.vandermonde, [drawn(2, 20, complex_=True), nodes(2, 20), 40], {"log_nodes": True}),
    "wkv": lambda: (kernels.wkv, [drawn(70).abs(), drawn(70), drawn(1, 9, 70), drawn(1, 9, 70, seed=1)], {}),
}  # fmt: skip


class Noting(TorchDispatchMode):
    """Collects the calls of this package's operators and what came of them."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace != "statespace":
            return function(*args, **(kwargs or {}))
        before = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in args]
        found = function(*args)
        self.calls.append((function, args, before, found))
        return found


def with_gradients(call, device):
    function, arguments, options = call()
    leaves = [x.to(device).requires_grad_() if isinstance(x, torch.Tensor) else x for x in arguments]
    found = function(*leaves, **options, backend="triton")
    outputs = [y for y in (found if isinstance(found, tuple) else (found,)) if isinstance(y, torch.Tensor)]
    loss = sum((torch.view_as_real(y) if y.is_complex() else y).square().sum() for y in outputs)
    return outputs + list(torch.autograd.grad(loss, [x for x in leaves if isinstance(x, torch.Tensor)]))


@cache
def as_launched(call, device):
    """Outputs and gradients, and the operators' calls, for the tests of a process."""
    with Noting() as noting:
        found = with_gradients(call, device)
    return found, noting.calls


@pytest.mark.parametrize("name", CALLS)
def test_every_variant_gives_the_same_numbers(triton_device, monkeypatch, name):
    from statespace.kernels.tuning import Tuned

    expected, which, seen, tried = as_launched(CALLS[name], triton_device)[0], 0, set(), set()

    def choose(self, grid, arguments, options):
        variants = self.variants(options)
        taken = min(which, len(variants) - 1)
        seen.update((self._name(), i) for i in range(1, len(variants)))
        tried.add((self._name(), taken))
        return variants[taken]

    monkeypatch.setattr(Tuned, "_choose", choose)
    # As many columns as a program of bfloat16 has, so that half of them is a variant.
    monkeypatch.setattr(import_module("statespace.kernels.delta_rule.gpu_triton"), "_columns", lambda *_: 32)
    while which == 0 or max((i for _, i in seen), default=0) > which:
        which += 1
        for got, value in zip(with_gradients(CALLS[name], triton_device), expected, strict=True):
            torch.testing.assert_close(got, value, rtol=1e-10, atol=1e-10 * float(value.detach().abs().max()))
    assert seen
    assert seen <= tried


def test_these_are_the_kernels_with_variants_of_other_blocks(triton_device):
    """The others' variants are numbers of warps and stages, which the interpreter does not know."""
    folder, found = Path(kernels.__file__).parent, set()
    for name in TRITON:
        text = "".join(path.read_text() for path in (folder / name).glob("*triton*.py") if "tuned(" in path.read_text())
        found |= (
            {name}
            if re.search(r'(tuned\(|return|lambda options:) ?.*{"(STATES|AHEAD|CHANNELS|BV|NODES)": ', text)
            else set()
        )
    assert found == CALLS.keys()


class Kernel:
    """What stands for a kernel: it adds x to y, and notes how it was launched."""

    arg_names = ("x", "y", "length", "BLOCK")
    cache_key = "code"

    def __init__(self):
        self.launches = []

    def fn(self): ...

    def __getitem__(self, grid):
        def launch(x, y, length, **options):
            if options["BLOCK"] == 1024:
                from triton.runtime.errors import OutOfResources

                raise OutOfResources(1, 0, "shared memory")
            self.launches.append((grid, options))
            Kernel.last = options["BLOCK"]
            y += x

        return launch


@pytest.fixture
def tuning(monkeypatch, tmp_path):
    """The module as on a GPU, whose clock is a table; `tuning.timed` counts what is timed."""
    from statespace.kernels import tuning

    monkeypatch.setattr(tuning, "INTERPRETED", False)
    monkeypatch.setattr(tuning, "_place", lambda index: ("GPU", 132, "3.9", "12"))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("STATESPACE_AUTOTUNE", raising=False)
    milliseconds = {64: 1.0, 128: 0.5, 256: 0.99}
    monkeypatch.setattr(tuning, "timed", [], raising=False)

    def bench(call, warmup, rep, return_mode):
        for _ in range(3):
            call()
        tuning.timed.append(Kernel.last)
        return milliseconds[Kernel.last]

    monkeypatch.setattr(tuning.triton.testing, "do_bench", bench)
    return tuning


def made(tuning, **options):
    variants = (lambda o: {"BLOCK": 2 * o["BLOCK"]}), {"BLOCK": 256}, {"BLOCK": 1024}
    return tuning.tuned(["length"], *variants, **{"changed": ("y",)} | options)(Kernel())


def launch(kernel, length=100, dtype=torch.float32, grid=(10,), **options):
    x, y = torch.ones(2, dtype=dtype), torch.zeros(2, dtype=dtype)
    kernel[grid](x, y, length, **{"BLOCK": 64} | options)
    return float(y[0]), kernel.kernel.launches[-1][1]["BLOCK"]


def test_the_fastest_is_taken_and_what_a_launch_adds_to_is_put_back(tuning):
    kernel = made(tuning)
    assert launch(kernel) == (1.0, 128)
    assert tuning.timed == [64, 128, 256]
    assert launch(kernel) == (1.0, 128)
    assert len(tuning.timed) == 3
    assert launch(made(tuning, changed=lambda launch: ("y",) if launch["BLOCK"] == 64 else ()))[0] == 1.0


def test_a_kind_of_launch_is_a_class_of_sizes(tuning):
    kernel = made(tuning)
    for length in (65, 100, 256):
        launch(kernel, length)
    assert len(tuning.timed) == 3
    for other in (dict(length=257), dict(length=64), dict(dtype=torch.float64), dict(grid=(1000,)), dict(num_warps=2)):
        before = len(tuning.timed)
        launch(kernel, **other)
        assert len(tuning.timed) == before + 3, other
    # What no GPU has room for at once is one class.
    assert tuning.classed(4**8) == tuning.classed(10**12)
    assert [tuning.classed(n) for n in (1, 2, 4, 5, 16, 17)] == [0, 1, 1, 2, 2, 3]


def test_what_is_found_is_kept_on_disk_for_this_gpu_and_code(tuning, tmp_path, monkeypatch):
    assert launch(made(tuning)) == (1.0, 128)
    (file,) = (tmp_path / "statespace").iterdir()
    found = json.loads(file.read_text())
    assert (found["device"], found["triton"]) == ("GPU", "3.9")
    assert found["variants"] == {
        "float32,float32, length<=256 programs<=16 BLOCK=64": [{"BLOCK": 128}, [1.0, 0.5, 0.99, None]]
    }
    # As another process does.
    assert launch(made(tuning)) == (1.0, 128)
    assert len(tuning.timed) == 3
    launch(made(tuning), 1000)
    assert len(json.loads(file.read_text())["variants"]) == 2
    # Another GPU, other code.
    monkeypatch.setattr(tuning, "_place", lambda index: ("another", 132, "3.9", "12"))
    launch(made(tuning))
    assert len(tuning.timed) == 9
    monkeypatch.setattr(Kernel, "cache_key", "other code")
    launch(made(tuning))
    assert len(tuning.timed) == 12
    assert len(list((tmp_path / "statespace").iterdir())) == 3


KIND = "float32,float32, length<=256 programs<=16 BLOCK=64"
BROKEN = "", "{", "[]", f'{{"variants": {{"{KIND}": 3}}}}', f'{{"variants": {{"{KIND}": [{{"BLOCK": 7}}, []]}}}}'


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_is_broken_or_names_no_variant_is_found_anew(tuning, tmp_path, text):
    launch(made(tuning))
    (file,) = (tmp_path / "statespace").iterdir()
    file.write_text(text)
    assert launch(made(tuning)) == (1.0, 128)
    assert len(tuning.timed) == 6


def test_a_folder_that_cannot_be_written_to_does_no_harm(tuning, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file"))
    kernel = made(tuning)
    assert [launch(kernel), launch(kernel)] == [(1.0, 128)] * 2
    assert len(tuning.timed) == 3


def test_nothing_is_timed_while_a_graph_is_captured_or_where_it_is_switched_off(tuning, monkeypatch):
    kernel = made(tuning)
    with monkeypatch.context() as context:
        context.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert launch(kernel) == (1.0, 64)
        assert tuning.timed == []
    launch(kernel)
    with monkeypatch.context() as context:
        # Known by now.
        context.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert launch(kernel) == (1.0, 128)
    with monkeypatch.context() as context:
        context.setenv("STATESPACE_AUTOTUNE", "0")
        assert launch(kernel) == (1.0, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True)
    try:
        assert launch(kernel) == (1.0, 64)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_tie_and_a_full_memory_leave_the_launch_as_it_is(tuning, monkeypatch):
    kernel = tuning.tuned(["length"], {"BLOCK": 256})(Kernel())
    assert launch(kernel)[1] == 64

    def full(call, **_):
        call()
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(tuning.triton.testing, "do_bench", full)
    assert launch(made(tuning), 5000) == (1.0, 64)


def test_variants_that_come_to_the_same_are_one(tuning):
    kernel = tuning.tuned([], tuning.warps(0.5), tuning.warps(2), {"BLOCK": 64})(Kernel())
    assert kernel.variants({"BLOCK": 64, "num_warps": 1}) == [{}, {"num_warps": 2}]
    assert kernel.variants({"BLOCK": 64}) == [{}, {"num_warps": 2}, {"num_warps": 8}]
    with pytest.raises(ValueError, match="Got lenght instead"):
        tuning.tuned(["lenght"])(Kernel())
