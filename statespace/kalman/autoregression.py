"""Vector autoregressions, seen with or without noise.

Above: user code. Below: `structured`.
"""

import numpy as np

from statespace.kalman.structured import Structured, check_structure, companion, least_squares, stabilised


def vector_autoregression(order, *, trend="c", measurement_noise=False, start="stationary", form="covariance"):
    """A vector autoregression, seen with or without noise, as a `LinearGaussianModel` that ``fit(y)`` learns.

        y_t = x_t + ε_t,   x_t = c + Φ₁ x_{t−1} + … + Φ_p x_{t−p} + w_t,   w_t ~ N(0, Q).

    Parameters
    ----------
    order : int
    trend : {"c", None}, default="c"
        Whether the process has an intercept.
    measurement_noise : bool, default=False
        Whether each series is seen with noise of its own.
    start : {"stationary", "diffuse"}, default="stationary"
        "stationary" counts all observations and keeps the process stable; "diffuse" also takes unit roots.
    form : {"covariance", "square_root"}, default="covariance"

    Returns
    -------
    VectorAutoregression

    Raises
    ------
    ValueError
        For orders that are none; in `fit`, for a series without any observation.

    References
    ----------
    Lütkepohl (2005), "New Introduction to Multiple Time Series Analysis", chapters 3 and 18.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import vector_autoregression
    >>> y = np.random.default_rng(0).normal(size=(100, 2))
    >>> vector_autoregression(1).fit(y).coefficients_.shape
    (1, 2, 2)
    """
    return VectorAutoregression(order, trend=trend, measurement_noise=measurement_noise, start=start, form=form)


class VectorAutoregression(Structured):
    """What `vector_autoregression` returns: y_t = x_t + ε_t, x_t = c + Φ₁x_{t−1} + … + Φ_p x_{t−p} + w_t.

    Parameters
    ----------
    order, trend, measurement_noise, start, form
        See `vector_autoregression`.

    Attributes
    ----------
    coefficients_ : ndarray of shape (order, k, k)
        Φ₁ … Φ_p.
    intercept_ : ndarray of shape (k,)
        c.
    covariance_ : ndarray of shape (k, k)
        Of w.
    params_, log_likelihood_, history_, converged_, n_observed_, n_estimated_, aic_, aicc_, bic_, hqic_
        As in `LinearGaussianModel`.

    References
    ----------
    Lütkepohl (2005), "New Introduction to Multiple Time Series Analysis", chapters 3 and 18.

    Examples
    --------
    >>> from statespace.kalman import vector_autoregression
    >>> model = vector_autoregression(1, trend=None).with_params([[[0.5, 0.0], [0.1, 0.4]]], [[1.0, 0.0], [0.0, 1.0]])
    >>> round(model.log_likelihood([[1.0, 0.0], [0.5, 0.5]]), 6)
    -4.371139
    """

    def __init__(self, order, *, trend="c", measurement_noise=False, start="stationary", form="covariance"):
        check_structure(order, start, form)
        if trend not in (None, "c"):
            raise ValueError(f"trend must be None or 'c'. Got {trend!r}.")
        self.order, self.trend, self.measurement_noise, self.start, self.form = (
            order,
            trend,
            measurement_noise,
            start,
            form,
        )

    def with_params(self, coefficients, covariance, *, intercept=None, noise_variance=None):
        """The same model at given parameters.

        Parameters
        ----------
        coefficients : array_like of shape (order, k, k)
        covariance : array_like of shape (k, k)
        intercept : array_like of shape (k,), optional
        noise_variance : array_like of shape (k,), optional

        Returns
        -------
        VectorAutoregression
        """
        coefficients = np.asarray(coefficients, dtype=float)
        if coefficients.ndim != 3 or len(coefficients) != self.order or coefficients.shape[1] != coefficients.shape[2]:
            raise ValueError(f"coefficients must have shape ({self.order}, k, k). Got {coefficients.shape}.")
        k = coefficients.shape[1]
        result = VectorAutoregression(
            self.order, trend=self.trend, measurement_noise=self.measurement_noise, start=self.start, form=self.form
        )
        noise = np.zeros(k) if noise_variance is None else np.asarray(noise_variance, dtype=float)
        result._build(
            result._arguments(coefficients, np.zeros(k) if intercept is None else intercept, covariance, noise)
        )
        return result

    def _settings(self):
        names = ("order", "trend", "measurement_noise", "start", "form")
        return {name: getattr(self, name) for name in names}

    def _arguments(self, coefficients, intercept, covariance, noise):
        k = len(covariance)
        n = k * self.order
        return {
            "transition": companion(coefficients), "observation": np.eye(k, n), "process_noise": covariance,
            "observation_noise": np.diag(noise), "selection": np.eye(n, k), "initial_covariance": self.start,
            "state_intercept": np.append(intercept, np.zeros(n - k)),
        }  # fmt: skip

    def _start(self, records):
        k = records[0].shape[1]
        coefficients, intercept, covariance = least_squares(records, self.order, k, self.trend is not None)
        if self.start == "stationary":
            coefficients = stabilised(coefficients)
        noise = 0.1 * np.diag(covariance) if self.measurement_noise else np.zeros(k)
        return self._arguments(coefficients, intercept, covariance - np.diag(0.5 * noise), noise)

    def _free(self):
        n, k = self.system_.n_states, self.system_.n_outputs
        top = np.arange(n) < k
        free: dict = {"transition": np.repeat(top[:, np.newaxis], n, axis=1), "process_noise": True}
        if self.trend is not None:
            free["state_intercept"] = top
        if self.measurement_noise:
            free["observation_noise"] = "diagonal"
        return free

    def _unscaled(self, system, centre, spread):
        k = len(spread)
        scale = np.tile(spread, self.order)
        A = system.transition * (scale[:, np.newaxis] / scale)
        c = system.state_intercept[0] * scale
        if self.trend is not None:
            c[:k] += centre - A[0, :k] @ np.tile(centre, self.order)
        return system._replace(
            transition=A, state_intercept=c[np.newaxis],
            process_noise=system.process_noise * np.outer(spread, spread),
            observation_noise=system.observation_noise * np.outer(spread, spread),
        )  # fmt: skip

    @property
    def coefficients_(self):
        """ndarray of shape (order, k, k): Φ₁ … Φ_p."""
        k = self.system_.n_outputs
        return self.system_.transition[0, :k].reshape(k, self.order, k).transpose(1, 0, 2)

    @property
    def intercept_(self):
        """ndarray of shape (k,): c."""
        return self.system_.state_intercept[0, : self.system_.n_outputs]

    @property
    def covariance_(self):
        """ndarray of shape (k, k): that of the innovations w."""
        return self.system_.process_noise[0]
