"""S4 against its paper: the dense bilinear recurrence, HiPPO's matrices, the impulse response, faces that agree."""

import copy

import numpy as np
import pytest
import torch

from statespace.layers import S4
from statespace.layers.s4 import impulse_response
from statespace.lti import hippo

MEASURES = ["legs", "legt", "lagt", "fourier", "legsd", "foud"]


def dense(layer, h):
    """δA (N, N), δB, C of one channel over both halves of the conjugate pairs."""
    both = lambda p: np.concatenate([p, p.conj()], axis=-1)  # noqa: E731
    number = lambda p: both(torch.view_as_complex(p.detach()[h]).numpy())  # noqa: E731
    Lambda = both(-np.exp(layer.log_A_real.detach().numpy()[h]) + 1j * layer.A_imag.detach().numpy()[h])
    P, step = number(layer.P), np.exp(layer.log_step.detach().numpy()[h])
    return step * (np.diag(Lambda) - P.T @ P.conj()), step * number(layer.B), number(layer.C)


def recurrence(layer, u, dt):
    """The paper's formulas, one dense solve a step."""
    y = np.empty(u.shape)
    identity = np.eye(layer.d_state)
    for h in range(u.shape[-1]):
        A, B, C = dense(layer, h)
        for b in range(len(u)):
            x = np.zeros(layer.d_state, complex)
            for k, gap in enumerate(dt[b]):
                x = np.linalg.solve(identity - gap / 2 * A, (identity + gap / 2 * A) @ x + gap * B * u[b, k, h])
                y[b, k, h] = (C @ x).real + layer.D.detach().numpy()[h] * u[b, k, h]
    return y


@pytest.mark.parametrize("mode", ["auto", "scan", "convolution"])
@pytest.mark.parametrize("measure", MEASURES)
def test_equals_the_papers_formulas(measure, mode):
    torch.manual_seed(0)
    layer = S4(2, 16, measure=measure, mode=mode).double()
    u = torch.randn(2, 60, 2, dtype=torch.float64)
    dt = torch.full((2, 60), 0.7, dtype=u.dtype) if mode == "convolution" else torch.rand(2, 60, dtype=u.dtype) * 3
    y, _ = layer(u, dt)
    np.testing.assert_allclose(y.detach().numpy(), recurrence(layer, u.numpy(), dt.numpy()), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("measure", "rank"), [(measure, 2 if measure == "legt" else 1) for measure in MEASURES])
def test_starts_as_the_measures_system(measure, rank):
    """Seen from outside, in a basis of its own: Λ, P and B give the transfer function of HiPPO's matrices."""
    layer = S4(1, 16, measure=measure, dt_min=1.0, dt_max=1.0)
    assert layer.P.shape == (1, rank, 8, 2)
    A, B = hippo.matrices(measure, 16)
    form = hippo.dplr(measure, 16)
    got_A, got_B, _ = dense(layer, 0)
    read = np.arange(1.0, 17.0)
    in_own_basis = np.concatenate([read @ form.V, (read @ form.V).conj()])
    for z in (0.3, 1.0 + 2.0j, 20.0j + 1.0):
        expected = read @ np.linalg.solve(z * np.eye(16) - A, B[:, 0])
        got = in_own_basis @ np.linalg.solve(z * np.eye(16) - got_A, got_B)
        # Λ on the imaginary axis is met to within 1e-4.
        np.testing.assert_allclose(got, expected, rtol=1e-3 if measure in ("legt", "fourier") else 1e-6)


def test_a_higher_rank_starts_as_the_same_system():
    torch.manual_seed(0)
    one = S4(2, 8).double()
    torch.manual_seed(0)
    three = S4(2, 8, rank=3).double()
    u, dt = torch.randn(1, 30, 2, dtype=torch.float64), torch.rand(1, 30, dtype=torch.float64)
    torch.testing.assert_close(three(u, dt)[0], one(u, dt)[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(three.kernel(17), one.kernel(17), rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        three.P.normal_()
    three.mode = "convolution"
    expected = recurrence(three, u.numpy(), np.ones((1, 30)))
    np.testing.assert_allclose(three(u)[0].detach().numpy(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("length", [1, 2, 3, 64, 101])
@pytest.mark.parametrize("measure", ["legs", "legt", "fourier"])
def test_kernel_is_the_impulse_response(measure, length):
    torch.manual_seed(0)
    layer = S4(2, 16, measure=measure, dt_min=0.02, dt_max=0.5).double()
    impulse = np.zeros((1, length, 2))
    impulse[:, 0] = 1
    expected = recurrence(layer, impulse, np.full((1, length), 0.3))[0]
    expected[0] -= layer.D.detach().numpy()
    np.testing.assert_allclose(layer.kernel(length, gap=0.3).detach().numpy().T, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("backend", ["cpu", "pytorch"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_gradients_of_the_kernel(backend, rank):
    rng = np.random.default_rng(0)
    draw = lambda *shape: torch.from_numpy(rng.normal(size=shape) + 1j * rng.normal(size=shape))  # noqa: E731
    Lambda = draw(2, 3)
    Lambda = torch.complex(-Lambda.real.abs() - 0.1, Lambda.imag)
    system = [x.requires_grad_() for x in (Lambda, draw(2, rank, 3), draw(2, 3), draw(2, 3))]
    assert torch.autograd.gradcheck(lambda *s: impulse_response(*s, 6, backend=backend), system, fast_mode=True)


@pytest.mark.parametrize("measure", MEASURES)
def test_faces_agree_over_a_long_record(measure):
    """The reference code's convolution and step differ by 2.4e-4 at 4096 with LegS, by 1.6e-3 with Fourier.

    Without their low-rank part LegS' and Fourier's fast modes live for ten thousands of steps under the bilinear rule,
    turning by almost half a turn in each, and a scan in float32 adds up the rounding of that turn.
    """
    torch.manual_seed(0)
    layer = S4(4, 64, measure=measure)
    u = torch.randn(1, 4096, 4)
    with torch.no_grad():
        layer.double().mode = "scan"
        exact, exact_state = layer(u.double())
        layer.mode = "convolution"
        y, state = layer(u.double())
        torch.testing.assert_close(y, exact, rtol=0, atol=1e-10)
        torch.testing.assert_close(state, exact_state, rtol=0, atol=1e-10)
        layer.float()
        outputs = {}
        for mode in ("scan", "convolution"):
            layer.mode = mode
            outputs[mode] = layer(u)[0]
        if measure in ("legs", "legt"):
            outputs["step"], state = [], layer.freeze().initial_state(1)
            for u_t in u.unbind(1):
                y_t, state = layer.step(u_t, state)
                outputs["step"].append(y_t)
            outputs["step"] = torch.stack(outputs["step"], dim=1)
    scale = exact.abs().max().item()
    for mode, y in outputs.items():
        tolerance = 3e-4 if measure in ("legsd", "foud") and mode == "scan" else 2e-5
        error = (y.double() - exact).abs().max().item() / scale
        assert error < tolerance, f"{mode}: {error:.1e}"


def test_auto_convolves_for_gradients_alone_where_the_scan_is_no_compiled_loop(monkeypatch):
    """The final state asks for a scan, which has the outputs as well."""
    from statespace.layers import s4

    convolved, convolve = [], s4.long_convolution
    monkeypatch.setattr(s4, "long_convolution", lambda u, *k, **o: convolved.append(u.shape) or convolve(u, *k, **o))
    torch.manual_seed(0)
    layer, u = S4(3, 8, backend="pytorch").double(), torch.randn(2, 50, 3, dtype=torch.double)
    for dt in (None, torch.full((2, 50), 0.7, dtype=torch.double)):
        y, state = layer(u, dt)
        assert len(convolved) == 1
        with torch.no_grad():
            found = layer(u, dt)
        assert len(convolved) == 1
        for x, expected in zip(found, (y, state), strict=True):
            torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)
        convolved.clear()
    S4(3, 8)(u.float())
    assert convolved == []
    with torch.no_grad():
        S4(3, 8, mode="convolution", backend="pytorch")(u.float())
    assert len(convolved) == 1


@pytest.mark.parametrize("measure", ["legs", "legt"])
@pytest.mark.parametrize("gap", [0.0, 1e-6, 1.0, 1e6, 1e8])
def test_a_steps_gradients_keep_their_digits_at_any_gap(measure, gap):
    """Without an input, and over a large gap, those in the system and in δ are small beside what they add up from."""
    torch.manual_seed(0)
    layer = S4(4, 16, measure=measure)
    draws = torch.randn(3, 4), torch.randn(3, 4, 8, 2), torch.full((3,), gap)
    weights = torch.randn(3, 4), torch.randn(3, 4, 8, 2)
    for u in (draws[0], 0 * draws[0]):
        results = []
        for like in (layer.float(), copy.deepcopy(layer).double()):
            inputs = [x.to(like.D.dtype).requires_grad_() for x in (u, *draws[1:])]
            loss = sum((x * w).sum() for x, w in zip(like.step(*inputs), weights, strict=True))
            results.append(torch.autograd.grad(loss, [*inputs, *like.parameters()]))
        names = ["u", "state", "dt", *dict(layer.named_parameters())]
        for name, x, y in zip(names, *results, strict=True):
            error = (x - y).abs().max() / y.abs().max().clamp(min=1e-300)
            assert error < 3e-6, f"{name}: {error:.1e}"


def test_every_random_system_is_stable():
    """|x| never grows without input, whatever the weights and at any gap."""
    torch.manual_seed(0)
    layer = S4(3, 8, rank=2).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(std=3.0)
    state = torch.randn(5, 3, 4, 2, dtype=torch.float64)
    for gap in (1e-3, 1.0, 1e3):
        _, after = layer.step(torch.zeros(5, 3, dtype=torch.float64), state, torch.full((5,), gap, dtype=torch.float64))
        assert bool((after.square().sum((2, 3)) <= state.square().sum((2, 3)) * (1 + 1e-12)).all())


def test_step_sizes_start_in_their_range():
    steps = S4(1000, 2, dt_min=0.01, dt_max=0.2).log_step.exp()
    assert steps.min() >= 0.01 * (1 - 1e-5)
    assert steps.max() <= 0.2 * (1 + 1e-5)
    assert 0.04 < steps.median() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(measure="hippo"), "measure must be one of"),
        (dict(measure="legt", rank=1), "rank must be an integer of at least 2"),
        (dict(rank=0), "rank must be an integer of at least 1"),
        (dict(discretization="zoh"), "must be 'bilinear'"),
        (dict(mode="fft"), "'auto', 'convolution' or 'scan'"),
        (dict(dt_min=0.1, dt_max=0.01), "0 < dt_min <= dt_max"),
        (dict(d_state=7), "positive even number"),
        (dict(d_model=0), "d_model must be a positive integer"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        S4(**dict(d_model=2) | options)


@pytest.mark.parametrize("arguments", [(0,), (5, 0.0), (5, float("nan"))])
def test_bad_kernels(arguments):
    with pytest.raises(ValueError, match="length must be a positive integer"):
        S4(2, 4).kernel(*arguments)
