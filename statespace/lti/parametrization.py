"""The parameters of an identified system, and directions in which they can change what it does.

A state-space model is the same system in any basis of its state. Of the directions in the space of all entries of
(A, B, C, L) those that only change the basis are left out: data-driven local coordinates (McKelvey, Helmersson &
Ribarits 2004, Data driven local coordinates for multivariable linear systems, Automatica 40).
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.linalg import qr

_STEP = 1e-30  # of the complex step: its square vanishes beside 1


@dataclass(frozen=True)
class Parameters:
    """x' = A x + B u + L w, y = C x + D u + offset + v, with white noise w of intensity I and v of covariance G Gᵀ.

    Attributes
    ----------
    A, B, C, D : ndarray of shape (n, n), (n, m), (p, n), (p, m)
    L : ndarray of shape (n, p)
        Zero in an output-error model.
    G : ndarray of shape (p, p)
        Lower triangular.
    offset : ndarray of shape (p,)
    x0 : ndarray of shape (n_records, n)
        The mean of the state at the beginning of each record.
    P0 : ndarray of shape (n, n)
        Its covariance; zero where x₀ is a parameter.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.parametrization import Parameters
    >>> one = np.ones((1, 1))
    >>> Parameters(-one, one, one, 0 * one, 0 * one, one, np.zeros(1), 0 * one, 0 * one).moved({"A": -one}, 0.5).A
    array([[-1.5]])
    """

    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    L: np.ndarray
    G: np.ndarray
    offset: np.ndarray
    x0: np.ndarray
    P0: np.ndarray

    def moved(self, direction, length):
        """These parameters plus ``length`` times a direction, a dict of some of the arrays' names."""
        return replace(self, **{name: getattr(self, name) + length * part for name, part in direction.items()})

    def combined(self, directions, lengths):
        """These parameters plus the sum of the directions times their lengths."""
        total: dict = {}
        for direction, length in zip(directions, lengths, strict=True):
            for name, part in direction.items():
                total[name] = total.get(name, 0.0) + length * part
        return self.moved(total, 1.0)

    def displaced(self, direction):
        """An imaginary step along the direction, for derivatives."""
        arrays = {field.name: getattr(self, field.name).astype(complex) for field in fields(self)}
        for name, part in direction.items():
            arrays[name] = arrays[name] + 1j * _STEP * part
        return Parameters(**arrays)

    def in_basis(self, T):
        """The same system with the state T x."""
        inverse = np.linalg.inv(T)
        return replace(
            self, A=T @ self.A @ inverse, B=T @ self.B, C=self.C @ inverse, L=T @ self.L, x0=self.x0 @ T.T,
            P0=T @ self.P0 @ T.T,
        )  # fmt: skip


def derivative(value):
    """What a computation on `Parameters.displaced` gives, as the derivative along that direction."""
    return np.imag(value) / _STEP


def linear_directions(parameters, feedthrough, intercept):
    """Unit directions in B, D, offset and x₀, in which a simulated output is linear.

    Parameters
    ----------
    parameters : Parameters
    feedthrough, intercept : bool
        Whether D and the offset are free.

    Returns
    -------
    list of dict
    """
    names = ["B", *(["D"] if feedthrough else []), *(["offset"] if intercept else []), "x0"]
    return [direction for name in names for direction in _units(name, getattr(parameters, name).shape)]


def directions(parameters, feedthrough, intercept, innovations):
    """An orthonormal set of directions of all parameters that leaves out changes of the basis.

    Parameters
    ----------
    parameters : Parameters
    feedthrough, intercept, innovations : bool
        Whether D, the offset, and the noise L and G are free; with noise the initial states are not, because they
        have a distribution.

    Returns
    -------
    list of dict
    """
    names = ["A", "B", "C", *(["L"] if innovations else [])]
    blocks = [getattr(parameters, name) for name in names]
    complement = _complement(parameters, innovations)
    cuts = np.cumsum([block.size for block in blocks])[:-1]
    found = []
    for column in complement.T:
        parts = np.split(column, cuts)
        found.append({name: part.reshape(block.shape) for name, part, block in zip(names, parts, blocks, strict=True)})
    for name, free in {"D": feedthrough, "offset": intercept, "x0": not innovations}.items():
        if free:
            found += _units(name, getattr(parameters, name).shape)
    if innovations:
        found += [u for u in _units("G", parameters.G.shape) if not np.triu(u["G"], 1).any()]
    return found


def _units(name, shape):
    identity = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return [{name: unit} for unit in identity]


def _complement(parameters, innovations):
    """Orthonormal columns across the changes of (A, B, C[, L]) that a change of basis, or of w, brings about.

    In the basis (I + εX) x the change is ε (XA − AX, XB, −CX, XL); for w rotated by I + εΩ, Ω antisymmetric, it is
    ε LΩ.
    """
    A, B, C, L = parameters.A, parameters.B, parameters.C, parameters.L
    n, p = len(A), len(C)
    X = np.eye(n * n).reshape(n * n, n, n)
    parts = [X @ A - A @ X, X @ B, -C @ X, *([X @ L] if innovations else [])]
    tangent = np.concatenate([part.reshape(n * n, -1) for part in parts], axis=1)
    if innovations and p > 1:
        rows, columns = np.triu_indices(p, 1)
        turns = np.zeros((len(rows), p, p))
        turns[np.arange(len(rows)), rows, columns] = 1.0
        turns[np.arange(len(rows)), columns, rows] = -1.0
        moved = (L @ turns).reshape(len(rows), -1)
        tangent = np.concatenate([tangent, np.pad(moved, ((0, 0), (tangent.shape[1] - moved.shape[1], 0)))])
    Q, R, _ = qr(tangent.T, pivoting=True)
    size = np.abs(np.diag(R))
    rank = int((size > 1e-12 * size[0]).sum()) if size.size else 0
    return Q[:, rank:]
