"""The CUDA backend, through CuPy: one thread a record, its moments in registers.

The sources are compiled for a model's kinds of blocks, number of states and of diffuse directions (``layout.cuh``).
A(Δ) and Q(Δ) are formed in the kernel, again only where a gap is another than the one before. Records are ordered by
length, so that the threads of a warp end together. A backward sweep keeps the predicted moments of one segment of a
record and a state for each segment's beginning, in turns of as many records as fit.
"""

import sys

import numpy as np

from statespace.kernels import cuda
from statespace.kernels.dispatch import BackendError
from statespace.kernels.kalman_filter import associative
from statespace.kernels.kalman_filter.blocks import TABLE, wanted_entries
from statespace.kernels.kalman_filter.cpu import FEWEST, ROUGHLY_TAME, is_large  # noqa: F401
from statespace.kernels.kalman_filter.discretization import expand, moves
from statespace.kernels.kalman_filter.expectations import gradient_of, known_start, smoothed_of, write_filtered
from statespace.kernels.kalman_filter.record import Kept, Record
from statespace.kernels.kalman_filter.results import FilterResult, Gradient, SmootherResult

# of a block, and states of a record: more do not fit into a thread
THREADS, MOST_STATES = 32, 24
# samples of a record whose moments are kept at once, at least; the share of the free memory for all of them
SEGMENT, SHARE = 16, 0.25


def unusable(*arguments, **options):
    """The reason of a backend whose kernels are compiled through CuPy, or None."""
    return cuda.unusable(*arguments, **options)


class Model:
    """A record or many, and a model, on the GPU."""

    def __init__(self, y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts):
        self.like, self.blocks, self.n, self.d = y, blocks, len(mean), diffuse.shape[1]
        if self.n > MOST_STATES:
            raise BackendError(
                f"backend='cupy' holds at most {MOST_STATES} states in a thread; the model has {self.n}. "
                "Leave backend out, or use 'cpu'."
            )
        self.schedule = starts if isinstance(starts, Schedule) else Schedule(len(y), starts)
        self.alone = self.schedule.alone
        units = expand(blocks.kind, blocks.size)
        self.macros = {
            "N": self.n, "UNITS": len(units[0]), "DIRECTIONS": self.d, "THREADS": THREADS,
            **{name: ", ".join(map(str, part.tolist())) for name, part in zip(LISTS, units, strict=True)},
            "EACH_H": int(len(observation) > 1), "EACH_R": int(len(noise_variance) > 1),
        }  # fmt: skip
        tables = blocks.gap_index if TABLE in blocks.kind else np.zeros(0, np.int64)
        self.record = [
            *(cuda.borrowed(x, np.float64) for x in (y, dt, observation, noise_variance, blocks.parameters)),
            *(cuda.borrowed(x, np.float64) for x in (blocks.transition, blocks.process_noise)),
            cuda.borrowed(tables, np.int64),
            *(cuda.borrowed(x, np.float64) for x in (mean, covariance, diffuse)),
        ]

    @property
    def packed(self):
        """Numbers in all blocks of a matrix, and in those of tables."""
        each = [s * s for s in self.blocks.size.tolist()]
        tables = [s for s, k in zip(each, self.blocks.kind.tolist(), strict=True) if k == TABLE]
        return sum(each), sum(tables)

    def run(self, file, kernel, threads, *results, order=None, **macros):
        """Log-likelihoods, and how large P∗ was after the diffuse start, of each record; ``results`` are written."""
        schedule = self.schedule
        order = schedule.order if order is None else order
        values, sizes = empty(schedule.count), empty(schedule.count)
        source = cuda.load("kalman_filter", file, **self.macros, **macros)
        given = *self.record, schedule.starts, order, len(order), values, sizes
        source.launch(kernel, -(-threads // THREADS), THREADS, *given, *results)
        return values, sizes

    def lost(self, sizes, tame=None):
        """Records after whose diffuse start too few digits were left: pairs of an index and a `KnownStart`."""
        if self.d < FEWEST:
            return []
        sizes, found = cuda.runtime.fetched(sizes), []
        for i in np.flatnonzero(sizes > 0.0).tolist():
            fixed, start = self.one(i)
            y, dt, blocks, observation, noise_variance = fixed
            if is_large(Record(y, dt, *blocks, observation, noise_variance), blocks, sizes[i], tame):
                known = known_start(sys.modules[__name__], fixed, *start)
                found += [] if known is None else [(i, known)]
        return found

    def one(self, i):
        """Record ``i`` in main memory: y, Δ, blocks, h, R, and the start."""
        cut, fetched = self.samples(i), cuda.runtime.fetched
        y, dt, observation, noise_variance, *_, mean, covariance, diffuse = self.record
        observation = observation[cut] if self.macros["EACH_H"] else observation
        noise_variance = noise_variance[cut] if self.macros["EACH_R"] else noise_variance
        blocks = type(self.blocks)(*map(fetched, self.blocks))
        blocks = blocks._replace(gap_index=blocks.gap_index[cut])
        fixed = fetched(y[cut]), fetched(dt[cut]), blocks, fetched(observation), fetched(noise_variance)
        return fixed, tuple(map(fetched, (mean, covariance, diffuse)))

    def samples(self, i):
        return slice(*map(int, self.schedule.starts[i : i + 2]))

    def room(self):
        """How many threads take turns, the length of a segment, and memory for checkpoints and segments."""
        fields = self.n + self.n * (self.n + 1) // 2 + 1 + self.d * self.n
        longest, length = self.schedule.longest, min(SEGMENT, self.schedule.longest)
        memory = SHARE * cuda.runtime.free_memory()
        threads = min(cuda.runtime.resident_threads(), rounded(self.schedule.count))

        def needed():
            return 8 * (length * fields + -(-longest // length) * (fields + 1))

        while threads * needed() > memory and length * length < longest:
            length *= 2
        threads = max(THREADS, min(threads, int(memory // needed()) // THREADS * THREADS))
        checkpoints = empty(-(-longest // length) * (fields + 1) * threads)
        return threads, length, checkpoints, empty(length * fields * threads)

    def returned(self, x):
        return cuda.returned(x, self.like)

    def values(self, x):
        """A log-likelihood, a float, or that of each record."""
        return float(x[0]) if self.alone else self.returned(x)


LISTS = "KINDS", "SIZES", "OWNERS"


class Schedule:
    """Where records start, and in which order they are taken: the longest first."""

    def __init__(self, n_times, starts):
        self.alone = starts is None
        starts = np.array([0, n_times]) if starts is None else starts
        lengths = np.diff(starts)
        self.count, self.longest = len(lengths), int(lengths.max())
        self.starts = cuda.borrowed(starts, np.int64)
        self.order = cuda.borrowed(np.argsort(-lengths, kind="stable"), np.int64)


def rounded(count):
    return -(-count // THREADS) * THREADS


def empty(*shape, dtype=np.float64):
    return cuda.runtime.arrays.empty(shape, dtype=dtype)


def resident(y, dt, blocks, observation, starts):
    """What does not change from call to call of a search, on the GPU, and when each record's turn is."""
    schedule = Schedule(len(y), starts)
    y, dt, observation = (cuda.borrowed(x, np.float64) for x in (y, dt, observation))
    return y, dt, blocks._replace(gap_index=cuda.borrowed(blocks.gap_index, np.int64)), observation, schedule


def kalman_log_likelihood(
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, *, starts=None, tame=None
):
    with cuda.runtime.scope(y):
        model = Model(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts)
        if line := associative.line(model):
            return line.log_likelihood()
        values, sizes = model.run("filter.cu", "log_likelihood", model.schedule.count)
        for i, known in model.lost(sizes, tame):
            values[i] = known.log_likelihood
        return model.values(values)


def kalman_filter(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, *, starts=None):
    with cuda.runtime.scope(y):
        model = Model(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts)
        if line := associative.line(model):
            return line.filter()
        T, n, d, R = len(y), model.n, model.d, model.schedule.count
        means, covariances, innovations, variances = empty(T, n), empty(T, n, n), empty(T), empty(T)
        left, counts, last = empty(R, d, n), empty(R, dtype=np.int64), empty(R, dtype=np.int64)
        moments = means, covariances, innovations, variances
        values, sizes = model.run("filter.cu", "filter", R, *moments, left, counts, last)
        for i, known in model.lost(sizes):
            cut, (fixed, start) = model.samples(i), model.one(i)
            own = [cuda.runtime.fetched(x[cut]) for x in moments]
            kept = Kept(own[0], own[1], None, None, own[2], own[3], None, None, None, None)
            counts[i] = write_filtered(sys.modules[__name__], kept, int(last[i]), fixed, *start)
            for x, written in zip(moments, own, strict=True):
                x[cut] = cuda.borrowed(written)
            values[i], left[i] = known.log_likelihood, 0.0
        moments = map(model.returned, moments)
        if not model.alone:
            left = cuda.runtime.arrays.ascontiguousarray(left.transpose(0, 2, 1))
            return FilterResult(model.values(values), *moments, model.returned(left), model.returned(counts))
        alive = d - int((left[0] == 0.0).all(axis=1).sum())
        left = cuda.runtime.arrays.ascontiguousarray(left[0, :alive].T)
        return FilterResult(model.values(values), *moments, model.returned(left), int(counts[0]))


def kalman_gradient(
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, free_parameters, by_observation, *,
    starts=None, tame=None,
):  # fmt: skip
    with cuda.runtime.scope(y):
        model = Model(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts)
        n, d, (_, tables) = model.n, model.d, model.packed
        wanted = wanted_entries(blocks, free_parameters)
        moving = bool(moves(blocks.kind, free_parameters).any()) or bool(wanted.any())
        if line := associative.line(model, way_back=True):
            value, gradient = line.gradient(
                free_parameters, by_observation, moving, lambda sums: _by_tables(model, sums, tables)
            )
            masks = (cuda.borrowed(x, np.float64) for x in (free_parameters, wanted))
            gradient = gradient._replace(
                parameters=gradient.parameters * next(masks), transition=gradient.transition * next(masks)
            )
            return value, Gradient(*map(model.returned, gradient))
        threads, length, checkpoints, steps = model.room()
        sizes = [blocks.parameters.size, n, 1, n, n * n, n * d]
        sums, table_sums = empty(threads, sum(sizes)), empty(len(y), 2, tables)
        by_noise = empty(*noise_variance.shape)
        by_row = cuda.runtime.arrays.zeros(observation.shape)
        results = length, checkpoints, steps, sums, table_sums, by_noise, by_row
        macros = {"MOVES": int(moving), "BY_OBSERVATION": int(by_observation)}
        values, sizes_of_start = model.run("gradient.cu", "gradient", threads, *results, **macros)
        lost = model.lost(sizes_of_start, tame)
        if lost:
            # once more, and of the others only
            order = cuda.runtime.fetched(model.schedule.order)
            order = cuda.borrowed(order[~np.isin(order, [i for i, _ in lost])], np.int64)
            for x in (table_sums, by_noise, by_row):
                x[:] = 0.0
            values, _ = model.run("gradient.cu", "gradient", threads, *results, order=order, **macros)
        ends = np.cumsum(sizes).tolist()
        total = sums.sum(axis=0)
        parts = [total[e - size : e] for e, size in zip(ends, sizes, strict=True)]
        parameters, by_h, by_R, by_mean, by_covariance, by_diffuse = parts
        if len(observation) == 1 or not by_observation:
            by_row = (by_h.reshape(1, n) if len(observation) == 1 else by_row) * float(by_observation)
        by_transition, by_process_noise = _by_tables(model, table_sums, tables)
        gradient = Gradient(
            parameters.reshape(blocks.parameters.shape) * cuda.borrowed(free_parameters, np.float64),
            by_transition * cuda.borrowed(wanted, np.float64), by_process_noise,
            by_R if len(noise_variance) == 1 else by_noise, by_row, by_mean, by_covariance.reshape(n, n),
            by_diffuse.reshape(n, d),
        )  # fmt: skip
        for i, known in lost:
            fixed, start = model.one(i)
            given = known, fixed, *start, free_parameters, by_observation
            values[i], of_one = gradient_of(sys.modules[__name__], *given)
            _add(gradient, of_one, model, model.samples(i))
        return model.values(values), Gradient(*map(model.returned, gradient))


def _add(gradient, of_one, model, cut):
    """The gradient of one record to that of all; what is of single samples stands at its own."""
    by_sample = {"noise_variance": model.macros["EACH_R"], "observation": model.macros["EACH_H"]}
    for name, total, part in zip(gradient._fields, gradient, of_one, strict=True):
        if by_sample.get(name):
            total[cut] = cuda.borrowed(part)
        else:
            total += cuda.borrowed(part)


def _by_tables(model, table_sums, tables):
    """The adjoints of each row of the tables, added up in the order of the samples."""
    xp, gap_index = cuda.runtime.arrays, model.record[7]
    rows = len(model.blocks.transition)
    if not tables or not rows:
        return xp.zeros((rows, tables)), xp.zeros((rows, tables))
    samples = xp.argsort(gap_index, kind="stable").astype(np.int64)
    first = xp.searchsorted(gap_index[samples], xp.arange(rows + 1)).astype(np.int64)
    sums = empty(rows, 2, tables)
    macros = model.macros | {"MOVES": 1, "BY_OBSERVATION": 1}
    source = cuda.load("kalman_filter", "gradient.cu", **macros)
    source.launch("sum_by_row", rows, THREADS, table_sums, samples, first, sums)
    return sums[:, 0], sums[:, 1]


def kalman_smoother(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, readout, *, starts=None):
    with cuda.runtime.scope(y):
        model = Model(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts)
        if line := associative.line(model, way_back=True):
            return line.smoother(readout)
        T, n = len(y), model.n
        read = 0 if readout is None else readout.shape[1]
        rows = cuda.borrowed(np.zeros((1, 0, n)) if readout is None else readout, np.float64)
        threads, length, checkpoints, steps = model.room()
        means, covariances = empty(T, read or n), empty(T, read) if read else empty(T, n, n)
        values, sizes = model.run(
            "smoother.cu", "smoother", threads, length, checkpoints, steps, rows, means, covariances, READ=read,
            EACH_READ=int(len(rows) > 1),
        )  # fmt: skip
        for i, known in model.lost(sizes):
            cut, (fixed, start) = model.samples(i), model.one(i)
            own = readout if readout is None or len(rows) == 1 else cuda.runtime.fetched(rows[cut])
            of_one = smoothed_of(sys.modules[__name__], known, fixed, *start, own)
            values[i] = known.log_likelihood
            means[cut], covariances[cut] = cuda.borrowed(of_one.mean), cuda.borrowed(of_one.covariance)
        return SmootherResult(model.values(values), model.returned(means), model.returned(covariances))


def discretize_blocks(blocks, dt):
    with cuda.runtime.scope(dt):
        model = _without_record(blocks, dt)
        T, n = len(dt), model.n
        xp = cuda.runtime.arrays
        transition, process_noise = xp.zeros((T, n, n)), xp.zeros((T, n, n))
        given = (model.record[i] for i in (1, 4, 5, 6, 7))
        source = cuda.load("kalman_filter", "discretization.cu", **model.macros)
        if T:
            source.launch("discretize_each", -(-T // THREADS), THREADS, *given, T, transition, process_noise)
        return cuda.returned(transition, dt), cuda.returned(process_noise, dt)


def contract_blocks(blocks, dt, transition_bar, process_noise_bar):
    with cuda.runtime.scope(dt):
        model = _without_record(blocks, dt)
        T = len(dt)
        bars = (cuda.borrowed(x, np.float64) for x in (transition_bar, process_noise_bar))
        found = empty(T, blocks.parameters.size)
        source = cuda.load("kalman_filter", "discretization.cu", **model.macros)
        if T:
            given = model.record[1], model.record[4], *bars
            source.launch("contract_each", -(-T // THREADS), THREADS, *given, T, found)
        return cuda.returned(found.sum(axis=0).reshape(blocks.parameters.shape), dt)


def _without_record(blocks, dt):
    n = blocks.n_states
    return Model(dt, dt, blocks, np.zeros((1, n)), np.ones(1), np.zeros(n), np.zeros((n, n)), np.zeros((n, 0)), None)
