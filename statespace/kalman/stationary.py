"""Stationary Gaussian processes in Markov form: Ornstein–Uhlenbeck and Matérn, with scikit-learn's parameters."""

from typing import ClassVar

import numpy as np

from statespace.kalman.base import Initial
from statespace.kalman.closed import ClosedForm, closed_blocks
from statespace.kernels.kalman_filter.blocks import MATERN32, MATERN52, OU

_ORDERS = {0.5: (OU, 1), 1.5: (MATERN32, 2), 2.5: (MATERN52, 3)}


class Matern(ClosedForm):
    """The Gaussian process with a Matérn kernel, as the state-space model that it is (Hartikainen & Särkkä 2010).

    With λ = √(2ν) / ``length_scale`` and ``r = |t − t'|`` the kernel is, as ``variance *
    sklearn.gaussian_process.kernels.Matern``,

        ν = 1/2: σ² exp(−λr)    ν = 3/2: σ² (1 + λr) exp(−λr)    ν = 5/2: σ² (1 + λr + λ²r²/3) exp(−λr).

    The state is f with its first ν − 1/2 derivatives and starts from the stationary distribution.

    Parameters
    ----------
    nu : {0.5, 1.5, 2.5}, default=1.5
        The paths have ν − 1/2 derivatives.
    length_scale : float, optional
        In units of time. None takes a start value from the data, 1.0 where there are none.
    variance : float, optional
        The marginal variance σ², in squared units of y.
    length_scale_bounds, variance_bounds : pair of float, "fixed" or None, default=None
        None stands for wide bounds in the data's units.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import Matern
    >>> process = Matern(nu=1.5, length_scale=2.0, variance=3.0)
    >>> A, P = process.transition(0.7), process.initial().covariance
    >>> bool(np.isclose((A @ P)[0, 0], 3.0 * (1 + 0.7 * np.sqrt(3) / 2) * np.exp(-0.7 * np.sqrt(3) / 2)))
    True
    """

    units: ClassVar = {"length_scale": (0, 1), "variance": (2, 0)}

    def __init__(self, nu=1.5, length_scale=None, variance=None, length_scale_bounds=None, variance_bounds=None):
        self.nu = nu
        self.length_scale = length_scale
        self.variance = variance
        self.length_scale_bounds = length_scale_bounds
        self.variance_bounds = variance_bounds

    def _form(self):
        if self.nu not in _ORDERS:
            raise ValueError(f"nu of Matern must be 0.5, 1.5 or 2.5: others are not built here. Got {self.nu!r}.")
        return _ORDERS[self.nu]

    def validate(self):
        """Refuse another order, and parameters that are no positive numbers."""
        self._form()
        super().validate()

    def _rate(self):
        return np.sqrt(2 * self.nu) / self.value("length_scale")

    def blocks(self, gaps=None):
        """The kernel's description of A and Q."""
        kind, size = self._form()
        return closed_blocks(kind, size, [[self._rate(), self.value("variance"), 0.0]])

    def derivatives(self):
        """The derivatives of λ, σ² and the stationary covariance by the parameters' logarithms."""
        rate, variance, covariance = self._rate(), self.value("variance"), self.initial().covariance
        # Entry (i, j) of the covariance is proportional to λ^(i + j), and λ to 1 / length_scale.
        power = np.add.outer(np.arange(len(covariance)), np.arange(len(covariance)))
        return {
            "length_scale": (np.array([[-rate, 0.0, 0.0]]), -power * covariance),
            "variance": (np.array([[0.0, variance, 0.0]]), covariance),
        }

    def observation(self):
        """The row H = (1, 0, …)."""
        return np.eye(self._form()[1])[0]

    def initial(self):
        """Stationary."""
        n, rate, variance = self._form()[1], self._rate(), float(self.value("variance"))
        covariance = variance * np.eye(n)
        if n == 2:
            covariance[1, 1] = variance * rate**2
        elif n == 3:
            covariance[1, 1] = variance * rate**2 / 3
            covariance[0, 2] = covariance[2, 0] = -variance * rate**2 / 3
            covariance[2, 2] = variance * rate**4
        return Initial(np.zeros(n), covariance, np.zeros((n, 0)))


class OrnsteinUhlenbeck(ClosedForm):
    """The process that returns to zero exponentially, df = −f / ``length_scale`` dt + dw.

    Its kernel is ``σ² exp(−|t − t'| / length_scale)``. It starts from its stationary distribution,
    N(0, σ²) (Uhlenbeck & Ornstein 1930).

    Parameters
    ----------
    length_scale : float, optional
        In units of time. None takes a start value from the data, 1.0 where there are none.
    variance : float, optional
        The marginal variance σ², in squared units of y.
    length_scale_bounds, variance_bounds : pair of float, "fixed" or None, default=None
        None stands for wide bounds in the data's units.

    Examples
    --------
    >>> from statespace.kalman import OrnsteinUhlenbeck
    >>> OrnsteinUhlenbeck(length_scale=2.0, variance=3.0).initial().covariance
    array([[3.]])
    """

    units: ClassVar = {"length_scale": (0, 1), "variance": (2, 0)}

    def __init__(self, length_scale=None, variance=None, length_scale_bounds=None, variance_bounds=None):
        self.length_scale = length_scale
        self.variance = variance
        self.length_scale_bounds = length_scale_bounds
        self.variance_bounds = variance_bounds

    def blocks(self, gaps=None):
        """The kernel's description of A and Q."""
        return closed_blocks(OU, 1, [[1 / self.value("length_scale"), self.value("variance"), 0.0]])

    def derivatives(self):
        """The derivatives of the rate, σ² and the stationary variance by the parameters' logarithms."""
        rate, variance = 1 / self.value("length_scale"), float(self.value("variance"))
        return {
            "length_scale": (np.array([[-rate, 0.0, 0.0]]), None),
            "variance": (np.array([[0.0, variance, 0.0]]), np.array([[variance]])),
        }

    def observation(self):
        """The row H = (1)."""
        return np.ones(1)

    def initial(self):
        """Stationary."""
        return Initial(np.zeros(1), np.array([[float(self.value("variance"))]]), np.zeros((1, 0)))
