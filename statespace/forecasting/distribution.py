"""PiecewiseNormal: the distribution between known quantiles, with skpro's interface; what ``predict_proba`` returns.

skpro is imported with this module, which is imported when a distribution is asked for.
"""

from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from skpro.distributions.base import BaseDistribution

_ROOT_PI = np.sqrt(np.pi)


class PiecewiseNormal(BaseDistribution):
    """A distribution by its quantiles, whose quantile function is linear in z = Φ⁻¹(level) between them.

        q(z) = a_i + b_i z,        z_i ≤ z ≤ z_{i+1},        Z ~ N(0, 1)

    Each piece is one of a normal distribution, and so are the tails, which go on with the outermost pieces: a normal
    distribution is met exactly. Density, moments and the parts of the CRPS are in closed form,

        E|X − Y| = 2 Σ b_i [z Φ (1 − Φ) + φ (1 − 2 Φ) + Φ(√2 z) / √π]    from z_i to z_{i+1}.

    Parameters
    ----------
    quantiles : array-like of shape (n_rows, n_columns, n_levels), or (n_levels,) for a scalar
        Not decreasing.
    levels : array-like of shape (n_levels,)
        Increasing, within (0, 1).
    index, columns : Index, optional
        Of the rows and the columns.

    Examples
    --------
    >>> from scipy.stats import norm
    >>> from statespace.forecasting.distribution import PiecewiseNormal
    >>> normal = PiecewiseNormal(3 + 2 * norm.ppf([0.1, 0.5, 0.9]), levels=[0.1, 0.5, 0.9])
    >>> round(float(normal.mean()), 6), round(float(normal.var()), 6), round(float(normal.cdf(7.0)), 6)
    (3.0, 4.0, 0.97725)
    >>> bool(abs(normal.log_pdf(2.0) - norm.logpdf(2.0, 3, 2)) < 1e-12)
    True
    """

    _tags: ClassVar = {
        "authors": "the statespace developers",
        "capabilities:exact": ["mean", "var", "energy", "pdf", "log_pdf", "cdf", "ppf"],
        "capabilities:approx": ["pdfnorm"],
        "distr:measuretype": "continuous",
        "distr:paramtype": "nonparametric",
        "broadcast_init": "off",
    }

    def __init__(self, quantiles, levels, index=None, columns=None):
        self.quantiles = quantiles
        self.levels = levels
        array = np.asarray(quantiles, dtype=np.float64)
        if array.ndim == 3:
            index = pd.RangeIndex(array.shape[0]) if index is None else index
            columns = pd.RangeIndex(array.shape[1]) if columns is None else columns
        super().__init__(index=index, columns=columns)
        z = ndtri(np.asarray(levels, dtype=np.float64))
        slopes = np.diff(array, axis=-1) / np.diff(z)
        # Outermost pieces go on for ever.
        self._edges = np.concatenate([[-np.inf], z[1:-1], [np.inf]])
        self._inner = array[..., 1:-1]
        self._b = slopes
        self._a = array[..., :-1] - slopes * z[:-1]

    def _iloc(self, rowidx=None, colidx=None):
        array = np.asarray(self.quantiles, dtype=np.float64)
        if np.ndim(rowidx) == 0 and rowidx is not None and np.ndim(colidx) == 0 and colidx is not None:
            return self._iat(rowidx, colidx)
        rows = slice(None) if rowidx is None else np.atleast_1d(rowidx)
        columns = slice(None) if colidx is None else np.atleast_1d(colidx)
        return PiecewiseNormal(array[rows][:, columns], self.levels, self.index[rows], self.columns[columns])

    def _iat(self, rowidx=None, colidx=None):
        return PiecewiseNormal(np.asarray(self.quantiles, dtype=np.float64)[rowidx, colidx], self.levels)

    def _piece(self, x):
        """The piece that x lies in, as a and b there, and the last axis' index."""
        piece = (np.asarray(x)[..., np.newaxis] >= self._inner).sum(axis=-1)[..., np.newaxis]
        a, b = (np.take_along_axis(part, piece, axis=-1)[..., 0] for part in (self._a, self._b))
        return a, b, piece[..., 0]

    def _z(self, x):
        a, b, piece = self._piece(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (x - a) / b
        # A piece of no width is a jump.
        z = np.where(b > 0, z, self._edges[piece])
        return np.clip(z, self._edges[piece], self._edges[piece + 1]), b

    def _ppf(self, p):
        z = ndtri(p)
        piece = (np.asarray(z)[..., np.newaxis] >= self._edges[1:-1]).sum(axis=-1)[..., np.newaxis]
        a, b = (np.take_along_axis(part, piece, axis=-1)[..., 0] for part in (self._a, self._b))
        return a + b * z

    def _cdf(self, x):
        return ndtr(self._z(x)[0])

    def _log_pdf(self, x):
        z, b = self._z(x)
        with np.errstate(divide="ignore"):
            return -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - np.log(b)

    def _pdf(self, x):
        return np.exp(self._log_pdf(x))

    def _moments(self, upper=None):
        """The integrals of 1, z and z² over each piece, or over the part of it below z = ``upper``."""
        low, high = self._edges[:-1], self._edges[1:]
        if upper is not None:
            high = np.clip(np.asarray(upper)[..., np.newaxis], low, high)
        density_low, density_high = _density(low), _density(high)
        zero = ndtr(high) - ndtr(low)
        square = zero - (_times(high, density_high) - _times(low, density_low))
        return zero, density_low - density_high, square

    def _mean(self):
        zero, one, _ = self._moments()
        return (self._a * zero + self._b * one).sum(axis=-1)

    def _var(self):
        zero, one, two = self._moments()
        center = self._a - self._mean()[..., np.newaxis]
        return (center**2 * zero + 2 * center * self._b * one + self._b**2 * two).sum(axis=-1)

    def _energy_self(self):
        def primitive(z):
            below = ndtr(z)
            inner = _times(z, below * ndtr(-z))
            return inner + _density(z) * (1 - 2 * below) + ndtr(np.sqrt(2) * z) / _ROOT_PI

        return 2 * (self._b * np.diff(primitive(self._edges))).sum(axis=-1)

    def _energy_x(self, x):
        z, _ = self._z(x)
        zero, one, _ = self._moments(z)
        below = (self._a * zero + self._b * one).sum(axis=-1)
        return x * (2 * ndtr(z) - 1) + self._mean() - 2 * below

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """A scalar and a table for skpro's tests."""
        levels = [0.05, 0.25, 0.5, 0.75, 0.95]
        table = np.array([[[-2.0, -1.0, 0.0, 1.0, 2.5]], [[1.0, 3.0, 3.5, 4.0, 9.0]]])
        return [
            {"quantiles": table, "levels": levels, "index": pd.Index([1, 5]), "columns": pd.Index(["a"])},
            {"quantiles": table[1, 0], "levels": levels},
        ]


def _density(z):
    return np.exp(-0.5 * np.square(z)) / np.sqrt(2 * np.pi)


def _times(z, factor):
    """z · factor, where a factor of 0 wins over an infinite z."""
    return np.where(factor == 0, 0.0, np.where(np.isfinite(z), z, 0.0) * factor)
