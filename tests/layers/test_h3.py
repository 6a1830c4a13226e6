"""H3 against its paper: algorithm 1 with explicit shift and diagonal matrices, in a dense float64 loop."""

import numpy as np
import pytest
import torch

from statespace.layers import H3
from statespace.layers.shift import shift


def papers_layer(layer, u, dt):
    """One record u (L, D): the shift matrix as a matrix, outer products k vᵀ, the state of every product of its own."""
    weights = {name: p.detach().numpy() for name, p in layer.state_dict().items()}
    D, m, d = layer.d_model, layer.d_shift, layer.head_dim
    A = -np.exp(weights["log_A_real"]) + 1j * weights["A_imag"]
    B, C = (weights[name][..., 0] + 1j * weights[name][..., 1] for name in "BC")
    step, pairs = np.exp(weights["log_step"]), 1 if layer.init == "real" else 2
    q, k, v = np.split(u @ weights["projection.weight"].T + weights["projection.bias"], 3, axis=1)
    S, first = np.eye(m, k=-1), np.eye(m)[0]
    x = np.zeros((D, m))
    states = np.zeros((layer.heads, d, d, A.shape[1]), complex)
    outputs = np.empty_like(u)
    for t in range(len(u)):
        x = x @ S.T + np.outer(k[t], first)
        key = np.sum(weights["taps"] * x, axis=1)
        mixed = np.empty(D)
        for h in range(layer.heads):
            own = slice(h * d, (h + 1) * d)
            product = np.outer(key[own], v[t, own])
            gap = step[h] * dt[t]
            if layer.discretization == "zoh":
                A_bar = np.exp(gap * A[h])
                B_bar = (A_bar - 1) / A[h] * B[h]
            else:
                A_bar = (1 + gap * A[h] / 2) / (1 - gap * A[h] / 2)
                B_bar = gap / (1 - gap * A[h] / 2) * B[h]
            states[h] = A_bar * states[h] + B_bar * product[..., None]
            read = pairs * (states[h] @ C[h]).real + weights["D"][h] * product
            mixed[own] = q[t, own] @ read
        outputs[t] = weights["output.weight"] @ mixed + weights["output.bias"]
    return outputs


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(head_dim=2, d_shift=3),
        dict(head_dim=6, d_shift=1, init="real"),
        dict(head_dim=3, discretization="bilinear", init="legs"),
    ],
    ids=str,
)
def test_equals_the_papers_algorithm(options, regular):
    torch.manual_seed(0)
    layer = H3(6, 8, **options).double()
    with torch.no_grad():
        layer.B.normal_()
    u = torch.randn(2, 90, 6, dtype=torch.float64)
    dt = torch.ones(2, 90, dtype=torch.float64) if regular else torch.rand(2, 90, dtype=torch.float64) * 3
    y, _ = layer(u, None if regular else dt)
    for i in range(2):
        expected = papers_layer(layer, u[i].numpy(), dt[i].numpy())
        np.testing.assert_allclose(y[i].detach().numpy(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("length", [1, 2, 5, 300])
@pytest.mark.parametrize("m", [1, 4, 64])
def test_shift_is_a_product_with_the_shift_matrix(length, m):
    u, taps, register = (torch.randn(s, dtype=torch.float64) for s in ((2, 3, length), (3, m), (2, 3, m - 1)))
    y, after = shift(u, taps, register)
    window = torch.cat([register, u], dim=-1)
    for t in range(length):
        torch.testing.assert_close(y[..., t], (window[..., t : t + m].flip(-1) * taps).sum(-1))
    torch.testing.assert_close(after, window[..., length:], rtol=0, atol=0)


def test_padding_does_not_enter_the_register():
    u, taps, register = (torch.randn(s, dtype=torch.float64) for s in ((2, 3, 9), (3, 4), (2, 3, 3)))
    real = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    y, after = shift(u, taps, register, real)
    for i in range(2):
        expected, end = shift(u[i : i + 1, :, real[i]], taps, register[i : i + 1])
        torch.testing.assert_close(y[i : i + 1, :, real[i]], expected)
        torch.testing.assert_close(after[i : i + 1], end, rtol=0, atol=0)


def test_what_projections_make_of_padding_reaches_nothing():
    """A biased projection turns zeros into keys and values; in a reversed record they would stand first."""
    torch.manual_seed(0)
    layer = H3(4, 8, bidirectional=True).double()
    u, dt = torch.randn(1, 10, 4, dtype=torch.float64), torch.ones(1, 10, dtype=torch.float64)
    u[:, 6:], dt[:, 6:] = 0, 0
    expected, _ = layer(u[:, :6], dt[:, :6])
    torch.testing.assert_close(layer(u, dt)[0][:, :6], expected, rtol=1e-12, atol=1e-12)


def test_recalls_the_value_after_a_key():
    """The paper's associative recall by hand: 'a 2 b 1 a' → 2, with one-hot letters, a shift by one and no decay.

    A value is stored under the key before it, and read by the query that equals the key.
    """
    letters = 4
    layer = H3(letters, 2, d_shift=2, head_dim=letters, init="real").double()
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        layer.projection.weight.copy_(torch.eye(letters).repeat(3, 1))
        layer.taps[:, 1] = 1  # the letter before
        layer.log_A_real.fill_(-12.0)  # nodes that hardly decay: each product is summed
        layer.B[..., 0], layer.C[..., 0] = 1, 0.5
        layer.output.weight.copy_(torch.eye(letters))
    a, b, one, two = torch.eye(letters, dtype=torch.float64)
    y, _ = layer(torch.stack([a, two, b, one, a]).unsqueeze(0))
    torch.testing.assert_close(y[0, -1], two, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(head_dim=3), "head_dim must divide d_model = 4"),
        (dict(head_dim=0), "head_dim must divide d_model = 4"),
        (dict(d_shift=0), "d_shift must be a positive integer"),
        (dict(discretization="euler"), "'zoh' or 'bilinear'"),
        (dict(init="hippo"), "init must be one of"),
        (dict(d_state=7), "positive even number"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        H3(4, **options)
