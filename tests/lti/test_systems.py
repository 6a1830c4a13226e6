"""Both faces of a system agree, on a grid with SciPy too, and no gap can be cut so that it matters."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.signal

from statespace.lti import LinearSystem, Steps, input_weights

HOLDS = ("zoh", "foh")


def close(found, expected, tol=1e-10):
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=tol * scale)


def loop(system, u, times, hold, x):
    """The recurrence as it is written."""
    steps = input_weights(system.A, system.B, np.diff(times), method=hold)
    states = [x]
    for k in range(1, len(u)):
        x = steps.A[k - 1] @ x + steps.B0[k - 1] @ u[k - 1] + steps.B1[k - 1] @ u[k]
        states.append(x)
    states = np.array(states)
    return states @ system.C.T + u @ system.D.T, states


@pytest.mark.parametrize("hold", ["zoh", "foh", "bilinear", "backward_euler"])
def test_simulate_is_the_recurrence(system, hold, irregular, signal):
    times, u = irregular(301), signal(system, 301)
    x = np.arange(1.0, system.n_states + 1)
    y, states = system.simulate(u, times=times, initial_state=x, hold=hold)
    expected, expected_states = loop(system, u, times, hold, x)
    close(y, expected)
    close(states, expected_states)


@pytest.mark.parametrize("hold", HOLDS)
def test_folding_step_equals_simulate(system, hold, irregular, signal):
    times, u = irregular(60), signal(system, 60)
    x = np.ones(system.n_states)
    state, outputs = x, []
    for u_t, dt in zip(u, np.diff(times, prepend=0.0), strict=True):
        y_t, state = system.step(u_t, state, dt=dt, hold=hold)
        outputs.append(y_t)
    close(np.array(outputs), system.simulate(u, times=times, initial_state=x, hold=hold).output)


@pytest.mark.parametrize("hold", HOLDS)
def test_cutting_a_gap_changes_nothing(system, hold, irregular, signal):
    times, u = irregular(50), signal(system, 50)
    middle = 0.5 * (times[1:] + times[:-1])
    every, finer = np.empty(2 * len(u) - 1), np.empty((2 * len(u) - 1, system.n_inputs))
    finer[0::2] = u
    finer[1::2] = u[:-1] if hold == "zoh" else 0.5 * (u[1:] + u[:-1])
    every[0::2], every[1::2] = times, middle
    close(
        system.simulate(finer, times=every, hold=hold).output[0::2],
        system.simulate(u, times=times, hold=hold).output,
    )


@pytest.mark.parametrize("hold", HOLDS)
def test_a_record_can_be_cut(system, hold, irregular, signal):
    times, u = irregular(40), signal(system, 40)
    whole = system.simulate(u, times=times, hold=hold)
    rest = system.simulate(u[17:], times=times[17:], initial_state=whole.state[17], hold=hold)
    close(rest.output, whole.output[17:])


@pytest.mark.parametrize(("hold", "interp"), [("zoh", False), ("foh", True)])
def test_on_a_grid_it_is_lsim(stable, hold, interp, signal):
    system = stable
    times, u = 0.3 * np.arange(200), signal(system, 200)
    x = np.linspace(-1.0, 1.0, system.n_states)
    _, y, states = scipy.signal.lsim(system.to_scipy(), u, times, X0=x, interp=interp)
    ours = system.simulate(u, times=times, initial_state=x, hold=hold)
    close(ours.output, y.reshape(len(u), -1), 1e-9)
    close(ours.state, states.reshape(len(u), -1), 1e-9)


@pytest.mark.parametrize("method", ["zoh", "foh", "bilinear"])
def test_convolution_equals_recurrence(system, method, signal):
    n, dt = 257, 0.2
    u = signal(system, n)
    kernel = system.kernel(dt, n, method=method).reshape(n, system.n_outputs, system.n_inputs)
    y = np.zeros((n, system.n_outputs))
    for o in range(system.n_outputs):
        for i in range(system.n_inputs):
            y[:, o] += np.convolve(kernel[:, o, i], u[:, i])[:n]
    grid = system.discretize(dt, method=method)
    close(grid.simulate(u).output, y)
    if method == "zoh":
        close(system.simulate(u, times=dt * np.arange(n)).output, y)


@pytest.mark.filterwarnings("ignore::scipy.signal.BadCoefficients")
def test_lfilter(signal, systems):
    system = systems["spring"]
    u = signal(system, 100)[:, 0]
    b, a, _ = scipy.signal.cont2discrete(([0.0, 0.0, 1.0], [1.0, 0.1, 4.0]), 0.3, method="zoh")
    close(system.simulate(u, times=0.3 * np.arange(100)).output, scipy.signal.lfilter(b.ravel(), a, u))


@pytest.mark.parametrize("method", ["zoh", "foh", "bilinear", "impulse", "euler", "backward_euler"])
def test_discretize_gives_scipys_matrices(method, drawn):
    system = drawn(3, 2, 2, seed=4)
    system = LinearSystem(system.A, system.B, system.C, None if method == "impulse" else system.D)
    theirs = {"backward_euler": "backward_diff"}.get(method, method)
    expected = scipy.signal.cont2discrete((system.A, system.B, system.C, system.D), 0.4, method=theirs)
    grid = system.discretize(0.4, method=method)
    for found, matrix in zip((grid.A, grid.B, grid.C, grid.D, grid.dt), expected, strict=True):
        np.testing.assert_allclose(found, matrix, atol=1e-13)
    steps = system.discretize([0.4, 0.1], method=method)
    assert isinstance(steps, Steps)
    assert steps.B0.shape == (2, 3, 2)


def test_prewarping(systems):
    system = systems["spring"]
    grid = system.discretize(0.5, method="bilinear", prewarp=0.4)
    np.testing.assert_allclose(grid.frequency_response(0.4), system.frequency_response(0.4), rtol=1e-12)
    plain = system.discretize(0.5, method="bilinear")
    assert abs(plain.frequency_response(0.4) / system.frequency_response(0.4) - 1.0) > 0.05


def test_shifted_and_dated_times(signal, systems):
    system = systems["lag"]
    times = np.cumsum(np.random.default_rng(1).integers(1, 9, size=50)) / 8.0
    u = signal(system, 50)
    y = system.simulate(u, times=times).output
    np.testing.assert_array_equal(system.simulate(u, times=times + 1e9).output, y)
    dates = pd.Timestamp("2024-03-30", tz="Europe/Berlin") + pd.to_timedelta(times, unit="h")
    close(system.simulate(u, times=dates, time_unit="h").output, y, 1e-13)
    close(system.simulate(u, times=dates).output, system.simulate(u, times=times / 24.0).output, 1e-13)
    _, state = system.step(1.0)
    assert system.step(1.0, state, dt=pd.Timedelta("12h"))[0] == system.step(1.0, state, dt=0.5)[0]


def test_long_record_in_chunks(signal, systems):
    """Chunks of the loops meet without a seam, in modes and as a whole."""
    n = 40_000
    for name in ("spring", "defective"):
        system = systems[name]
        times = np.cumsum(np.random.default_rng(0).exponential(0.1, size=n))
        u = signal(system, n)
        whole = system.simulate(u, times=times)
        late = system.simulate(u[16_000:], times=times[16_000:], initial_state=whole.state[16_000])
        close(late.output, whole.output[16_000:])


def test_discrete_time(drawn, signal):
    system = drawn(3, 2, 2, seed=5).discretize(0.5)
    u = signal(system, 30)
    _, y, states = scipy.signal.dlsim(scipy.signal.dlti(system.A, system.B, system.C, system.D, dt=0.5), u)
    ours = system.simulate(u, times=0.5 * np.arange(30))
    close(ours.output, y)
    close(ours.state, states)
    state, outputs = None, []
    for u_t in u:
        y_t, state = system.step(u_t, state)
        outputs.append(y_t)
    close(np.array(outputs), y)


def test_shapes(systems):
    lag = systems["lag"]
    assert lag.simulate([1.0, 2.0]).output.shape == (2,)
    assert lag.simulate([[1.0], [2.0]]).output.shape == (2, 1)
    assert lag.simulate([1.0]).state.shape == (1, 1)
    assert lag.simulate(np.zeros(0)).output.shape == (0,)
    assert lag.kernel(0.1, 1).shape == (1,)
    assert lag.kernel(0.1, 7).shape == (7,)
    wide = systems["two by three"]
    assert wide.kernel(0.1, 7).shape == (7, 2, 3)
    assert wide.simulate(np.ones((4, 3))).output.shape == (4, 2)
    assert wide.simulate(times=[0.0, 1.0], initial_state=np.ones(5)).output.shape == (2, 2)
    assert repr(wide) == "LinearSystem(5 states, 3 inputs, 2 outputs)"


def test_copies(systems):
    system = systems["spring"]
    system.simulate(np.ones(3))
    for other in (copy.deepcopy(system), pickle.loads(pickle.dumps(system))):
        np.testing.assert_array_equal(other.simulate(np.ones(9)).output, system.simulate(np.ones(9)).output)
    with pytest.raises(ValueError, match="read-only"):
        system.A[0, 0] = 1.0


LAG = LinearSystem(-0.7, 1.3, 2.0, 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LinearSystem(np.ones((2, 3)), [1.0], [1.0]), "A must be square"),
        (lambda: LinearSystem(np.eye(2), [1.0], [1.0, 1.0]), "B must have a row for each of the 2"),
        (lambda: LinearSystem(np.eye(2), [1.0, 1.0], [1.0]), "C must have a column"),
        (lambda: LinearSystem(1.0, 1.0, 1.0, np.ones((2, 2))), r"D must have shape .*\(1, 1\)"),
        (lambda: LinearSystem([[1j]], 1.0, 1.0), "real numbers. Got complex"),
        (lambda: LinearSystem(np.nan, 1.0, 1.0), "A must be finite"),
        (lambda: LinearSystem(1.0, 1.0, 1.0, dt=0.0), "dt must be the positive"),
        (lambda: LAG.simulate(), "times="),
        (lambda: LAG.simulate(np.ones((3, 2))), r"n_times, 1\), or \(n_times,\)"),
        (lambda: LAG.simulate([1.0, np.nan]), r"u\[1\]"),
        (lambda: LAG.simulate([1.0, 2.0], times=[1.0, 0.0]), "must not decrease"),
        (lambda: LAG.simulate([1.0, 2.0], times=[1.0]), "each of the 2 rows"),
        (lambda: LAG.simulate([1.0], hold="linear"), "'linear'"),
        (lambda: LAG.simulate([1.0], initial_state=[1.0, 2.0]), "1 finite"),
        (lambda: LinearSystem(5.0, 1.0, 1.0).simulate(np.ones(400)), r"sample 14\d is too large for a float"),
        (lambda: LAG.step(np.nan), "finite"),
        (lambda: LAG.step([1.0, 2.0]), "1 finite input"),
        (lambda: LAG.step(1.0, LAG.step(1.0)[1], dt=-1.0), "Got -1.0"),
        (lambda: LAG.discretize(0.0), "positive"),
        (lambda: LAG.discretize(1.0, method="impulse"), "D = 0"),
        (lambda: LAG.discretize(1.0).discretize(1.0), "continuous time"),
        (lambda: LAG.discretize(1.0).simulate([1.0, 1.0], times=[0.0, 2.0]), "1 apart"),
        (lambda: LAG.discretize(1.0).kernel(2.0, 3), "system's own"),
        (lambda: LAG.kernel(1.0, 0), "at least 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_heavy_is_imported():
    """Layers and components import statespace.lti: it brings neither torch nor sktime, and Numba on demand."""
    code = (
        "import sys; from statespace.lti import LinearSystem, process_noise\n"
        "assert not {'torch', 'sktime', 'numba', 'sklearn', 'scipy.signal'} & set(sys.modules)\n"
        "from statespace.lti import LTIFilter; LTIFilter().fit_transform([[1.0, 2.0]])\n"
        "assert not {'torch', 'sktime', 'statespace.kalman'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
