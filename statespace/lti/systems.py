"""LinearSystem: x' = A x + B u, y = C x + D u, on the times that samples really have.

Above: ``filters``, identification, the user. Below: ``discretization``, and the parts of the class: ``simulation``,
``composition``, ``analysis``, ``conversion``.
"""

from functools import cached_property

import numpy as np

from statespace.lti.analysis import Analysis
from statespace.lti.composition import Composition
from statespace.lti.conversion import Conversion
from statespace.lti.discretization import implicit, input_weights
from statespace.lti.modes import modes
from statespace.lti.simulation import Simulated


class LinearSystem(Simulated, Composition, Analysis, Conversion):
    """A linear time-invariant system with any number of inputs and outputs.

        x'(t) = A x(t) + B u(t),    y(t) = C x(t) + D u(t),

    or, with ``dt``, x_{k+1} = A x_k + B u_k and y_k = C x_k + D u_k at the times k dt.

    Systems compose: ``G2 * G1`` (or ``G2 @ G1``) sends u through G1 first, as transfer matrices multiply; ``G1 + G2``
    and ``G1 - G2`` are parallel, ``G1.feedback(G2)`` closes a loop, ``G[outputs, inputs]`` takes a part. A number or a
    matrix in place of a system is a gain without memory.

    Parameters
    ----------
    A : array-like of shape (n_states, n_states)
    B : array-like of shape (n_states, n_inputs) or (n_states,)
    C : array-like of shape (n_outputs, n_states) or (n_states,)
    D : array-like of shape (n_outputs, n_inputs), optional
        None is zero.
    dt : float, optional
        The time between two samples of a system in discrete time. None: continuous time.

    Attributes
    ----------
    A, B, C, D : ndarray, read-only
    dt : float or None
    n_states, n_inputs, n_outputs : int
    poles, zeros : ndarray
        Eigenvalues of A; transmission zeros.
    gain : ndarray
        The answer to a constant input of 1.
    is_stable : bool

    Raises
    ------
    ValueError
        Shapes that do not fit, complex numbers, NaN or infinity, or a dt that is not positive.

    Notes
    -----
    Frequencies are in cycles per unit of time, everywhere. Of systems with one input and one output, responses come
    without the axes of outputs and inputs.

    Examples
    --------
    A mass on a spring, pushed at times of no grid:

    >>> import numpy as np
    >>> from statespace.lti import LinearSystem
    >>> spring = LinearSystem([[0.0, 1.0], [-1.0, -0.2]], [0.0, 1.0], [1.0, 0.0])
    >>> spring.poles
    array([-0.1+0.99498744j, -0.1-0.99498744j])
    >>> spring.simulate([1.0, 1.0, 0.0], times=[0.0, 0.5, 40.0]).output.round(4)
    array([0.    , 0.1185, 1.0077])
    >>> spring.feedback(2.0).gain  # 1 / (1 + 2)
    array(0.33333333)
    """

    # NumPy leaves ``matrix * system`` to the system.
    __array_ufunc__ = None

    def __init__(self, A, B, C, D=None, dt=None):
        A = _matrix(A, "A")
        B = _matrix(B, "B", column=True)
        C = _matrix(C, "C")
        D = np.zeros((len(C), B.shape[1])) if D is None else _matrix(D, "D")
        n = len(A)
        if A.shape != (n, n):
            raise ValueError(f"A must be square, (n_states, n_states). Got shape {A.shape}.")
        if len(B) != n:
            raise ValueError(f"B must have a row for each of the {n} states. Got shape {B.shape}.")
        if C.shape[1] != n:
            raise ValueError(f"C must have a column for each of the {n} states. Got shape {C.shape}.")
        if D.shape != (len(C), B.shape[1]):
            raise ValueError(
                f"D must have shape (n_outputs, n_inputs), {(len(C), B.shape[1])} by C and B. Got {D.shape}."
            )
        if dt is not None and (isinstance(dt, bool) or not 0.0 < dt < np.inf):
            raise ValueError(f"dt must be the positive time between two samples, or None. Got {dt!r}.")
        self.A, self.B, self.C, self.D = A, B, C, D
        self.dt = None if dt is None else float(dt)

    n_states = property(lambda self: len(self.A), doc="The number of states.")
    n_inputs = property(lambda self: self.B.shape[1], doc="The number of inputs.")
    n_outputs = property(lambda self: len(self.C), doc="The number of outputs.")

    def __repr__(self):
        def count(number, word):
            return f"{number} {word}" + "s" * (number != 1)

        clock = "" if self.dt is None else f", dt={self.dt:g}"
        return (
            f"LinearSystem({count(self.n_states, 'state')}, {count(self.n_inputs, 'input')}, "
            f"{count(self.n_outputs, 'output')}{clock})"
        )

    @cached_property
    def _modes(self):
        return modes(self.A)

    def _siso(self, array):
        """Without the two last axes where there is one output and one input."""
        return array[..., 0, 0] if self.D.shape == (1, 1) else array

    def discretize(self, dt, method="zoh", prewarp=None):
        """The system in discrete time.

        Parameters
        ----------
        dt : float or array-like of shape (n_gaps,)
            One gap for a system on a grid, or the gaps of a record.
        method : {"zoh", "foh", "bilinear", "impulse", "euler", "backward_euler"}, default="zoh"
            What the input does between samples: "zoh" holds it, "foh" draws a line, both exactly; "impulse" makes the
            impulse response that of continuous time, times dt. "bilinear" (Tustin) and the Euler rules approximate.
        prewarp : float, optional
            For "bilinear": the frequency, in cycles per unit of time, at which the response is exact.

        Returns
        -------
        LinearSystem or Steps
            A system with ``dt`` for one gap (the matrices of ``scipy.signal.cont2discrete``). For an array of gaps the
            `Steps` A (n_gaps, n_states, n_states), B0 and B1 (n_gaps, n_states, n_inputs) of

                x_k = A_k x_{k−1} + B0_k u_{k−1} + B1_k u_k,    y_k = C x_k + D u_k,

            whose x is the state in continuous time.

        Raises
        ------
        ValueError
            A gap that is negative or not finite, an unknown method, a system that is in discrete time already, or
            "impulse" with a D that is not zero.

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.lti import LinearSystem
        >>> low_pass = LinearSystem(-1.0, 1.0, 1.0)
        >>> low_pass.discretize(np.log(2.0)).A
        array([[0.5]])
        >>> low_pass.discretize([0.1, 30.0], method="foh").B1.shape
        (2, 1, 1)
        """
        self._continuous("discretize")
        if method == "impulse" and self.D.any():
            raise ValueError("method='impulse' needs D = 0: D passes an impulse on, which no sample can show.")
        steps = input_weights(self.A, self.B, dt, method=method, prewarp=prewarp)
        if np.ndim(dt):
            return steps
        if not dt > 0.0:
            raise ValueError(f"dt must be positive for a system on a grid. Got {dt}.")
        A, C, D = steps.A, self.C, self.D
        if method in ("bilinear", "backward_euler"):
            alpha = 0.5 if method == "bilinear" else 1.0
            warped = dt if prewarp is None else np.tan(np.pi * prewarp * dt) / (np.pi * prewarp)
            P = implicit(self.A, np.full((1, 1), warped), alpha)
            B, C, D = P @ self.B * warped, C @ P, D + alpha * warped * (C @ P @ self.B)
        else:
            # With ξ_k = x_k − B1 u_k the input at the end of a gap enters through B and D.
            B, D = steps.B0 + A @ steps.B1, D + C @ steps.B1
        return LinearSystem(A, B, C, D, dt=dt)

    def _continuous(self, verb):
        if self.dt is not None:
            raise ValueError(f"{verb} needs a system in continuous time, and this one has dt={self.dt:g}.")


def _matrix(values, name, column=False):
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        kind = "complex numbers" if array.dtype.kind == "c" else f"{array.dtype}"
        raise ValueError(f"{name} must hold real numbers. Got {kind}.")
    array = array.astype(np.float64)
    if array.ndim < 2:
        array = array.reshape(-1, 1) if column else array.reshape(1, -1)
    if array.ndim != 2:
        raise ValueError(f"{name} must have two dimensions. Got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite.")
    array.setflags(write=False)
    return array
