"""torch.compile on a CPU: around the compiled loops, which it cannot see into; in one piece by torch's operations."""

import sys
from importlib import import_module

import pytest
import torch

from statespace.kernels import dispatch
from statespace.layers.registry import LAYERS
from tests.layers.test_triton import OPTIONS, record


def layer_of(name, backend=None):
    torch.manual_seed(0)
    return LAYERS[name](8, backend=backend, **OPTIONS.get(name, {}))


def assert_compiled(layer, arguments, **how):
    torch._dynamo.reset()
    results = []
    for call in (torch.compile(lambda *x: layer(*x)[0], **how), lambda *x: layer(*x)[0]):
        u = arguments[0].clone().requires_grad_()
        y = call(u, *arguments[1:])
        results.append((y, *torch.autograd.grad(y.square().sum(), [u, *layer.parameters()])))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("name", ["mamba", "rwkv"])
def test_a_layer_on_compiled_loops_may_stand_in_a_compiled_program(name):
    """Each loop ends a piece of it. (Traced, the loops were what torch's compiler failed at.)"""
    u, dt = record("cpu")
    assert_compiled(layer_of(name), (u, dt) if name == "mamba" else (u,), backend="eager")


@pytest.mark.parametrize("name", ["channel_mixing", "mamba", "s5"])
def test_by_torchs_operations_a_regular_record_is_one_piece(name):
    """As are those of Triton's kernels in `test_triton.py`."""
    assert_compiled(layer_of(name, "pytorch"), record("cpu")[:1], fullgraph=True, backend="aot_eager")


def test_loops_stand_aside_where_something_may_be_traced(monkeypatch):
    arguments = torch.ones(2, 3), torch.ones(3)
    import_module("torch._dynamo")
    aside = dispatch.choose("rms_norm", "cpu", *arguments)
    module = sys.modules["statespace.kernels.rms_norm.cpu"]
    assert aside is not module
    assert aside.rms_norm is not module.rms_norm
    torch.testing.assert_close(aside.rms_norm(*arguments), module.rms_norm(*arguments))
    assert aside.unusable is module.unusable
    monkeypatch.delitem(sys.modules, "torch._dynamo")
    assert dispatch.choose("rms_norm", "cpu", *arguments) is module
