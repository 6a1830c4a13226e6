"""Jacobians of user functions: given, by torch, by a complex step, or by central differences of sixth order."""

import numpy as np

from statespace.kalman.nonlinear.functions import LinearFunction, StateFunction

METHODS = ("auto", "torch", "complex", "differences")
# f'(0) ≈ Σ w_j (f(jh) − f(−jh)) / h: exact for polynomials to degree six.
_OFFSETS = np.array([1.0, 2.0, 3.0])
_WEIGHTS = np.array([3 / 4, -3 / 20, 1 / 60])
# Steps as a part of the state's standard deviation and of its size. A linearisation is of use only where the function
# is nearly linear over a standard deviation, so that the remainder is below 1e-12 of f and rounding near it.
_OF_DEVIATION = 1e-2
_OF_SIZE = 1e-4
_COMPLEX_STEP = 1e-100


class Jacobian:
    """∂f/∂x of shape (size, n) at one state.

    Parameters
    ----------
    function : StateFunction or LinearFunction
    given : callable or None
        The user's own.
    method : {"auto", "torch", "complex", "differences"}
    residual : callable
        The difference of two results: angles wrap.
    n : int
        The number of states.

    Notes
    -----
    A call takes a state x (n,), ``deviation``, a function that returns its standard deviations where differences need
    them, and the arguments of the function.
    """

    def __init__(self, function, given, method, residual, n):
        self.function, self.method, self.residual, self.n = function, method, residual, n
        self.given = None
        if given is not None:
            shape = None if function.shape is None else (*function.shape, n)
            self.given = StateFunction(
                given, f"{function.name}_jacobian", ("t", "dt", "u"), shape, torch=function.__dict__.get("torch")
            )

    def __call__(self, x, deviation, **arguments):
        function = self.function
        if isinstance(function, LinearFunction):
            return function.matrix
        if self.given is not None:
            if self.given.shape is None:
                self.given.shape = (*self._shape(x, arguments), self.n)
            return self.given(x, **arguments)
        if self.method == "torch" or (self.method == "auto" and self._is_torch(x, arguments)):
            function.torch = True
            return function.jacobian_torch(x, arguments)
        if self.method == "complex":
            return self._complex(x, arguments)
        return self.differences(x, deviation, arguments)

    def _shape(self, x, arguments):
        if self.function.shape is None:
            self.function(x, **arguments)
        return self.function.shape

    def _is_torch(self, x, arguments):
        if self.function.torch is None:
            self.function(x, **arguments)
        return self.function.torch

    def _complex(self, x, arguments):
        """Im f(x + ih e_j) / h: exact to rounding for functions that are analytic in NumPy's complex numbers."""
        points = x + 1j * _COMPLEX_STEP * np.eye(self.n)
        try:
            values = self.function(points, **arguments)
        except TypeError as error:
            raise ValueError(
                f"{self.function.name} does not take complex states ({error}). Use jacobian='differences' or 'auto', "
                "or give its Jacobian."
            ) from None
        if not np.iscomplexobj(values):
            raise ValueError(
                f"{self.function.name} drops the imaginary part of complex states, so its derivative would be zero. "
                "Use jacobian='differences' or 'auto', or give its Jacobian."
            )
        return np.ascontiguousarray(values.imag.T) / _COMPLEX_STEP

    def differences(self, x, deviation, arguments):
        """Central differences of sixth order in one call of the function.

        Parameters
        ----------
        x : ndarray of shape (n,)
        deviation : callable
        arguments : dict

        Returns
        -------
        ndarray of shape (size, n)
        """
        step = np.maximum(_OF_DEVIATION * deviation(), _OF_SIZE * np.abs(x))
        step[step == 0.0] = _OF_SIZE
        shifts = _OFFSETS[:, None, None] * np.diag(step)
        points = np.concatenate([x + shifts, x - shifts])
        step = (points[0] - points[3]).diagonal() / 2  # as it was rounded
        values = self.function(points, **arguments)
        difference = self.residual(values[:3], values[3:])
        return np.tensordot(_WEIGHTS, difference, axes=1).T / step
