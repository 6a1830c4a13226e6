"""How well identified systems simulate records that they have not seen, and how long a fit takes, beside a peer.

Real records are read from the folder that STATESPACE_DATA names. All models of a table have the same order, the same
records to learn from, and their initial state on the test record estimated by least squares.
"""

import os
import warnings
from pathlib import Path

import numpy as np
from harness import machine, race, table

from statespace.lti import LinearSystem, LTIRegressor

TESTS = ["tests/lti/test_identification.py", "tests/lti/test_prediction_error.py", "tests/lti/test_subspace.py"]


def fit_percent(y, simulated):
    """100 (1 − ‖y − ŷ‖ / ‖y − ȳ‖), the mean over the outputs."""
    return float(np.mean(100 * (1 - np.linalg.norm(y - simulated, axis=0) / np.linalg.norm(y - y.mean(0), axis=0))))


def run(A, B, C, D, u, y):
    """A simulation from the initial state that fits y best."""
    n, N = len(A), len(u)
    x, forced = np.zeros(n), np.empty(y.shape)
    free, power = np.empty((N, len(C), n)), C.copy()
    for k in range(N):
        forced[k], free[k] = C @ x + D @ u[k], power
        x, power = A @ x + B @ u[k], power @ A
    x0 = np.linalg.lstsq(free.reshape(-1, n), (y - forced).ravel(), rcond=1e-10)[0]
    return forced + free @ x0


def nfoursid(u, y, u_test, y_test, order):
    import pandas as pd
    from nfoursid.nfoursid import NFourSID

    inputs, outputs = [f"u{i}" for i in range(u.shape[1])], [f"y{i}" for i in range(y.shape[1])]
    frame = pd.DataFrame(np.hstack([u - u.mean(0), y - y.mean(0)]), columns=inputs + outputs)
    peer = NFourSID(frame, output_columns=outputs, input_columns=inputs, num_block_rows=15)
    peer.subspace_identification()
    found, _ = peer.system_identification(rank=order)
    return run(found.a, found.b, found.c, found.d, u_test - u.mean(0), y_test - y.mean(0)) + y.mean(0)


def arx(u, y, u_test, y_test, order):
    """Least squares of y on the last ``order`` outputs and inputs, each output for itself, run free."""
    du, dy = u - u.mean(0), y - y.mean(0)
    lagged = [part[order - i : len(u) - i] for i in range(1, order + 1) for part in (dy, du)]
    weights = np.linalg.lstsq(np.hstack([du[order:], *lagged]), dy[order:], rcond=None)[0]
    simulated, du = (y_test - y.mean(0)).copy(), u_test - u.mean(0)
    with np.errstate(all="ignore"):
        for k in range(order, len(u_test)):
            past = [part[k - i] for i in range(1, order + 1) for part in (simulated, du)]
            simulated[k] = np.concatenate([du[k], *past]) @ weights
    return simulated + y.mean(0)


def ours(u, y, u_test, y_test, order, **options):
    model = LTIRegressor(order, feedthrough=True, **options).fit(u, y)
    return model.predict(u_test, y_test, k=np.inf)


DISCRETE = {"domain": "discrete", "noise_model": "output_error"}
MODELS = {
    "constant": lambda u, y, u_test, y_test, order: np.tile(y.mean(0), (len(y_test), 1)),
    "ARX, least squares": arx,
    "nfoursid": nfoursid,
    "subspace only, n4sid": lambda *a: ours(*a, refine=False, **DISCRETE),
    "subspace only, cva": lambda *a: ours(*a, refine=False, method="cva", **DISCRETE),
    "output error, discrete": lambda *a: ours(*a, **DISCRETE),
    "output error, continuous": lambda *a: ours(*a, noise_model="output_error"),
    "innovations, continuous": lambda *a: ours(*a),
}


def daisy(root, name, n_inputs, train, orders):
    data = np.loadtxt(root / "daisy" / name)
    u, y = data[:, :n_inputs], data[:, n_inputs:]
    print(f"\n{name}: free-run fit in percent on samples {train} to {len(u)}, orders {', '.join(map(str, orders))}")
    for label, model in MODELS.items():
        scores = []
        for order in orders:
            if label.startswith("innovations") and order > 8:
                scores.append("      -")
                continue
            scores.append(f"{fit_percent(y[train:], model(u[:train], y[:train], u[train:], y[train:], order)):7.2f}")
        print(f"  {label:28s}{' '.join(scores)}")


def cascaded_tanks(root):
    data = np.genfromtxt(root / "cascaded_tanks" / "dataBenchmark.csv", delimiter=",", skip_header=1)
    u, u_test, y, y_test = data[:, :4].T
    times = 4.0 * np.arange(len(u))
    window = y_test.copy()
    window[5:] = np.nan
    print("\ncascaded tanks: simulation RMSE in V on the test record (best linear model published: 0.75)")
    print(f"  {'constant':28s}{np.sqrt(np.mean((y_test - y.mean()) ** 2)):7.3f}")
    for order in (1, 2, 3, 4):
        free = arx(u[:, None], y[:, None], u_test[:, None], y_test[:, None], order)[:, 0]
        print(f"  {f'ARX, order {order}':28s}{np.sqrt(np.mean((y_test - free) ** 2)):7.3f}")
    for noise_model in ("output_error", "innovations"):
        for order in (1, 2, 3, 4):
            model = LTIRegressor(order, noise_model=noise_model).fit(u[:, np.newaxis], y, times=times)
            by_window = model.predict(u_test[:, np.newaxis], window, times, k=np.inf)
            by_training = model.predict(u_test[:, np.newaxis], times=times, initial_state="fitted")
            errors = [np.sqrt(np.mean((y_test - found) ** 2)) for found in (by_window, by_training)]
            print(f"  {f'{noise_model}, order {order}':28s}{errors[0]:7.3f} (state from 5 samples)"
                  f"{errors[1]:7.3f} (that of the training record)")  # fmt: skip


def irregular():
    A = np.zeros((4, 4))
    A[:2, :2], A[2:, 2:] = [[-0.15, 1.0], [-1.0, -0.15]], [[-0.4, 3.0], [-3.0, -0.4]]
    system = LinearSystem(A, [[1.0], [0.5], [0.8], [1.0]], [[1.0, 0.3, 0.8, -0.5]])
    expected = np.sort_complex(system.poles)
    print("\n4th order, 30 % of 3000 samples kept, 40 dB, 10 draws: largest relative error of a pole in percent")
    for label, options in {
        "output error": {"noise_model": "output_error"},
        "innovations": {},
        "start only": {"refine": False, "noise_model": "output_error"},
        "order by BIC, output error": {"noise_model": "output_error", "order": "auto"},
    }.items():
        errors, orders = [], []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            kept = np.sort(rng.choice(3000, 900, replace=False))
            times, u = 0.2 * kept, np.repeat(rng.normal(size=600), 5)[kept, np.newaxis]
            y = np.ravel(system.simulate(u, times=times).output)
            y = y + 0.01 * y.std() * rng.normal(size=len(y))
            model = LTIRegressor(**{"order": 4, **options}).fit(u, y, times=times)
            orders.append(model.order_)
            if model.order_ == 4:
                errors.append(100 * np.max(np.abs(np.sort_complex(model.poles_) - expected) / np.abs(expected)))
        print(f"  {label:28s}median {np.median(errors):8.3f}   worst {max(errors):8.3f}   orders {sorted(set(orders))}")


def times(root):
    data = np.loadtxt(root / "daisy" / "CD_player_arm.dat")
    u, y, u_test, y_test = data[:1024, :2], data[:1024, 2:], data[1024:, :2], data[1024:, 2:]
    names = ["nfoursid", "subspace only, n4sid", "output error, discrete"]
    seconds = race({name: (lambda f=MODELS[name]: f(u, y, u_test, y_test, 4)) for name in names}, rounds=3)
    table("fit of order 4 on 1024 samples and its test run, CD player arm", seconds, "subspace only, n4sid")


def main():
    print(machine(["numpy", "scipy", "numba", "nfoursid"]))
    warnings.simplefilter("ignore")
    irregular()
    root = os.environ.get("STATESPACE_DATA")
    if root is None:
        print("\nSTATESPACE_DATA is not set: no real records")
        return
    cascaded_tanks(Path(root))
    daisy(Path(root), "dryer.dat", 1, 500, (2, 3, 4, 5))
    daisy(Path(root), "CD_player_arm.dat", 2, 1024, (2, 4, 6, 8, 12))
    times(Path(root))


if __name__ == "__main__":
    main()
