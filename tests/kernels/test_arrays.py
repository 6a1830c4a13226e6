"""CuPy arrays in, CuPy arrays out, for every kernel of layers: on a GPU, and elsewhere with what stands for them."""

import numpy as np
import pytest
import torch

import statespace.kernels
from statespace.kernels import BackendError, dispatch
from tests.kernels import device_arrays

RNG = np.random.default_rng(0)
B, L, D, N, H, P = 2, 5, 3, 4, 2, 3


def real(*shape):
    return RNG.normal(size=shape)


def positive(*shape):
    return RNG.uniform(0.1, 1, size=shape)


def nodes(*shape):
    return -positive(*shape) + 1j * real(*shape)


CALLS = {
    "cauchy": ((nodes(H, N), nodes(L), nodes(H, N) - 2), {}),
    "causal_conv1d": ((real(B, D, L), real(D, 3), real(D)), {"return_final_states": True}),
    "delta_rule": ((real(B, L, H, N), real(B, L, H, N), real(B, L, H, P), positive(B, L, H)), {"qk_l2norm": True}),
    "diagonal_convolution": ((real(B, H, L), nodes(H, N), nodes(H, N)), {"initial": nodes(B, H, N)}),
    "diagonal_scan": ((real(B, H, L), positive(B, L), nodes(H, N), nodes(H, N)), {}),
    "diagonal_states": ((real(B, L, 2, N), positive(B, L), nodes(N)), {}),
    "dplr_scan": ((real(B, H, L), positive(B, L), nodes(H, N), nodes(H, 1, N), nodes(H, N), nodes(H, N)), {}),
    "linear_scan": ((nodes(D, L), real(D, L)), {"initial": np.float64(2.0)}),
    "long_convolution": ((real(B, H, L), real(H, 3)), {}),
    "rms_norm": ((real(B, L, D), real(D)), {"z": real(B, L, D)}),
    "selective_scan": (
        (real(B, D, L), positive(B, D, L), -positive(D, N), real(B, N, L), real(B, N, L)),
        {"return_last_state": True},
    ),
    "selective_state_update": ((real(B, D, N), real(B, D), real(B, D), -positive(D, N), real(B, N), real(B, N)), {}),
    "ssd": ((real(B, L, H, P), positive(B, L, H), -positive(H), real(B, L, 1, N), real(B, L, 1, N)), {}),
    "token_shift": ((real(B, L, D), positive(2, D)), {}),
    "vandermonde": ((nodes(H, N), nodes(H, N)), {"L": 6}),
    "wkv": ((positive(D), real(D), real(B, L, D), real(B, L, D)), {}),
}


def converted(array, x):
    return array(x) if isinstance(x, np.ndarray) else x


def call(name, array, **choice):
    arguments, options = CALLS[name]
    given = {key: converted(array, x) for key, x in options.items()}
    result = getattr(statespace.kernels, name)(*(converted(array, x) for x in arguments), **given, **choice)
    return result if isinstance(result, tuple) else (result,)


def test_every_kernel_of_layers_is_here():
    assert set(CALLS) == set(statespace.kernels.__all__) - {"BackendError", "explain", "kalman_filter"}


@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_a_device(name):
    expected = call(name, np.asarray, backend="pytorch")
    got = call(name, device_arrays.DeviceArray, backend="pytorch")
    for x, y in zip(got, expected, strict=True):
        assert type(x) is device_arrays.DeviceArray
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x.values, y)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CALLS)
def test_cupy_arrays(name):
    cupy = pytest.importorskip("cupy")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    expected = call(name, np.asarray)
    for x, y in zip(call(name, cupy.asarray), expected, strict=True):
        assert type(x) is cupy.ndarray
        np.testing.assert_allclose(x.get(), y, rtol=0, atol=1e-10 * np.abs(y).max())


def test_memory_is_shared_and_may_run_backwards(monkeypatch):
    u, k = RNG.normal(size=(1, 2, 7)), RNG.normal(size=(2, 3))
    module = dispatch.import_module("statespace.kernels.long_convolution.pytorch")
    seen, true = [], module.block_size
    monkeypatch.setattr(module, "block_size", lambda *sizes: seen.append(sizes) or true(*sizes))
    backwards = device_arrays.DeviceArray(u)
    backwards.values = u[..., ::-1]
    got = statespace.kernels.long_convolution(backwards, device_arrays.DeviceArray(k), backend="pytorch")
    expected = statespace.kernels.long_convolution(u[..., ::-1].copy(), k, backend="reference")
    np.testing.assert_allclose(got.values, expected, atol=1e-13)
    assert seen

    from statespace.kernels.arrays import accepts_numpy

    given = device_arrays.DeviceArray(u)
    assert np.shares_memory(accepts_numpy(lambda x: x)(given).values, given.values)


def test_refusals():
    u, k = device_arrays.DeviceArray(np.ones((1, 1, 4))), np.ones((1, 2))
    with pytest.raises(ValueError, match=r"must be NumPy arrays, or all CuPy arrays\. Got both"):
        statespace.kernels.long_convolution(u, k, backend="pytorch")
    k = device_arrays.DeviceArray(k)
    for backend, reason in (("cpu", "in main memory, and an array is on a GPU"), ("reference", "not arrays on a GPU")):
        with pytest.raises(BackendError, match=reason):
            statespace.kernels.long_convolution(u, k, backend=backend)


def test_a_torch_that_cannot_take_them(monkeypatch):
    def refuse(x):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "from_dlpack", refuse)
    u = device_arrays.DeviceArray(np.ones((1, 1, 4)))
    with pytest.raises(BackendError, match=r"not compiled with CUDA enabled\. Install a torch built for CUDA"):
        statespace.kernels.long_convolution(u, device_arrays.DeviceArray(np.ones((1, 2))), backend="pytorch")
