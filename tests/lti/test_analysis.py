"""Poles, zeros, responses, gramians and reduction, against SciPy, python-control and definitions."""

import numpy as np
import pytest
import scipy.integrate
import scipy.signal

from statespace.lti import LinearSystem, transition


def sort(values):
    return np.sort_complex(np.round(np.asarray(values, complex), 7))


def test_poles_zeros_and_gain_of_a_known_system():
    zeros, poles = [-1.0, -2.0, -0.5 + 3j, -0.5 - 3j], [-3.0, -1 + 1j, -1 - 1j, -4.0, -4.0, -10.0]
    system = LinearSystem.from_zpk(zeros, poles, 7.0)
    np.testing.assert_allclose(sort(system.poles), sort(poles), atol=1e-6)
    np.testing.assert_allclose(sort(system.zeros), sort(zeros), atol=1e-7)
    np.testing.assert_allclose(system.gain, 7.0 * np.prod(-np.array(zeros)).real / np.prod(-np.array(poles)).real)
    assert system.is_stable
    assert not LinearSystem(0.0, 1.0, 1.0).is_stable
    assert np.isinf(LinearSystem(0.0, 1.0, 1.0).gain)
    assert not LinearSystem(-1.0, 1.0, 1.0, dt=1.0).is_stable
    assert LinearSystem(0.9, 1.0, 1.0, dt=1.0).is_stable


def test_no_zeros():
    chain = LinearSystem(np.eye(6, k=1) - np.eye(6), np.eye(6)[5], np.eye(6)[0])
    assert chain.zeros.size == 0
    assert LinearSystem(np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), 2.0).zeros.size == 0


@pytest.mark.parametrize(("n_inputs", "n_outputs"), [(2, 2), (3, 2), (2, 3), (1, 3)])
def test_the_rank_falls_at_a_transmission_zero(drawn, n_inputs, n_outputs):
    """A common zero is built in by a scalar factor in series."""
    factor = LinearSystem.from_zpk([-2.5], [-1.5], 1.0)
    square = min(n_inputs, n_outputs)
    diagonal = LinearSystem(
        np.kron(np.eye(square), factor.A), np.kron(np.eye(square), factor.B),
        np.kron(np.eye(square), factor.C), np.kron(np.eye(square), factor.D),
    )  # fmt: skip
    G = drawn(3, n_inputs, n_outputs, seed=2)
    G = G * diagonal if n_inputs <= n_outputs else diagonal * G
    zeros = G.zeros
    assert np.sum(np.abs(zeros + 2.5) < 1e-6) == square
    for zero in zeros:
        pencil = np.block([[zero * np.eye(G.n_states) - G.A, -G.B], [G.C, G.D]])
        values = np.linalg.svd(pencil, compute_uv=False)
        assert values[-1] < 1e-7 * values[0]
    if n_inputs == n_outputs == 2:
        assert len(zeros) == 5


def test_zeros_of_a_system_without_direct_term(drawn):
    """A square system whose C B has full rank has n − m finite zeros."""
    G = drawn(6, 2, 2, seed=3)
    assert len(LinearSystem(G.A, G.B, G.C).zeros) == 4


@pytest.mark.filterwarnings("ignore::scipy.signal.BadCoefficients")
def test_frequency_response_is_scipys(stable):
    f = np.geomspace(1e-3, 1e3, 40)
    if stable.D.shape == (1, 1):
        expected = scipy.signal.freqresp(stable.to_scipy(), 2 * np.pi * f)[1]
        np.testing.assert_allclose(stable.frequency_response(f), expected, rtol=1e-7)
        bode = stable.bode(f)
        np.testing.assert_allclose(bode.magnitude, 20 * np.log10(np.abs(expected)), rtol=1e-6, atol=1e-6)
        assert stable.bode().frequency.shape == (500,)
    else:
        assert stable.frequency_response(f).shape == (40, *stable.D.shape)
    assert stable.frequency_response(0.1).shape == stable.frequency_response([0.1]).shape[1:]


def test_frequency_response_in_discrete_time(drawn):
    system = drawn(3, 1, 1, seed=3).discretize(0.5)
    f = np.linspace(0.01, 0.9, 9)
    expected = scipy.signal.dfreqresp(system.to_scipy(), 2 * np.pi * f * 0.5)[1]
    np.testing.assert_allclose(system.frequency_response(f), expected, rtol=1e-9)
    assert system.bode().frequency.max() <= 1.0


def test_responses(stable):
    times = np.array([3.0, 0.0, 0.1, 40.0])
    impulse, step = stable.impulse_response(times), stable.step_response(times)
    for k, t in enumerate(times):
        E = transition(stable.A, t)
        h = stable.C @ E @ stable.B
        s = stable.D + stable.C @ np.linalg.solve(stable.A, (E - np.eye(stable.n_states)) @ stable.B)
        np.testing.assert_allclose(np.reshape(impulse.output[k], stable.D.shape), h, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.reshape(step.output[k], stable.D.shape), s, rtol=1e-8, atol=1e-8)
    last = stable.step_response().output[-1]
    assert np.abs(last - stable.gain).max() < 0.02 * np.abs(stable.gain).max()


def test_responses_in_discrete_time(drawn):
    system = drawn(3, 2, 1, seed=3).discretize(0.5)
    u = np.zeros((20, 2))
    u[0, 1] = 1.0
    expected = system.simulate(u).output[:, 0]
    np.testing.assert_allclose(system.impulse_response(0.5 * np.arange(20)).output[:, 0, 1], expected, atol=1e-12)
    np.testing.assert_allclose(system.step_response([4.5]).output[0, 0, 1], expected[:10].sum(), rtol=1e-12)
    with pytest.raises(ValueError, match="multiples"):
        system.step_response([0.3])


@pytest.mark.parametrize("kind", ["controllability", "observability"])
def test_gramians_are_their_integrals(drawn, kind):
    system = drawn(3, 2, 2, seed=8)

    def integrand(t):
        E = transition(system.A, t)
        root = E @ system.B if kind == "controllability" else (system.C @ E).T
        return (root @ root.T).ravel()

    expected = scipy.integrate.quad_vec(integrand, 0.0, 100.0, epsabs=1e-10)[0].reshape(3, 3)
    np.testing.assert_allclose(system.gramian(kind), expected, atol=1e-8)
    grid = system.discretize(0.7)
    W = grid.gramian(kind)
    A, S = (grid.A, grid.B @ grid.B.T) if kind == "controllability" else (grid.A.T, grid.C.T @ grid.C)
    np.testing.assert_allclose(W, A @ W @ A.T + S, atol=1e-12)


def test_h2_norm(drawn):
    system = drawn(3, 2, 2, seed=8)
    assert system.h2_norm() == np.inf
    proper = LinearSystem(system.A, system.B, system.C)
    power = scipy.integrate.quad(lambda f: np.sum(np.abs(proper.frequency_response(f)) ** 2), -200, 200, limit=500)[0]
    np.testing.assert_allclose(proper.h2_norm() ** 2, power, rtol=1e-3)
    grid = system.discretize(0.3)
    np.testing.assert_allclose(grid.h2_norm() ** 2, (grid.kernel(None, 2000) ** 2).sum(), rtol=1e-10)
    assert LinearSystem(1.0, 1.0, 1.0).h2_norm() == np.inf


@pytest.mark.parametrize("dt", [None, 0.5])
def test_balancing(drawn, dt):
    system = drawn(6, 2, 2, seed=9)
    system = system if dt is None else system.discretize(dt)
    values = system.hankel_singular_values()
    balanced = system.balanced()
    f = np.linspace(0.0, 0.9, 7)
    np.testing.assert_allclose(balanced.frequency_response(f), system.frequency_response(f), rtol=1e-8, atol=1e-10)
    for kind in ("controllability", "observability"):
        np.testing.assert_allclose(balanced.gramian(kind), np.diag(values), atol=1e-8 * values[0])
    product = system.gramian("controllability") @ system.gramian("observability")
    np.testing.assert_allclose(np.sort(values**2), np.sort(np.linalg.eigvals(product).real), rtol=1e-6)
    f = np.linspace(0.0, 1.0 if dt else 20.0, 400)
    for order in (0, 2, 4):
        for match in (False, True):
            smaller = system.reduce(order, match_gain=match)
            assert smaller.n_states == order
            assert smaller.is_stable
            error = (smaller - system).frequency_response(f)
            assert np.linalg.norm(error, ord=2, axis=(1, 2)).max() <= 2 * values[order:].sum() * (1 + 1e-9)
            if match:
                np.testing.assert_allclose(smaller.gain, system.gain, rtol=1e-9, atol=1e-10)


def test_reducing_an_unstable_system_keeps_its_unstable_poles(drawn):
    stable, unstable = drawn(5, 1, 1, seed=1), LinearSystem([[0.2, 1.0], [-1.0, 0.2]], [1.0, 0.0], [1.0, 1.0])
    system = (stable + unstable).transform(np.random.default_rng(0).normal(size=(7, 7)))
    smaller = system.reduce(4)
    np.testing.assert_allclose(sort(smaller.poles[smaller.poles.real > 0]), sort(unstable.poles), atol=1e-7)
    values = stable.hankel_singular_values()
    f = np.linspace(0.0, 5.0, 100)
    assert np.abs((smaller - system).frequency_response(f)).max() <= 2 * values[2:].sum() * (1 + 1e-6)
    with pytest.raises(ValueError, match="at least 2, the number of unstable"):
        system.reduce(1)
    with pytest.raises(ValueError, match="between 0 and 7"):
        system.reduce(8)


def test_minimal(drawn):
    G, H = drawn(3, 2, 2, seed=1), drawn(2, 2, 2, seed=2)
    double = G + G + H - H
    small = double.minimal()
    assert small.n_states == 3
    f = np.linspace(0.0, 3.0, 9)
    np.testing.assert_allclose(small.frequency_response(f), 2 * G.frequency_response(f), atol=1e-9)
    assert G.minimal().n_states == 3
    assert (LinearSystem(-1.0, 0.0, 1.0) + 2.0).minimal().n_states == 0


def test_unstable_systems_have_no_gramian():
    integrator = LinearSystem(0.0, 1.0, 1.0)
    for call in (
        lambda: integrator.gramian("controllability"),
        integrator.hankel_singular_values,
        integrator.balanced,
    ):
        with pytest.raises(ValueError, match=r"stable system only; this one has the poles \[0.\]"):
            call()
    with pytest.raises(ValueError, match="'controllability' or"):
        LinearSystem(-1.0, 1.0, 1.0).gramian("c")


def test_against_python_control(drawn):
    control = pytest.importorskip("control", reason="python-control is not installed")
    system, other = drawn(4, 2, 2, seed=3), drawn(3, 2, 2, seed=4)
    theirs, their_other = system.to_control(), other.to_control()
    f = np.array([0.01, 0.2, 3.0])
    pairs = [
        (system * other, theirs * their_other),
        (system + other, theirs + their_other),
        (system.feedback(other), theirs.feedback(their_other)),
        (system[0, 1], theirs[0, 1]),
    ]
    for ours, expected in pairs:
        H = np.moveaxis(expected(2j * np.pi * f, squeeze=False), -1, 0)
        np.testing.assert_allclose(ours.frequency_response(f).reshape(H.shape), H, rtol=1e-9)
    np.testing.assert_allclose(sort(system.zeros), sort(theirs.zeros()), atol=1e-6)
    times, u = 0.1 * np.arange(50), np.random.default_rng(0).normal(size=(50, 2))
    response = control.forced_response(theirs, times, u.T)
    np.testing.assert_allclose(system.simulate(u, times=times, hold="foh").output, response.outputs.T, atol=1e-9)
