"""The gated norm against the reference, its gradients by name, rows that are parts of wider ones."""

import numpy as np
import pytest
import torch

from statespace.kernels import rms_norm

BACKENDS = ["cpu", "pytorch"]
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12}
PROBLEMS = {
    "one": ((1,), None),
    "odd": ((3, 7, 13), None),
    "vectors": ((600, 48), None),
    "groups": ((2, 5, 64), 32),
    "odd-groups": ((40, 20), 5),
}


def problem(shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *s: torch.randn(*s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()  # noqa: E731
    return {"x": draw(*shape), "weight": draw(shape[-1]), "z": draw(*shape)}


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("shape_and_size", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_outputs_and_every_gradient(dtype, shape_and_size, gated):
    shape, size = shape_and_size
    arguments = problem(shape, dtype)
    if not gated:
        del arguments["z"]
    exact = {n: a.detach().double().requires_grad_() for n, a in arguments.items()}
    weights = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    truth = rms_norm(**exact, group_size=size, backend="pytorch")
    expected = dict(zip(exact, torch.autograd.grad((truth * weights).sum(), exact.values()), strict=True))
    got = rms_norm(**arguments, group_size=size, backend="cpu")
    gradients = torch.autograd.grad((got * weights.to(dtype)).sum(), arguments.values())
    gradients = dict(zip(arguments, gradients, strict=True))
    for name, value in {"y": truth, **expected}.items():
        one = {"y": got, **gradients}[name]
        scale = max(1.0, value.abs().max().item())
        assert one.dtype == dtype
        np.testing.assert_allclose(one.detach(), value.detach(), rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gated", [True, False])
def test_it_is_the_formula(backend, gated):
    for shape, size in PROBLEMS.values():
        x, weight, z = (a.detach().numpy() for a in problem(shape).values())
        z = z if gated else None
        expected = rms_norm(x, weight, z, group_size=size, eps=0.1, backend="reference")
        got = rms_norm(x, weight, z, group_size=size, eps=0.1, backend=backend)
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend):
    arguments = list(problem((3, 6)).values())
    assert torch.autograd.gradcheck(lambda *a: rms_norm(*a, group_size=3, backend=backend), arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_and_small_gates(backend):
    """A closed gate leaves zeros and finite gradients, an open one its input."""
    x = torch.tensor([[1.0, -2.0, 3.0, 1.0]], requires_grad=True)
    z = torch.tensor([[1e4, -1e4, 88.0, -88.0]], requires_grad=True)
    weight = torch.ones(4, requires_grad=True)
    y = rms_norm(x, weight, z, backend=backend)
    torch.testing.assert_close(y, torch.tensor([[1.999303, 0.0, 0.052782, 0.0]]), rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(y.sum(), (x, weight, z))
    assert all(g.isfinite().all() for g in gradients)
    nothing = rms_norm(torch.zeros(2, 4), weight, torch.zeros(2, 4), backend=backend)
    assert torch.equal(nothing, torch.zeros(2, 4))


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_and_parts_of_wider_rows(backend):
    wide = torch.randn(5, 7, 100, dtype=torch.bfloat16)
    x, z, weight = wide[..., :48], wide[..., 50:98], torch.randn(48)
    y = rms_norm(x, weight.bfloat16(), z, backend=backend)
    exact = rms_norm(x.double().contiguous(), weight.bfloat16().double(), z.double().contiguous())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=1e-6)
    y = rms_norm(wide.float()[..., :48], weight, wide.float()[..., 50:98], backend=backend)
    exact = rms_norm(x.double().contiguous(), weight.double(), z.double().contiguous())
    torch.testing.assert_close(y.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(x=np.ones((0, 4))), "no axis empty"),
        (dict(weight=np.ones(3)), r"weight must have shape \(4,\)"),
        (dict(z=np.ones(4)), r"z must have shape \(2, 4\)"),
        (dict(group_size=3), "group_size must divide the 4 channels. Got 3"),
        (dict(group_size=0), "group_size must divide"),
        (dict(z=torch.ones(2, 4)), "all torch tensors"),
    ],
    ids=str,
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        rms_norm(**dict(x=np.ones((2, 4)), weight=np.ones(4)) | change)
