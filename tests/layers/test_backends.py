"""A layer's `backend=`: obeyed by the kernels that have it, the best for the others; anywhere in a stack."""

import pytest
import torch

from statespace import SSMRegressor
from statespace.kernels import BackendError, dispatch
from statespace.layers import H3, S4, S5, Attention, Mamba, RWKVBlock
from statespace.layers.registry import LAYERS


@pytest.fixture
def calls(monkeypatch):
    """A list that fills with the kernel and the backend of every call."""
    found, chosen = [], dispatch._chosen

    def noting(primitive, backend, *arguments, **options):
        name = chosen(primitive, backend, *arguments, **options)
        found.append((primitive, name.removeprefix(f"{primitive}_")))
        return name

    monkeypatch.setattr(dispatch, "_chosen", noting)
    return found


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("gaps", [False, True])
def test_a_backend_is_obeyed_by_every_kernel_that_has_it(calls, name, gaps):
    torch.manual_seed(0)
    layer_class = LAYERS[name]
    if layer_class is Attention:
        pytest.skip("it has no kernel")
    u = torch.randn(2, 9, 4)
    dt = torch.rand(2, 9) if gaps else None
    for backend in ("cpu", "pytorch"):
        calls.clear()
        layer_class(4, backend=backend)(u, dt)
        expected = {primitive: backend for primitive, _ in calls if backend in dispatch.available(primitive)}
        assert {k: v for k, v in calls if k in expected} == expected
        assert {primitive for primitive, _ in calls} <= set(layer_class.kernels)
    assert calls


def test_kernels_without_the_backend_take_their_best(calls, triton_device):
    """H3's shift is a long convolution, for which Triton has nothing."""
    if "triton" not in dispatch.available("diagonal_scan") or "triton" in dispatch.available("long_convolution"):
        pytest.skip("the kernels' backends are others here")
    H3(4, backend="triton").to(triton_device)(torch.randn(2, 9, 4, device=triton_device), torch.rand(2, 9))
    assert dict(calls)["diagonal_scan"] == "gpu_triton"
    assert dict(calls)["long_convolution"] != "gpu_triton"


@pytest.mark.parametrize("layer", [S4, Mamba, RWKVBlock])
def test_a_backend_that_no_kernel_has_is_refused_at_once(layer):
    with pytest.raises(BackendError, match=r"backend='fortran' cannot run \w+: it is built on .*Use None, or one of "):
        layer(4, backend="fortran")


def test_a_backend_is_never_replaced():
    with pytest.raises(BackendError, match="it takes NumPy arrays, not torch tensors"):
        S5(4, backend="reference")(torch.randn(1, 5, 4))


def test_estimators_hand_it_on(calls):
    X, y = torch.randn(6, 20).numpy(), torch.randn(6).numpy()
    options = {"d_model": 4, "n_layers": 2, "max_epochs": 1, "device": "cpu", "random_state": 0}
    options |= {"layer": ["mamba", "attention"], "layer_options": {"mamba": {"backend": "pytorch"}}}
    SSMRegressor(**options).fit(X, y)
    assert set(calls) == {("causal_conv1d", "pytorch"), ("selective_scan", "pytorch")}
