"""A stable filter of one channel, in modes or as a whole: run over a record, held over a gap, mirrored in time.

Above: ``filters`` and ``stream``. Below: ``sweeps``, ``discretization``, ``prototypes``.

Both classes have the same methods. A state is an array of shape (n_states,). Records stand one after the other in
arrays of shape (n_times,); a negative gap begins the next one.
"""

from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.linalg import solve_continuous_lyapunov

from statespace.lti import sweeps
from statespace.lti.discretization import input_weights
from statespace.lti.modes import modes
from statespace.lti.prototypes import evaluated, residues
from statespace.lti.realization import from_zpk


class Modal:
    """y = Re Σ c_j z_j + d v, with z_j' = λ_j z_j + v: the filter in partial fractions.

    Parameters
    ----------
    rate : ndarray of shape (n_modes,), complex
        λ, one of each conjugate pair.
    c : ndarray of shape (n_modes,), complex
        The residues, those of pairs twice.
    d : float
    gain : float, optional
        H(0).
    opposite : ndarray of shape (n_modes,), complex, optional
        H(−λ). Both are sums over the modes, in which filters of high order lose digits; give them where they are known
        as products.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.analog import Modal
    >>> Modal(np.array([-2.0 + 0j]), np.array([1.0 + 0j]), 0.0).gain
    0.5
    """

    def __init__(self, rate, c, d, gain=None, opposite=None):
        self.rate, self.c, self.d = rate, c, float(d)
        self._unit = np.ones((len(rate), 1))
        if gain is None:
            gain = self.d - np.sum((c / rate).real)
        if opposite is None:
            column = rate[:, np.newaxis]
            opposite = self.d - 0.5 * np.sum(c / (column + rate) + c.conj() / (column + rate.conj()), axis=1)
        self.gain, self._opposite = float(gain), opposite

    def settled(self, v):
        """The state after a constant v for all time."""
        return -v / self.rate

    def run(self, v, gaps, z, hold, states=False):
        """Outputs, and the last state or all of them."""
        y, z = sweeps.modal(
            v[:, np.newaxis], gaps, self.rate, self._unit, self.c[np.newaxis], [[self.d]], z, hold, states
        )
        return y[:, 0], z

    def held(self, v, gaps, z):
        """Outputs (n,) after each of n states (n, n_modes) has had a constant v (n,) for its gap (n,)."""
        fall = np.expm1(gaps[:, np.newaxis] * self.rate)
        z = z + fall * (z + v[:, np.newaxis] / self.rate)
        return (z @ self.c).real + self.d * v

    def mirrored(self):
        """The part of H(s) H(−s) that runs forward; the rest is the same one backwards, and d² v."""
        return Modal(self.rate, self.c * self._opposite, 0.0)


class Dense:
    """y = C x + d v, with x' = A x + B v: any filter, also with multiple poles.

    Parameters
    ----------
    A : ndarray of shape (n_states, n_states)
    B, C : ndarray of shape (n_states,)
    d : float

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.analog import Dense
    >>> Dense(np.array([[-1.0, 1.0], [0.0, -1.0]]), np.array([0.0, 3.0]), np.array([1.0, 0.0]), 0.0).gain
    3.0
    """

    def __init__(self, A, B, C, d):
        self.A, self.B, self.C, self.d = A, B, C, float(d)
        self._settled = -np.linalg.solve(A, B)

    @property
    def gain(self):
        """H(0)."""
        return self.d + float(self.C @ self._settled)

    def settled(self, v):
        """The state after a constant v for all time."""
        return self._settled * v

    def run(self, v, gaps, z, hold, states=False):
        """Outputs, and the last state or all of them."""
        begins = np.append(np.flatnonzero(gaps[1:] < 0.0) + 1, len(v))
        x = np.empty((len(v), len(z)))
        for first, last in pairwise(np.append(0, begins)):
            z = self.settled(v[first]) if first else z
            x[first:last] = sweeps.dense(self.A, v[first:last, np.newaxis] * self.B, gaps[first:last], z, hold)
        return x @ self.C + self.d * v, (x if states else x[-1])

    def held(self, v, gaps, z):
        """Outputs (n,) after each of n states (n, n_states) has had a constant v (n,) for its gap (n,)."""
        y = self.d * v
        for first in range(0, len(v), sweeps.CHUNK):
            rows = slice(first, first + sweeps.CHUNK)
            A, G, _ = input_weights(self.A, self.B[:, np.newaxis], gaps[rows])
            y[rows] += (np.einsum("kij,kj->ki", A, z[rows]) + G[..., 0] * v[rows, np.newaxis]) @ self.C
        return y

    def mirrored(self):
        """The part of H(s) H(−s) that runs forward; the rest is the same one backwards, and d² v."""
        # The spectrum of the output for white noise, whose forward part is C (s − A)⁻¹ (P Cᵀ + B d).
        P = solve_continuous_lyapunov(self.A, -np.outer(self.B, self.B))
        return Dense(self.A, P @ self.C + self.B * self.d, self.C, 0.0)


def from_prototype(zeros, poles, gain, omega):
    """A designed filter H(s/ω), in modes if its poles are far enough apart.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.analog import from_prototype
    >>> type(from_prototype(np.zeros(0), np.array([-1.0, -1.0]), 1.0, 1.0)).__name__
    'Dense'
    """
    fractions = residues(zeros, poles, gain)
    if fractions is None:
        A, B, C, D = from_zpk(zeros, poles, gain)
        return Dense(omega * A, omega * B[:, 0], C[0], D[0, 0])
    r, d = fractions
    kept = poles.imag >= 0.0
    pairs = np.where(poles[kept].imag > 0.0, 2.0, 1.0)
    opposite = evaluated(zeros, poles, gain, -poles[kept])
    return Modal(omega * poles[kept], omega * pairs * r[kept], d, evaluated(zeros, poles, gain, 0.0).real, opposite)


def from_system(system):
    """A `LinearSystem` of one input and one output, in modes if its eigenvectors allow.

    Examples
    --------
    >>> from statespace.lti import LinearSystem
    >>> from statespace.lti.analog import from_system
    >>> from_system(LinearSystem(-2.0, 1.0, 3.0)).c.real
    array([3.])
    """
    found = modes(system.A)
    if found is None:
        return Dense(system.A, system.B[:, 0], system.C[0], system.D[0, 0])
    rate, V, W = found
    return Modal(rate, (system.C @ V)[0] * (W @ system.B)[:, 0], system.D[0, 0])


def causal(filter, v, gaps, starts, hold):
    """The filter's output for records with missing samples (NaN), which the hold bridges.

    Parameters
    ----------
    filter : Modal or Dense
    v : ndarray of shape (n_times,)
        All records, one after the other.
    gaps : ndarray of shape (n_times,)
        The first of a record is not used.
    starts : ndarray of shape (n_records,), int
        Where each record begins.
    hold : {"zoh", "foh"}

    Returns
    -------
    ndarray of shape (n_times,)
        Where v is missing: the output if the last value went on. NaN before the first value of a record.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.analog import Modal, causal
    >>> lag = Modal(np.array([-1.0 + 0j]), np.array([1.0 + 0j]), 0.0)
    >>> v, gaps = np.array([0.0, 1.0, np.nan, 7.0]), np.array([0.0, 1.0, 50.0, 0.0])
    >>> causal(lag, v, gaps, np.array([0, 3]), "zoh")
    array([0., 0., 1., 7.])
    """
    missing = np.isnan(v)
    if not missing.any():
        # A constant is taken off and put back, so that it passes without a digit's change.
        origin = np.repeat(v[starts], np.diff(starts, append=len(v))) if len(starts) > 1 else v[0]
        steps = gaps.copy()
        steps[starts] = -1.0
        y, _ = filter.run(v - origin, steps, 0.0 * filter.settled(0.0), hold)
        y += filter.gain * origin
        return y
    record = np.zeros(len(v), dtype=np.intp)
    record[starts[1:]] = 1
    record = np.cumsum(record)
    seen = np.flatnonzero(~missing)
    y = np.full(len(v), np.nan)
    if not len(seen):
        return y
    own = record[seen]
    first = np.append(True, own[1:] != own[:-1])
    origin = np.zeros(len(starts))
    origin[own[first]] = v[seen[first]]
    # Gaps add up between two samples that are seen, not since the beginning: nothing cancels in a long record.
    steps = np.zeros(len(seen))
    steps[1:] = np.add.reduceat(gaps[: seen[-1] + 1], seen[:-1] + 1) if len(seen) > 1 else 0.0
    steps[first] = -1.0
    y[seen], states = filter.run(v[seen] - origin[own], steps, 0.0 * filter.settled(0.0), hold, states=True)
    late = np.flatnonzero(missing)
    last = np.searchsorted(seen, late) - 1
    kept = (last >= 0) & (own[last] == record[late])
    late, last = late[kept], last[kept]
    since = pd.Series(np.where(missing, gaps, 0.0)).groupby(np.cumsum(~missing)).cumsum().to_numpy()
    y[late] = filter.held(v[seen[last]] - origin[own[last]], since[late], states[last])
    return y + filter.gain * origin[record]


def zero_phase(filter, mirrored, v, gaps, hold, padding):
    """Forward and backward in time at once, H(s) H(−s): the gain is squared and the phase zero.

    Parameters
    ----------
    filter : Modal or Dense
    mirrored : Modal or Dense
        ``filter.mirrored()``.
    v, gaps, hold
        As in `causal`, of one record.
    padding : {"odd", "even", "constant"}
        How the record goes on beyond its ends.

    Returns
    -------
    ndarray of shape (n_times,)
        NaN before the first and after the last value.

    Notes
    -----
    In partial fractions H(s) H(−s) is a filter that runs forward and the same one backward, both driven by the record
    itself. No intermediate signal has to be sampled, so that the result is exact for the input between the samples.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.analog import Modal, zero_phase
    >>> lag = Modal(np.array([-1.0 + 0j]), np.array([1.0 + 0j]), 0.0)
    >>> v, gaps = np.array([0.0, 0.0, 1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.5, 0.5, 1.0])
    >>> y = zero_phase(lag, lag.mirrored(), v, gaps, "foh", "odd")
    >>> bool(np.allclose(y, y[::-1]))
    True
    """
    seen = np.flatnonzero(~np.isnan(v))
    y = np.full(len(v), np.nan)
    if not len(seen):
        return y
    span = slice(seen[0], seen[-1] + 1)
    gaps, v = gaps[span], v[span]
    if len(seen) < len(v):
        v = _filled(v, np.cumsum(gaps), hold)
    y[span] = _two_sided(filter, mirrored, v, gaps, hold, padding)
    return y


def _filled(v, times, hold):
    """Missing samples on the line, or at the level, that the hold draws anyway."""
    known = np.flatnonzero(~np.isnan(v))
    if hold == "foh":
        return np.interp(times, times[known], v[known])
    return v[known[np.searchsorted(known, np.arange(len(v)), side="right") - 1]]


def _two_sided(filter, mirrored, v, gaps, hold, padding):
    origin, n = v[0], len(v)
    v = v - origin
    left = right = 0
    before = after = v[:0]
    if padding != "constant" and n > 1:
        memory, since, until = 1.0 / _slowest(filter), np.cumsum(gaps[1:]), np.cumsum(gaps[:0:-1])
        left = min(n - 1, 1 + int(np.searchsorted(since, 10.0 * memory)))
        right = min(n - 1, 1 + int(np.searchsorted(until, 10.0 * memory)))
        before, after = v[left:0:-1], v[::-1][1 : right + 1]
        if padding == "odd":
            before = 2.0 * _end_of_line(v, since, memory) - before
            after = 2.0 * _end_of_line(v[::-1], until, memory) - after
    padded = np.concatenate([before, v, after])
    between = np.concatenate([gaps[left:0:-1], gaps[1:], gaps[::-1][:right]])
    forward, _ = mirrored.run(padded, np.append(0.0, between), mirrored.settled(padded[0]), hold)
    # Backwards a zero-order hold has each sample at the far end of its gap.
    back = padded[::-1]
    driven = np.append(back[1:], back[-1]) if hold == "zoh" else back
    backward, _ = mirrored.run(driven, np.append(0.0, between[::-1]), mirrored.settled(padded[-1]), hold)
    y = (forward + backward[::-1])[left : left + n] + filter.d**2 * v
    return y + filter.gain**2 * origin


def _end_of_line(v, since, memory):
    """The first value of a line fitted to the samples of one time constant, which one noisy sample does not decide."""
    n = 1 + int(np.searchsorted(since, memory, side="right"))
    if n < 3:
        return v[0]
    s, u = np.append(0.0, since[: n - 1]), v[:n]
    s, mean = s - s.mean(), s.mean()
    spread = s @ s
    slope = (s @ (u - u.mean())) / spread if spread > 0.0 else 0.0
    return u.mean() - slope * mean


def _slowest(filter):
    """The slowest rate at which the filter forgets."""
    rate = filter.rate if isinstance(filter, Modal) else np.linalg.eigvals(filter.A)
    return np.abs(rate.real).min()
