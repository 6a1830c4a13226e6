"""The Gaussian likelihood of a stationary moving average, and its gradient, in O(T q): its covariance is a banded
Toeplitz matrix.

    Σ_{ts} = Σ_j v_j γ_j(|t − s|),   γ_j(h) = 0 for h > q.

Schur's algorithm gives the rows of the Cholesky factor Σ = RᵀR one after the other, O(q) each, from the displacement
Σ − ZΣZᵀ = u uᵀ − w wᵀ (Z shifts down by one). The derivatives ask for the sums along the diagonals of Σ⁻¹, for which
the first column x of Σ⁻¹ is enough (Gohberg & Semencul 1972):

    Σ_i (Σ⁻¹)_{i,i+h} = Σ_l (T − h − 2l) x_l x_{l+h} / x_0.

Regressors with flat coefficients are projected out, as in restricted maximum likelihood. Above: `differencing`.
"""

import numpy as np

from statespace.kernels.compiled import entry, helper

_NOTHING = np.empty(0)


@helper()
def _factor(g, R, columns):
    """Rows of R, band by band, from the autocovariances g (q + 1,); ``columns`` (c, T) ← R⁻ᵀ columns; log |Σ|.

    NaN where Σ is not positive definite.
    """
    T, width = R.shape
    u = g / np.sqrt(g[0])
    w = u.copy()
    w[0] = 0.0
    logs = 0.0
    product = 1.0
    settled = False
    for t in range(T):
        if t > 0 and not settled:
            rho = w[1] / u[0] if width > 1 else 0.0
            if not abs(rho) < 1.0:
                return np.nan
            c = np.sqrt((1.0 - rho) * (1.0 + rho))
            inverse = 1.0 / c
            size = 0.0
            for p in range(width):
                below = w[p + 1] if p + 1 < width else 0.0
                u[p] = (u[p] - rho * below) * inverse
                w[p] = c * below - rho * u[p]
                if p > 0:
                    size = max(size, abs(w[p]))
            # what the rows still change by is far below their rounding
            settled = size < 1e-17 * u[0]
        first = u[0]
        product *= first
        if not 1e-100 < product < 1e100:
            logs += np.log(product)
            product = 1.0
        last = min(width, T - t)
        for p in range(width):
            R[t, p] = u[p]
        for s in range(len(columns)):
            v = columns[s, t] / first
            columns[s, t] = v
            for p in range(1, last):
                columns[s, t + p] -= u[p] * v
    return 2.0 * (logs + np.log(product))


@helper()
def _solve_back(R, x):
    """x ← R⁻¹ x."""
    T, width = R.shape
    for t in range(T - 1, -1, -1):
        total = x[t]
        for p in range(1, min(width, T - t)):
            total -= R[t, p] * x[t + p]
        x[t] = total / R[t, 0]


@helper()
def _project(columns):
    """Take the rows 1, 2, … of ``columns`` out of row 0, making them orthonormal; log |XᵀX| of what they were."""
    logs = 0.0
    T = columns.shape[1]
    for c in range(1, len(columns)):
        # twice is enough
        for _ in range(2):
            for e in range(1, c):
                along = 0.0
                for t in range(T):
                    along += columns[e, t] * columns[c, t]
                for t in range(T):
                    columns[c, t] -= along * columns[e, t]
        square = 0.0
        for t in range(T):
            square += columns[c, t] * columns[c, t]
        norm = np.sqrt(square)
        logs += 2.0 * np.log(norm)
        along = 0.0
        for t in range(T):
            columns[c, t] /= norm
            along += columns[c, t] * columns[0, t]
        for t in range(T):
            columns[0, t] -= along * columns[c, t]
    return logs


@entry()
def _minus_two_log_density(g, columns, R, by):
    """log |Σ| + log |XᵀΣ⁻¹X| and yᵀPy, y = columns[0], X the others; −½ their derivatives by g where ``by`` has room.

    ``columns`` are overwritten; where ``by`` is not empty, one more row is room for Σ⁻¹e₁, and the others become P y
    and Σ⁻¹X M with M Mᵀ = (XᵀΣ⁻¹X)⁻¹.
    """
    T, width = R.shape
    wanted = len(by) > 0
    if wanted:
        columns[-1, :] = 0.0
        columns[-1, 0] = 1.0
    logs = _factor(g, R, columns)
    if np.isnan(logs):
        return np.inf, np.inf
    given = columns[:-1] if wanted else columns
    logs += _project(given)
    square = 0.0
    for t in range(T):
        square += given[0, t] * given[0, t]
    if wanted:
        for s in range(len(columns)):
            _solve_back(R, columns[s])
        x = columns[-1]
        for h in range(min(width, T)):
            total = 0.0
            for l in range(T - h):
                total += (T - h - 2.0 * l) * (x[l] * x[l + h])
            total = -total / x[0]
            for s in range(len(given)):
                for t in range(T - h):
                    total += given[s, t] * given[s, t + h]
            by[h] = 0.5 * total if h == 0 else total
        for h in range(T, width):
            by[h] = 0.0
    return logs, square


@entry()
def _information(parts, columns, R, result):
    """½ yᵀP Γ_i P Γ_j P y, from what `_minus_two_log_density` left in ``columns`` and R."""
    k, width = parts.shape
    T = columns.shape[1]
    turned = np.zeros((k, T))
    for j in range(k):
        for t in range(T):
            total = parts[j, 0] * columns[0, t]
            for h in range(1, width):
                if t >= h:
                    total += parts[j, h] * columns[0, t - h]
                if t + h < T:
                    total += parts[j, h] * columns[0, t + h]
            turned[j, t] = total
    for i in range(k):
        for j in range(i + 1):
            result[i, j] = 0.0
            for c in range(1, len(columns) - 1):
                left = 0.0
                right = 0.0
                for t in range(T):
                    left += columns[c, t] * turned[i, t]
                    right += columns[c, t] * turned[j, t]
                result[i, j] -= 0.5 * left * right
    for j in range(k):
        for t in range(T):
            v = turned[j, t] / R[t, 0]
            turned[j, t] = v
            for p in range(1, min(width, T - t)):
                turned[j, t + p] -= R[t, p] * v
    for i in range(k):
        for j in range(i + 1):
            total = 0.0
            for t in range(T):
                total += turned[i, t] * turned[j, t]
            result[i, j] += 0.5 * total
            result[j, i] = result[i, j]


class MovingAverage:
    """Records that share one moving average, whose autocovariances are linear in the parameters.

    Parameters
    ----------
    parts : ndarray of shape (k, q + 1)
        γ_j(h).
    records : list of ndarray of shape (1 + r, T)
        y, and below it regressors whose coefficients are flat.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.toeplitz import MovingAverage
    >>> parts = np.array([[1.0, 0.0], [2.0, -1.0]])
    >>> average = MovingAverage(parts, [np.array([[0.5, -1.0, 0.2]])])
    >>> value, slope = average.gradient(np.array([0.3, 0.7]))
    >>> sigma = np.array([[1.7, -0.7, 0.0], [-0.7, 1.7, -0.7], [0.0, -0.7, 1.7]])
    >>> y = np.array([0.5, -1.0, 0.2])
    >>> bool(np.isclose(value, -0.5 * (np.linalg.slogdet(sigma)[1] + y @ np.linalg.solve(sigma, y))))
    True
    """

    def __init__(self, parts, records):
        self.parts = parts
        self.records = records

    def value(self, weights):
        """−½ (log |Σ| + log |XᵀΣ⁻¹X| + yᵀPy) at v = ``weights`` of shape (k,), summed over records.

        P = Σ⁻¹ − Σ⁻¹X (XᵀΣ⁻¹X)⁻¹ XᵀΣ⁻¹.
        """
        logs, squares, _ = self.terms(weights)
        return -0.5 * (logs + squares)

    def terms(self, weights):
        """log |Σ| + log |XᵀΣ⁻¹X|, yᵀPy and how many dimensions y has beside X, summed over records.

        With s v in place of v the first grows by log s for each dimension, and the second is divided by s.
        """
        g = weights @ self.parts
        logs, squares, n = 0.0, 0.0, 0
        for y in self.records:
            more, square = _minus_two_log_density(g, y.copy(), np.empty((y.shape[1], len(g))), _NOTHING)
            logs, squares, n = logs + more, squares + square, n + y.shape[1] - len(y) + 1
        return logs, squares, n

    def gradient(self, weights):
        """The value, and its derivatives by v, of shape (k,)."""
        return self.information(weights, False)[:2]

    def information(self, weights, wanted=True):
        """The value, its derivatives, and the average information, of shape (k, k), if it is ``wanted``.

        The mean of the observed and the expected information is ½ yᵀP Γ_i P Γ_j P y (Gilmour, Thompson & Cullis
        1995), which is never negative and costs little more than the gradient.
        """
        k = len(weights)
        g, total = weights @ self.parts, 0.0
        by, part = np.zeros(len(g)), np.empty(len(g))
        information, matrix = np.zeros((k, k)), np.empty((k, k))
        for y in self.records:
            columns, R = np.vstack([y, y[:1]]), np.empty((y.shape[1], len(g)))
            total -= 0.5 * sum(_minus_two_log_density(g, columns, R, part))
            by += part
            if wanted:
                _information(self.parts, columns, R, matrix)
                information += matrix
        return total, self.parts @ by, information
