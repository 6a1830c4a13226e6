"""The likelihood of a complete record on a regular grid, by differencing: exact, and in O(T q) instead of O(T n²).

Where a process is diffuse, and neither its motion nor its rows depend on the parameters, there is a polynomial in the
lag that takes the diffuse part away,

    z_t = φ(L) y_t = Σ_m ψ_m w_{t−m} + φ(L) ε_t,     ψ_m = Σ_{k≤m} φ_k H A^{m−k},

a moving average whose autocovariances are linear in the variances. φ is the least common multiple of (1 − λL) over the
roots λ that the states turn by: (1 − L)(1 − L¹²) for a trend and a seasonal of period 12. y and (y_1 … y_d, z) have the
same density, and with O = [H; HA; … HA^{d−1}] D the diffuse start leaves

    ℓ = −½ (n log 2π + log |O Oᵀ|) + that of z.

A missing value, and a covariate whose coefficient is constant and diffuse, are columns with flat coefficients.
Restricted maximum likelihood of differenced data is an old acquaintance of the diffuse likelihood (Ansley & Kohn 1985;
Harvey 1989, section 4.5.3); differencing loses digits where roots lie close together, so that the search which uses
this lets the filter have the last word. Above: `likelihood`. Below: `toeplitz`.
"""

import numpy as np

from statespace.kalman.composition import Sum
from statespace.kalman.toeplitz import MovingAverage
from statespace.kernels.kalman_filter import discretize_blocks
from statespace.kernels.kalman_filter.blocks import RANDOM_WALK, ROTATION, TREND

# Roots as near as this are one.
_SAME = 1e-9
# What φ may leave of the rows, in proportion.
_LEFT = 1e-7
_FIRST_ROW = np.zeros(1, dtype=np.int64)
# Columns with flat coefficients beyond this cost more than the filter.
_COLUMNS = 24
# Lags beyond this cost more than the filter does, and differences of differences more digits than there are.
_LAGS = 400


def unit_roots(blocks, transition):
    """The roots λ of the minimal polynomial of A, block by block, each as often as it stands there.

    Parameters
    ----------
    blocks : Blocks
        Random walks, trends, rotations, and tables that return to the identity.
    transition : ndarray of shape (n, n)

    Returns
    -------
    list of ndarray of complex

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalTrend
    >>> from statespace.kalman.differencing import unit_roots
    >>> trend = LocalTrend()
    >>> unit_roots(trend.blocks(), trend.transition(1.0))
    [array([1.+0.j, 1.+0.j])]
    """
    result, o = [], 0
    for kind, size in zip(blocks.kind.tolist(), blocks.size.tolist(), strict=True):
        A = transition[o : o + size, o : o + size]
        o += size
        if kind in (RANDOM_WALK, TREND):
            roots = np.ones(1 if kind == RANDOM_WALK else 2, dtype=complex)
        elif kind == ROTATION:
            roots = A[0, 0] + 1j * A[0, 1] * np.array([1.0, -1.0])
            roots = roots[:1] if A[0, 1] == 0.0 else roots
        else:
            roots = _distinct(np.linalg.eigvals(A).astype(complex))
        result.append(roots)
    return result


def _distinct(roots):
    kept: list[complex] = []
    for root in roots:
        if all(abs(root - other) > _SAME for other in kept):
            kept.append(root)
    return np.array(kept)


def polynomial(roots):
    """φ, ascending in the lag, from the roots of several blocks: each as often as in the block that has it most often.

    Parameters
    ----------
    roots : list of ndarray of complex

    Returns
    -------
    ndarray of shape (d + 1,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.differencing import polynomial
    >>> polynomial([np.ones(1), np.ones(2), -np.ones(1)])
    array([ 1., -1., -1.,  1.])
    """
    found: list[complex] = []
    for part in roots:
        rest = list(found)
        for root in part:
            near = [other for other in rest if abs(root - other) <= _SAME]
            if near:
                rest.remove(near[0])
            else:
                found.append(root)
    phi = np.ones(1)
    for root in found:
        phi = np.convolve(phi, [1.0, -root])
    phi = phi.real
    whole = np.rint(phi)
    return whole if np.abs(phi - whole).max() < 1e-10 else phi


def autocovariances(phi, A, h, noises):
    """γ_j(0 … d) of φ(L) h·x_t for process noises Q_j; None if φ does not take the start of x away.

    Parameters
    ----------
    phi : ndarray of shape (d + 1,)
    A : ndarray of shape (n, n)
    h : ndarray of shape (n,)
    noises : ndarray of shape (k, n, n)

    Returns
    -------
    ndarray of shape (k, d + 1) or None
    """
    d, n = len(phi) - 1, len(h)
    psi, row = np.empty((d, n)), np.zeros(n)
    for m in range(d):
        row = row @ A + phi[m] * h
        psi[m] = row
    if np.abs(row @ A + phi[d] * h).max(initial=0.0) > _LEFT * np.abs(psi).max(initial=1.0):
        return None
    # the sums along the diagonals of each ψ Q ψᵀ
    products = psi @ noises @ psi.T
    lag = np.subtract.outer(np.arange(d), np.arange(d))
    return np.array([np.bincount(lag[lag >= 0], product[lag >= 0], minlength=d + 1) for product in products])


class Differenced:
    """`Likelihood` by differencing, of one series on a regular grid: the same value, gradient and head.

    Parameters
    ----------
    likelihood : Likelihood
        Which it stands for; `differenced` tells whether it can.
    averages : list of (MovingAverage, float)
        One for each output, with the constant that belongs to its value.
    n_free : int
        The number of parameters; parts of the moving average beyond them have weight 1.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.binding import Binding
    >>> from statespace.kalman.differencing import differenced
    >>> from statespace.kalman.likelihood import Likelihood
    >>> process, gaps = LocalLevel(), np.array([0.0, 1.0, 1.0, 1.0])
    >>> likelihood = Likelihood(process, [(Binding(process, gaps), np.array([[0.0], [1.0], [0.5], [2.0]]), None)])
    >>> theta = np.array([-0.3, 0.2])
    >>> bool(np.isclose(differenced(likelihood).value(theta), likelihood.value(theta), rtol=1e-12))
    True
    """

    def __init__(self, likelihood, averages, n_free):
        self.likelihood, self.averages = likelihood, averages
        self.n_observed, self.noise_is_fitted = likelihood.n_observed, likelihood.noise_is_fitted
        self._weights = np.ones(len(averages[0][0].parts))
        self._n_free = n_free

    def _at(self, theta):
        with np.errstate(over="ignore"):
            self._weights[: self._n_free] = np.exp(theta)
        return self._weights

    def value(self, theta):
        """The log-likelihood at ``theta``; −inf where it is not defined."""
        weights = self._at(theta)
        total = sum(average.value(weights) + constant for average, constant in self.averages)
        return total if np.isfinite(total) else -np.inf

    def gradient(self, theta):
        """The log-likelihood at ``theta`` and its gradient of shape (len(theta),)."""
        return self.information(theta, False)[:2]

    def information(self, theta, wanted=True):
        """The log-likelihood, its gradient, and the average information (len(theta), len(theta)), if ``wanted``."""
        n = self._n_free
        weights, total, by, information = self._at(theta), 0.0, np.zeros(n), np.zeros((n, n))
        for average, constant in self.averages:
            value, slope, matrix = average.information(weights, wanted)
            total += value + constant
            by += slope[:n]
            information += matrix[:n, :n]
        free = weights[:n]
        by *= free
        if not (np.isfinite(total) and np.isfinite(by).all()):
            return -np.inf, np.zeros(n), information
        return total, by, information * np.outer(free, free)

    @property
    def has_scale(self):
        """Whether `scaled` can be asked: nothing but the parameters makes noise."""
        return len(self._weights) == self._n_free

    def scaled(self, theta):
        """The logarithm of the best common factor of all variances, and the log-likelihood with it."""
        weights, logs, squares, n, constants = self._at(theta), 0.0, 0.0, 0, 0.0
        for average, constant in self.averages:
            more, square, dimensions = average.terms(weights)
            logs, squares, n, constants = logs + more, squares + square, n + dimensions, constants + constant
        factor = squares / n
        if not (np.isfinite(logs) and 0.0 < factor < np.inf):
            return 0.0, -np.inf
        return np.log(factor), constants - 0.5 * (logs + n * (np.log(factor) + 1.0))

    def head(self, n):
        """The likelihood of about the first n samples that were observed."""
        return self if n >= self.n_observed else differenced(self.likelihood.head(n)) or self.likelihood.head(n)


def differenced(likelihood):
    """The same likelihood by differencing, where that can be had; else None.

    Parameters
    ----------
    likelihood : Likelihood

    Returns
    -------
    Differenced or None
    """
    if len(likelihood.records) != 1:
        return None
    ((binding, y, known),) = likelihood.records
    place = _places(binding.gaps) if binding.starts is None else None
    if place is None or np.ndim(known):
        return None
    process = likelihood.process.clone_with_theta(np.zeros(likelihood.n_process))
    structure = _structure(process, binding, place)
    if structure is None:
        return None
    phi, parts, log_start, columns = structure
    n_free = likelihood.n_process
    of_noise = np.array([phi[: len(phi) - lag] @ phi[lag:] for lag in range(len(phi))])
    if known is None:
        parts, n_free = np.insert(parts, n_free, of_noise, axis=0), n_free + 1
    elif known > 0.0:
        parts = np.vstack([parts, known * of_noise])
    averages = []
    for output in y.T:
        record = _difference(output, place, phi, columns)
        if record is None:
            return None
        constant = -0.5 * (np.isfinite(output).sum() * np.log(2.0 * np.pi) + log_start)
        averages.append((MovingAverage(parts, [record]), constant))
    return Differenced(likelihood, averages, n_free)


def _places(gaps):
    """Where each sample stands on the grid; None if there is none, or one with more holes than columns are worth."""
    between = gaps[1:]
    if gaps[0] != 0.0 or not len(between) or between[0] <= 0.0:
        return None
    if (between == between[0]).all():
        return np.arange(len(gaps))
    steps = np.rint(between)
    if (steps != between).any() or (steps < 1.0).any() or steps.sum() - len(steps) > _COLUMNS:
        return None
    return np.append(0, np.cumsum(steps)).astype(np.intp)


def _structure(process, binding, place):
    """φ, the γ of each parameter and of what is given, log |O Oᵀ|, and the columns of what is constant but diffuse."""
    gap = binding.gaps[1:].min()
    start = binding.initial
    if start.mean.any() or start.covariance.any():
        return None
    A, Q, h, D, roots, columns, n_states = [], [], [], [], [], [], 0
    for component in process.components if isinstance(process, Sum) else [process]:
        blocks = component.blocks(np.array([gap]))
        by_theta, n = component.noise_by_theta(gap), blocks.n_states
        states = slice(n_states, n_states + n)
        n_states += n
        own = start.diffuse[states][:, np.abs(start.diffuse[states]).max(axis=0) > 0.0]
        if by_theta is None or own.shape != (n, n):
            return None
        rows = component.rows(binding.covariates, binding.times)
        transition, noise = (part[0] for part in discretize_blocks(blocks._replace(gap_index=_FIRST_ROW), [gap]))
        if rows.ndim == 2:
            if noise.any() or (blocks.kind != RANDOM_WALK).any():
                return None
            columns.append(rows @ own)
            continue
        A.append(transition)
        Q.append(np.concatenate([by_theta, (noise - by_theta.sum(axis=0))[np.newaxis]]))
        h.append(rows)
        D.append(own)
        roots += unit_roots(blocks, transition)
    if not A:
        return None
    phi = polynomial(roots)
    d = len(phi) - 1
    if d > _LAGS or place[-1] < d + 1:
        return None
    A, h, D = _block_diagonal(A), np.concatenate(h), _block_diagonal(D)
    parts, rest, o = [], np.zeros(d + 1), 0
    for own in Q:
        n = own.shape[1]
        here = slice(o, o + n)
        found = autocovariances(phi, A[here, here], h[here], own)
        if found is None:
            return None
        parts.append(found[:-1])
        rest += found[-1]
        o += n
    parts = np.concatenate([*parts, rest[np.newaxis]] if rest.any() else parts)
    seen, row = np.empty((d, len(h))), h
    for t in range(d):
        seen[t] = row @ D
        row = row @ A
    sizes = np.linalg.svd(seen, compute_uv=False)
    if sizes[-1] < 1e-9 * sizes[0]:
        return None
    return phi, parts, 2.0 * np.log(sizes).sum(), np.hstack(columns) if columns else None


def _difference(y, place, phi, columns):
    """φ(L) of y and of the columns with flat coefficients: (1 + r, T − d); None if there are too many."""
    T = place[-1] + 1
    on_grid = np.full(T, np.nan)
    on_grid[place] = y
    missing = np.flatnonzero(np.isnan(on_grid))
    r = len(missing) + (0 if columns is None else columns.shape[1])
    if r > _COLUMNS or T - r < len(phi):
        return None
    given = np.zeros((1 + r, T))
    given[0] = np.where(np.isnan(on_grid), 0.0, on_grid)
    given[1 + np.arange(len(missing)), missing] = 1.0
    if columns is not None:
        given[1 + len(missing) :, place] = columns.T
    result = np.array([np.convolve(row, phi, mode="valid") for row in given])
    if r:
        sizes = np.linalg.norm(result[1:], axis=1)
        if not sizes.all() or np.linalg.svd(result[1:].T / sizes, compute_uv=False)[-1] < 1e-7:
            return None
    return result


def _block_diagonal(parts):
    n = sum(len(part) for part in parts)
    result, o = np.zeros((n, n)), 0
    for part in parts:
        result[o : o + len(part), o : o + len(part)] = part
        o += len(part)
    return result
