"""The short convolution against the sum tap by tap: outputs, final register, every gradient, packed sequences."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from statespace.kernels import BackendError, causal_conv1d

BACKENDS = ["cpu", "pytorch"]
NAMES = ["x", "weight", "bias", "initial_states"]


def problem(B=2, D=5, L=71, W=4, dtype=np.float64):
    rng = np.random.default_rng(L + D)
    draw = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    return draw(B, D, L), draw(D, W), draw(D), draw(B, D, W - 1)


def packed(B, L, n):
    """Sequence numbers that change at random steps, up and down."""
    rng = np.random.default_rng(L)
    return np.stack(
        [rng.permutation(n + 1)[np.searchsorted(np.sort(rng.integers(1, L, n)), range(L))] for _ in range(B)]
    )


def adjoint(x, weight, bias, initial, grad_y, grad_final, seq_idx=None, activation=None, lengths=None):
    """The gradients by name, each product of the sum taken back on its own."""
    (B, D, L), W = x.shape, weight.shape[1]
    padded = np.concatenate([initial, x], axis=-1)
    run = np.zeros((B, L), int) if seq_idx is None else np.cumsum(np.diff(seq_idx, prepend=seq_idx[:, :1]) != 0, axis=1)
    run = np.pad(run, ((0, 0), (W - 1, 0)))
    of_padded, of_weight, of_bias = np.zeros_like(padded), np.zeros_like(weight), np.zeros(D)
    for b in range(B):
        for t in range(L):
            own = [i for i in range(W) if run[b, t + i] == run[b, t + W - 1]]
            p = bias + sum(weight[:, i] * padded[b, :, t + i] for i in own)
            q = grad_y[b, :, t] * (1.0 if activation is None else expit(p) * (1 + p * expit(-p)))
            of_bias += q
            for i in own:
                of_weight[:, i] += q * padded[b, :, t + i]
                of_padded[b, :, t + i] += q * weight[:, i]
        n = L if lengths is None else lengths[b]
        for i in range(W - 1):
            if run[b, n + i] == run[b, n + W - 2]:
                of_padded[b, :, n + i] += grad_final[b, :, i]
    return dict(zip(NAMES, (of_padded[..., W - 1 :], of_weight, of_bias, of_padded[..., : W - 1]), strict=True))


SHAPES = [
    dict(L=1), dict(L=2, W=2), dict(L=2), dict(L=63, W=3), dict(L=257, D=16), dict(L=1000, D=33, B=1), dict(L=40, W=1),
    dict(L=9, W=12, D=48), dict(L=600, D=1, W=7), dict(L=3, D=100, B=5),
]  # fmt: skip
OPTIONS = [
    dict(), dict(activation="silu"), dict(lengths=True, activation="swish"), dict(seq_idx=True, activation="silu"),
    dict(seq_idx=True, lengths=True),
]  # fmt: skip
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def options_of(chosen, B, L):
    chosen = dict(chosen)
    if "lengths" in chosen:
        chosen["lengths"] = np.linspace(0, L, B).astype(np.int64)[::-1].copy()
    if "seq_idx" in chosen:
        chosen["seq_idx"] = packed(B, L, 1 + L // 10) if L > 1 else np.zeros((B, 1), np.int64)
    return chosen


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_sum(backend, shape, options, dtype):
    x, weight, bias, initial = problem(dtype=dtype, **shape)
    options = options_of(options, len(x), x.shape[-1])
    call = dict(bias=bias, initial_states=initial, return_final_states=True, **options)
    expected = causal_conv1d(x, weight, **call, backend="reference")
    got = causal_conv1d(x, weight, **call, backend=backend)
    real = np.ones((len(x), 1, x.shape[-1]), bool)
    if "lengths" in options:
        real = (np.arange(x.shape[-1]) < options["lengths"][:, None])[:, None]
    np.testing.assert_allclose(np.where(real, got[0], 0), np.where(real, expected[0], 0), atol=TOLERANCE[dtype])
    np.testing.assert_array_equal(got[1], expected[1])
    assert {part.dtype for part in got} == {np.dtype(dtype)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_by_name(backend, shape, options, dtype):
    arguments = problem(dtype=dtype, **shape)
    options = options_of(options, len(arguments[0]), arguments[0].shape[-1])
    x, weight, bias, initial = (torch.from_numpy(a).requires_grad_() for a in arguments)
    given = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    call = dict(bias=bias, initial_states=initial, return_final_states=True, **given)
    results = causal_conv1d(x, weight, **call, backend=backend)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=part.shape).astype(dtype) for part in results]
    got = torch.autograd.grad(results, (x, weight, bias, initial), [torch.from_numpy(w) for w in weights])
    exact = [a.astype(np.float64) for a in (*arguments, *weights)]
    expected = adjoint(*exact, **options)
    for name, part in zip(NAMES, got, strict=True):
        scale = max(1.0, np.abs(expected[name]).max(initial=0.0))
        np.testing.assert_allclose(part.numpy(), expected[name], rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_record_cut_anywhere_is_one_record(backend):
    x, weight, bias, _ = problem(L=23)
    whole = causal_conv1d(x, weight, bias, None, None, True, "silu", backend=backend)
    for cut in range(1, 23):
        head, state = causal_conv1d(x[..., :cut], weight, bias, None, None, True, "silu", backend=backend)
        tail, state = causal_conv1d(x[..., cut:], weight, bias, None, state, True, "silu", backend=backend)
        np.testing.assert_allclose(np.concatenate([head, tail], axis=-1), whole[0], atol=1e-14)
        np.testing.assert_array_equal(state, whole[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("D", [3, 16, 40])
def test_rows_are_read_where_they_lie(backend, D):
    """Channels last, and a part of a wider row; the answer has channels last as well."""
    x, weight, bias, initial = (torch.from_numpy(a) for a in problem(D=D))
    wide = torch.full((2, 71, 3 * D), torch.nan, dtype=x.dtype)
    wide[..., D : 2 * D] = x.transpose(1, 2)
    wide.requires_grad_()
    part = wide[..., D : 2 * D].transpose(1, 2)
    y = causal_conv1d(part, weight, bias, None, initial, activation="silu", backend=backend)
    plain = x.clone().requires_grad_()
    expected = causal_conv1d(plain, weight, bias, None, initial, activation="silu", backend=backend)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(wide.grad[..., D : 2 * D].transpose(1, 2), plain.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(backend, dtype):
    x, weight, bias, initial = (torch.from_numpy(a).to(dtype) for a in problem())
    y, state = causal_conv1d(x, weight, bias, None, initial, True, "silu", backend=backend)
    single = (a.float() for a in (x, weight, bias))
    expected = causal_conv1d(*single, None, initial.float(), activation="silu", backend="pytorch")
    assert y.dtype == state.dtype == dtype
    torch.testing.assert_close(y, expected.to(dtype), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_large_stays_finite(backend):
    x = torch.tensor([[[-1e4, 1e4, -1e30, 1e30, 0.0, -80.0, 80.0]]], requires_grad=True)
    y = causal_conv1d(x, torch.ones(1, 1), activation="silu", backend=backend)
    expected = torch.nn.functional.silu(x.double()).float()
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-30)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(
        slope[0, 0], torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, -1.42e-33, 1.0]), rtol=1e-5, atol=1e-30
    )


def gradients(**options):
    arguments = [torch.from_numpy(a).requires_grad_() for a in problem(B=3, D=40, L=1100, **options)]
    x, weight, bias, initial = arguments
    y, state = causal_conv1d(x, weight, bias, None, initial, True, "silu")
    return [y, state, *torch.autograd.grad(y.square().sum() + state.square().sum(), arguments)]


def test_threads_change_nothing():
    results, threads = [], torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(gradients())
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        torch.testing.assert_close(one, three, rtol=0, atol=0)


def test_memory_may_hold_anything_before():
    """With this setting torch fills what it allocates with NaN."""
    expected = gradients()
    try:
        torch.use_deterministic_algorithms(True)
        got = gradients()
    finally:
        torch.use_deterministic_algorithms(False)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_stays_in_its_sequence(backend):
    x, weight, bias, _ = problem(L=20)
    seq_idx = np.repeat([[0, 1]], 10, axis=1).repeat(2, axis=0)
    expected = causal_conv1d(x, weight, bias, seq_idx, backend="reference")[..., 10:]
    x[:, :, 9] = np.nan
    got, state = causal_conv1d(x, weight, bias, seq_idx, None, True, lengths=np.array([11, 20]), backend=backend)
    np.testing.assert_allclose(got[..., 10:], expected, atol=1e-12)
    np.testing.assert_array_equal(state[0], np.pad(x[0, :, 10:11], ((0, 0), (2, 0))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(x=np.ones((2, 3))), r"x must have shape \(batch, channels, length\)"),
        (dict(x=np.ones((2, 3, 0))), "no axis empty"),
        (dict(weight=np.ones((4, 2))), "with 3 channels"),
        (dict(bias=np.ones(4)), r"bias must have shape \(3,\)"),
        (dict(initial_states=np.ones((2, 3, 4))), r"initial_states must have shape \(2, 3, 3\)"),
        (dict(seq_idx=np.ones(5)), r"seq_idx must have shape \(2, 5\)"),
        (dict(lengths=np.ones(3)), r"lengths must have shape \(2,\)"),
        (dict(lengths=np.array([6, 1])), "lengths must be within 0 and 5"),
        (dict(activation="relu"), "activation must be None, 'silu' or 'swish'"),
        (dict(bias=torch.ones(3)), "all NumPy arrays, or all torch|must be NumPy arrays"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        causal_conv1d(**{"x": np.ones((2, 3, 5)), "weight": np.ones((3, 4)), **change})


def test_an_explicit_backend_is_obeyed():
    with pytest.raises(BackendError, match="it takes NumPy arrays"):
        causal_conv1d(torch.ones(1, 1, 3), torch.ones(1, 2), backend="reference")
