"""Compiled sums of Legendre polynomials over samples, and the loop that carries a windowed memory over gaps.

Above: ``projections``. Below: NumPy and Numba.

A Gauss-Legendre rule with q nodes on a piece of half-width h integrates a line times a polynomial of degree below n to
rounding if n² h is below 16 q² exp(−2 − 20/q): at distance d from ±1 a Legendre polynomial grows like exp(n √(2 d)),
and the rule's error falls like the best ellipse around the piece to the power −2q.
"""

import numpy as np

from statespace.kernels.compiled import entry, helper

# Legendre moments of a chunk: those of exp(−A s) B fall like 2ᵐ/m! there, so that 24 have all digits.
MOMENTS = 24
_ORDERS = (3, 5, 8, 13)
_BLOCK = 256


def _rule(q):
    return np.polynomial.legendre.leggauss(q)


def _reach(q):
    """The largest n² h for which q nodes suffice."""
    return 16.0 * q * q * np.exp(-2.0 - 20.0 / q)


# Of a chunk: the largest half-width of each rule, and its nodes and weights, padded to equal length.
CLASSES = (
    np.array([*(_reach(q) / MOMENTS**2 for q in _ORDERS[:-1]), np.inf]),
    np.array(_ORDERS),
    np.stack([np.pad(_rule(q)[0], (0, _ORDERS[-1] - q)) for q in _ORDERS]),
    np.stack([np.pad(_rule(q)[1], (0, _ORDERS[-1] - q)) for q in _ORDERS]),
)


def line_class(half, n):
    """Rules for pieces of half-width ``half``, and which pieces take them: yields (nodes, weights, indices)."""
    exact = n // 2 + 1  # a line times degree n − 1
    orders = [q for q in (2, 3, 5, 8, 16, 32) if q < exact] + [exact]
    limits = np.array([_reach(q) / n**2 for q in orders[:-1]])
    kind = np.searchsorted(limits, half)
    for i, q in enumerate(orders):
        chosen = np.flatnonzero(kind == i)
        if len(chosen):
            yield *_rule(q), chosen


@entry(fastmath={"contract", "reassoc"})
def legendre_sums(z, w, n):
    """Σ_k w_k P_m(z_k) for m < n; in blocks of samples, so that the recurrence stays in the first cache."""
    sums = np.zeros(n)
    p = np.empty(_BLOCK)
    before = np.empty(_BLOCK)
    for start in range(0, len(z), _BLOCK):
        size = min(_BLOCK, len(z) - start)
        at = z[start : start + size]
        weight = w[start : start + size]
        total = 0.0
        for k in range(size):
            before[k] = 0.0
            p[k] = 1.0
            total += weight[k]
        sums[0] += total
        for m in range(1, n):
            a = (2.0 * m - 1.0) / m
            b = (m - 1.0) / m
            total = 0.0
            for k in range(size):
                following = a * at[k] * p[k] - b * before[k]
                before[k] = p[k]
                p[k] = following
                total += weight[k] * following
            sums[m] += total
    return sums


@helper()
def _antiderivatives(z, values):
    """∫ P_m from −1, up to a constant: z for m = 0, else (P_{m+1} − P_{m−1})/(2m + 1)."""
    n = len(values)
    older = 1.0
    old = z
    values[0] = z
    for m in range(1, n):
        new = ((2.0 * m + 1.0) * z * old - m * older) / (m + 1.0)
        values[m] = (new - older) / (2.0 * m + 1.0)
        older = old
        old = new


@helper()
def _applied(transposed, x, result):
    """result += E x, four columns at a time, which vectorises without reordering sums."""
    n = len(x)
    for k in range(0, n - 3, 4):
        r0, r1, r2, r3 = transposed[k], transposed[k + 1], transposed[k + 2], transposed[k + 3]
        x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
        for i in range(n):
            result[i] += (r0[i] * x0 + r1[i] * x1) + (r2[i] * x2 + r3[i] * x3)
    for k in range(n - n % 4, n):
        row = transposed[k]
        for i in range(n):
            result[i] += row[i] * x[k]


@entry(fastmath={"contract"})
def advance(u, gaps, last, line, chunk, x, moments, tau, D, E, f, g, limits, orders, nodes, weights):
    """Carry x and the chunk's moments over the gaps, in place; returns the time that the chunk has run.

    E, f and g are those of `Windowed._doublings`, E transposed; ``limits`` to ``weights`` are `CLASSES`.
    """
    n = len(x)
    levels = len(E)
    n_moments = len(moments)
    held = np.empty(n)
    here = np.empty(n_moments)
    there = np.empty(n_moments)
    _antiderivatives(2.0 * tau / chunk - 1.0, here)
    longest = chunk * 2.0**levels
    for k in range(len(u)):
        left = gaps[k]
        end = u[k]
        value = last if line else end
        slope = (end - last) / left if line and left > 0.0 else 0.0
        last = end
        if left > 2.0 * longest:
            # All of the state is forgotten by the end of such a gap: so is the gap's own beginning.
            value = end - slope * longest
            left = longest
            x[:] = 0.0
            moments[:] = 0.0
            tau = 0.0
            _antiderivatives(-1.0, here)
        while left > 0.0:
            if tau == 0.0 and left >= chunk:
                count = np.int64(left / chunk)
                level = 0
                while level + 1 < levels and (count >> (level + 1)) > 0:
                    level += 1
                duration = chunk * 2.0**level
                for i in range(n):
                    held[i] = f[level, i] * value + g[level, i] * slope
                _applied(E[level], x, held)
                x[:] = held
                value += slope * duration
                left -= duration
                continue
            room = chunk - tau
            part = min(left, room)
            z0 = 2.0 * tau / chunk - 1.0
            tau = chunk if part == room else tau + part
            z1 = 2.0 * tau / chunk - 1.0
            left -= part
            if line:
                half = 0.5 * (z1 - z0)
                kind = 0
                while half > limits[kind]:
                    kind += 1
                for j in range(orders[kind]):
                    at = 0.5 * (z0 + z1) + half * nodes[kind, j]
                    w = half * weights[kind, j] * (value + 0.5 * slope * part * (1.0 + nodes[kind, j]))
                    older = 0.0
                    old = 1.0
                    moments[0] += w
                    for m in range(1, n_moments):
                        new = ((2.0 * m - 1.0) * at * old - (m - 1.0) * older) / m
                        moments[m] += w * new
                        older = old
                        old = new
                value += slope * part
            else:
                _antiderivatives(z1, there)
                for m in range(n_moments):
                    moments[m] += value * (there[m] - here[m])
                here, there = there, here
            if tau >= chunk:
                for m in range(n_moments):
                    for i in range(n):
                        x[i] += D[m, i] * moments[m]
                held[:] = 0.0
                _applied(E[0], x, held)
                x[:] = held
                moments[:] = 0.0
                tau = 0.0
                _antiderivatives(-1.0, here)
    return tau
