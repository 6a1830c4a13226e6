"""The diagonal convolution with its scan in Triton: outputs, state and every gradient against torch alone."""

import pytest
import torch

from statespace.kernels import diagonal_convolution

TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5, torch.bfloat16: 2e-2}
NAMES = "u", "rate", "c", "initial", "skip"


def problem(B, H, L, nodes, dtype, device):
    generator = torch.Generator().manual_seed(L)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    wide = torch.promote_types(dtype, torch.complex64)
    values = (
        draw(B, H, L).to(dtype), torch.complex(-draw(H, nodes).abs(), 3 * draw(H, nodes)),
        torch.complex(draw(H, nodes), draw(H, nodes)).to(wide),
        torch.complex(draw(B, H, nodes), draw(B, H, nodes)).to(wide), draw(H).to(wide.to_real()),
    )  # fmt: skip
    return [x.to(device).requires_grad_() for x in values]


def with_gradients(arguments, backend, lengths=None, **rule):
    u, rate, c, initial, skip = arguments
    y, state = diagonal_convolution(u, rate, c, initial, lengths, skip, **rule, backend=backend)
    if lengths is not None:
        y = y * (torch.arange(u.shape[-1], device=u.device) < lengths[:, None, None])
    draw = lambda x: torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(x.device)  # noqa: E731
    loss = (y * draw(y)).sum() + (state * (draw(state) * (1 - 0.7j))).real.sum()
    return y, state, *torch.autograd.grad(loss, arguments)


@pytest.mark.parametrize(
    ("dtype", "shape", "lengths", "rule"),
    [
        (torch.float64, (2, 3, 1, 1), None, {}),
        (torch.float64, (2, 3, 101, 5), None, dict(discretization="bilinear")),
        (torch.float64, (3, 2, 97, 3), (97, 0, 40), {}),
        (torch.float32, (2, 3, 200, 4), None, {}),
        (torch.bfloat16, (1, 3, 64, 4), None, {}),
    ],
    ids=str,
)
def test_outputs_and_gradients(triton_device, dtype, shape, lengths, rule):
    arguments = problem(*shape, dtype, triton_device)
    lengths = None if lengths is None else torch.tensor(lengths, device=triton_device)
    exact = [x.detach().to(torch.complex128 if x.is_complex() else torch.float64).requires_grad_() for x in arguments]
    got = with_gradients(arguments, "triton", lengths, **rule)
    expected = with_gradients(exact, "pytorch", lengths, **rule)
    assert got[0].dtype == dtype
    for name, x, y in zip(("y", "state", *NAMES), got, expected, strict=True):
        largest = y.abs().max().clamp(min=1e-300)
        torch.testing.assert_close(
            x.to(y.dtype) / largest, y / largest, rtol=0, atol=TOLERANCE[dtype], msg=lambda m, n=name: f"{n}: {m}"
        )


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = problem(1, 2, 70, 3, torch.float32, triton_device)
    run = lambda u, rate, c, initial, skip: diagonal_convolution(  # noqa: E731
        u, rate, c, initial, None, skip, backend="triton"
    )
    results = []
    for function in (torch.compile(run, fullgraph=True, backend="aot_eager"), run):
        y, state = function(*arguments)
        results.append([y, state, *torch.autograd.grad(y.square().sum() + state.abs().sum(), arguments)])
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(8, 256, 4096, 32), (1, 4, 1_048_576, 32), (2, 65, 4099, 70)], ids=str)
def test_long_records_on_a_gpu(shape):
    arguments = problem(*shape, torch.float32, "cuda")
    exact = [x.detach().to(torch.complex128 if x.is_complex() else torch.float64).requires_grad_() for x in arguments]
    got, expected = with_gradients(arguments, "triton"), with_gradients(exact, "triton")
    for name, x, y in zip(("y", "state", *NAMES), got, expected, strict=True):
        largest = y.abs().max()
        torch.testing.assert_close(
            x.to(y.dtype) / largest, y / largest, rtol=0, atol=3e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
