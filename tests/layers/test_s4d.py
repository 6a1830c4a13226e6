"""S4D against its paper: the formulas in a dense float64 loop, the initial values, both directions."""

import numpy as np
import pytest
import torch

from statespace.layers import S4D


def dense(layer, u, dt):
    """x' = A x + B u discretised by the paper's formulas, one dense loop over time for each record and channel."""
    A = -np.exp(layer.log_A_real.detach().numpy()) + 1j * layer.A_imag.detach().numpy()
    B, C = (torch.view_as_complex(p.detach()).numpy() for p in (layer.B, layer.C))
    step, D = np.exp(layer.log_step.detach().numpy()), layer.D.detach().numpy()
    y = np.empty(u.shape)
    for b in range(len(u)):
        for h in range(u.shape[-1]):
            x = np.zeros(A.shape[1], complex)
            for k in range(u.shape[1]):
                gap = step[h] * dt[b, k]
                if layer.discretization == "zoh":
                    A_bar = np.exp(gap * A[h])
                    B_bar = (A_bar - 1) / A[h] * B[h]
                else:
                    A_bar = (1 + gap * A[h] / 2) / (1 - gap * A[h] / 2)
                    B_bar = gap / (1 - gap * A[h] / 2) * B[h]
                x = A_bar * x + B_bar * u[b, k, h]
                pairs = 1 if layer.init == "real" else 2
                y[b, k, h] = pairs * (C[h] @ x).real + D[h] * u[b, k, h]
    return y


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("init", ["lin", "inv", "legs", "real", "random"])
@pytest.mark.parametrize("regular", [True, False])
def test_equals_the_papers_formulas(discretization, init, regular):
    torch.manual_seed(0)
    layer = S4D(2, 16, init=init, discretization=discretization).double()
    with torch.no_grad():
        layer.B.normal_()
    u = torch.randn(2, 150, 2, dtype=torch.float64)
    dt = torch.ones(2, 150, dtype=torch.float64) if regular else torch.rand(2, 150, dtype=torch.float64) * 3
    y, _ = layer(u, None if regular else dt)
    np.testing.assert_allclose(y.detach().numpy(), dense(layer, u.numpy(), dt.numpy()), rtol=1e-9, atol=1e-10)


def test_initial_values():
    A = lambda layer: -layer.log_A_real.exp() + 1j * layer.A_imag  # noqa: E731
    n = torch.arange(4)
    torch.testing.assert_close(A(S4D(1, 8))[0], -0.5 + 1j * torch.pi * n)
    torch.testing.assert_close(A(S4D(1, 8, init="inv"))[0], -0.5 + 1j * 8 / torch.pi * (8 / (2 * n + 1) - 1))
    torch.testing.assert_close(A(S4D(1, 4, init="real"))[0], -(n + 1.0) + 0j)
    # HiPPO-LegS' matrix plus its rank-one term has these eigenvalues.
    root = np.sqrt(2 * np.arange(8) + 1)
    normal = -np.tril(np.outer(root, root), -1) - np.diag(np.arange(8) + 1.0) + np.outer(root, root) / 2
    expected = np.linalg.eigvals(normal)
    got = A(S4D(1, 8, init="legs"))[0].detach().numpy()
    expected = np.sort_complex(expected[expected.imag > 0])
    np.testing.assert_allclose(got[np.argsort(got.imag)].imag, np.sort(expected.imag), rtol=1e-5)
    np.testing.assert_allclose(expected.real, -0.5, atol=1e-9)


def test_random_nodes():
    """Log-normal frequencies, other ones for each node and channel, the same ones from the same seed."""
    torch.manual_seed(0)
    layer = S4D(200, 64, init="random")
    torch.testing.assert_close(layer.log_A_real.exp(), torch.full((200, 32), 0.5))
    logarithms = layer.A_imag.detach().log()
    assert abs(logarithms.mean()) < 0.05
    assert abs(logarithms.std() - 1) < 0.05
    assert len(logarithms.unique()) > 6000
    torch.manual_seed(0)
    torch.testing.assert_close(S4D(200, 64, init="random").A_imag, layer.A_imag, rtol=0, atol=0)


def test_step_sizes_start_in_their_range():
    layer = S4D(1000, 2, dt_min=0.01, dt_max=0.2)
    steps = layer.log_step.exp()
    assert steps.min() >= 0.01 * (1 - 1e-5)
    assert steps.max() <= 0.2 * (1 + 1e-5)
    assert 0.04 < steps.median() < 0.05


@pytest.mark.parametrize("length", [2048, 16_384])
def test_float32_convolution_scan_and_step_agree(length):
    """The reference code's convolution and step differ by 2.4e-4 at 4096."""
    torch.manual_seed(0)
    layer = S4D(2, 64)
    u = torch.randn(1, length, 2)
    with torch.no_grad():
        exact, exact_state = layer.double()(u.double())
        layer.float()
        for mode in ("convolution", "scan"):
            layer.mode = mode
            y, state = layer(u)
            scale = exact.abs().max().item()
            torch.testing.assert_close(y.double(), exact, rtol=0, atol=5e-6 * scale)
            scale = exact_state.abs().max().item()
            torch.testing.assert_close(state.double(), exact_state, rtol=0, atol=5e-5 * scale)


def test_gaps_of_a_regular_grid_may_be_rounded():
    layer = S4D(2, 4, mode="convolution")
    times = torch.arange(1000, dtype=torch.float64) * 0.1 + 1e6
    dt = torch.diff(times, prepend=times[:1] - 0.1) / 0.1
    y, _ = layer(torch.ones(1, 1000, 2), dt.float().unsqueeze(0))
    torch.testing.assert_close(y, layer(torch.ones(1, 1000, 2))[0], rtol=1e-4, atol=1e-4)


def test_dying_states_stay_out_of_subnormal_numbers():
    """Silence after a pulse: nothing left of the state is neither NaN nor a number that slows the processor."""
    layer = S4D(2, 8, mode="scan")
    u = torch.zeros(1, 40_000, 2)
    u[:, 0] = 1
    _, state = layer(u, torch.full((1, 40_000), 1.0))
    assert torch.isfinite(state).all()
    assert not ((state != 0) & (state.abs() < torch.finfo(torch.float32).tiny)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(init="hippo"), "init must be one of 'lin', 'inv', 'legs', 'real', 'random'"),
        (dict(discretization="euler"), "'zoh' or 'bilinear'"),
        (dict(mode="fft"), "'auto', 'convolution' or 'scan'"),
        (dict(dt_min=0.1, dt_max=0.01), "0 < dt_min <= dt_max"),
        (dict(d_state=7), "positive even number"),
        (dict(d_model=0), "d_model must be a positive integer"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        S4D(**dict(d_model=2) | options)
