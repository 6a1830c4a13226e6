"""Noises as they are given, constant or by functions, as the square roots that filters and draws need."""

import numpy as np

from statespace.kalman.nonlinear.functions import StateFunction
from statespace.kalman.nonlinear.roots import check_covariance, root_of


class Noise:
    """A covariance.

    Parameters
    ----------
    given : float, array-like of shape (size,) or (size, size), or callable
    name : str
    allowed : tuple of str
        What a function may take, by name.
    size : int
    kind : dict
        Options of `StateFunction`.

    Attributes
    ----------
    root : ndarray of shape (size, size) or None
        S with S Sᵀ the covariance, where it is constant.
    """

    def __init__(self, given, name, allowed, size, kind):
        self.name, self.root, self.function = name, None, None
        if callable(given):
            self.function = StateFunction(given, name, allowed, (size, size), state_first=False, **kind)
        else:
            self.root = root_of(check_covariance(given, size, name), name)

    def root_at(self, x, **arguments):
        """S at one state.

        Parameters
        ----------
        x : ndarray of shape (n,)
        **arguments
            t, dt and u.

        Returns
        -------
        ndarray of shape (size, size)
        """
        return self.root if self.function is None else root_of(self.function(x, **arguments), self.name)

    def roots_at(self, x, **arguments):
        """S at several states.

        Parameters
        ----------
        x : ndarray of shape (m, n)
        **arguments
            t, dt and u.

        Returns
        -------
        ndarray of shape (size, size), or (m, size, size) where it depends on the state
        """
        if self.function is None or not self.function.depends_on_state:
            return self.root_at(x[0], **arguments)
        return np.stack([root_of(covariance, self.name) for covariance in self.function(x, **arguments)])

    def draw(self, x, rng, **arguments):
        """Noise for each of several states.

        Parameters
        ----------
        x : ndarray of shape (m, n)
        rng : Generator
        **arguments
            t, dt and u.

        Returns
        -------
        ndarray of shape (m, size)
        """
        roots = self.roots_at(x, **arguments)
        normal = rng.standard_normal((len(x), roots.shape[-1]))
        return normal @ roots.T if roots.ndim == 2 else np.einsum("mij,mj->mi", roots, normal)


class Diffusion:
    """L √Q of a model in continuous time.

    Parameters
    ----------
    given : array-like of shape (n, q), callable or None
        L; None is the identity.
    density : float, array-like of shape (q,) or (q, q)
        Q.
    n : int
    kind : dict
        Options of `StateFunction`.

    Attributes
    ----------
    root : ndarray of shape (n, q) or None
        Where it is constant.
    """

    def __init__(self, given, density, n, kind):
        self.n, self.density, self.root, self.function = n, density, None, None
        if callable(given):
            self.function = StateFunction(given, "diffusion", ("x", "t", "u"), None, state_first=False, **kind)
            return
        matrix = np.eye(n) if given is None else np.asarray(given, dtype=float)
        if matrix.ndim != 2 or len(matrix) != n:
            raise ValueError(f"diffusion must be a function or a ({n}, q) matrix. Got shape {matrix.shape}.")
        self.root = matrix @ self._density_root(matrix.shape[1])

    @property
    def is_constant(self):
        """Whether it depends on neither state, time nor input."""
        return self.function is None or not self.function.takes

    def at(self, x, **arguments):
        """L √Q at states.

        Parameters
        ----------
        x : ndarray of shape (..., n)
        **arguments
            t and u.

        Returns
        -------
        ndarray of shape (n, q), or (..., n, q) where it depends on the state
        """
        function = self.function
        if function is None:
            return self.root
        if function.shape is None:
            named = {key: x.reshape(-1, self.n)[0] if key == "x" else arguments[key] for key in function.takes}
            shape = np.shape(function.function(**named))
            if len(shape) != 2 or shape[0] != self.n:
                raise ValueError(f"diffusion must return (..., {self.n}, q) for states (..., {self.n}); got {shape}.")
            function.shape = shape
        return function(x, **arguments) @ self._density_root(function.shape[1])

    def _density_root(self, q):
        return root_of(check_covariance(self.density, q, "spectral_density"), "spectral_density")
