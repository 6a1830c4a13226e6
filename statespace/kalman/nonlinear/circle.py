"""Differences and means of vectors some of whose entries are angles."""

import numpy as np


class Difference:
    """a − b, where angles wrap to [−π, π).

    Parameters
    ----------
    angles : sequence of int
        Which entries are angles, in radians.
    residual : callable, optional
        The user's own ``residual(a, b)`` of arrays (..., n), in the place of ``angles``.
    name : str
        Of the vectors, for error messages.
    """

    def __init__(self, angles, residual, name):
        if residual is not None and not callable(residual):
            raise ValueError(f"{name}_residual must be a function of two arrays. Got {residual!r}.")
        if residual is not None and len(angles):
            raise ValueError(f"Give {name}_angles or {name}_residual, not both.")
        self.given = residual
        self.angles = np.array(angles, dtype=int) if len(angles) else None
        self.name = name
        self.plain = residual is None and self.angles is None

    def check_size(self, size):
        """Refuse angles beyond the entries that there are.

        Parameters
        ----------
        size : int

        Raises
        ------
        ValueError
        """
        if self.angles is not None and (self.angles.min() < -size or self.angles.max() >= size):
            raise ValueError(
                f"{self.name}_angles must be indices of the {size} entries of the {self.name}: 0 to {size - 1}. "
                f"Got {self.angles.tolist()}."
            )

    def __call__(self, a, b):
        if self.given is not None:
            result = np.asarray(self.given(a, b), dtype=float)
            expected = np.broadcast_shapes(np.shape(a), np.shape(b))
            if result.shape != expected:
                raise ValueError(
                    f"{self.name}_residual must return an array of shape {expected} for arrays of shape {np.shape(a)} "
                    f"and {np.shape(b)}; got {result.shape}. Write a[..., i] for a[i]."
                )
            return result
        result = a - b
        return result if self.plain else self.wrapped(result)

    def wrapped(self, values):
        """The same values with their angles in [−π, π).

        Parameters
        ----------
        values : ndarray of shape (..., n)

        Returns
        -------
        ndarray of shape (..., n)
        """
        if self.angles is None:
            return values
        values = np.array(values)
        values[..., self.angles] = (values[..., self.angles] + np.pi) % (2 * np.pi) - np.pi
        return values

    def mean(self, values, weights):
        """The weighted mean of points, taken around the heaviest: angles may straddle ±π.

        Parameters
        ----------
        values : ndarray of shape (m, n)
        weights : ndarray of shape (m,)
            Their sum is one.

        Returns
        -------
        ndarray of shape (n,)
        """
        if self.plain:
            return weights @ values
        centre = values[np.argmax(weights)]
        for _ in range(3):  # the second round matters only where angles spread over more than half a circle
            centre = self.wrapped(centre + weights @ self(values, centre))
        return centre
