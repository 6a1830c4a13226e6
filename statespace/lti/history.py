"""What a memory holds of one record: a state for each channel, clocks, and the samples that wait to be read in.

Above: ``memory``. Below: ``projections``.
"""

import numpy as np

from statespace.lti import hippo
from statespace.lti.projections import Scaled

# Samples are read in together: a product of matrices is shared by them, and each costs O(n).
_WAITING = 256


class History:
    """A record of ``n_channels`` signals, whose missing samples are bridged as if their rows were not there.

    Parameters
    ----------
    projection : Scaled or Windowed
    measure : str
    window : float or None
    n_channels : int

    Attributes
    ----------
    now : float
        The time of the last sample, the beginning of the first one's gap being 0.
    """

    def __init__(self, projection, measure, window, n_channels):
        self.projection, self.measure, self.window, self.n_channels = projection, measure, window, n_channels
        self.now = 0.0
        self._states = [projection.start() for _ in range(n_channels)]
        self._starts = np.full(n_channels, np.nan)  # where the gap before a channel's first value begins
        self._since = np.zeros(n_channels)  # the time since its last value
        self._waiting: list = []

    def append(self, values, gap):
        """One sample, ``values`` of shape (n_channels,)."""
        self._waiting.append((values, gap))
        if len(self._waiting) == _WAITING:
            self.read_in()

    def extend(self, values, gaps):
        """Many samples, values of shape (n_times, n_channels)."""
        self.read_in()
        passed = np.cumsum(gaps)
        for c in range(self.n_channels):
            rows = np.flatnonzero(~np.isnan(values[:, c]))
            if len(rows) == 0:
                self._since[c] += passed[-1]
                continue
            own = gaps[rows]
            if np.isnan(self._starts[c]):
                self._starts[c] = self.now + passed[rows[0]] - own[0]
            else:
                own[0] = passed[rows[0]] + self._since[c]
            if len(rows) < len(gaps):
                own[1:] = np.diff(passed[rows])
            self._states[c] = self.projection.advance(self._states[c], values[rows, c], own)
            self._since[c] = passed[-1] - passed[rows[-1]]
        self.now += float(passed[-1])

    def read_in(self):
        """Take the samples that wait into the states."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self.extend(np.array([values for values, _ in waiting]), np.array([gap for _, gap in waiting]))

    def coefficients(self):
        """The coefficients now, (n_channels, n); a channel's last value goes on where later ones are missing."""
        self.read_in()
        rows = np.full((self.n_channels, self.projection.n), np.nan)
        for c, state in enumerate(self._states):
            if np.isnan(self._starts[c]):
                continue
            if self._since[c] > 0.0:
                state = self.projection.advance(state, np.array([state[-1]]), self._since[c : c + 1])
            rows[c] = self.projection.read(state)
        return rows

    def reconstruct(self, times):
        """The signals at times, (n_times, n_channels); NaN before a channel's first value."""
        rows = self.coefficients()
        result = np.full((len(times), self.n_channels), np.nan)
        for c, x in enumerate(rows):
            if np.isnan(self._starts[c]):
                continue
            if isinstance(self.projection, Scaled):
                seen = times >= self._starts[c]
                length = self.now - self._starts[c]
                functions = hippo.legendre(len(x), 2.0 * (times[seen] - self._starts[c]) / length - 1.0)
            else:
                seen = times <= self.now
                functions = hippo.basis(self.measure, len(x), (self.now - times[seen]) / self.window)
            result[seen, c] = functions @ x
        return result

    def beginning(self):
        """The earliest time that can be rebuilt."""
        if isinstance(self.projection, Scaled):
            return 0.0
        return -np.inf if self.measure == "lagt" else self.now - self.window

    def export(self):
        """Everything as arrays by name."""
        self.read_in()
        arrays = {"now": np.array(self.now), "starts": self._starts, "since": self._since}
        for c, state in enumerate(self._states):
            arrays |= {f"state{c}_{i}": np.asarray(part) for i, part in enumerate(state)}
        return arrays

    def restore(self, arrays):
        """Take over what `export` gave."""
        self.now, self._starts, self._since = float(arrays["now"]), arrays["starts"], arrays["since"]
        for c, state in enumerate(self._states):
            parts = (arrays[f"state{c}_{i}"] for i in range(len(state)))
            self._states[c] = tuple(part if part.ndim else float(part) for part in parts)
