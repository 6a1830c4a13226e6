"""The diffuse start by known starts, where the first samples hardly tell its directions apart.

The exact diffuse recursion resolves d directions δ from the first d samples that see them. Where these hardly tell
them apart (yearly harmonics on daily samples), P∗ becomes so large that the samples which follow lose it to rounding.
Given δ, nothing is large. The innovations are v(δ) = v + V δ (column j of V: the filter started at D e_j, y = 0) with
variances F that do not depend on δ, so that least squares over the whole record, which does tell them apart, give

    δ | y ~ N(δ̂, S⁻¹),   S = Vᵀ F⁻¹ V,   ℓ = −½ (T log 2π + Σ log F + log|S| + Σ v(δ̂)²/F)

(de Jong 1991; Rosenberg 1973). The rest is expectations over δ: the gradient given δ is quadratic in δ, and its mean
over d + 1 corners of a simplex with the moments of δ is exact; smoothed means are linear in δ.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import helmert, qr, solve_triangular

# The least that the whole record must say about a direction, beside what it says about the others.
_KNOWN = 1e-9
# What the samples so far must say about it, beside rounding.
_VISIBLE = 1e-14


class KnownStart(NamedTuple):
    """δ̂, a root of S⁻¹ = root rootᵀ, and the log-likelihood."""

    delta: np.ndarray
    root: np.ndarray
    log_likelihood: float

    def points(self):
        """ndarray of shape (d + 1, d): points whose mean is δ̂ and whose covariance is S⁻¹."""
        d = len(self.delta)
        return self.delta + np.sqrt(d + 1.0) * helmert(d + 1).T @ self.root.T


def least_squares(v, V, F):
    """δ given the whole record.

    Parameters
    ----------
    v : ndarray of shape (T,)
        Innovations of the filter that starts at δ = 0; NaN where missing.
    V : ndarray of shape (T, d)
    F : ndarray of shape (T,)

    Returns
    -------
    KnownStart or None
        None where not even the whole record tells the directions apart.
    """
    seen = np.isfinite(v)
    v, V, F = v[seen], V[seen], F[seen]
    if len(v) < V.shape[1] or not (F > 0.0).all() or not np.isfinite(V).all():
        return None
    weight = 1.0 / np.sqrt(F)
    size = np.linalg.norm(V * weight[:, np.newaxis], axis=0)
    if not size.min() > 0.0:
        return None
    W, z = V * weight[:, np.newaxis] / size, v * weight
    # large rows first: reflections keep the digits of the small ones then
    order = np.argsort(-np.abs(W).max(axis=1), kind="stable")
    Q, R, place = qr(W[order], mode="economic", pivoting=True)
    pivots = np.abs(np.diag(R))
    if pivots.min() < _KNOWN * pivots.max():
        return None
    d = len(size)
    delta, root = np.empty(d), np.empty((d, d))
    delta[place] = solve_triangular(R, -Q.T @ z[order])
    root[place] = solve_triangular(R, np.eye(d))
    rest = z + W @ delta
    value = -0.5 * (
        len(v) * np.log(2.0 * np.pi) + np.log(F).sum() + 2.0 * np.log(pivots).sum() + 2.0 * np.log(size).sum()
        + rest @ rest
    )  # fmt: skip
    return KnownStart(delta / size, root / size[:, np.newaxis], float(value))


def mix_moments(first, observation, filtered, columns):
    """Filtered moments and innovations from those of known starts, with δ from the samples so far.

    Parameters
    ----------
    first : int
        The first sample of which they are wanted, if those before tell the directions apart.
    observation : ndarray of shape (1 or T, n)
    filtered : FilterResult
        That of the start δ = 0.
    columns : list of FilterResult
        Of the starts D e_j with y = 0.

    Yields
    ------
    t : int
    moments : tuple
        Filtered mean and covariance, innovation and its variance.
    """
    d = len(columns)
    V, A = np.array([c.innovation for c in columns]).T, np.array([c.mean for c in columns])
    v, F = filtered.innovation, filtered.innovation_variance
    root = 1.0 / np.sqrt(F)
    seen = np.isfinite(v)
    # nothing moves where nothing was seen
    V[~seen] = -(A * observation).sum(axis=2).T[~seen]
    table, rows = np.zeros((d, d + 1)), np.column_stack([V, -v]) * root[:, np.newaxis]
    started = False
    for t in range(len(v)):
        if t >= first and not started and seen[:t].sum() >= d:
            table = np.linalg.qr(rows[:t][seen[:t]], mode="r")[:d]
            size = np.linalg.norm(table[:, :d], axis=0)
            started = bool((np.abs(np.diag(table)) > _VISIBLE * size).all())
        if started:
            ahead = solve_triangular(table[:, :d], table[:, d])
            along = solve_triangular(table[:, :d], V[t], trans="T")
            innovation, variance = v[t] + V[t] @ ahead, F[t] + along @ along
            if seen[t]:
                table = np.linalg.qr(np.vstack([table, rows[t]]), mode="r")[:d]
            delta = solve_triangular(table[:, :d], table[:, d])
            spread = solve_triangular(table[:, :d], A[:, t], trans="T")
            covariance = filtered.covariance[t] + spread.T @ spread
            yield t, (filtered.mean[t] + delta @ A[:, t], covariance, innovation, variance)
