"""Systems that grow mode by mode on the true samples: starts where no regular grid can be read.

Interpolation between irregular samples damps what is fast. Here nothing is interpolated: of many poles λ on a grid of
frequencies and dampings, each simulated exactly, the one is added whose response explains most of what the system so
far leaves over,

    z_i' = λ z_i + u_i,    e ≈ Re Σ_i R_i z_i,    R ≈ c bᵀ by its largest singular value,

and all parameters are refined before the next one (a matching pursuit).
"""

from dataclasses import replace

import numpy as np

from statespace.lti.parametrization import Parameters
from statespace.lti.prediction_error import OutputError, simulated, solve_linear
from statespace.lti.recursions import simulate
from statespace.lti.search import trial

_FREQUENCIES = 60
_DAMPINGS = (0.03, 0.3)


class Growth:
    """Output-error systems of the orders 1, 2, …, each the best that adds a pole or a pair to a smaller one.

    Parameters
    ----------
    data : Data
    feedthrough, intercept, stable : bool
    tol : float
        As in `statespace.lti.search.refine`.
    """

    def __init__(self, data, *, feedthrough, intercept, stable, tol):
        self.data = data
        self.criterion = OutputError(data)
        self.free = {"feedthrough": feedthrough, "intercept": intercept}
        self.options = {**self.free, "stable": stable, "tol": tol}
        self.found = [_static(data)]

    def of_order(self, n, others=()):
        """The system of order n, or None; ``others`` are further starts for it."""
        while len(self.found) <= n:
            size = len(self.found)
            starts = [self._grown(1), *([self._grown(2)] if size > 1 else []), *(others if size == n else [])]
            starts = [start for start in starts if start is not None]
            fit = trial(starts, self.criterion, **self.options) if starts else None
            self.found.append(None if fit is None else fit.parameters)
        return self.found[n]

    def _grown(self, size):
        """The system with ``size`` states less than the next one, and a real pole or a pair more."""
        base = self.found[len(self.found) - size]
        if base is None:
            return None
        data = self.data
        left = np.where(self.criterion.seen, data.y - _outputs(base, data), 0.0)
        variances = self.criterion.variances(left)
        best = (0.0, None, None)
        for pole in _poles(data, pair=size == 2):
            z = _responses(pole, data)
            columns = np.hstack([z.real, -z.imag]) if size == 2 else z.real
            if not np.isfinite(columns).all():
                continue
            residues, explained = _regressed(columns, left, self.criterion.seen)
            score = float((explained / variances).sum())
            if score > best[0]:
                best = (score, pole, residues)
        if best[1] is None:
            return None
        return self._joined(base, best[1], best[2], size)

    def _joined(self, base, pole, residues, size):
        m = self.data.u.shape[1]
        R = residues[:, :m] + 1j * residues[:, m:] if size == 2 else residues
        left, _, right = np.linalg.svd(R, full_matrices=False)
        c, b = left[:, 0], right[0]
        if size == 2:
            block = np.array([[pole.real, -pole.imag], [pole.imag, pole.real]])
            B, C = np.stack([b.real, b.imag]), np.stack([c.real, -c.imag], axis=1)
        else:
            block, B, C = np.array([[pole.real]]), b.real[np.newaxis], c.real[:, np.newaxis]
        n, p = len(base.A), len(C)
        A = np.zeros((n + size, n + size))
        A[:n, :n], A[n:, n:] = base.A, block
        grown = replace(
            base, A=A, B=np.vstack([base.B, B]), C=np.hstack([base.C, C]), L=np.zeros((n + size, p)),
            x0=np.zeros((len(base.x0), n + size)), P0=np.zeros((n + size, n + size)),
        )  # fmt: skip
        try:
            return solve_linear(grown, self.data, **self.free)
        except (np.linalg.LinAlgError, ValueError):
            return None


def _static(data):
    """No state at all: D and the offset by least squares."""
    m, p, n_records = data.u.shape[1], data.y.shape[1], len(data.starts) - 1
    none = np.zeros((0, 0))
    return Parameters(
        none, np.zeros((0, m)), np.zeros((p, 0)), np.zeros((p, m)), np.zeros((0, p)), np.eye(p),
        np.nanmean(data.y, axis=0), np.zeros((n_records, 0)), none,
    )  # fmt: skip


def _outputs(parameters, data):
    return simulated(parameters, data) if len(parameters.A) else np.broadcast_to(parameters.offset, data.y.shape)


def _poles(data, pair):
    """Poles of one rate after another, in units of the search; in discrete time those of exp."""
    gaps = data.gaps[data.gaps > 0]
    spans = [data.gaps[data.gap_index[a : b - 1]].sum() for a, b in zip(data.starts[:-1], data.starts[1:], strict=True)]
    fastest = 0.95 * np.pi / (1.0 if data.discrete else gaps.min(initial=1.0))
    slowest = min(2 * np.pi / max(max(spans), 1.0), 0.1 * fastest)
    rates = np.geomspace(slowest, min(fastest, 1e4 * slowest, 30.0), _FREQUENCIES)
    found = [complex(-d * rate, rate) for rate in rates for d in _DAMPINGS] if pair else [complex(-r, 0) for r in rates]
    return [np.exp(pole) for pole in found] if data.discrete else found


def _responses(pole, data):
    """The state z of the pole to each input, of shape (n_samples, m)."""
    if data.discrete:
        E, F, H = np.array([pole]), np.ones(1, complex), np.zeros(1, complex)
    else:
        s = pole * data.gaps
        small = np.abs(s) < 1e-4
        safe = np.where(small, 1.0, s)
        E = np.exp(s)
        F = data.gaps * np.where(small, 1 + s / 2, np.expm1(safe) / safe)
        H = data.gaps * np.where(small, 0.5 + s / 6, (np.expm1(safe) - safe) / safe**2)
    E, F, H = (part.reshape(-1, 1, 1) for part in (E, F, H))
    z = np.empty(data.u.shape, complex)
    at_rest, state = np.zeros((len(data.starts) - 1, 1), complex), np.zeros((len(data.u), 1), complex)
    for i, column in enumerate(data.u.T.astype(complex)):
        w = np.ascontiguousarray(column[:, np.newaxis])
        simulate(E, F, H, data.gap_index, data.starts, data.linear, w, at_rest, state)
        z[:, i] = state[:, 0]
    return z


def _regressed(columns, left, seen):
    """Coefficients (p, n_columns) of least squares on what was seen, and the sum of squares that they explain."""
    coefficients, explained = np.zeros((left.shape[1], columns.shape[1])), np.zeros(left.shape[1])
    ridge = 1e-10 * max(float((columns**2).sum()), np.finfo(float).tiny) * np.eye(columns.shape[1])
    for j in range(left.shape[1]):
        rows = columns[seen[:, j]]
        moments = rows.T @ left[seen[:, j], j]
        coefficients[j] = np.linalg.solve(rows.T @ rows + ridge, moments)
        explained[j] = coefficients[j] @ moments
    return coefficients, explained
