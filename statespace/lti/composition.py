"""Systems made of systems: series, parallel, feedback, parts.

Above: ``systems``. Below: NumPy.
"""

import numpy as np


class Composition:
    """The algebra of `LinearSystem`.

    Examples
    --------
    >>> from statespace.lti import LinearSystem
    >>> lag = LinearSystem(-1.0, 1.0, 1.0)
    >>> (2.0 * lag - lag * lag).gain
    array(1.)
    """

    def _like(self, A, B, C, D):
        return type(self)(A, B, C, D, dt=self.dt)

    def _operand(self, other, shape):
        """``other`` as a system; a number is that gain on every channel."""
        if not isinstance(other, Composition):
            gain = np.asarray(other)
            if gain.dtype.kind not in "fiu" or gain.ndim not in (0, 2):
                return None
            gain = gain * np.eye(*shape) if gain.ndim == 0 else gain
            other = self._like(np.zeros((0, 0)), np.zeros((0, gain.shape[1])), np.zeros((len(gain), 0)), gain)
        if other.dt != self.dt:
            raise ValueError(
                f"Both systems must have the same dt. Got {self.dt} and {other.dt}; discretize(dt) brings a system in "
                "continuous time onto a grid."
            )
        return other

    def __matmul__(self, other):
        """Series: u passes ``other`` first, y = self(other(u))."""
        first = self._operand(other, (self.n_inputs, self.n_inputs))
        if first is None:
            return NotImplemented
        if first.n_outputs != self.n_inputs:
            raise ValueError(
                f"G2 * G1 needs as many inputs of G2 as outputs of G1. Got {self.n_inputs} and {first.n_outputs}."
            )
        A = np.block(
            [[first.A, np.zeros((first.n_states, self.n_states))], [self.B @ first.C, self.A]],
        )
        B = np.concatenate([first.B, self.B @ first.D])
        C = np.concatenate([self.D @ first.C, self.C], axis=1)
        return self._like(A, B, C, self.D @ first.D)

    __mul__ = __matmul__

    def __rmatmul__(self, gain):
        last = self._operand(gain, (self.n_outputs, self.n_outputs))
        return NotImplemented if last is None else last @ self

    __rmul__ = __rmatmul__

    def __add__(self, other):
        """Parallel: y = self(u) + other(u)."""
        other = self._operand(other, self.D.shape)
        if other is None:
            return NotImplemented
        if other.D.shape != self.D.shape:
            raise ValueError(f"G1 + G2 needs as many outputs and inputs. Got {self.D.shape} and {other.D.shape}.")
        A = np.block(
            [
                [self.A, np.zeros((self.n_states, other.n_states))],
                [np.zeros((other.n_states, self.n_states)), other.A],
            ]
        )
        B, C = np.concatenate([self.B, other.B]), np.concatenate([self.C, other.C], axis=1)
        return self._like(A, B, C, self.D + other.D)

    __radd__ = __add__

    def __neg__(self):
        return self._like(self.A, self.B, -self.C, -self.D)

    def __sub__(self, other):
        return self + (-other if isinstance(other, Composition) else -np.asarray(other))

    def __rsub__(self, other):
        return -self + other

    def __getitem__(self, key):
        """``G[outputs, inputs]``: integers, slices or lists of them."""
        if not isinstance(key, tuple) or len(key) != 2:
            raise IndexError(f"a system is indexed by outputs and inputs, G[0, :]. Got {key!r}.")
        rows, columns = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.D.shape, key, strict=True))
        return self._like(self.A, self.B[:, columns], self.C[rows], self.D[np.ix_(rows, columns)])

    def feedback(self, other=1.0, sign=-1):
        """The closed loop y = G(u + sign · other(y)).

        Parameters
        ----------
        other : LinearSystem, number or matrix, default=1.0
            What y passes on its way back.
        sign : {-1, 1}, default=-1
            Negative or positive feedback.

        Returns
        -------
        LinearSystem
            From the reference u to y.

        Raises
        ------
        ValueError
            Numbers of channels that do not fit, or a loop without delay that has no solution, I − sign D₁ D₂ singular.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> integrator = LinearSystem(0.0, 1.0, 1.0)
        >>> integrator.feedback(5.0).poles
        array([-5.])
        """
        if sign not in (-1, 1):
            raise ValueError(f"sign must be -1 or 1. Got {sign!r}.")
        back = self._operand(other, (self.n_inputs, self.n_outputs))
        if back is None:
            raise ValueError(f"feedback takes a LinearSystem, a number or a matrix. Got {type(other).__name__}.")
        if back.D.shape != self.D.shape[::-1]:
            raise ValueError(
                f"The way back must have {self.n_outputs} input(s) and {self.n_inputs} output(s). Got "
                f"{back.n_inputs} and {back.n_outputs}."
            )
        loop = np.eye(self.n_outputs) - sign * self.D @ back.D
        if np.linalg.cond(loop) > 1e14:
            raise ValueError("The loop is ill-posed: I − sign D₁ D₂ is singular, so that y would have no value.")
        F = np.linalg.inv(loop)
        # y = F (C₁ x₁ + sign D₁ C₂ x₂ + D₁ u), and the input of G is u + sign (C₂ x₂ + D₂ y).
        C = np.concatenate([F @ self.C, sign * F @ self.D @ back.C], axis=1)
        D = F @ self.D
        none = np.zeros((back.n_outputs, self.n_states))
        into_C = sign * (np.concatenate([none, back.C], axis=1) + back.D @ C)
        into_D = np.eye(self.n_inputs) + sign * back.D @ D
        A = np.zeros((self.n_states + back.n_states,) * 2)
        A[: self.n_states, : self.n_states] = self.A
        A[self.n_states :, self.n_states :] = back.A
        A += np.concatenate([self.B @ into_C, back.B @ C])
        return self._like(A, np.concatenate([self.B @ into_D, back.B @ D]), C, D)

    def transform(self, T):
        """The same system in the coordinates x̃ of x = T x̃.

        Parameters
        ----------
        T : array-like of shape (n_states, n_states)

        Returns
        -------
        LinearSystem
            T⁻¹ A T, T⁻¹ B, C T, D.

        Raises
        ------
        ValueError
            T has another shape or is singular.

        Examples
        --------
        >>> from statespace.lti import LinearSystem
        >>> LinearSystem(-1.0, 1.0, 1.0).transform([[2.0]]).B
        array([[0.5]])
        """
        T = np.asarray(T, dtype=np.float64)
        if T.shape != self.A.shape or not np.linalg.matrix_rank(T) == len(T):
            raise ValueError(f"T must be invertible, of shape {self.A.shape}. Got shape {T.shape}.")
        return self._like(np.linalg.solve(T, self.A @ T), np.linalg.solve(T, self.B), self.C @ T, self.D)
