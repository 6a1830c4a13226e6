"""The likelihood of one record of a seasonal ARIMA model in unbounded parameters, with its exact gradient.

Above: `seasonal_arima`. Below: `innovations` for a complete record, `statespace.kernels.kalman_filter` for any other.
"""

from math import log, pi

import numpy as np

from statespace.kalman.innovations import state_output_covariance, whiten
from statespace.kalman.maximum_likelihood import standard_errors
from statespace.kalman.system import stationary_covariance
from statespace.kernels.kalman_filter import Blocks, kalman_filter, kalman_gradient
from statespace.kernels.kalman_filter.blocks import N_PARAMETERS, TABLE

# A partial autocorrelation of 1 − 5e-9.
_FURTHEST = 1e4
# The variance of a stationary process over that of its innovations, beyond which the quick recursion loses digits.
_LARGEST_RATIO = 1e6
_COMPLEX_STEP = 1e-30


def partial_to_coefficients(x):
    """Coefficients φ of a stationary autoregression from unbounded x: partial autocorrelations r = x/√(1 + x²).

    Parameters
    ----------
    x : ndarray of shape (p,)
        Real or complex.

    Returns
    -------
    ndarray of shape (p,)

    References
    ----------
    Monahan (1984), "A note on enforcing stationarity in autoregressive-moving average models".

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.arima_likelihood import partial_to_coefficients
    >>> partial_to_coefficients(np.array([0.75, 0.0]))
    array([0.6, 0. ])
    """
    r = x / np.sqrt(1.0 + x * x)
    coefficients = r[:0]
    for last in r:
        coefficients = np.append(coefficients - last * coefficients[::-1], last)
    return coefficients


def coefficients_to_partial(coefficients):
    """The x that `partial_to_coefficients` maps to these coefficients; ValueError if they are not stationary.

    Parameters
    ----------
    coefficients : ndarray of shape (p,)

    Returns
    -------
    ndarray of shape (p,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.arima_likelihood import coefficients_to_partial
    >>> coefficients_to_partial(np.array([0.6, 0.0]))
    array([0.75, 0.  ])
    """
    rest, r = np.asarray(coefficients, dtype=float), []
    while len(rest):
        last = rest[-1]
        if not abs(last) < 1.0:
            raise ValueError(f"{np.asarray(coefficients).tolist()} has a root on or inside the unit circle.")
        r.append(last)
        rest = (rest[:-1] + last * rest[:-1][::-1]) / (1.0 - last * last)
    r = np.array(r[::-1])
    return r / np.sqrt(1.0 - r * r)


class ArimaLikelihood:
    """The log-likelihood of one record in θ = (unbounded partial autocorrelations, log σ); β is concentrated out.

    β maximises the likelihood at each θ (generalised least squares on the innovations of y and of each regressor), so
    that the gradient by θ is that at the best β.
    """

    def __init__(self, model, y, X):
        self.model, self.X = model, X
        m = len(model._difference) - 1
        self.y = y
        self.short = m > 0 and (model.differencing == "simple" or not np.isnan(y).any())
        if self.short or m == 0:
            self.y = self._differenced(y)
            self.X = self._differenced(X)
        self.observed = ~np.isnan(self.y[:, 0])
        self.n_counted = int(self.observed.sum()) - (0 if self.short else m)
        k = sum(model._sizes.values())
        if self.n_counted <= k + 1 + X.shape[1]:
            raise ValueError(
                f"y has too few observations for {k + 1 + X.shape[1]} parameters and {m} differences. Got "
                f"{int((~np.isnan(y)).sum())}."
            )
        self.constant = 0.0 if self.short else model._constant
        differenced = self._differenced(y)
        # where no difference is observed, or all are alike, y itself tells the size
        enough = np.isfinite(differenced).sum() > 1 and np.nanstd(differenced) > 0.0
        spread = np.nanstd(differenced if enough else y)
        if not spread > 0.0:
            raise ValueError("y is constant: no variance can be estimated.")
        self._log_scale = np.log(spread)
        self.bounds = np.array([[-_FURTHEST, _FURTHEST]] * k + [[self._log_scale - 20.0, self._log_scale + 20.0]])
        # the information of a sample: 1 on a partial autocorrelation near 0, 2 on log σ
        self.curvature = np.append(np.ones(k), 2.0) * self.n_counted
        slots, first = {}, 0
        for name, size in model._sizes.items():
            slots[name], first = slice(first, first + size), first + size
        self._slots = slots
        self._complete = bool(self.observed.all()) and (self.short or m == 0)
        self._lay_out(0 if self.short else m)

    def _lay_out(self, m):
        """What stays the same whatever the parameters are; m values of y in the state."""
        model = self.model
        whole = model._whole(*model._lags(**self.coefficients(np.zeros(len(self.bounds)))), 1.0, np.zeros(0))
        self._r = whole.stationary
        n = self._r + m
        self._transition = whole.transition[0, :n, :n]
        self._observation = whole.observation[0, 0, :n]
        self._diffuse = whole.initial_diffuse[:n, :m]
        self._gaps = np.zeros(len(self.y))
        self._index = np.zeros(len(self.y), dtype=np.int64)
        self._index[0] = -1
        self._shape = np.array([TABLE]), np.array([n]), np.zeros((1, N_PARAMETERS))
        autoregressive = model._sizes["ar"] + model._sizes["seasonal_ar"] > 0
        self._moving = np.full((1, N_PARAMETERS), autoregressive)

    def _differenced(self, array):
        weights = self.model._difference
        m = len(weights) - 1
        return sum(w * array[m - lag : len(array) - lag] for lag, w in enumerate(weights))

    def coefficients(self, theta):
        """φ, θ, Φ, Θ by name."""
        result = {}
        for name, slot in self._slots.items():
            coefficients = partial_to_coefficients(theta[slot])
            result[name] = coefficients if name.endswith("ar") else -coefficients
        return result

    def variance(self, theta):
        return float(np.exp(2.0 * theta[-1]))

    def natural(self, theta):
        return np.concatenate([*self.coefficients(theta).values(), [np.exp(2.0 * theta[-1])]])

    def arguments(self, theta, values):
        """What the kernel's functions take; ``values`` (T,). Called often, so it leaves out the way by `Sequence`."""
        phi, load = self._process(**self.coefficients(theta))
        A = self._transition.copy()
        A[: self._r, 0] = phi
        Q, P = np.zeros(A.shape), np.zeros(A.shape)
        r = self._r
        Q[:r, :r] = self.variance(theta) * (load[:, np.newaxis] * load)
        P[:r, :r] = stationary_covariance(A[:r, :r], Q[:r, :r])
        blocks = Blocks(*self._shape, A.reshape(1, -1), Q.reshape(1, -1), self._index)
        return (values, self._gaps, blocks, self._observation, 0.0, np.zeros(len(A)), P, self._diffuse), load

    def _process(self, **coefficients):
        """φ, θ (r,) of the products, θ from lag 0 on."""
        lags, moving = self.model._lags(**coefficients)
        phi, load = np.zeros((2, self._r), dtype=np.result_type(lags, moving))
        phi[: len(lags)] = lags
        load[0], load[1 : len(moving) + 1] = 1.0, moving
        return phi, load

    def _quick(self, theta):
        """φ and c for the recursion without covariances, or None where it does not apply or would lose digits."""
        if not self._complete:
            return None
        phi, load = self._process(**self.coefficients(theta))
        c = state_output_covariance(phi, load)
        return (phi, c) if 0.0 < c[0] < _LARGEST_RATIO else None

    def _whitened(self, theta, columns):
        """Standardised innovations of columns (T, k), without those that resolve the diffuse start, and Σ log F."""
        quick = self._quick(theta)
        if quick is not None:
            white, totals, _ = whiten(columns.T, *quick)
            return white.T / np.exp(theta[-1]), totals[0] + 2.0 * len(columns) * theta[-1]
        result = []
        for column in columns.T:
            found = kalman_filter(*self.arguments(theta, np.where(self.observed, column, np.nan))[0])
            kept = self.observed & np.isfinite(found.innovation_variance)
            result.append(found.innovation[kept] / np.sqrt(found.innovation_variance[kept]))
        return np.column_stack(result), np.log(found.innovation_variance[kept]).sum()

    def regression(self, theta):
        """β and its standard errors at θ."""
        k = self.X.shape[1]
        if k == 0:
            return np.zeros(0), np.zeros(0)
        white, _ = self._whitened(theta, np.column_stack([self.y, self.X]))
        size = np.linalg.norm(white[:, 1:], axis=0)
        size = np.where(size > 0.0, size, 1.0)
        beta, _, rank, _ = np.linalg.lstsq(white[:, 1:] / size, white[:, 0], rcond=1e-10)
        if rank < k:
            raise np.linalg.LinAlgError("the regressors (with the trend) are collinear once differenced.")
        errors = np.sqrt(np.diag(np.linalg.inv((white[:, 1:] / size).T @ (white[:, 1:] / size)))) / size
        return beta / size, errors

    def start(self):
        """Partial autocorrelations chosen one by one from a few, and the variance that fits them."""
        self.regression(np.append(np.zeros(len(self.bounds) - 1), self._log_scale))
        theta = np.append(np.zeros(len(self.bounds) - 1), self._log_scale)
        best, theta = self._concentrated(theta)
        for j in range(len(theta) - 1):
            for value in (-0.5, 0.5):
                trial = theta.copy()
                trial[j] = value
                found, trial = self._concentrated(trial)
                if found > best:
                    best, theta = found, trial
        return theta

    def _concentrated(self, theta):
        """The log-likelihood at the best variance but for a constant, and θ with that variance."""
        rest = self.y - (self.X @ self.regression(theta)[0])[:, np.newaxis]
        white, logs = self._whitened(theta, rest)
        variance = float(np.mean(white**2))
        value = -0.5 * (logs + len(white) * np.log(variance))
        return value, np.append(theta[:-1], theta[-1] + 0.5 * np.log(variance))

    def gradient(self, theta):
        """The log-likelihood and its gradient; −inf and 0 where there is none."""
        nothing = -np.inf, np.zeros(len(theta))
        try:
            with np.errstate(all="ignore"):
                values = self.y[:, 0]
                if self.X.shape[1]:
                    values = values - self.X @ self.regression(theta)[0]
                quick = self._quick(theta)
                if quick is not None:
                    return self._quick_gradient(theta, values, *quick)
                arguments, load = self.arguments(theta, values)
                value, g = kalman_gradient(*arguments, free_parameters=self._moving, by_observation=False)
                slope = self._pullback(theta, load, arguments, g)
        except (ValueError, np.linalg.LinAlgError):
            return nothing
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return nothing
        return value + self.constant, slope

    def _pullback(self, theta, load, arguments, g):
        r, variance = self._r, self.variance(theta)
        n = len(arguments[5])
        A, P = arguments[2].transition.reshape(n, n)[:r, :r], arguments[6][:r, :r]
        # P = A P Aᵀ + Q: its adjoint solves the transposed equation
        Y = stationary_covariance(A.T, g.covariance[:r, :r])
        phi_bar = g.transition.reshape(n, n)[:r, 0] + 2.0 * (Y @ (A @ P[:, 0]))
        load_bar = 2.0 * variance * ((g.process_noise.reshape(n, n)[:r, :r] + Y) @ load)
        result = np.empty(len(theta))
        result[-1] = load @ load_bar
        for j, (phi, moving) in enumerate(self._directions(theta)):
            result[j] = phi_bar @ phi.imag + load_bar @ moving.imag
        return result / np.append(np.full(len(theta) - 1, _COMPLEX_STEP), 1.0)

    def _directions(self, theta):
        """φ, θ with each parameter moved by a complex step: their imaginary parts are exact derivatives."""
        parts = self.coefficients(theta)
        for name, slot in self._slots.items():
            for j in range(slot.start, slot.stop):
                moved = theta[slot].astype(complex)
                moved[j - slot.start] += _COMPLEX_STEP * 1j
                sign = 1.0 if name.endswith("ar") else -1.0
                yield self._process(**(parts | {name: sign * partial_to_coefficients(moved)}))

    def _quick_gradient(self, theta, values, phi, c):
        moved = [(direction, state_output_covariance(direction, load)) for direction, load in self._directions(theta)]
        k, r = len(moved), self._r
        phi_dot, c_dot = (
            np.array([pair[which].imag for pair in moved]).reshape(k, r) / _COMPLEX_STEP for which in (0, 1)
        )
        _, (logs, squares), slopes = whiten(values[np.newaxis], phi, c, phi_dot, c_dot)
        T, variance = len(values), self.variance(theta)
        squares = squares / variance
        value = -0.5 * (T * (log(2.0 * pi) + 2.0 * theta[-1]) + logs + squares)
        slope = np.append(-0.5 * (slopes[0] + slopes[1] / variance), squares - T)
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return -np.inf, np.zeros(len(theta))
        return float(value), slope

    def errors(self, theta):
        return standard_errors(self.gradient, theta, self.natural)
