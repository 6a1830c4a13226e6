"""Models whose matrices follow from the data's number of series: what autoregressions and factors share.

Above: `autoregression`, `factors`. Below: `model`, whose ``fit`` learns the entries that are free.
"""

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from statespace.forms import as_floats
from statespace.kalman.estimation import Objective
from statespace.kalman.free import Parameters, check_free
from statespace.kalman.maximum_likelihood import standard_errors as observed_errors
from statespace.kalman.model import LinearGaussianModel

_STARTS = ("stationary", "diffuse")
# The largest modulus of an eigenvalue at the start of a search that must stay stable.
_STABLE = 0.98


class Structured(LinearGaussianModel):
    """A model whose matrices are built when the number of series is known: in ``fit(y)``, or from given parameters."""

    def _observations(self, y):
        if "system_" not in self.__dict__:
            name = type(self).__name__
            raise NotFittedError(f"this {name} has no parameters yet: call fit(y), or with_params(…) for given ones.")
        return super()._observations(y)

    def fit(self, y, u=None, *, method="ml", max_iter=None, tolerance=None, standard_errors=True):
        """Maximum likelihood of all parameters.

        Parameters
        ----------
        y : array_like of shape (T, p), or list of those
            NaN where missing. Series may have any units: they are standardised for the search.
        u : None
            These models have no inputs.
        method : {"ml", "em"}, default="ml"
            As in `LinearGaussianModel`; "em" only with a diffuse start.
        max_iter, tolerance, standard_errors
            As in `LinearGaussianModel`.

        Returns
        -------
        self
        """
        records = [_table(record) for record in (y if isinstance(y, list | tuple) and np.ndim(y[0]) == 2 else [y])]
        p = records[0].shape[1]
        if any(record.shape[1] != p for record in records):
            raise ValueError(f"all records must have the same series: {p} in the first, another number later.")
        stacked = np.concatenate(records)
        if not np.isfinite(stacked).any(axis=0).all():
            empty = int(np.flatnonzero(~np.isfinite(stacked).any(axis=0))[0])
            raise ValueError(f"series {empty} of y has no observation.")
        centre, spread = np.nanmean(stacked, axis=0), np.nanstd(stacked, axis=0)
        centre = centre if self.trend is not None else np.zeros(p)
        spread = np.where(spread > 0.0, spread, 1.0)
        scaled = [(record - centre) / spread for record in records]
        self._build(self._start(scaled))
        super().fit(
            scaled, u, method=method, free=self._free(), max_iter=max_iter, tolerance=tolerance, standard_errors=False
        )
        self._take(self._unscaled(self.system_, centre, spread))
        value = sum(self.log_likelihood(record) for record in records)
        self.history_ = self.history_ + (value - self.log_likelihood_)
        self.log_likelihood_ = value
        free = check_free(self._free(), self.system_, self._varying, self._stationary)
        parameters = Parameters(free, self.system_)
        deviations = np.nan
        if standard_errors:
            given = [(record, None, self.system_.part(len(record))) for record in records]
            objective = Objective(parameters, given, self._settle)
            deviations = observed_errors(objective.gradient, parameters.start, parameters.natural)
        self.params_ = pd.DataFrame(
            {"estimate": parameters.natural(parameters.start), "standard_error": deviations}, index=parameters.names
        )
        self._count(records)
        return self

    def _build(self, arguments):
        """Become the model of these arguments."""
        LinearGaussianModel.__init__(self, **arguments, form=self.form)


def _table(y):
    if isinstance(y, pd.DataFrame | pd.Series):
        y = y.to_numpy(dtype=float, na_value=np.nan)
    y = as_floats(y, "y")
    y = y[:, np.newaxis] if y.ndim == 1 else y
    if y.ndim != 2 or len(y) == 0 or np.isinf(y).any():
        raise ValueError(f"y must have shape (n_times, n_series) and be finite or NaN. Got shape {y.shape}.")
    return y


def companion(coefficients):
    """The transition of (x_t, …, x_{t−p+1}) for coefficients (p, k, k)."""
    order, k, _ = coefficients.shape
    A = np.eye(order * k, k=-k)
    A[:k] = np.concatenate(list(coefficients), axis=1)
    return A


def least_squares(records, order, k, intercept):
    """Coefficients (order, k, k) and the covariance of the residuals by least squares on the complete stretches."""
    rows, targets = [], []
    for y in records:
        lagged = [y[order - lag : len(y) - lag] for lag in range(1, order + 1)]
        rows.append(
            np.column_stack([*lagged, np.ones(max(len(y) - order, 0))])
            if len(y) > order
            else np.zeros((0, order * k + 1))
        )
        targets.append(y[order:])
    X, Y = np.concatenate(rows), np.concatenate(targets)
    complete = np.isfinite(X).all(axis=1) & np.isfinite(Y).all(axis=1)
    X, Y = X[complete], Y[complete]
    X = X if intercept else X[:, :-1]
    if len(X) <= X.shape[1] + k:
        return np.zeros((order, k, k)), np.zeros(k), np.eye(k)
    weights = np.linalg.lstsq(X, Y, rcond=1e-10)[0]
    rest = Y - X @ weights
    coefficients = weights[: order * k].T.reshape(k, order, k).transpose(1, 0, 2)
    return coefficients, weights[-1] if intercept else np.zeros(k), rest.T @ rest / len(rest) + 1e-8 * np.eye(k)


def stabilised(coefficients):
    """Coefficients with all eigenvalues drawn inside the unit circle."""
    largest = np.abs(np.linalg.eigvals(companion(coefficients))).max()
    shrink = min(1.0, _STABLE / max(largest, 1e-300))
    return coefficients * shrink ** np.arange(1, len(coefficients) + 1)[:, np.newaxis, np.newaxis]


def check_structure(order, start, form):
    if not isinstance(order, int | np.integer) or order < 1:
        raise ValueError(f"order must be an integer, at least 1. Got {order!r}.")
    if start not in _STARTS:
        raise ValueError(f"start must be one of {_STARTS}. Got {start!r}.")
    if form not in ("covariance", "square_root"):
        raise ValueError(f"form must be 'covariance' or 'square_root'. Got {form!r}.")
