"""One step against the reference and against a scan of one sample; gradients; wrong input."""

import numpy as np
import pytest
import torch

from statespace.kernels import selective_scan, selective_state_update


def problem(batch=2, heads=None, channels=6, states=5, groups=None, complex_=False):
    rng = np.random.default_rng(0)

    def draw(*shape, complex_=False):
        x = rng.normal(size=shape)
        return x + 1j * rng.normal(size=shape) if complex_ else x

    own = (channels,) if heads is None else (heads, channels)
    coefficients = (batch, states) if groups is None else (batch, groups, states)
    return {
        "state": draw(batch, *own, states, complex_=complex_),
        "x": draw(batch, *own),
        "dt": draw(batch, *own),
        "A": draw(*own, states, complex_=complex_) - 3,
        "B": draw(*coefficients, complex_=complex_),
        "C": draw(*coefficients, complex_=complex_),
        "D": draw(*own),
        "z": draw(batch, *own),
        "dt_bias": draw(*own),
    }


CASES = [
    dict(), dict(groups=3), dict(heads=4), dict(heads=4, groups=2), dict(batch=1, channels=1, states=1),
    dict(complex_=True), dict(heads=2, groups=2, complex_=True),
]  # fmt: skip


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-5), (torch.float64, 1e-12)], ids=str)
def test_equals_the_reference(options, dtype, tolerance):
    arrays = problem(**options)
    expected = selective_state_update(**arrays, dt_softplus=True, backend="reference")
    real = {torch.float32: torch.complex64, torch.float64: torch.complex128}
    tensors = {name: torch.from_numpy(x) for name, x in arrays.items()}
    tensors = {name: x.to(real[dtype] if x.is_complex() else dtype) for name, x in tensors.items()}
    before = tensors["state"].clone()
    got = selective_state_update(**tensors, dt_softplus=True)
    torch.testing.assert_close(tensors["state"], before, rtol=0, atol=0)
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x.numpy(), y, rtol=0, atol=tolerance * max(1, np.abs(y).max()))
    without = {name: x for name, x in arrays.items() if name not in ("D", "z", "dt_bias")}
    for x, y in zip(
        selective_state_update(**without), selective_state_update(**without, backend="reference"), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("groups", [None, 3])
def test_is_a_scan_of_one_sample(groups, complex_):
    arrays = problem(groups=groups, complex_=complex_)
    state, bias = arrays.pop("state"), arrays.pop("dt_bias")
    got = selective_state_update(state, dt_bias=bias, dt_softplus=True, **arrays)
    x, dt, A, B, C, D, z = arrays.values()
    along = [m[..., None] for m in (x, dt, B, C, z)]
    scanned = selective_scan(
        along[0], along[1], A, along[2], along[3], D, along[4], bias, True, True, initial_state=state,
        backend="reference",
    )  # fmt: skip
    for one, two in zip(got, (scanned[0][..., 0], scanned[1]), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [dict(channels=2, states=2, groups=2), dict(heads=2, channels=2)], ids=str)
def test_gradients(options):
    tensors = [torch.from_numpy(x).requires_grad_() for x in problem(**options).values()]
    assert torch.autograd.gradcheck(lambda *x: selective_state_update(*x, dt_softplus=True), tensors)


def test_half_precision_keeps_its_state_in_float32():
    arrays = {name: torch.from_numpy(x).bfloat16() for name, x in problem().items()}
    arrays["state"] = arrays["state"].float()
    y, state = selective_state_update(**arrays)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(state=np.ones((2, 5))), "state must have shape"),
        (dict(x=np.ones((2, 5))), r"x must have shape \(2, 6\)"),
        (dict(A=np.ones((6, 4))), r"A must have shape \(6, 5\)"),
        (dict(B=np.ones((2, 4, 5))), "number of groups dividing that of channels, 6"),
        (dict(C=np.ones((3, 5))), "C must have shape"),
        (dict(D=np.ones(5)), r"D must have shape \(6,\)"),
        (dict(z=torch.ones(2, 6)), "all torch tensors"),
    ],
    ids=str,
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        selective_state_update(**problem() | change)
