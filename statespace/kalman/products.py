"""Products of independent stationary processes; of a seasonal pattern and a Matérn process see `quasiperiodic`."""

import copy
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from statespace.kalman.base import Component, Initial
from statespace.kalman.components import Seasonal
from statespace.kalman.composition import Sum
from statespace.kalman.quasiperiodic import QuasiPeriodic
from statespace.kalman.stationary import Matern, OrnsteinUhlenbeck
from statespace.kernels.kalman_filter import contract_blocks
from statespace.kernels.kalman_filter.blocks import N_PARAMETERS


def product(left, right):
    """What ``left * right`` is: `QuasiPeriodic` for a `Seasonal` and a Matérn, `Product` for all else.

    Parameters
    ----------
    left, right : Component

    Returns
    -------
    Component

    Raises
    ------
    ValueError
        If a factor is a sum, or not stationary.

    Examples
    --------
    >>> from statespace.kalman import Cycle, Matern, Seasonal
    >>> Seasonal(1.0, harmonics=3) * Matern(nu=2.5)
    QuasiPeriodic(seasonal=Seasonal(period=1, harmonics=3), envelope=Matern(nu=2.5))
    >>> Cycle(period=5.0) * Matern()
    Product(factors=[Cycle(period=5), Matern()])
    """
    pair = [left, right]
    for place in (0, 1):
        if isinstance(pair[place], Seasonal) and isinstance(pair[1 - place], Matern | OrnsteinUhlenbeck):
            result: Component = QuasiPeriodic(pair[place], pair[1 - place])
            break
    else:
        factors = []
        for factor in pair:
            factors += factor.factors if isinstance(factor, Product) else [factor]
        result = Product(factors)
    result._check()
    return result


class Product(Component):
    """The product f₁(t) f₂(t) … of stationary processes' covariances, as ``*`` makes it.

    The kernel is k₁(r) k₂(r) …. The state is the Kronecker product of the factors' states: A = A₁ ⊗ A₂, and the noise
    over a gap Q = Q₁ ⊗ Q₂ + Q₁ ⊗ A₂P₂A₂ᵀ + A₁P₁A₁ᵀ ⊗ Q₂, a sum of positive semi-definite terms. (The product of two
    Gaussian processes is not Gaussian; this is the Gaussian process with that kernel.)

    Only the first factor has a variance in squared units of y; that of the others scales the same product, so it is 1
    where it is not given, and is not fitted unless it has bounds.

    Parameters
    ----------
    factors : list of Component
        Stationary, and no sums: the product of a sum is the sum of products, term by term.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import Cycle, Matern
    >>> process = Cycle(period=4.0, damping=0.1, variance=3.0) * Matern(nu=1.5, length_scale=2.0)
    >>> process.hyperparameters()
    ['cycle__period', 'cycle__damping', 'cycle__variance', 'matern__length_scale']
    """

    def __init__(self, factors):
        self.factors = factors

    def _check(self):
        for factor in self.factors:
            if not isinstance(factor, Component):
                raise ValueError(f"the factors of a product must be processes from statespace.kalman. Got {factor!r}.")
            if isinstance(factor, Sum):
                raise ValueError(
                    f"a product of a sum is a sum of products: write (a + b) * c as a * c + b * c. Got {factor!r}."
                )
            if type(factor).design is not Component.design or factor.initial().diffuse.shape[1]:
                other = (
                    " Seasonal times Matern or OrnsteinUhlenbeck can be had." if isinstance(factor, Seasonal) else ""
                )
                raise ValueError(
                    "a product needs processes that are stationary, and "
                    f"{type(factor).__name__} starts diffuse or reads covariates or times: add it as a term.{other}"
                )

    def _parts(self):
        """The factors, all but the first with their variance 1 or fixed where it says nothing else."""
        parts = [self.factors[0]]
        for factor in self.factors[1:]:
            if "variance" in factor._positive() and factor.variance_bounds is None:
                factor = copy.copy(factor)
                factor.variance, factor.variance_bounds = factor.value("variance"), "fixed"
            parts.append(factor)
        return parts

    def _named_parts(self):
        return Sum(self._parts()).named()

    def _scales(self, scale):
        """Only the first factor is measured in units of y."""
        return [scale, *[scale._replace(value=1.0)] * (len(self.factors) - 1)]

    def _with(self, factors):
        clone = copy.copy(self)
        clone.factors = list(factors)
        return clone

    @property
    def free(self):
        """The names of the parameters that are fitted, in the order of ``theta``."""
        return tuple(f"{name}__{parameter}" for name, part in self._named_parts() for parameter in part.free)

    @property
    def theta(self):
        """ndarray of shape (n_free,): the natural logarithms of the free parameters."""
        return np.concatenate([part.theta for part in self._parts()])

    @property
    def bounds(self):
        """ndarray of shape (n_free, 2): the natural logarithms of their bounds."""
        return np.concatenate([part.bounds for part in self._parts()])

    def clone_with_theta(self, theta):
        """The same process with other free parameters."""
        parts, names, theta = self._parts(), self.free, np.asarray(theta, dtype=float)
        if theta.shape != (len(names),):
            raise ValueError(f"theta must have {len(names)} entries {names}, got an array of shape {theta.shape}.")
        pieces = np.split(theta, np.cumsum([len(part.free) for part in parts])[:-1])
        return self._with(part.clone_with_theta(piece) for part, piece in zip(parts, pieces, strict=True))

    def get_params(self, deep=True):
        """``factors``, and with ``deep`` each factor's parameters as ``factor__parameter``."""
        params = {"factors": self.factors}
        if deep:
            for name, factor in Sum(self.factors).named():
                params |= {f"{name}__{key}": value for key, value in factor.get_params().items()}
        return params

    def set_params(self, **params):
        """Set ``factors``, or a factor's parameter as ``factor__parameter``, in place."""
        if "factors" in params:
            self.factors = params.pop("factors")
        Sum(self.factors).set_params(**params)
        return self

    def validate(self):
        """Refuse factors that are not stationary, and parameters that are no positive numbers."""
        self._check()
        for factor in self.factors:
            factor.validate()

    def resolved(self, scale):
        """A copy in which no parameter and no bound is None any more."""
        self.validate()
        return self._with(part.resolved(own) for part, own in zip(self._parts(), self._scales(scale), strict=True))

    def ranges(self, scale):
        """ndarray of shape (n_free, 2): the logarithms of the likely values, to start from."""
        parts = zip(self._parts(), self._scales(scale), strict=True)
        return np.concatenate([part.ranges(own) for part, own in parts])

    def is_variance(self):
        """ndarray of shape (n_free,): which of ``theta`` scale a noise, which vanishes when they run to zero."""
        return np.concatenate([part.is_variance() for part in self._parts()])

    def rescaled(self, scale):
        """The same process for y / ``scale.value`` and times / ``scale.time``."""
        return self._with(part.rescaled(own) for part, own in zip(self._parts(), self._scales(scale), strict=True))

    # The process.

    def transition(self, dt):
        """A(Δ) of shape (..., n, n) for gaps of shape (...)."""
        return _grown(self._parts(), np.asarray(dt, dtype=float))[-1].A

    def process_noise(self, dt):
        """Q(Δ) of shape (..., n, n) for gaps of shape (...)."""
        return _grown(self._parts(), np.asarray(dt, dtype=float))[-1].Q

    def observation(self):
        """The row H, the Kronecker product of the factors' rows."""
        row = np.ones(1)
        for part in self._parts():
            row = np.kron(row, part.observation())
        return row

    def initial(self):
        """Stationary."""
        covariance = np.ones((1, 1))
        for part in self._parts():
            covariance = np.kron(covariance, part.initial().covariance)
        n = len(covariance)
        return Initial(np.zeros(n), covariance, np.zeros((n, 0)))

    def pullback(self, gradient, gaps=None):
        """The exact gradient by θ: from the Kronecker product back to its factors, the last one first."""
        gaps, parts = np.zeros(1) if gaps is None else gaps, self._parts()
        grown = _grown(parts, gaps)
        n = self.n_states
        bar = Matrices(
            gradient.transition.reshape(-1, n, n), gradient.process_noise.reshape(-1, n, n), gradient.covariance,
            gradient.observation,
        )  # fmt: skip
        result: list[np.ndarray] = []
        for place in range(len(parts) - 1, 0, -1):
            bar, own = _split(bar, grown[place - 1], _matrices(parts[place], gaps))
            result.insert(0, _pulled(parts[place], own, gaps))
        return np.concatenate([_pulled(parts[0], bar, gaps), *result])


class Matrices(NamedTuple):
    """A(Δ), Q(Δ) of shape (n_gaps, n, n), the stationary covariance (n, n) and the row (n,) of a factor, or
    adjoints."""

    A: np.ndarray
    Q: np.ndarray
    P: np.ndarray
    H: np.ndarray


def _matrices(part, dt):
    return Matrices(part.transition(dt), part.process_noise(dt), part.initial().covariance, part.observation())


def _turned(A, P):
    return A @ P @ A.swapaxes(-1, -2)


def _grown(parts, dt):
    """The matrices of the first factor, of the product of the first two, and so on."""
    result = [_matrices(parts[0], dt)]
    for part in parts[1:]:
        one, two = result[-1], _matrices(part, dt)
        Q = _kron(one.Q, two.Q + _turned(two.A, two.P)) + _kron(_turned(one.A, one.P), two.Q)
        result.append(Matrices(_kron(one.A, two.A), Q, np.kron(one.P, two.P), np.kron(one.H, two.H)))
    return result


def _split(bar, one, two):
    """The adjoints of both factors, given those of their product."""
    m, n = len(one.H), len(two.H)
    A, Q, P = (array.reshape(*array.shape[:-2], m, n, m, n) for array in bar[:3])
    H = bar.H.reshape(m, n)
    before, later = _turned(one.A, one.P), _turned(two.A, two.P)

    def left(X, Y):
        return np.einsum("...ikjl,...kl->...ij", X, Y)

    def right(X, Y):
        return np.einsum("...ikjl,...ij->...kl", X, Y)

    B, L = left(Q, two.Q), right(Q, one.Q)
    first = Matrices(
        left(A, two.A) + (B + B.swapaxes(-1, -2)) @ one.A @ one.P,
        left(Q, two.Q + later),
        left(P, two.P) + (one.A.swapaxes(-1, -2) @ B @ one.A).sum(axis=0),
        H @ two.H,
    )
    second = Matrices(
        right(A, one.A) + (L + L.swapaxes(-1, -2)) @ two.A @ two.P,
        right(Q, one.Q + before),
        right(P, one.P) + (two.A.swapaxes(-1, -2) @ L @ two.A).sum(axis=0),
        one.H @ H,
    )
    return first, second


def _pulled(part, bar, gaps):
    """A factor's own gradient by its θ."""
    n, blocks = len(bar.H), part.blocks(gaps)
    given = SimpleNamespace(
        parameters=np.zeros((1, N_PARAMETERS)), transition=bar.A.reshape(len(gaps), -1),
        process_noise=bar.Q.reshape(len(gaps), -1), observation=bar.H, mean=np.zeros(n), covariance=bar.P,
        diffuse=np.zeros((n, 0)),
    )  # fmt: skip
    if not part.tabulated:
        given.parameters = contract_blocks(blocks, gaps, bar.A, bar.Q)
    return part.pullback(given, gaps)


def _kron(X, Y):
    """Kronecker products of (..., m, m) and (..., n, n)."""
    m, n = X.shape[-1], Y.shape[-1]
    return np.einsum("...ij,...kl->...ikjl", X, Y).reshape(*X.shape[:-2], m * n, m * n)
