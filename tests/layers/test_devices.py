"""Layers whose tensors all lie on one device meet none of another: what would fail on a GPU fails here without one.

Torch's meta device has shapes and no numbers. Its matrix products and gathers take tensors of main memory in silence,
as a GPU does not, so that each operation is looked at. Numbers that a layer reads from the device are made up.
"""

from contextlib import nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from statespace.layers.registry import LAYERS


class OneDevice(TorchDispatchMode):
    """Refuses operations between the meta device and main memory, and copies, which no CUDA graph can hold; numbers
    without dimensions pass, as on a GPU.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.ndim > 0]
        devices = {x.device.type for x in tensors}
        if function is torch.ops.aten._to_copy.default and tensors and kwargs.get("device") is not None:
            devices.add(torch.device(kwargs["device"]).type)
        if len(devices) > 1:
            raise RuntimeError(f"{function} has tensors on {devices}: {[(tuple(x.shape), x.device) for x in tensors]}")
        return function(*args, **(kwargs or {}))


class MadeUp(TorchFunctionMode):
    """Every truth read from the device is True, every number 0.7 or 1."""

    answers = {torch.Tensor.__bool__: True, torch.Tensor.__int__: 1, torch.Tensor.item: 0.7}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in self.answers and args[0].device.type == "meta":
            return self.answers[function]
        return function(*args, **(kwargs or {}))


def parts(state):
    return [state] if isinstance(state, torch.Tensor) else [x for part in state for x in parts(part)]


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_keeps_to_its_device(monkeypatch, name, gaps):
    # The meta device has no autocast to switch off.
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    layer = LAYERS[name](8).to("meta")
    of_both = LAYERS[name](8, bidirectional=True).to("meta")
    u = torch.empty(2, 37, 8, device="meta", requires_grad=True)
    dt = torch.empty(2, 37, device="meta") if gaps else None
    with MadeUp(), OneDevice():
        y, state = layer(u, dt)
        again, after = layer(u, dt, state)
        loss = again.square().mean() + sum(x.square().mean() for x in parts(after) if x.numel())
        found = torch.autograd.grad(loss, [u, *layer.parameters()])
        y_t, state = layer.step(u[:, 0], state, None if dt is None else dt[:, 0])
        both, _ = of_both(u, dt)
    assert {x.device.type for x in (y, y_t, both, *parts(state), *found)} == {"meta"}


def test_a_meeting_of_devices_is_seen():
    with OneDevice(), pytest.raises(RuntimeError, match=r"has tensors on {'(cpu|meta)', '(cpu|meta)'}"):
        torch.ones(2, 3, device="meta") @ torch.ones(3, 2)
