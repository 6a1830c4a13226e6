"""RWKV's token shift: the mixes and every gradient against the float64 formula, any shape."""

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, token_shift

BACKENDS = ["cpu", "pytorch"]


def problem(B=2, L=63, D=5, J=3, dtype=np.float64):
    rng = np.random.default_rng(L)
    return tuple(rng.normal(size=shape).astype(dtype) for shape in ((B, L, D), (J, D), (B, D)))


@pytest.mark.parametrize("backend", [*BACKENDS, "reference"])
@pytest.mark.parametrize("options", [dict(L=1), dict(L=2, D=16), dict(), dict(L=257, B=3, J=1)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mixes(backend, options, dtype):
    u, mix, register = problem(dtype=dtype, **options)
    x = np.stack(token_shift(u, mix, register, backend=backend))
    assert x.dtype == (np.float64 if backend == "reference" else dtype)
    for j, row in enumerate(mix.astype(float)):
        for t in range(u.shape[1]):
            expected = row * u[:, t] + (1 - row) * (register if t == 0 else u[:, t - 1])
            np.testing.assert_allclose(x[j, :, t], expected, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)
    expected = token_shift(u, mix, np.zeros_like(register), backend="reference")
    np.testing.assert_allclose(token_shift(u, mix, backend=backend), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [dict(L=1), dict(L=4, B=3), dict(L=2, J=1, D=3)], ids=str)
def test_gradients(backend, options):
    arguments = [torch.from_numpy(x).requires_grad_() for x in problem(**options)]
    assert torch.autograd.gradcheck(lambda *x: token_shift(*x, backend=backend), arguments)


def test_gradients_of_long_records_agree_by_name():
    results, threads = [], torch.get_num_threads()
    try:
        for backend, n in [("pytorch", 1), ("cpu", 1), ("cpu", 3)]:
            torch.set_num_threads(n)
            arguments = [torch.from_numpy(x).requires_grad_() for x in problem(B=5, L=1000, D=33)]
            x = torch.stack(token_shift(*arguments, backend=backend))
            weights = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
            results.append(torch.autograd.grad((x * weights).sum(), arguments))
    finally:
        torch.set_num_threads(threads)
    for name, expected, *others in zip(("u", "mix", "register"), *results, strict=True):
        for got in others:
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11, msg=lambda m, name=name: f"d{name}: {m}")


def test_no_memory_is_read_before_it_is_written(monkeypatch):
    arguments = [torch.from_numpy(x).requires_grad_() for x in problem()]
    expected = torch.autograd.grad(sum(x.square().sum() for x in token_shift(*arguments)), arguments)
    empty = torch.empty_like, torch.Tensor.new_empty
    monkeypatch.setattr(torch, "empty_like", lambda *x, **options: empty[0](*x, **options).fill_(torch.nan))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *x, **options: empty[1](*x, **options).fill_(torch.nan))
    for x, y in zip(
        torch.autograd.grad(sum(x.square().sum() for x in token_shift(*arguments)), arguments), expected, strict=True
    ):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_narrow_types_are_left_to_torch():
    u, mix, register = (torch.from_numpy(x).bfloat16() for x in problem())
    assert token_shift(u, mix, register)[0].dtype == torch.bfloat16
    with pytest.raises(BackendError, match=r"it has no torch\.bfloat16"):
        token_shift(u, mix, register, backend="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(u=np.ones((2, 3))), "u must have shape"),
        (dict(u=np.ones((2, 0, 3))), "no axis empty"),
        (dict(mix=np.ones(3)), r"mix must have shape \(mixes, 3\)"),
        (dict(mix=np.ones((0, 3))), "at least one mix"),
        (dict(register=np.ones((2, 4))), r"register must have shape \(2, 3\)"),
        (dict(mix=torch.ones(1, 3)), "all torch tensors"),
    ],
    ids=str,
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        token_shift(**dict(u=np.ones((2, 4, 3)), mix=np.ones((1, 3))) | change)
