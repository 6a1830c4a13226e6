"""Triton's kernels as torch operators: what tracing is told of their results (shapes, types, strides) is so."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from statespace import kernels

pytest.importorskip("triton", reason="triton is not installed: pip install 'statespace-learn[gpu]'")

from tests.kernels.test_tuning import CALLS, TRITON, as_launched, drawn

# One tiny call of each primitive; those with variants are there already.
OTHERS = {
    "causal_conv1d": lambda: (
        kernels.causal_conv1d,
        [drawn(1, 3, 5), drawn(3, 4), drawn(3), None, drawn(1, 3, 3)],
        {"return_final_states": True, "activation": "silu"},
    ),
    "diagonal_convolution": lambda: (
        kernels.diagonal_convolution,
        [drawn(1, 2, 9), torch.complex(-drawn(2, 2).abs(), drawn(2, 2)), drawn(2, 2, complex_=True)],
        {},
    ),
    "linear_scan": lambda: (kernels.linear_scan, [drawn(2, 9).sigmoid(), drawn(2, 9)], {}),
    "rms_norm": lambda: (kernels.rms_norm, [drawn(3, 4), drawn(4), drawn(3, 4)], {}),
    "selective_state_update": lambda: (
        kernels.selective_state_update,
        [drawn(1, 2, 3), drawn(1, 2), drawn(1, 2), -drawn(2, 3).abs(), drawn(1, 3), drawn(1, 3)],
        {},
    ),
    "ssd": lambda: (
        kernels.ssd,
        [drawn(1, 5, 2, 4), drawn(1, 5, 2).abs(), -drawn(2).abs(), drawn(1, 5, 1, 4), drawn(1, 5, 1, 4)],
        {"return_final_states": True, "z": drawn(1, 5, 2, 4)},
    ),
    "token_shift": lambda: (kernels.token_shift, [drawn(1, 3, 4), drawn(2, 4)], {}),
}
EVERY = CALLS | OTHERS


def test_every_primitive_of_triton_is_here():
    assert EVERY.keys() == set(TRITON)


def layout(x):
    """Shape, type and the steps along what has more than one."""
    return tuple(x.shape), x.dtype, [s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1] if x.numel() else []


@pytest.mark.parametrize("name", EVERY)
def test_operators_are_as_tracing_is_told(triton_device, name):
    """And they leave their arguments as they are, none of which is in a result."""
    _, calls = as_launched(EVERY[name], triton_device)
    assert any("backward" in str(function) for function, *_ in calls)
    for function, arguments, before, found in calls:
        found = found if isinstance(found, tuple) else (found,)
        given = [x for x in arguments if isinstance(x, torch.Tensor)]
        for x, y in zip(given, (x for x in before if isinstance(x, torch.Tensor)), strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)
        memory = {x.untyped_storage().data_ptr() for x in given if x.numel()}
        assert memory.isdisjoint(x.untyped_storage().data_ptr() for x in found if x.numel())
        with FakeTensorMode() as mode:
            told = function(*(mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in arguments))
        told = told if isinstance(told, tuple) else (told,)
        assert [layout(x) for x in told] == [layout(x) for x in found], str(function)


def test_torchs_own_check_of_an_operator(triton_device):
    for function, arguments, *_ in as_launched(EVERY["rms_norm"], triton_device)[1]:
        torch.library.opcheck(function, tuple(arguments), test_utils=("test_schema", "test_faketensor"))
