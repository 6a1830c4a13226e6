"""Loops over a record: the state of a system in continuous time, driven by a held input over gaps that differ.

Above: ``systems``, ``filters``. Below: ``discretization`` for tables of gaps, and Numba.

Two of them, each exact. `modal` steps the modes z' = λ z + b u of a system whose eigenvectors are well-conditioned, in
closed form, some tens of nanoseconds each. `dense` takes any A: a Taylor series of the solution itself over short
gaps, tables of exp(A Δ) over long and over repeated ones.
"""

import numpy as np

from statespace.kernels.compiled import entry, helper
from statespace.lti.discretization import input_weights

# Weights of gaps met before are kept in this many places, chosen by the bits of the gap.
_PLACES = 256
# Above ‖A‖Δ = 16 doubling a matrix is cheaper than a series of vectors.
_LONG = 16.0
CHUNK = 16_384


@helper(fastmath={"contract"})
def _weights(a, w, h, doublings, foh):
    """exp(z) − 1, z = (a + iw)Δ, and the weights Δφ₁(z) and 0 (held), or Δ(φ₁(z) − φ₂(z)) and Δφ₂(z) (a line).

    φ₁(z) = (exp(z) − 1)/z and φ₂(z) = (φ₁(z) − 1)/z by their series on h = Δ/2ᵏ, then k doublings. There is no
    branch and no exponential in it, so that the modes of a sample overlap in the processor's pipeline.
    """
    x = a * h
    y = w * h
    # φ₂ is a polynomial with real coefficients: two real products a term (Knuth, TAOCP 4.6.4).
    r = 2.0 * x
    s = x * x + y * y
    b2 = 1.0 / 87178291200.0
    b1 = 1.0 / 6227020800.0 + r * b2
    b1, b2 = 1.0 / 479001600.0 + r * b1 - s * b2, b1
    b1, b2 = 1.0 / 39916800.0 + r * b1 - s * b2, b1
    b1, b2 = 1.0 / 3628800.0 + r * b1 - s * b2, b1
    b1, b2 = 1.0 / 362880.0 + r * b1 - s * b2, b1
    b1, b2 = 1.0 / 40320.0 + r * b1 - s * b2, b1
    b1, b2 = 1.0 / 5040.0 + r * b1 - s * b2, b1
    b1, b2 = 1.0 / 720.0 + r * b1 - s * b2, b1
    b1, b2 = 1.0 / 120.0 + r * b1 - s * b2, b1
    b1, b2 = 1.0 / 24.0 + r * b1 - s * b2, b1
    b1, b2 = 1.0 / 6.0 + r * b1 - s * b2, b1
    mr = 0.5 + x * b1 - s * b2
    mi = y * b1
    gr = 1.0 + x * mr - y * mi
    gi = x * mi + y * mr
    fr = x * gr - y * gi
    fi = x * gi + y * gr
    mr *= h
    mi *= h
    gr *= h
    gi *= h
    for _ in range(doublings):
        mr, mi = mr + 0.5 * (fr * mr - fi * mi + gr), mi + 0.5 * (fr * mi + fi * mr + gi)
        gr, gi = 2.0 * gr + fr * gr - fi * gi, 2.0 * gi + fr * gi + fi * gr
        fr, fi = fr * (2.0 + fr) - fi * fi, 2.0 * fi * (1.0 + fr)
    if foh:
        return fr, fi, gr - mr, gi - mi, mr, mi
    return fr, fi, gr, gi, 0.0, 0.0


@entry()
def _modal(u, gaps, bits, rate, b, c, d, foh, z, y, states):
    n_times, n_inputs = u.shape
    n = len(rate)
    n_outputs = len(d)
    keep = len(states) > 0
    keys = np.full(_PLACES, -1.0)
    table = np.empty((_PLACES, n, 6))
    before = np.zeros((n, 2))
    fastest = 0.0
    for j in range(n):
        fastest = max(fastest, np.hypot(rate[j, 0], rate[j, 1]))
    for k in range(n_times):
        place = 0
        gap = gaps[k]
        goes_on = k > 0 and gap >= 0.0
        if goes_on:
            place = np.int64((bits[k] * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56))
            if keys[place] != gap:
                keys[place] = gap
                h = gap
                doublings = 0
                while h * fastest > 0.5:
                    h *= 0.5
                    doublings += 1
                for j in range(n):
                    weights = _weights(rate[j, 0], rate[j, 1], h, doublings, foh)
                    for i in range(6):
                        table[place, j, i] = weights[i]
        for j in range(n):
            gr = 0.0
            gi = 0.0
            for i in range(n_inputs):
                gr += b[j, i, 0] * u[k, i]
                gi += b[j, i, 1] * u[k, i]
            if goes_on:
                hr = before[j, 0]
                hi = before[j, 1]
                zr = z[j, 0]
                zi = z[j, 1]
                fr = table[place, j, 0]
                fi = table[place, j, 1]
                nr = table[place, j, 2]
                ni = table[place, j, 3]
                mr = table[place, j, 4]
                mi = table[place, j, 5]
                z[j, 0] = zr + (fr * zr - fi * zi + nr * hr - ni * hi + mr * gr - mi * gi)
                z[j, 1] = zi + (fr * zi + fi * zr + nr * hi + ni * hr + mr * gi + mi * gr)
            elif k > 0:
                scale = -1.0 / (rate[j, 0] * rate[j, 0] + rate[j, 1] * rate[j, 1])
                z[j, 0] = scale * (gr * rate[j, 0] + gi * rate[j, 1])
                z[j, 1] = scale * (gi * rate[j, 0] - gr * rate[j, 1])
            before[j, 0] = gr
            before[j, 1] = gi
        for o in range(n_outputs):
            total = 0.0
            for i in range(n_inputs):
                total += d[o, i] * u[k, i]
            for j in range(n):
                total += c[o, j, 0] * z[j, 0] - c[o, j, 1] * z[j, 1]
            y[k, o] = total
        if keep:
            for j in range(n):
                states[k, j, 0] = z[j, 0]
                states[k, j, 1] = z[j, 1]


def modal(u, gaps, rate, b, c, d, z, hold, states=False):
    """z' = λ z + b u over the gaps, and y = Re(c z) + d u.

    Parameters
    ----------
    u : ndarray of shape (n_times, n_inputs)
    gaps : ndarray of shape (n_times,)
        The first is not used: z is the state at the first sample. A negative one begins another record, in the
        equilibrium of its sample.
    rate : ndarray of shape (n_modes,), complex
        λ.
    b : ndarray of shape (n_modes, n_inputs), complex
    c : ndarray of shape (n_outputs, n_modes), complex
    d : ndarray of shape (n_outputs, n_inputs)
    z : ndarray of shape (n_modes,), complex
    hold : {"zoh", "foh"}
    states : bool, default=False

    Returns
    -------
    y : ndarray of shape (n_times, n_outputs)
    z : ndarray of shape (n_times, n_modes) with ``states``, otherwise (n_modes,): the last; complex

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.sweeps import modal
    >>> one = np.ones((1, 1))
    >>> y, z = modal(np.ones((3, 1)), np.array([0, 1.0, 99.0]), -one[0], one, one, 0 * one, 0 * one[0], "zoh")
    >>> y.ravel().round(6)  # 1 − exp(−t)
    array([0.      , 0.632121, 1.      ])
    """
    u, gaps = np.ascontiguousarray(u, dtype=np.float64), np.ascontiguousarray(gaps, dtype=np.float64)
    rate, b, c, last = (_pairs(array) for array in (rate, b, c, z))
    last = last.copy()
    y = np.empty((len(u), len(d)))
    kept = np.empty((len(u) if states else 0, len(rate), 2))
    d = np.ascontiguousarray(d, dtype=np.float64)
    _modal(u, gaps, gaps.view(np.uint64), rate, b, c, d, hold == "foh", last, y, kept)
    return y, (kept if states else last).view(np.complex128)[..., 0]


def _pairs(array):
    """Complex numbers as pairs of real ones, which compiled loops read faster."""
    array = np.ascontiguousarray(array, dtype=np.complex128)
    return array.view(np.float64).reshape(*array.shape, 2)


@entry()
def _dense(A, norm, inputs, gaps, places, E, N, M, foh, x, states):
    """``inputs`` is B u; places[k] is the row of the tables for gap k, or −1 for the series."""
    n = len(x)
    term = np.empty(n)
    following = np.empty(n)
    start = np.empty(n)
    slope = np.empty(n)
    for k in range(len(inputs)):
        if k > 0:
            row = places[k]
            if row >= 0:
                for i in range(n):
                    total = 0.0
                    for j in range(n):
                        total += E[row, i, j] * x[j] + N[row, i, j] * inputs[k - 1, j] + M[row, i, j] * inputs[k, j]
                    following[i] = total
                for i in range(n):
                    x[i] = following[i]
            elif gaps[k] > 0.0:
                pieces = max(1, int(np.ceil(0.5 * norm * gaps[k])))
                h = gaps[k] / pieces
                for i in range(n):
                    start[i] = inputs[k - 1, i]
                    slope[i] = (inputs[k, i] - inputs[k - 1, i]) / pieces if foh else 0.0
                for _ in range(pieces):
                    _taylor(A, h, x, start, slope, term, following)
                    for i in range(n):
                        start[i] += slope[i]
        for i in range(n):
            states[k, i] = x[i]


@helper()
def _taylor(A, h, x, start, slope, term, following):
    """x(h) of x' = A x + start + slope s/h, by x⁽¹⁾ = A x + start, x⁽²⁾ = A x⁽¹⁾ + slope/h, then x⁽ᵏ⁺¹⁾ = A x⁽ᵏ⁾."""
    n = len(x)
    for i in range(n):
        total = start[i]
        for j in range(n):
            total += A[i, j] * x[j]
        term[i] = h * total
    for i in range(n):
        x[i] += term[i]
    for k in range(2, 40):
        largest = 0.0
        reach = 0.0
        for i in range(n):
            total = slope[i] if k == 2 else 0.0
            for j in range(n):
                total += A[i, j] * term[j]
            following[i] = total * h / k
        for i in range(n):
            term[i] = following[i]
            x[i] += term[i]
            largest = max(largest, abs(term[i]))
            reach = max(reach, abs(x[i]))
        if k > 3 and largest <= 1e-17 * reach:
            break


def dense(A, inputs, gaps, x, hold):
    """x' = A x + v over the gaps, for any real A, with v = B u held.

    Parameters
    ----------
    A : ndarray of shape (n, n)
    inputs : ndarray of shape (n_times, n)
        B u at every sample.
    gaps : ndarray of shape (n_times,)
        The first is not used.
    x : ndarray of shape (n,)
        The state at the first sample.
    hold : str
        A method of `input_weights`; those that are not exact are taken from tables only.

    Returns
    -------
    ndarray of shape (n_times, n)
        The states.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.sweeps import dense
    >>> dense(np.zeros((1, 1)), np.ones((3, 1)), np.array([0, 1.0, 2.5]), np.zeros(1), "zoh").ravel()
    array([0. , 1. , 3.5])
    """
    A = np.ascontiguousarray(A, dtype=np.float64)
    n = len(A)
    x = np.array(x, dtype=np.float64)
    inputs = np.ascontiguousarray(inputs, dtype=np.float64)
    states = np.empty((len(inputs), n))
    norm = np.abs(A).sum(axis=0).max(initial=0.0)
    gaps = gaps.copy()
    gaps[:1] = 0.0
    length = max(64, min(CHUNK, 2_000_000 // max(1, n * n)))
    for first in range(0, len(inputs), length):
        # A chunk begins with the last sample of the one before, whose state it starts from.
        rows = slice(max(0, first - 1), first + length)
        places, table = _tables(A, norm, gaps[rows], hold)
        out = np.empty((len(places), n))
        _dense(A, norm, inputs[rows], gaps[rows], places, *table, hold == "foh", x, out)
        states[rows] = out
    return states


def recurrence(A, inputs, x):
    """x_k = A x_{k−1} + v_{k−1}.

    Parameters
    ----------
    A : ndarray of shape (n, n)
    inputs : ndarray of shape (n_times, n)
        v.
    x : ndarray of shape (n,)
        The first state.

    Returns
    -------
    ndarray of shape (n_times, n)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.sweeps import recurrence
    >>> recurrence(np.full((1, 1), 0.5), np.ones((3, 1)), np.zeros(1)).ravel()
    array([0. , 1. , 1.5])
    """
    n, n_times = len(A), len(inputs)
    states, eye = np.empty((n_times, n)), np.eye(n)[np.newaxis]
    same = np.zeros(n_times, dtype=np.int64)
    inputs = np.ascontiguousarray(inputs)
    _dense(A, 0.0, inputs, np.zeros(n_times), same, A[np.newaxis].copy(), eye, 0.0 * eye, False, x.copy(), states)
    return states


def _tables(A, norm, gaps, hold):
    """exp(AΔ) and the weights of the input for gaps that are long or come again, and where each gap finds its own."""
    different, place = np.unique(gaps, return_inverse=True)
    if 8 * len(different) > len(gaps) + 8 and hold in ("zoh", "foh"):
        long = norm * different > _LONG
        number = np.where(long, np.cumsum(long) - 1, -1)
        different, place = different[long], number[place]
    return place, input_weights(A, np.eye(len(A)), different, method=hold)
