"""The network's state after windows of the data: read once, and carried on as the data go on.

Windows whose ends share start and anchor (`windows.place`) are one reading: the state at the first end is read, and
that at each other is reached from there by the steps in between.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from statespace.forecasting.windows import place

# Windows, and queries, that are computed at once.
MAX_WINDOWS, MAX_QUERIES = 64, 2048


class Reading(NamedTuple):
    """The states of some series at the ends of their data.

    numbers (n,): which series; lengths (n,): how many of their samples have been read; state: of the network, for n.
    """

    numbers: np.ndarray
    lengths: np.ndarray
    state: Any

    def take(self, rows):
        """Some of the series."""
        return Reading(self.numbers[rows], self.lengths[rows], rows_of(self.state, torch.from_numpy(rows)))

    def renumbered(self, old, new):
        """The same series in another order; ``old`` and ``new`` say the number of each name."""
        order = np.empty(len(old), dtype=np.int64)
        order[list(old.values())] = [new[name] for name in old]
        return self._replace(numbers=order[self.numbers])

    def moved(self, device, dtype=None):
        """On another device, and in another precision if one is named."""
        return self._replace(state=_moved(self.state, device, dtype))


def rows_of(state, rows):
    """Some rows of a batch of states, which may be nested tuples."""
    if isinstance(state, tuple):
        return tuple(rows_of(part, rows) for part in state)
    return None if state is None else state[rows]


def _moved(state, device, dtype):
    if isinstance(state, tuple):
        return tuple(_moved(part, device, dtype) for part in state)
    if state is None or dtype is None or not (state.is_floating_point() or state.is_complex()):
        return state if state is None else state.to(device)
    return state.to(device, dtype.to_complex() if state.is_complex() else dtype)


def joined(readings):
    """As few readings as possible: states of one shape become one batch.

    Parameters
    ----------
    readings : list of Reading

    Returns
    -------
    list of Reading
    """
    groups: dict[tuple, list] = {}
    for reading in readings:
        if len(reading.numbers):
            groups.setdefault(_shape(reading.state), []).append(reading)
    return [
        Reading(
            np.concatenate([part.numbers for part in group]),
            np.concatenate([part.lengths for part in group]),
            _joined([part.state for part in group]),
        )
        for group in groups.values()
    ]


def _shape(state):
    if isinstance(state, tuple):
        return tuple(map(_shape, state))
    return None if state is None else tuple(state.shape[1:])


def _joined(states):
    if len(states) == 1 or states[0] is None:
        return states[0]
    if isinstance(states[0], tuple):
        return tuple(map(_joined, zip(*states, strict=True)))
    return torch.cat(states)


class Reader:
    """Reads windows with a network and answers queries from its states.

    Parameters
    ----------
    model : QueryModel
        In evaluation mode, of ``dtype`` and on ``device``.
    windows : WindowReader
    dtype : torch.dtype
    device : torch.device
    """

    def __init__(self, model, windows, dtype, device):
        self.model, self.windows, self.dtype, self.device = model, windows, dtype, device

    def read(self, numbers, readings=()):
        """The states of series at the ends of their data; those that were read before are carried on.

        Parameters
        ----------
        numbers : ndarray of int, shape (n,)
            Series with one value at least.
        readings : sequence of Reading
            What was read before, of data that have only been added to.

        Returns
        -------
        list of Reading
            Of all series in ``readings`` and ``numbers``.
        """
        record, context = self.windows.records, self.windows.context_length
        known = []
        for reading in readings:
            reading = reading.moved(self.device, self.dtype)
            ends = record.lengths[reading.numbers]
            same = place(reading.lengths, context)[1] == place(ends, context)[1]
            reading = reading.take(np.flatnonzero(same))
            behind = np.flatnonzero(reading.lengths < record.lengths[reading.numbers])
            if len(behind) == len(reading.numbers):
                known.append(self._carried(reading))
                continue
            # What has nothing new is left as it is, to the bit.
            known.append(reading.take(np.setdiff1d(np.arange(len(reading.numbers)), behind)))
            known.append(self._carried(reading.take(behind)))
        old = np.concatenate([[], *(reading.numbers for reading in known)])
        new = np.setdiff1d(numbers, old)
        nothing = np.zeros(len(new), dtype=np.int64)
        for first in range(0, len(new), MAX_WINDOWS):
            part = slice(first, first + MAX_WINDOWS)
            known.append(self._carried(Reading(new[part], nothing[part], None)))
        return joined(known)

    def _carried(self, reading):
        """A reading taken to the present end of its series."""
        if len(reading.numbers) == 0:
            return reading
        record = self.windows.records
        first, lengths = record.starts[reading.numbers], record.lengths[reading.numbers]
        starts, anchors = place(lengths, self.windows.context_length)
        opened = self.windows.open(first + starts, first + anchors, np.arange(len(lengths)), first + lengths)
        begin = first + (starts if reading.state is None else reading.lengths)
        with torch.inference_mode():
            state = self._advance(opened, begin, first + lengths, reading.state)
        return Reading(reading.numbers, lengths, state)

    def _advance(self, opened, begin, end, state, chosen=None):
        x, dt = (torch.from_numpy(part).to(self.device, self.dtype) for part in opened.tokens(begin, end, chosen))
        return self.model.stack.features(x, dt, state)[1]

    def at_present(self, reading, times, covariates, row):
        """Answers after the ends of the data.

        Parameters
        ----------
        reading : Reading
        times, covariates : ndarray of shape (n,), (n, n_covariates)
        row : ndarray of int, shape (n,)
            Which of the reading's series each is asked of.

        Returns
        -------
        ndarray of shape (n, n_levels)
        """
        record = self.windows.records
        asked, row = np.unique(row, return_inverse=True)
        reading = reading.take(asked).moved(self.device, self.dtype)
        first = record.starts[reading.numbers]
        starts, anchors = place(reading.lengths, self.windows.context_length)
        opened = self.windows.open(first + starts, first + anchors, np.arange(len(asked)), first + reading.lengths)
        answers = []
        for start in range(0, len(times), MAX_QUERIES):
            part = slice(start, start + MAX_QUERIES)
            answers.append(self._answer(opened, reading.state, times[part], covariates[part], row[part], row[part]))
        return np.concatenate(answers)

    def before(self, numbers, ends, times, covariates):
        """Answers from earlier ends, each given the samples before that end alone.

        Parameters
        ----------
        numbers, ends : ndarray of int, shape (n,)
            A series, and how many of its samples are known, 1 at least.
        times, covariates : ndarray of shape (n,), (n, n_covariates)

        Returns
        -------
        ndarray of shape (n, n_levels)
        """
        record = self.windows.records
        starts, anchors = (record.starts[numbers] + part for part in place(ends, self.windows.context_length))
        ends = record.starts[numbers] + ends
        batches = _batches(anchors)
        arguments = starts, anchors, ends, times, covariates
        return _put_back(batches, [self._from_ends(*(part[rows] for part in arguments)) for rows in batches])

    def _from_ends(self, starts, anchors, ends, times, covariates):
        """Answers in the order of the arguments: each window is read once, end after end."""
        anchors, first, window = np.unique(anchors, return_index=True, return_inverse=True)
        starts = starts[first]
        ends, first, end = np.unique(ends, return_index=True, return_inverse=True)
        window = window[first]
        opened = self.windows.open(starts, anchors, window, ends)
        # The i-th end of every window that has so many.
        which = np.arange(len(ends)) - np.searchsorted(window, np.arange(len(anchors)))[window]
        by_end = np.argsort(end, kind="stable")
        bounds = np.searchsorted(end[by_end], np.arange(len(ends) + 1))
        places, answers = [], []
        begin, state, active = starts, None, np.arange(len(anchors))
        with torch.inference_mode():
            for i in range(which.max() + 1):
                reached = np.flatnonzero(which == i)
                stay = np.searchsorted(active, window[reached])
                active, state = window[reached], rows_of(state, torch.from_numpy(stay))
                state = self._advance(opened, begin[stay], ends[reached], state, active)
                begin = ends[reached]
                asked = np.concatenate([by_end[bounds[e] : bounds[e + 1]] for e in reached])
                row = np.repeat(np.arange(len(reached)), bounds[reached + 1] - bounds[reached])
                for first in range(0, len(asked), MAX_QUERIES):
                    part, own = asked[first : first + MAX_QUERIES], row[first : first + MAX_QUERIES]
                    places.append(part)
                    answers.append(self._answer(opened, state, times[part], covariates[part], own, end[part]))
        return _put_back(places, answers)

    def _answer(self, opened, state, times, covariates, row, end):
        queries, query_dt, _, offset, scale, _ = opened.ask(times, covariates, end)
        queries, query_dt = (torch.from_numpy(part).to(self.device, self.dtype) for part in (queries, query_dt))
        with torch.inference_mode():
            scaled = self.model.answer(state, queries, query_dt, torch.from_numpy(row).to(self.device))
        return offset[:, np.newaxis] + scale[:, np.newaxis] * scaled.double().cpu().numpy()


def _batches(anchors):
    """Rows by their windows, not too many windows at once."""
    order = np.argsort(anchors, kind="stable")
    number = np.cumsum(np.diff(anchors[order], prepend=-1) != 0) - 1
    return np.split(order, np.searchsorted(number, np.arange(MAX_WINDOWS, number[-1] + 1, MAX_WINDOWS)))


def _put_back(places, parts):
    """Rows that were computed in parts, each in its place."""
    rows = np.concatenate(parts)
    result = np.empty_like(rows)
    result[np.concatenate(places)] = rows
    return result
