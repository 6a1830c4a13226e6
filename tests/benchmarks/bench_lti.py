"""Filters on irregular samples against what is done without them; simulation against SciPy and python-control."""

import numpy as np
import scipy.signal
from harness import machine, race, table

from statespace.lti import LinearSystem, LTIFilter, era

TESTS = ["tests/lti"]
CUTOFF = 0.5


def control():
    try:
        import control
    except ImportError:
        return None
    return control


def sampled(clock, n, rng):
    """Times at a mean rate of 10, and a signal whose filtered version is known exactly at any time."""
    if clock == "regular":
        times = 0.1 * np.arange(n)
    elif clock == "jittered":
        times = 0.1 * (np.arange(n) + rng.uniform(-0.4, 0.4, size=n))
    elif clock == "Poisson":
        times = np.cumsum(rng.exponential(0.1, size=n))
    else:
        gaps = rng.exponential(0.02, size=n)
        gaps[rng.random(n) < 0.02] += 4.0
        times = np.cumsum(gaps)
    f, phase = np.array([0.013, 0.11, 0.37, 0.6, 1.1]), rng.uniform(0, 2 * np.pi, size=5)
    return times, f, phase


def resampled(sos, times, x, step, zero_phase):
    """What is done without a filter for irregular samples: a grid, a digital filter, and back."""
    grid = np.arange(times[0], times[-1] + step, step)
    u = np.interp(grid, times, x)
    if zero_phase:
        y = scipy.signal.sosfiltfilt(sos, u)
    else:
        y, _ = scipy.signal.sosfilt(sos, u, zi=scipy.signal.sosfilt_zi(sos) * u[0])
    return np.interp(times, grid, y)


def accuracy(n=20_000):
    print(f"\nerror against the analog filter's exact output, root mean square, Butterworth of order 4, {n} samples")
    print(f"  {'clock':12s}{'':14s}{'ours':>12s}{'resample 1x':>14s}{'resample 4x':>14s}{'resample 16x':>14s}")
    rng = np.random.default_rng(0)
    for clock in ("regular", "jittered", "Poisson", "bursts"):
        times, f, phase = sampled(clock, n, rng)
        x = np.sin(2 * np.pi * np.outer(times, f) + phase).sum(axis=1)
        for zero_phase in (False, True):
            model = LTIFilter(order=4, cutoff=CUTOFF, zero_phase=zero_phase).fit([x], times=[times])
            H = model.frequency_response(f)
            exact = (H * np.exp(1j * (2 * np.pi * np.outer(times, f) + phase))).imag.sum(axis=1)
            inner = (times > times[0] + 20.0) & (times < times[-1] - 20.0)
            # Within a long gap nobody knows the input; what is compared is where samples are dense.
            inner &= np.convolve(np.diff(times, prepend=times[0]) > 1.0, np.ones(200), mode="full")[: len(times)] == 0
            outputs = [model.transform([x], times=[times])[0]]
            for factor in (1, 4, 16):
                step = model.time_scale_ / factor
                sos = scipy.signal.butter(4, CUTOFF, fs=1 / step, output="sos")
                outputs.append(resampled(sos, times, x, step, zero_phase))
            errors = [np.sqrt(np.mean((y - exact)[inner] ** 2)) for y in outputs] if inner.any() else [np.nan] * 4
            kind = "zero phase" if zero_phase else "causal"
            print(f"  {clock:12s}{kind:14s}{errors[0]:12.2e}" + "".join(f"{e:14.2e}" for e in errors[1:]))


def main():
    print(machine(["numpy", "scipy", "numba", "control"]))
    accuracy()
    rng = np.random.default_rng(0)
    for clock in ("regular", "Poisson", "bursts"):
        for order in (4, 8):
            filtering(clock, order, rng)
    simulation(rng)
    realization(rng)
    discretization(rng)


def filtering(clock, order, rng, n=1_000_000):
    times, f, phase = sampled(clock, n, rng)
    x = np.sin(2 * np.pi * np.outer(times, f) + phase).sum(axis=1)
    causal = LTIFilter(order=order, cutoff=CUTOFF).fit([x], times=[times])
    both = LTIFilter(order=order, cutoff=CUTOFF, zero_phase=True).fit([x], times=[times])
    step = causal.time_scale_
    sos, sos4 = (scipy.signal.butter(order, CUTOFF, fs=factor / step, output="sos") for factor in (1, 4))
    contenders = {
        "LTIFilter": lambda: causal.transform([x], times=[times]),
        "LTIFilter, zero phase": lambda: both.transform([x], times=[times]),
        "resample 1x, sosfilt": lambda: resampled(sos, times, x, step, False),
        "resample 4x, sosfilt": lambda: resampled(sos4, times, x, step / 4, False),
        "resample 4x, sosfiltfilt": lambda: resampled(sos4, times, x, step / 4, True),
    }
    if clock == "regular":
        contenders["sosfilt alone"] = lambda: scipy.signal.sosfilt(sos, x)
    seconds = race(contenders, rounds=3)
    table(f"{clock} times, order {order}, {n} samples", seconds, "LTIFilter", per=n, unit="ns")


def simulation(rng, n=100_000):
    A = rng.normal(size=(6, 6))
    system = LinearSystem(
        A - (np.linalg.eigvals(A).real.max() + 0.2) * np.eye(6), rng.normal(size=(6, 2)), np.eye(6)[:2]
    )
    u, grid = rng.normal(size=(n, 2)), 0.05 * np.arange(n)
    theirs, peer = system.to_scipy(), control()
    contenders = {
        "LinearSystem.simulate": lambda: system.simulate(u, times=grid, hold="foh"),
        "scipy.signal.lsim": lambda: scipy.signal.lsim(theirs, u, grid),
    }
    if peer is None:
        print("  python-control is not installed: not compared")
    else:
        state_space = system.to_control()
        contenders["control.forced_response"] = lambda: peer.forced_response(state_space, grid, u.T)
    expected = scipy.signal.lsim(theirs, u, grid)[1]
    difference = np.abs(system.simulate(u, times=grid, hold="foh").output - expected).max()
    print(f"\nlargest difference to lsim: {difference:.1e}")
    table(f"simulation on a grid, 6 states, 2 inputs and outputs, {n} samples", race(contenders, rounds=3),
          "LinearSystem.simulate", per=n, unit="ns")  # fmt: skip
    times = np.cumsum(rng.exponential(0.05, size=n))
    defective = LinearSystem(-np.eye(6) + np.eye(6, k=1), np.ones(6), np.eye(6)[0])
    contenders = {
        "modes": lambda: system.simulate(u, times=times),
        "a defective A, as a whole": lambda: defective.simulate(u[:, 0], times=times),
    }
    table(f"simulation on irregular times, 6 states, {n} samples (no peer)", race(contenders, rounds=3), "modes",
          per=n, unit="ns")  # fmt: skip


def plant(rng, n=6):
    A = rng.normal(size=(n, n))
    return LinearSystem(A - (np.linalg.eigvals(A).real.max() + 0.2) * np.eye(n), rng.normal(size=(n, 2)), np.eye(n)[:2])


def realization(rng, n=400):
    """The system of order 6 behind 400 samples of an impulse response of 2 inputs and 2 outputs."""
    true = plant(rng).discretize(0.1)
    response, peer = true.impulse_response(0.1 * np.arange(n)).output, control()
    few = {"n_rows": 12, "n_columns": 12}
    found = {
        "era": lambda: np.abs(era(response, order=6).poles),
        "era, 12 rows and columns": lambda: np.abs(era(response, order=6, **few).poles),
    }
    if peer is None:
        print("  python-control is not installed: not compared")
    else:
        given = np.moveaxis(response, 0, -1)
        # twelve rows and columns, which it takes by itself
        found["control.eigensys_realization"] = lambda: np.abs(peer.eigensys_realization(given, 6)[0].poles())
    sought = np.sort(np.abs(true.poles))
    errors = {name: np.abs(np.sort(run()) / sought - 1).max() for name, run in found.items()}
    print("\nerror of the poles: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    title = f"realization of order 6 from {n} samples of an impulse response"
    table(title, race(found, rounds=5), "era, 12 rows and columns", unit="ms")


def discretization(rng, n=1_000):
    """A system over as many different gaps, as an irregular record has."""
    system, gaps = plant(rng), rng.exponential(0.1, size=n)
    given = (system.A, system.B, system.C, system.D)
    contenders = {
        "LinearSystem.discretize": lambda: system.discretize(gaps),
        "scipy.signal.cont2discrete": lambda: [scipy.signal.cont2discrete(given, gap) for gap in gaps],
    }
    seconds = race(contenders, rounds=3)
    table(f"zero-order hold over {n} gaps, 6 states", seconds, "LinearSystem.discretize", per=n, unit="us")


if __name__ == "__main__":
    main()
