"""S5 against its paper: the formulas in a dense float64 loop, the real HiPPO system that it starts from, precision."""

import numpy as np
import pytest
import scipy.linalg
import torch

from statespace.layers import S5
from statespace.lti import hippo


def parameters(layer):
    Lambda = -np.exp(layer.log_Lambda_real.detach().numpy()) + 1j * layer.Lambda_imag.detach().numpy()
    B, C = (torch.view_as_complex(p.detach()).numpy() for p in (layer.B, layer.C))
    return Lambda, B, C, layer.D.detach().numpy(), np.exp(layer.log_step.detach().numpy())


def dense(layer, u, dt):
    """x' = Λ x + B u discretised by the paper's formulas, with the matrix B̄_k of every step."""
    Lambda, B, C, D, step = parameters(layer)
    y = np.empty(u.shape)
    for b in range(len(u)):
        x = np.zeros(len(Lambda), complex)
        for k in range(u.shape[1]):
            gap = step * dt[b, k]
            if layer.discretization == "zoh":
                A_bar = np.exp(gap * Lambda)
                B_bar = ((A_bar - 1) / Lambda)[:, np.newaxis] * B
            else:
                A_bar = (1 + gap * Lambda / 2) / (1 - gap * Lambda / 2)
                B_bar = (gap / (1 - gap * Lambda / 2))[:, np.newaxis] * B
            x = A_bar * x + B_bar @ u[b, k]
            y[b, k] = 2 * (C @ x).real + D * u[b, k]
    return y


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("n_blocks", [1, 4])
@pytest.mark.parametrize("regular", [True, False])
def test_equals_the_papers_formulas(discretization, n_blocks, regular):
    torch.manual_seed(0)
    layer = S5(3, 16, n_blocks=n_blocks, discretization=discretization).double()
    u = torch.randn(2, 120, 3, dtype=torch.float64)
    dt = torch.ones(2, 120, dtype=torch.float64) if regular else torch.rand(2, 120, dtype=torch.float64) * 3
    y, _ = layer(u, None if regular else dt)
    np.testing.assert_allclose(y.detach().numpy(), dense(layer, u.numpy(), dt.numpy()), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("init", ["legs", "lagt", "legt", "fourier"])
def test_starts_as_a_real_block_diagonal_system(init):
    """With one step for all states, the conjugate halves are a real system driven and read by real matrices."""
    torch.manual_seed(0)
    size, blocks, H = 6, 3, 2
    layer = S5(H, size * blocks, n_blocks=blocks, init=init, dt_min=0.3, dt_max=0.3).double()
    A, _ = hippo.matrices(init, size)
    form = hippo.nplr(init, size)
    A = A + (form.V @ form.P.conj().T @ form.P @ form.V.conj().T).real
    if init in ("legt", "fourier"):
        A = A - np.eye(size) / 2
    Lambda, B, C, D, step = parameters(layer)
    V = form.V[:, : size // 2]
    B = np.concatenate([2 * (V @ part).real for part in np.split(B, blocks)])
    C = np.concatenate([2 * (part @ V.conj().T).real for part in np.split(C, blocks, axis=1)], axis=1)
    A = scipy.linalg.block_diag(*[A] * blocks)
    u, dt = np.random.default_rng(0).normal(size=(25, H)), np.random.default_rng(1).exponential(size=25)
    x, expected = np.zeros(len(A)), np.empty((25, H))
    for k in range(25):
        gap = step[0] * dt[k]
        # The exponential of [[A, B u], [0, 0]] holds both parts of the step, whether A is singular or not.
        block = np.block([[A, (B @ u[k])[:, np.newaxis]], [np.zeros((1, len(A) + 1))]])
        moved = scipy.linalg.expm(block * gap)[:-1]
        x = moved[:, :-1] @ x + moved[:, -1]
        expected[k] = C @ x + D * u[k]
    y, _ = layer(torch.from_numpy(u)[None], torch.from_numpy(dt)[None])
    # The parameters are float32 numbers, made double.
    np.testing.assert_allclose(y[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_initial_values():
    torch.manual_seed(0)
    layer = S5(256, 64, n_blocks=4, dt_min=0.01, dt_max=0.2)
    Lambda, B, C, D, step = parameters(layer)
    np.testing.assert_allclose(Lambda.reshape(4, 8), np.tile(hippo.dplr("legsd", 16).Lambda, (4, 1)), rtol=1e-5)
    assert (B.shape, C.shape, D.shape, step.shape) == ((32, 256), (256, 32), (256,), (32,))
    # Real matrices with variance 1 / fan-in, turned by a unitary basis.
    assert np.mean(np.abs(B) ** 2) == pytest.approx(1 / 256, rel=0.1)
    assert np.mean(np.abs(C) ** 2) == pytest.approx(1 / 64, rel=0.1)
    assert 0.01 * (1 - 1e-5) <= step.min() < step.max() <= 0.2 * (1 + 1e-5)


@pytest.mark.parametrize("length", [2048, 16_384])
def test_float32_convolution_and_scan_agree(length):
    torch.manual_seed(0)
    layer = S5(4, 64)
    u = torch.randn(1, length, 4)
    with torch.no_grad():
        exact, exact_state = layer.double()(u.double())
        layer.float()
        for mode in ("convolution", "scan"):
            layer.mode = mode
            y, state = layer(u)
            for got, expected, tolerance in ((y, exact, 5e-6), (state, exact_state, 5e-5)):
                scale = expected.abs().max().item()
                torch.testing.assert_close(got.double(), expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("backend", ["cpu", "pytorch"])
def test_backends_agree(backend):
    torch.manual_seed(0)
    layer = S5(3, 8, backend=backend, dt_min=0.1).double()
    u, dt = torch.randn(2, 150, 3, dtype=torch.float64), torch.rand(2, 150, dtype=torch.float64)
    for gaps in (dt, None):
        y, _ = layer(u, gaps)
        np.testing.assert_allclose(
            y.detach().numpy(),
            dense(layer, u.numpy(), (torch.ones_like(dt) if gaps is None else gaps).numpy()),
            atol=1e-10,
        )


def test_the_final_state_does_not_hold_the_record():
    _, state = S5(3, 8)(torch.randn(2, 500, 3))
    assert state.untyped_storage().nbytes() == state.numel() * state.element_size()


def test_no_gap_is_too_long_or_too_short():
    """A state decays to nothing over a long gap, and equal times leave it as it was."""
    layer = S5(2, 8, dt_min=0.1).double()
    u, state = torch.randn(1, 1, 2, dtype=torch.float64), torch.randn(1, 4, 2, dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(u, zero, state)[1], state)
        after = layer(u, zero + 1e9, state)[1]
        torch.testing.assert_close(after, layer(u, zero + 1e9, -state)[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(init="hippo"), "init must be one of 'legs', 'legt', 'lagt', 'fourier'"),
        (dict(discretization="euler"), "'zoh' or 'bilinear'"),
        (dict(mode="fft"), "'auto', 'convolution' or 'scan'"),
        (dict(dt_min=0.1, dt_max=0.01), "0 < dt_min <= dt_max"),
        (dict(d_state=7), "positive multiple of 2 n_blocks"),
        (dict(d_state=12, n_blocks=4), "d_state=12 and n_blocks=4"),
        (dict(n_blocks=0), "n_blocks=0"),
        (dict(d_model=0), "d_model must be a positive integer"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        S5(**dict(d_model=2) | options)
