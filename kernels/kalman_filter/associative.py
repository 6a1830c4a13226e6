"""One long record on a GPU: filter, smoother and gradient that are parallel in time (Särkkä & García-Fernández 2021).

What a stretch of samples does to the state before it composes, whatever that state is: ``associative.cuh``. Every
thread finds that of its stretch, a thread for each group of stretches puts theirs together, one thread goes over the
groups, and down again; then every stretch is filtered from its own start, by the sweep of any record. r and N go back
in the same way. The record is read three times, and its longest chain is three times its length's cube root.

The samples of a diffuse start are filtered on the CPU first. On the way back the record after them enters as
observations of their last state: what it says of that, exp(η·x − ½ xᵀJx), is a Gaussian likelihood.
"""

import numpy as np

from statespace.kernels import cuda
from statespace.kernels.kalman_filter import cpu
from statespace.kernels.kalman_filter.results import FilterResult, Gradient, SmootherResult

# samples from which it pays; of a stretch, at least; of a diffuse start, at first
SHORTEST, STRETCH, HEAD = 4096, 32, 64
# of P∗ in units of the noise, after the diffuse start of several directions: see cpu.TAME
TAME = 1e7
# the share of the free memory that the moments of a way back may take
SHARE = 0.5
THREADS = 32


def line(model, way_back=False):
    """The ``Line`` of a model with one record, or None where it is better swept from its beginning to its end."""
    T = len(model.record[0])
    if not model.alone or T < SHORTEST:
        return None
    fields = model.n + model.n * (model.n + 1) // 2 + 1
    if way_back and 8 * fields * T > SHARE * cuda.runtime.free_memory():
        return None
    # a stretch that begins at a known state needs noise on what it sees
    if not float(model.record[3].min()) > 0.0:
        return None
    if model.d == 0:
        return Line(model, 0, None)
    length, exposed = HEAD, np.inf
    while length <= T // 4:
        head = _filtered(model, length)
        size = _exposure(model, head)
        # a start that tells its directions badly apart does better with more samples, or never
        tame = model.d < cpu.FEWEST or size <= TAME * float(model.record[3].max()) or size > 0.5 * exposed
        if head.diffuse.shape[1] == 0 and tame:
            return Line(model, length, head)
        exposed = size if head.diffuse.shape[1] == 0 else np.inf
        length *= 2
    return None


def _fetched(model, length, extra=None):
    """The arguments of the CPU's functions for the first samples, and for pseudo-observations (y, h, R) after them."""
    y, dt, h, R, _, _, _, rows, mean, covariance, diffuse = model.record
    y, dt, h, R, rows = (cuda.runtime.fetched(x[:length]) for x in (y, dt, h, R, rows))
    mean, covariance, diffuse = map(cuda.runtime.fetched, (mean, covariance, diffuse))
    blocks = type(model.blocks)(*(cuda.runtime.fetched(x) for x in model.blocks))
    if extra is not None:
        values, directions, noise = extra
        zeros = np.zeros(len(values))
        h, R = np.broadcast_to(h, (length, model.n)), np.broadcast_to(R, length)
        y, dt, h, R = (np.concatenate(x) for x in ((y, values), (dt, zeros), (h, directions), (R, noise)))
        rows = np.concatenate([rows, np.full(len(values) if len(rows) else 0, -1)])
    return y, dt, blocks._replace(gap_index=rows), h, R, mean, covariance, diffuse


def _filtered(model, length):
    return cpu.kalman_filter(*_fetched(model, length))


def _exposure(model, head):
    """The greatest variance of h·x after the head, in any phase."""
    h = np.abs(cuda.runtime.fetched(model.record[2])).max(axis=0)
    return float((h @ np.sqrt(np.maximum(np.diag(head.covariance[-1]), 0.0))) ** 2)


class Line:
    """A record after its first ``begin`` samples, which ``head`` has filtered."""

    def __init__(self, model, begin, head):
        self.model, self.begin, self.head = model, begin, head
        y, dt, h, R, *tables, rows, mean, covariance, diffuse = model.record
        if head is not None:
            mean, covariance = (cuda.borrowed(x[-1], np.float64) for x in (head.mean, head.covariance))
            diffuse = diffuse[:, :0]
        h, R = (x[begin:] if len(x) > 1 else x for x in (h, R))
        self.record = [y[begin:], dt[begin:], h, R, *tables, rows[begin:], mean, covariance, diffuse]
        self.samples = len(y) - begin
        self.length = max(STRETCH, round(self.samples ** (1 / 3)))
        self.count = -(-self.samples // self.length)
        self.group = max(1, round(self.count**0.5))
        self.groups = -(-self.count // self.group)
        n = model.n
        self.moments, self.element = n + n * (n + 1) // 2, n * n + 2 * n + n * (n + 1)

    def log_likelihood(self):
        values = self._empty(self.count)
        self._stretches("associative.cu", "filter_stretches", self._starts()[0], values, None, None, None, None)
        return self._value(values)

    def filter(self):
        model, n, T = self.model, self.model.n, self.begin + self.samples
        values, results = self._empty(self.count), [self._empty(T, *shape) for shape in ((n,), (n, n), (), ())]
        after = [x[self.begin :] for x in results]
        self._stretches("associative.cu", "filter_stretches", self._starts()[0], values, *after)
        if self.head is not None:
            first = self.head.mean, self.head.covariance, self.head.innovation, self.head.innovation_variance
            self._lead_in(results, first)
        n_diffuse = 0 if self.head is None else self.head.n_diffuse
        left = cuda.borrowed(np.zeros((n, 0)), np.float64)
        return FilterResult(self._value(values), *map(model.returned, (*results, left)), n_diffuse)

    def smoother(self, readout):
        model, n, T = self.model, self.model.n, self.begin + self.samples
        read = 0 if readout is None else readout.shape[1]
        rows = cuda.borrowed(np.zeros((1, 0, n)) if readout is None else readout, np.float64)
        each = len(rows) > 1
        results = [self._empty(T, read or n), self._empty(T, read) if read else self._empty(T, n, n)]
        values, steps, ends, information = self._back()
        self._stretches(
            "associative_smoother.cu", "smooth_stretches", steps, ends, rows[self.begin :] if each else rows,
            *(x[self.begin :] for x in results), READ=read, EACH_READ=int(each),
        )  # fmt: skip
        if self.head is not None:
            extra = self._observed(information)
            arguments, given = _fetched(model, self.begin, extra), None
            if read:
                given = cuda.runtime.fetched(rows)
                if each:
                    given = np.concatenate([given[: self.begin], np.zeros((len(extra[0]), read, n))])
            self._lead_in(results, cpu.kalman_smoother(*arguments, given)[1:])
        return SmootherResult(self._value(values), *map(model.returned, results))

    def gradient(self, free_parameters, by_observation, moving, by_tables):
        """``by_tables(table_sums)``: the adjoints of the tables' rows."""
        model, n, xp = self.model, self.model.n, cuda.runtime.arrays
        _, _, h, R, parameters, *_, diffuse = model.record
        size, tables = parameters.size, model.packed[1]
        values, steps, ends, information = self._back()
        T = self.begin + self.samples
        sums, origin = self._empty(self.count, size + n + 1), self._empty(n + n * n)
        by_noise, by_row, table_sums = self._empty(*R.shape), xp.zeros(h.shape), xp.zeros((T, 2, tables))
        each = by_noise[self.begin :] if len(R) > 1 else by_noise, by_row[self.begin :] if len(h) > 1 else by_row
        self._stretches(
            "associative_gradient.cu", "differentiate_stretches", steps, ends, sums, *each, table_sums[self.begin :],
            origin, MOVES=int(moving), BY_OBSERVATION=int(by_observation),
        )  # fmt: skip
        total = sums.sum(axis=0)
        if len(R) == 1:
            by_noise = total[-1:]
        if len(h) == 1:
            by_row = total[size : size + n].reshape(1, n) * float(by_observation)
        by_start = origin[:n], origin[n:].reshape(n, n), xp.zeros(diffuse.shape)
        gradient = [total[:size].reshape(parameters.shape), *by_tables(table_sums), by_noise, by_row, *by_start]
        if self.head is not None:
            extra = self._observed(information)
            given = _fetched(model, self.begin, extra)
            first = cpu.kalman_gradient(*given, free_parameters, by_observation)[1]
            gradient[5:] = (cuda.borrowed(x, np.float64) for x in first[5:])
            for i in range(3):
                gradient[i] = gradient[i] + cuda.borrowed(first[i], np.float64)
            for i, before in ((3, first.noise_variance), (4, first.observation)):
                before = before[: self.begin]
                if len(gradient[i]) > 1:
                    gradient[i][: self.begin] = cuda.borrowed(before, np.float64)
                else:
                    gradient[i] = gradient[i] + cuda.borrowed(before.sum(axis=0, keepdims=True), np.float64)
        return self._value(values), Gradient(*gradient)

    def _starts(self, information=None):
        """The moments before every stretch, after those of the groups."""
        count, groups = self.count, self.groups
        elements, folded = self._empty(self.element * count), self._empty(self.element * groups)
        before, starts = self._empty(self.moments * groups), self._empty(self.moments * count)
        self._stretches("associative.cu", "summarize", elements)
        self._launch("associative.cu", "fold_groups", groups, elements, count, self.group, groups, folded)
        moments = self.record[8:10]
        self._launch("associative.cu", "lead", 1, folded, groups, *moments, before, information)
        self._launch("associative.cu", "descend", groups, elements, count, self.group, groups, before, starts)
        return starts, information

    def _back(self):
        """Log-likelihoods, predicted moments, r and N after every stretch, and what the record says of its start."""
        count, groups, n = self.count, self.groups, self.model.n
        starts, information = self._starts(self._empty(n + n * n) if self.begin else None)
        values, steps = self._empty(count), self._empty(self.length * (self.moments + 1) * count)
        fields = n * n + self.moments
        maps, folded = self._empty(fields * count), self._empty(fields * groups)
        after, ends = self._empty(self.moments * groups), self._empty(self.moments * count)
        self._stretches("associative_back.cu", "summarize_back", starts, values, steps, maps)
        file, sizes = "associative_back.cu", (count, self.group, groups)
        self._launch(file, "fold_back", groups, maps, *sizes, folded)
        self._launch(file, "lead_back", 1, folded, groups, after)
        self._launch(file, "descend_back", groups, maps, *sizes, after, ends)
        return values, steps, ends, information

    def _observed(self, information):
        """η, J as observations of the state: values, rows h and variances."""
        n = self.model.n
        given = cuda.runtime.fetched(information)
        eta, J = given[:n], given[n:].reshape(n, n)
        size = np.sqrt(np.maximum(np.diag(J), 0.0))
        # in units in which each state is known as well as the others
        units = np.where(size > 0.0, size, 1.0)
        weights, directions = np.linalg.eigh(J / np.outer(units, units))
        kept = weights > 1e-15 * n
        weights, directions = weights[kept], directions[:, kept].T
        return directions @ (eta / units) / weights, directions * units, 1.0 / weights

    def _lead_in(self, results, first):
        for result, before in zip(results, first, strict=True):
            result[: self.begin] = cuda.borrowed(before[: self.begin], np.float64)

    def _value(self, values):
        return float(values.sum()) + (0.0 if self.head is None else self.head.log_likelihood)

    def _stretches(self, file, kernel, *arguments, **macros):
        given = *self.record, self.samples, self.length, self.count
        self._launch(file, kernel, self.count, *given, *arguments, **macros)

    def _launch(self, file, kernel, threads, *arguments, **macros):
        macros = self.model.macros | {"DIRECTIONS": 0} | macros
        source = cuda.load("kalman_filter", file, **macros)
        source.launch(kernel, -(-threads // THREADS), THREADS, *arguments)

    @staticmethod
    def _empty(*shape):
        return cuda.runtime.arrays.empty(shape, dtype=np.float64)
