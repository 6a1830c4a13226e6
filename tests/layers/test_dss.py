"""DSS against the two kernels of its paper, written out in complex128."""

import numpy as np
import pytest
import torch

from statespace.layers import DSS
from statespace.layers.nodes import starting_nodes


def papers_kernel(layer, h, length):
    """Proposition 1 for one channel, the softmax taken literally over the positions."""
    A = -np.exp(layer.log_A_real.detach().numpy()[h]) + 1j * layer.A_imag.detach().numpy()[h]
    W, step = torch.view_as_complex(layer.W.detach()).numpy()[h], np.exp(layer.log_step.detach().numpy()[h])
    exponents = np.outer(A * step, np.arange(length))
    if layer.kernel == "exp":
        return (W / A * (np.exp(A * step) - 1) @ np.exp(exponents)).real
    over = np.exp(np.outer(A * step, np.arange(layer.horizon)))
    return (W / A @ (np.exp(exponents) / over.sum(axis=1, keepdims=True))).real


@pytest.mark.parametrize("kernel", ["exp", "softmax"])
def test_impulse_response_is_the_papers_kernel(kernel):
    torch.manual_seed(0)
    layer = DSS(3, 16, kernel=kernel, horizon=200).double()
    impulse = torch.zeros(1, 200, 3, dtype=torch.float64)
    impulse[:, 0] = 1
    with torch.no_grad():
        y, _ = layer(impulse)
    for h in range(3):
        expected = papers_kernel(layer, h, 200)
        expected[0] += layer.D[h].item()
        # The regularised reciprocal is the paper's own departure from a pure softmax.
        tolerance = 1e-10 if kernel == "exp" else 1e-4
        np.testing.assert_allclose(y[0, :, h], expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_each_node_of_softmax_integrates_to_one_over_the_horizon():
    """A constant input over the horizon, whatever the samples in it: y = Re Σ W/Λ."""
    torch.manual_seed(0)
    layer = DSS(2, 8, kernel="softmax", horizon=50).double()
    dt = torch.rand(1, 400, dtype=torch.float64)
    dt *= 50 / dt.sum()
    with torch.no_grad():
        layer.D.zero_()
        y, _ = layer(torch.ones(1, 400, 2, dtype=torch.float64), dt)
        A = torch.complex(-layer.log_A_real.exp(), layer.A_imag)
        expected = (torch.view_as_complex(layer.W) / A).real.sum(-1)
    torch.testing.assert_close(y[0, -1], expected, rtol=1e-4, atol=1e-4)


def test_a_period_that_divides_the_horizon_stays_finite():
    layer = DSS(1, 4, kernel="softmax", horizon=64)
    with torch.no_grad():
        layer.log_A_real.fill_(-20.0)
        layer.A_imag.copy_(torch.arange(4) * 2 * torch.pi / (64 * layer.log_step.exp()))
    y, _ = layer(torch.ones(1, 100, 1))
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_starts_at_the_hippo_eigenvalues():
    layer = DSS(2, 5)
    expected = starting_nodes("legs", 2, 10)
    torch.testing.assert_close(layer.A_imag.double(), expected.imag, rtol=1e-6, atol=0)
    assert layer.A_imag.min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(kernel="relu"), "kernel must be 'exp' or 'softmax'"),
        (dict(horizon=0), "horizon must be positive"),
        (dict(d_state=0), "d_state must be a positive integer"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        DSS(2, **options)
