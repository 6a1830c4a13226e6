"""Whole layers on Triton's kernels: outputs, states and every gradient as torch's operations give them; compiled."""

import copy

import pytest
import torch

from statespace.kernels import dispatch
from statespace.layers.registry import LAYERS

NAMES = [name for name in LAYERS if any("triton" in dispatch.available(kernel) for kernel in LAYERS[name].kernels)]
OPTIONS = {
    "rwkv": {"zero_init": False}, "channel_mixing": {"zero_init": False}, "mamba": {"d_state": 4},
    "mamba2": {"d_state": 16}, "mamba3": {"d_state": 8}, "s4": {"d_state": 4},
}  # fmt: skip
# Layers that multiply matrices in the type of autocast; the kernels of the others see none but float32.
MIXED = ("channel_mixing", "deltanet", "mamba", "mamba2", "mamba3", "rwkv")


def build(name, backend, device):
    torch.manual_seed(0)
    return LAYERS[name](8, backend=backend, **OPTIONS.get(name, {})).to(device)


def record(device, length=11):
    """Inputs, and gaps of which the second record's last are padding."""
    generator = torch.Generator().manual_seed(0)
    u, dt = torch.randn(2, length, 8, generator=generator), torch.rand(2, length, generator=generator) + 0.1
    dt[1, 8:] = 0
    return u.to(device), dt.to(device)


def parts(state):
    return [state] if isinstance(state, torch.Tensor) else [x for part in state for x in parts(part)]


def run(layer, u, dt=None, low=None):
    u = u.clone().requires_grad_()
    with torch.autocast(u.device.type, low, enabled=low is not None):
        y, state = layer(u, dt)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    loss = (y * weights).sum() + sum(x.float().square().sum() for x in parts(state))
    gradients = torch.autograd.grad(loss, [u, *layer.parameters()])
    names = ["u", *(name for name, _ in layer.named_parameters())]
    found = {"y": y, **{f"state {i}": x for i, x in enumerate(parts(state))}}
    return found | {f"gradient of {name}": x for name, x in zip(names, gradients, strict=True)}


def assert_like(found, expected, tolerance, of_gradients):
    for name, value in expected.items():
        worst = float((found[name] - value).detach().abs().max() / value.detach().abs().max().clamp_min(1e-30))
        allowed = of_gradients if name.startswith("gradient") else tolerance
        assert worst <= allowed, f"{name}: {worst:.1e} of its largest value"


# H3's and DSS's scans are S4D's.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("dss", "h3")])
def test_layers_on_triton_equal_those_on_torch(triton_device, name):
    found, expected = (run(build(name, b, triton_device), *record(triton_device)) for b in ("triton", "pytorch"))
    assert_like(found, expected, 3e-5, 1e-4)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "rwkv"])
def test_layers_on_triton_take_what_autocast_gives(triton_device, name):
    """Beside float32: the sum that a skip's gradient is cancels, so that rounding weighs more there."""
    found = run(build(name, "triton", triton_device), *record(triton_device), torch.bfloat16)
    expected = run(build(name, "pytorch", triton_device), *record(triton_device))
    assert_like(found, expected, 0.03, 0.2)


def assert_in_one_piece(name, device, compiler):
    u, _ = record(device)
    layer = build(name, "triton" if name in MIXED else "pytorch", device)
    torch._dynamo.reset()
    whole = torch.compile(lambda u: layer(u)[0], fullgraph=True, backend=compiler)
    u.requires_grad_()
    y, expected = whole(u), layer(u)[0]
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    found = torch.autograd.grad((y * weights).sum(), [u, *layer.parameters()])
    exact = torch.autograd.grad((expected * weights).sum(), [u, *layer.parameters()])
    for got, one in zip(found, exact, strict=True):
        torch.testing.assert_close(got, one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


@pytest.mark.parametrize("name", ["mamba", "s4", "s4d"])
def test_a_regular_record_is_one_piece_of_a_compiled_program(triton_device, name):
    assert_in_one_piece(name, triton_device, "aot_eager")


@pytest.mark.gpu
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_compiles_in_one_piece(name):
    assert_in_one_piece(name, "cuda", "inductor")


@pytest.mark.gpu
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_on_a_gpu_equals_it_on_the_cpu(name):
    """By whatever kernels are best, on irregular times and on regular ones."""
    torch.manual_seed(0)
    layer = LAYERS[name](64, **OPTIONS.get(name, {}))
    generator = torch.Generator().manual_seed(0)
    u, dt = torch.randn(2, 1000, 64, generator=generator), torch.rand(2, 1000, generator=generator) + 0.1
    dt[1, 800:] = 0
    for gaps in (None, dt):
        expected = run(copy.deepcopy(layer).double(), u.double(), None if gaps is None else gaps.double())
        found = run(copy.deepcopy(layer).cuda(), u.cuda(), None if gaps is None else gaps.cuda())
        assert_like({k: v.cpu() for k, v in found.items()}, expected, 1e-3, 1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", LAYERS)
def test_a_cuda_graph_holds_a_layer_forward_and_backward(name):
    torch.manual_seed(0)
    layer = LAYERS[name](64, **OPTIONS.get(name, {})).cuda()
    u = torch.randn(2, 500, 64, device="cuda", requires_grad=True)
    wanted = [u, *layer.parameters()]

    def step():
        y, _ = layer(u)
        return y, *torch.autograd.grad(y.square().mean(), wanted)

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    with torch.no_grad():
        u.copy_(torch.randn_like(u))
    graph.replay()
    for got, expected in zip(found, step(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
