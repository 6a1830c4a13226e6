"""A signal's HiPPO coefficients, exactly, over any gaps: the past as a polynomial, carried on in constant memory.

Above: ``memory``. Below: ``hippo`` for matrices and bases, ``moments`` for the compiled sums.

The signal is held over each gap or drawn as a line through it, and projected in closed form. Two cases:

`Scaled`, HiPPO-LegS. The state is a polynomial on [0, t]. New pieces are projected directly on [0, t₁], O(n) a sample,
and the old polynomial is stretched to the longer interval by Gauss-Legendre quadrature, with n nodes exact for it.

`Windowed`, a fixed system x' = A x + B u. Time runs in chunks [0, S] with ‖A‖ S = 4, and a sample is only added to the
signal's Legendre moments c on the current chunk, O(1). At its end, with exp(−A s) B = Σ D_m P_m(s),

    x(S) = exp(A S) (x(0) + ∫₀^S exp(−A s) B u(s) ds) = exp(A S) (x(0) + D c),

where the series in P_m has as many digits as the floats. A is dissipative, A + Aᵀ ≤ 0 for every measure: rounding
errors do not grow, whatever n is. (Modes would be no use: LegT's eigenvectors have a condition of 1e15 at n = 65, and
LagT's coincide.)
"""

import numpy as np

from statespace.lti import hippo
from statespace.lti.discretization import transition
from statespace.lti.moments import CLASSES, MOMENTS, advance, legendre_sums, line_class

# ‖A‖ S: more would take more moments and lose digits in exp(−A s), less more products with exp(A S).
_REACH = 4.0
_DEGREE = 44
# Pieces of a line that are turned into quadrature nodes at once.
_PIECES = 16_384


class Scaled:
    """HiPPO-LegS: coefficients on [0, t] for a record that began at 0.

    Parameters
    ----------
    n : int
    line : bool
        A line from sample to sample; else each sample is held over the gap before it.
    """

    def __init__(self, n, line):
        self.n, self.line = n, line
        z, weights = np.polynomial.legendre.leggauss(n)
        self._nodes, self._values = z, hippo.legendre(n, z)
        self._weights = weights / 2.0
        self._root = np.sqrt(2.0 * np.arange(n) + 1.0)

    def start(self):
        """The state before the first sample: coefficients, t, and the last sample."""
        return np.zeros(self.n), 0.0, np.nan

    def advance(self, state, u, gaps):
        """The state after samples u over gaps, both of shape (n_times,)."""
        x, t0, last = state
        ends = t0 + np.concatenate([[0.0], np.cumsum(gaps)])
        t1 = ends[-1]
        if t1 > t0:
            z = 2.0 * (ends / t1) - 1.0
            x = self._stretched(x, t0 / t1) + self._projected(z, u, u[0] if np.isnan(last) else last)
        return x, t1, u[-1]

    def read(self, state):
        return state[0]

    def _stretched(self, x, ratio):
        """The polynomial with coefficients x on [0, t₀], and 0 after it, on [0, t₁]: exact, degree 2n − 2."""
        if ratio == 0.0:
            return np.zeros(self.n)
        values = self._weights * (self._values @ x)
        return ratio * self._root * legendre_sums(ratio * (self._nodes + 1.0) - 1.0, values, self.n)

    def _projected(self, z, u, before):
        """½ √(2n+1) ∫ u P_n dz for pieces between the ends z."""
        n, root = self.n, self._root
        if self.line:
            return 0.5 * root * line_moments(z, np.concatenate([[before], u]), n)
        # ∫ P_n = (P_{n+1} − P_{n−1})/(2n + 1): the sum over pieces is one over the steps of u at their ends.
        sums = legendre_sums(z, np.diff(u, prepend=0.0, append=0.0) * -1.0, n + 1)
        return (sums[1:] - np.concatenate([[0.0], sums[: n - 1]])) / (2.0 * root)


class Windowed:
    """The system of a measure with a window of fixed length.

    Parameters
    ----------
    measure : {"legt", "lagt", "fourier"}
    n : int
    window : float
        The window's length; the time constant of ``lagt``.
    line : bool
        As for `Scaled`.
    """

    def __init__(self, measure, n, window, line):
        self.n, self.line = n, line
        # The last coefficient of an even Fourier basis is always 0: it would be a mode that never decays.
        self._n = n - 1 if measure == "fourier" and n % 2 == 0 else n
        A, B = hippo.matrices(measure, self._n)
        self._A, self._B = A / window, B[:, 0] / window
        self.chunk = _REACH / np.linalg.norm(self._A, 2)
        self._D = self._input_moments()
        self._tables = self._doublings()
        self._memory = self.chunk * 2.0 ** (len(self._tables[0]) - 1)

    def _input_moments(self):
        """(S/2) D_m of exp(−A s) B = Σ D_m P_m(z), s = S(1 + z)/2; (MOMENTS, n)."""
        terms = np.empty((_DEGREE, self._n))
        terms[0] = self._B
        for j in range(1, _DEGREE):
            terms[j] = -(self.chunk / j) * (self._A @ terms[j - 1])
        z, weights = np.polynomial.legendre.leggauss(_DEGREE)
        values = ((z[:, np.newaxis] + 1.0) / 2.0) ** np.arange(_DEGREE) @ terms
        root = np.sqrt(2.0 * np.arange(MOMENTS) + 1.0)
        return (
            0.25 * self.chunk * root[:, np.newaxis] * (hippo.legendre(MOMENTS, z).T @ (weights[:, np.newaxis] * values))
        )

    def _doublings(self):
        """x(t + T) = E x(t) + f u(t) + g u'(t) under a line, for T = S, 2S, 4S, … until E has vanished.

        E is transposed, for products by columns.
        """
        E = transition(self._A, self.chunk)
        constant, line = np.zeros(MOMENTS), np.zeros(MOMENTS)
        constant[0] = 2.0
        line[:2] = self.chunk, self.chunk / 3.0  # of s = S(1 + z)/2
        f, g = E @ (constant @ self._D), E @ (line @ self._D)
        length, tables = self.chunk, []
        while len(tables) < 2 or np.linalg.norm(tables[-1][0]) > 1e-25:
            tables.append((E.T.copy(), f, g))
            f, g, E = E @ f + f, E @ g + length * f + g, E @ E
            length *= 2.0
        return tuple(np.stack(part) for part in zip(*tables, strict=True))

    def start(self):
        """The state before the first sample: x and moments, time in the chunk, and the last sample."""
        return np.zeros(self._n), np.zeros(MOMENTS), 0.0, np.nan

    def advance(self, state, u, gaps):
        """The state after samples u over gaps, both of shape (n_times,)."""
        x, moments, tau, last = state
        last = u[0] if np.isnan(last) else last
        # What is older than the longest table is forgotten to 1e-25, and need not be read.
        ages = np.cumsum(gaps[::-1])[::-1]
        first = int(np.searchsorted(-ages, -self._memory, side="right")) - 1
        if first > 0:
            x, moments, tau, _ = self.start()
            last, u, gaps = u[first - 1], u[first:], gaps[first:]
        x, moments = x.copy(), moments.copy()
        tau = advance(u, gaps, last, self.line, self.chunk, x, moments, tau, self._D, *self._tables, *CLASSES)
        return x, moments, tau, u[-1]

    def read(self, state):
        """x(τ) = exp(A τ) (x(0) + D c) inside a chunk."""
        x, moments, tau, _ = state
        term = x + moments @ self._D
        total = term.copy()
        for j in range(1, _DEGREE):
            term = (tau / j) * (self._A @ term)
            total += term
        return total if self._n == self.n else np.append(total, 0.0)


def line_moments(z, values, n):
    """∫ u P_m dz for m < n, u a line between ``values`` at the ends z: Gauss-Legendre, to rounding for each piece."""
    result = np.zeros(n)
    for start in range(0, len(z) - 1, _PIECES):
        ends, v = z[start : start + _PIECES + 1], values[start : start + _PIECES + 1]
        half, middle = np.diff(ends) / 2.0, (ends[1:] + ends[:-1]) / 2.0
        for nodes, weights, chosen in line_class(half, n):
            at = middle[chosen, np.newaxis] + half[chosen, np.newaxis] * nodes
            mean, slope = (v[1:] + v[:-1])[chosen] / 2.0, np.diff(v)[chosen] / 2.0
            u = mean[:, np.newaxis] + slope[:, np.newaxis] * nodes
            result += legendre_sums(at.ravel(), (half[chosen, np.newaxis] * weights * u).ravel(), n)
    return result
