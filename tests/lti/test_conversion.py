"""There and back: transfer functions, zeros and poles, sections, scipy.signal, python-control."""

import mpmath
import numpy as np
import pytest
import scipy.signal

from statespace.lti import LinearSystem

F = np.geomspace(1e-3, 1e2, 30)


@pytest.mark.parametrize(
    "design",
    [
        lambda output: scipy.signal.butter(8, 3.0, analog=True, output=output),
        lambda output: scipy.signal.butter(5, 1e-7, analog=True, output=output),
        lambda output: scipy.signal.ellip(6, 1, 40, [2.0, 2.1], btype="bandpass", analog=True, output=output),
        lambda output: scipy.signal.cheby2(7, 40, 9.0, btype="high", analog=True, output=output),
        lambda output: scipy.signal.bessel(3, [1.0, 5.0], btype="bandstop", analog=True, output=output),
    ],
)
@pytest.mark.parametrize("output", ["zpk", "sos", "ba"])
@pytest.mark.filterwarnings("ignore::scipy.signal.BadCoefficients")
def test_analog_filters_keep_their_response(design, output):
    zeros, poles, gain = design("zpk")
    expected = np.array([_exactly(zeros, poles, gain, 2 * np.pi * f) for f in F])
    designed = design(output)
    if output == "sos":
        system = LinearSystem.from_sos(designed)
    elif output == "zpk":
        system = LinearSystem.from_zpk(*designed)
    else:
        system = LinearSystem.from_transfer_function(*designed)
    # Polynomial coefficients of a narrow band lose digits before they arrive here.
    tol = 1e-9 if output == "zpk" else 1e-5
    assert np.abs(system.frequency_response(F) - expected).max() < tol * np.abs(expected).max()
    assert np.abs(system.A).max() < 1e3 * np.abs(poles).max() if output == "zpk" else True


def _exactly(zeros, poles, gain, omega):
    with mpmath.workdps(40):
        s = mpmath.mpc(0, omega)
        value = mpmath.mpf(float(gain))
        for zero in zeros:
            value *= s - mpmath.mpmathify(complex(zero))
        for pole in poles:
            value /= s - mpmath.mpmathify(complex(pole))
        return complex(value)


@pytest.mark.parametrize("dt", [None, 0.5])
def test_zeros_poles_and_polynomials_there_and_back(dt):
    zeros, poles, gain = np.array([0.3, -0.2 + 0.5j, -0.2 - 0.5j]), np.array([-0.5, -0.7, 0.1 + 0.2j, 0.1 - 0.2j]), 3.0
    system = LinearSystem.from_zpk(zeros, poles, gain, dt=dt)
    found = system.to_zpk()
    for a, b in zip(found[:2], (zeros, poles), strict=True):
        np.testing.assert_allclose(np.sort_complex(np.round(a, 9)), np.sort_complex(b), atol=1e-8)
    np.testing.assert_allclose(found[2], gain, rtol=1e-9)
    numerator, denominator = system.to_transfer_function()
    np.testing.assert_allclose(numerator, gain * np.poly(zeros).real, atol=1e-9)
    np.testing.assert_allclose(denominator, np.poly(poles).real, atol=1e-9)
    again = LinearSystem.from_transfer_function(numerator, denominator, dt=dt)
    np.testing.assert_allclose(again.frequency_response([0.1, 0.7]), system.frequency_response([0.1, 0.7]), rtol=1e-8)
    assert again.dt == dt


def test_double_poles_and_zeros_at_the_origin():
    system = LinearSystem.from_zpk([0.0, 0.0], [-1.0, -1.0], 1.0)
    s = 2j * np.pi * F
    np.testing.assert_allclose(system.frequency_response(F), (s / (s + 1)) ** 2, rtol=1e-12, atol=1e-15)
    integrators = LinearSystem.from_zpk([], [0.0, 0.0, 0.0], 2.0)
    np.testing.assert_allclose(integrators.frequency_response(F), 2 / s**3, rtol=1e-12)


def test_scipy(drawn):
    for system in (
        scipy.signal.lti([1.0, 2.0], [1.0, 0.5, 3.0]),
        scipy.signal.lti([-2.0], [-0.1 + 1j, -0.1 - 1j], 4.0),
        scipy.signal.StateSpace([[-1.0, 1.0], [0.0, -2.0]], [[0.0], [1.0]], [[1.0, 0.0]], [[0.5]]),
    ):
        ours = LinearSystem.from_scipy(system)
        np.testing.assert_allclose(ours.frequency_response(F), scipy.signal.freqresp(system, 2 * np.pi * F)[1])
    digital = LinearSystem.from_scipy(scipy.signal.dlti([1.0], [1.0, -0.5], dt=0.1))
    assert digital.dt == 0.1
    assert LinearSystem.from_scipy(scipy.signal.dlti([1.0], [1.0, -0.5])).dt == 1.0
    assert LinearSystem.from_scipy(digital.to_scipy()).dt == 0.1
    G = drawn(3, 2, 2, seed=0)
    again = LinearSystem.from_scipy((G.A, G.B, G.C, G.D))
    np.testing.assert_array_equal(again.frequency_response(F), G.frequency_response(F))
    two = LinearSystem.from_scipy(([[1.0, 0.0], [0.0, 1.0]], [1.0, 3.0]))
    assert two.n_outputs == 2
    np.testing.assert_allclose(two.frequency_response(0.1)[:, 0], [s / (s + 3) if k == 0 else 1 / (s + 3)
                               for k, s in enumerate([2j * np.pi * 0.1] * 2)])  # fmt: skip


def test_digital_sections():
    sos = scipy.signal.butter(5, 0.2, output="sos")
    u = np.random.default_rng(0).normal(size=100)
    np.testing.assert_allclose(LinearSystem.from_sos(sos, dt=1.0).simulate(u).output, scipy.signal.sosfilt(sos, u))


def test_python_control(drawn):
    control = pytest.importorskip("control", reason="python-control is not installed")
    G = drawn(3, 2, 2, seed=0)
    for system in (G, G.discretize(0.2)):
        again = LinearSystem.from_control(system.to_control())
        assert again.dt == system.dt
        np.testing.assert_array_equal(again.A, system.A)
    transfer = control.tf(
        [[[1.0], [2.0, 1.0]], [[1.0, 0.0], [3.0]]], [[[1.0, 1.0], [1.0, 2.0, 5.0]], [[1.0, 4.0], [1.0, 2.0]]]
    )
    ours = LinearSystem.from_control(transfer)
    expected = np.moveaxis(transfer(2j * np.pi * F), -1, 0)
    np.testing.assert_allclose(ours.frequency_response(F), expected, rtol=1e-9)
    assert ours.minimal().n_states == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LinearSystem.from_transfer_function([1.0, 0.0], [1.0]), "must not exceed"),
        (lambda: LinearSystem.from_transfer_function([1.0], [0.0]), "must not be zero"),
        (lambda: LinearSystem.from_zpk([1.0], [], 1.0), "more zeros than poles"),
        (lambda: LinearSystem.from_zpk([], [1j, -2j], 1.0), "no partner"),
        (lambda: LinearSystem.from_zpk([], [1j], 1.0), "conjugate pairs"),
        (lambda: LinearSystem.from_sos([1.0, 2.0]), r"\(n_sections, 6\)"),
        (lambda: LinearSystem.from_scipy("butter"), "Got str"),
        (lambda: LinearSystem(np.eye(2), np.eye(2), np.eye(2)).to_zpk(), "one input and one output"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
