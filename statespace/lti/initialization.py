"""Where a search for a system begins: subspaces on a regular grid, their order, the logarithm of A.

Only here are irregular or incomplete records interpolated. A and C come from the grid; all that the output is linear
in (B, D, offset, initial states) is then solved for on the true samples. The grids' systems are candidates, the one
that fits these samples best first.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.linalg import logm

from statespace.lti.growth import Growth
from statespace.lti.parametrization import Parameters
from statespace.lti.prediction_error import Innovations, OutputError, solve_linear, states
from statespace.lti.subspace import Subspace, decompose, longest_horizon, predictor, system

_GRID = 500_000  # samples of an interpolated record at most
_HORIZONS = (10, 20)  # block rows of the data matrices that are tried
_STEEPEST = 1e3  # entries of a start's A, per median gap: beyond, its eigenvectors are all but parallel
_FASTEST = 1e-4  # the smallest modulus of a discrete pole whose logarithm is taken


class Grid(NamedTuple):
    """Records on a common regular grid, and the subspace read from them.

    Attributes
    ----------
    step : float
    u, y : list of ndarray of shape (n_times_i, m), (n_times_i, p)
    subspace : Subspace
    """

    step: float
    u: list
    y: list
    subspace: Subspace


class Start(NamedTuple):
    """Start values and how their order was chosen.

    Attributes
    ----------
    candidates : list of Parameters
        The best first.
    singular_values : ndarray
    criterion : ndarray of shape (n_orders,) or None
        Of the orders 1, 2, … if it decided.
    """

    candidates: list
    singular_values: np.ndarray
    criterion: np.ndarray | None


def begin(data, times, *, order, max_order, method, horizon, criterion, innovations, feedthrough, intercept, stable,
          search, tol, random_state):  # fmt: skip
    """Start values for `statespace.lti.search.refine`.

    Parameters
    ----------
    data : Data
    times : ndarray of shape (n_samples,)
        Of all records, in units of the median gap.
    order : int or "auto"
    max_order : int
        The highest order that is tried.
    method, horizon, criterion, feedthrough, intercept, stable
        As in `LTIRegressor`.
    innovations : bool
        Whether the state has noise.
    search : callable or None
        Takes candidates for one order and returns the lowest V that a few steps reach from them. None: the criteria
        are those of the starts.
    tol : float
        As in `refine`.
    random_state : RandomState
        Draws a start where the records are too short for a subspace.

    Returns
    -------
    Start
    """
    grids = _grids(data, times, method, horizon, order)
    free = {"feedthrough": feedthrough, "intercept": intercept}
    table, values = None, grids[0].subspace.singular_values if grids else np.zeros(0)

    grows = not _is_regular(data) or bool(np.isnan(data.y).any())
    growth = Growth(data, **free, stable=stable, tol=tol) if grows else None

    def candidates(n):
        found = []
        if growth is not None:
            grown = growth.of_order(n)
            if grown is not None:
                if innovations:
                    grown = _with_prior(_with_some_noise(grown, data), data)
                found.append(((Innovations if innovations else OutputError)(data).value(grown), grown))
        for grid in grids:
            if n > len(grid.subspace.singular_values) - data.y.shape[1]:
                continue
            value, parameters = _solved(grid, n, data, stable, free)
            if np.isfinite(value) and innovations:
                with np.errstate(all="ignore"):
                    parameters = _with_noise(parameters, grid, n, data)
                value = Innovations(data).value(parameters)
            if np.isfinite(value):
                found.append((value, parameters))
        ordered = [parameters for _, parameters in sorted(found, key=lambda pair: pair[0])]
        return ordered or [_drawn(data, n, free, innovations, random_state)]

    if order == "auto" and not grids:
        order = 1
    elif order == "auto":
        highest = max(1, min(max_order, max(len(g.subspace.singular_values) for g in grids) - data.y.shape[1]))
        if criterion == "singular_values":
            order = _largest_drop(values, min(highest, max(len(values) - 1, 1)))
        else:
            deviance = _deviances(grids, data, innovations, stable, free)
            if search is not None:
                def deviance(n):
                    return 2 * search(candidates(n))
            table = _criteria(deviance, highest, data, criterion, innovations, free)
            order = int(np.argmin(table)) + 1
    return Start(candidates(order), values, table)


def _is_regular(data):
    return data.discrete or bool(np.all(np.abs(data.gaps - 1) < 1e-6))


def _with_some_noise(parameters, data):
    """With half of the errors' variance in y, and noise in the state that moves y by the rest within ten gaps."""
    errors = OutputError(data)
    roots = np.sqrt(0.5 * errors.variances(errors.residuals(parameters)))
    L = np.sqrt(0.1) * np.linalg.pinv(parameters.C) * roots
    return replace(parameters, L=L, G=np.diag(roots))


def _grids(data, times, method, horizon, order):
    """Grids of a few steps, the first of them the one of the data if they have one."""
    records = [slice(a, b) for a, b in zip(data.starts[:-1], data.starts[1:], strict=True)]
    p, m = data.y.shape[1], data.u.shape[1]
    regular = _is_regular(data)
    steps = [1.0] if data.discrete else [1.0, 2.0, 4.0] if regular else [1.0, 0.5, 2.0]
    # Γ less one block row must still determine A.
    least = 2 if order == "auto" else -(-order // p) + 1
    if horizon is not None and horizon < least:
        raise ValueError(f"horizon={horizon} is too short for order={order}: it must be at least {least}.")
    grids = []
    for step in steps:
        u, y = [], []
        for record in records:
            for part in _resampled(times[record], data.u[record], data.y[record], step, regular, data.linear):
                u.append(part[0]), y.append(part[1])
        if not u:
            continue
        length, longest = max(map(len, u)), longest_horizon([len(part) for part in u], m, p)
        sizes = sorted({max(min(longest, size), least) for size in _HORIZONS}) if horizon is None else [horizon]
        for f in sizes:
            if length >= 2 * f or (horizon is not None and step == steps[0]):
                grids.append(Grid(step, u, y, decompose(u, y, f, method)))
    return grids


def _resampled(t, u, y, step, regular, linear):
    """A record on a grid, in parts where a gap is too long to interpolate over."""
    seen = ~np.isnan(y)
    if regular and step == 1.0 and seen.all():
        return [(u, y)]
    known = t[seen.any(axis=1)]
    if len(known) < 4:
        return []
    breaks = np.flatnonzero(np.diff(known) > 12 * step)
    spans = zip(np.r_[known[0], known[breaks + 1]], np.r_[known[breaks], known[-1]], strict=True)
    parts = []
    for begins, ends in spans:
        count = int((ends - begins) / step + 1e-6) + 1
        if not 4 <= count <= _GRID:
            continue
        grid = begins + step * np.arange(count)
        inside = (t >= begins) & (t <= ends)
        outputs = []
        for column, present in zip(y.T, seen.T, strict=True):
            own = present & inside
            distinct = np.r_[True, np.diff(t[own]) > 0] if own.any() else np.zeros(0, bool)
            if distinct.sum() < 2:
                break
            x, values = t[own][distinct], column[own][distinct]
            outputs.append(PchipInterpolator(x, values)(np.clip(grid, x[0], x[-1])))
        if len(outputs) == y.shape[1]:
            parts.append((_inputs(t, u, grid, step, linear), np.stack(outputs, axis=1)))
    return parts


def _inputs(t, u, grid, step, linear):
    """Inputs at the samples of a grid; held inputs as their means over its steps, which act almost as they do."""
    if linear:
        return np.stack([np.interp(grid, t, column) for column in u.T], axis=1)
    edges = np.r_[grid, grid[-1] + step]
    t_end = np.r_[t, max(t[-1], edges[-1]) + step]
    areas = np.vstack([np.zeros(u.shape[1]), np.cumsum(u * np.diff(t_end)[:, np.newaxis], axis=0)])
    totals = np.stack([np.interp(edges, t_end, column) for column in areas.T], axis=1)
    return np.diff(totals, axis=0) / step


def _largest_drop(values, highest):
    """The order after which the singular values fall by the largest factor."""
    if len(values) < 2 or not values[0] > 0:
        return 1
    floor = np.maximum(values, 1e-13 * values[0])
    return int(np.argmax(floor[:highest] / floor[1 : highest + 1])) + 1


def _criteria(deviance, highest, data, criterion, innovations, free):
    """The criterion of the orders 1, 2, … up to the highest, or to the third in a row that is no improvement."""
    p, m = data.y.shape[1], data.u.shape[1]
    n_seen = int((~np.isnan(data.y)).sum())
    price = 2.0 if criterion == "aic" else np.log(n_seen)
    table: list[float] = []
    for n in range(1, highest + 1):
        # In local coordinates: n (m + p) of A, B and C, n p of L, and what does not grow with n.
        n_free = n * (m + p + p * innovations) + p * (m * free["feedthrough"] + free["intercept"])
        value = float(deviance(n)) + price * n_free
        table.append(value if np.isfinite(value) else np.inf)
        if n - 1 - int(np.argmin(table)) >= 3:
            break
    return np.array(table)


def _deviances(grids, data, innovations, stable, free):
    """2 V of the starts: of the predictors read from a subspace, or of simulations."""
    def of_order(n):
        if not innovations:
            fitting = [grid for grid in grids if n <= len(grid.subspace.singular_values) - data.y.shape[1]]
            return 2 * min(_solved(grid, n, data, stable, free)[0] for grid in fitting)
        _, covariance, count = predictor(grids[0].subspace, n, grids[0].u, grids[0].y)
        sign, log_det = np.linalg.slogdet(covariance)
        return count * (log_det if sign > 0 else -80.0 * len(covariance))

    return of_order


def _solved(grid, order, data, stable, free):
    """V and the parameters of a grid's system, linear ones solved for on the true samples."""
    A, C = system(grid.subspace, order)
    if not (np.isfinite(A).all() and np.isfinite(C).all()):
        return np.inf, None
    A = stabilised(A) if stable else A
    if not data.discrete:
        A = continuous(A, grid.step)
    p, m, n_records = data.y.shape[1], data.u.shape[1], len(data.starts) - 1
    if not np.abs(A).max() < _STEEPEST:
        return np.inf, None
    parameters = Parameters(
        A, np.zeros((order, m)), C, np.zeros((p, m)), np.zeros((order, p)), np.eye(p), np.zeros(p),
        np.zeros((n_records, order)), np.zeros((order, order)),
    )  # fmt: skip
    with np.errstate(all="ignore"):
        try:
            parameters = solve_linear(parameters, data, **free)
        except (np.linalg.LinAlgError, ValueError):  # an unstable system's outputs overflow
            return np.inf, None
    return OutputError(data).value(parameters), parameters


def stabilised(A):
    """A with the eigenvalues outside the unit circle reflected into it.

    Parameters
    ----------
    A : ndarray of shape (n, n)
        A discrete system's.

    Returns
    -------
    ndarray of shape (n, n)
    """
    values, V = np.linalg.eig(A)
    size = np.abs(values)
    if (size < 1).all():
        return A
    values = np.where(size >= 1, values / np.maximum(size, 1 + 1e-6) ** 2, values)
    return np.real(V @ (values[:, np.newaxis] * np.linalg.pinv(V)))


def continuous(A, step):
    """The real logarithm of A over a step, or that of the nearest matrix which has one.

    A simple negative eigenvalue has no real logarithm: two of them become a pair on a circle close to the negative
    axis, a single one loses its sign. An eigenvalue near 0 is moved away from it.

    Parameters
    ----------
    A : ndarray of shape (n, n)
        A discrete system's.
    step : float

    Returns
    -------
    ndarray of shape (n, n)
        log(A) / step.
    """
    values, V = np.linalg.eig(A)
    negative = np.flatnonzero((np.abs(values.imag) <= 1e-12 * np.abs(values)) & (values.real < 0))
    tiny = np.abs(values) < _FASTEST
    if not negative.size and not tiny.any():
        logarithm = np.asarray(logm(A))
        if np.isfinite(logarithm).all():
            return np.real(logarithm) / step
    values = values.astype(complex)
    V = V.astype(complex)
    values[tiny] = _FASTEST * np.exp(1j * np.angle(values[tiny]))
    for first, second in zip(negative[::2], negative[1::2], strict=False):
        radius = np.sqrt(np.abs(values[first] * values[second]))
        values[first], values[second] = radius * np.exp(0.95j * np.pi), radius * np.exp(-0.95j * np.pi)
        a, b = V[:, first].copy(), V[:, second].copy()
        V[:, first], V[:, second] = a + 1j * b, a - 1j * b
    if negative.size % 2:
        values[negative[-1]] = np.abs(values[negative[-1]])
    return np.real(V @ (np.log(values)[:, np.newaxis] * np.linalg.pinv(V))) / step


def _with_noise(parameters, grid, order, data):
    """With noise in the state that gives about the predictor's gain, and half of the innovations' variance in y."""
    K, covariance, _ = predictor(grid.subspace, order, grid.u, grid.y)
    errors = OutputError(data)
    variance = errors.variances(errors.residuals(parameters))
    p = len(variance)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 1e-8 * variance.max())) @ vectors.T
    L = K @ root / np.sqrt(1.0 if data.discrete else grid.step)
    least = 1e-3 * np.sqrt(variance).max() * np.ones((order, p)) * np.eye(order, p)
    L = np.where(np.isfinite(L), L, 0.0) + least
    G = np.linalg.cholesky(0.5 * root @ root.T + 1e-8 * np.eye(p))
    return _with_prior(replace(parameters, L=L, G=G), data)


def _with_prior(parameters, data):
    """With the mean squares of the simulated states as the covariance in which records begin, and no initial ones."""
    x = states(parameters, data)
    moments = x.T @ x / len(x)
    moments += 1e-8 * np.trace(moments) * np.eye(len(moments))
    return replace(parameters, x0=np.zeros_like(parameters.x0), P0=moments)


def _drawn(data, order, free, innovations, random_state):
    """Real poles between a tenth of the shortest record's rate and the sampling's, read out at random."""
    p, m, n_records = data.y.shape[1], data.u.shape[1], len(data.starts) - 1
    rates = np.geomspace(0.1, 1.0, order)
    A = np.diag(np.exp(-rates) if data.discrete else -rates)
    start = Parameters(
        A, np.zeros((order, m)), random_state.normal(size=(p, order)), np.zeros((p, m)), 0.1 * np.eye(order, p),
        0.5 * np.eye(p), np.zeros(p), np.zeros((n_records, order)), np.zeros((order, order)),
    )  # fmt: skip
    start = solve_linear(start, data, **free)
    return _with_prior(start, data) if innovations else start
