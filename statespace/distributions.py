"""What a network says about a target: a point, a normal or a Student t distribution, or quantiles.

    point      loss (y - m)²
    gaussian   loss -log N(y; m, s²)            s = exp(b(a))
    student_t  loss -log T(y; m, s, ν)          s = exp(b(a)),  1/ν = σ(b(c)) / 2.1
    quantile   loss Σ ρ_α(y - q_α)              q in order, as in `statespace.quantiles`

The network gives m, a, c for every target, in units of the targets' standard deviation; outputs a = c = 0 are where
training starts. b(a) = r tanh(a/r) is a for what is usual and stays within ±r for what is not: the spread keeps within
e^±8 of that of all targets, so that a target that is met exactly has a finite likelihood and a gradient.

The tails of a Student t are as heavy as ν > 2.1 allows, so that a standard deviation exists, at most 4.6 s; ν → ∞ is
the normal distribution, which is reached without cancellation.

Above: ``regression``. Below: torch, SciPy, ``quantiles``.
"""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from scipy.special import ndtri, stdtrit
from torch import Tensor

from statespace import quantiles as ordered

__all__ = ["DISTRIBUTIONS", "Distribution", "Gaussian", "Point", "Quantiles", "StudentT", "check_distribution"]

# Degrees of freedom stay above this: the variance s² ν / (ν - 2) stays below 21 s².
LEAST_DEGREES = 2.1
_LOG_SCALE, _LOGIT = 8.0, 14.0
_LOG_2PI = math.log(2 * math.pi)
# Steps of the recurrence by which the argument of the gamma function is raised to where its series is exact.
_RAISED = 8


class Distribution(ABC):
    """How a network's outputs are read as a distribution of one target.

    Attributes
    ----------
    n_parameters : int
        Outputs of the network for one target; the first is its location.

    Examples
    --------
    >>> from statespace.distributions import DISTRIBUTIONS, Distribution
    >>> [isinstance(one, Distribution) for one in DISTRIBUTIONS.values()]
    [True, True, True, True]
    """

    n_parameters: int

    @abstractmethod
    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each target: outputs (..., n_parameters), y (...) -> (...)."""

    @abstractmethod
    def spread(self, outputs: Tensor) -> Tensor:
        """The standard deviation: (..., n_parameters) -> (...)."""

    def location(self, outputs):
        """The point that is predicted: (..., n_parameters) -> (...), of tensors and of arrays."""
        return outputs[..., 0]

    def std(self, outputs: np.ndarray) -> np.ndarray:
        """`spread` of an array."""
        return self.spread(torch.from_numpy(np.ascontiguousarray(outputs))).numpy()

    @abstractmethod
    def quantiles(self, outputs: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Quantiles at levels (m,) between 0 and 1: (..., n_parameters) -> (..., m)."""

    def answers(self, outputs: Tensor) -> dict[str, Tensor]:
        """What an exported model says: ``"prediction"`` (...), and ``"std"`` (...) or ``"quantiles"`` (..., levels)."""
        return {"prediction": outputs[..., 0]}

    def score(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How far a target lies from what was said, signed, in units in which all targets are alike: (...)."""
        return (y - self.location(outputs)) / self.std(outputs)

    def at(self, outputs: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The target of a score, increasing in it: the inverse of `score`; scores (..., m) -> (..., m)."""
        return self.location(outputs)[..., None] + self.std(outputs)[..., None] * scores


class Point(Distribution):
    """No distribution: a point, fitted by least squares; its standard deviation is that of all targets.

    Examples
    --------
    >>> import torch
    >>> from statespace.distributions import Point
    >>> Point().loss(torch.tensor([[1.0]]), torch.tensor([3.0]))
    tensor([4.])
    """

    n_parameters = 1

    def loss(self, outputs, y):
        """(y - m)²."""
        return (outputs[..., 0] - y).square()

    def spread(self, outputs):
        """1: the unit of all targets."""
        return torch.ones_like(outputs[..., 0])

    def quantiles(self, outputs, levels):
        """Not known without a distribution."""
        raise TypeError("a point has no quantiles.")


class Gaussian(Distribution):
    """Normal distributions N(m, s²) from outputs m and a: s = exp(8 tanh(a/8)).

    Examples
    --------
    >>> import numpy as np, torch
    >>> from statespace.distributions import Gaussian
    >>> Gaussian().loss(torch.zeros(2), torch.tensor(0.0))  # log √(2π)
    tensor(0.9189)
    >>> Gaussian().quantiles(np.array([5.0, 0.0]), np.array([0.5, 0.975])).round(2)
    array([5.  , 6.96])
    """

    n_parameters = 2

    def loss(self, outputs, y):
        """-log N(y; m, s²)."""
        log_scale = _log_scale(outputs)
        z = (y - outputs[..., 0]) * (-log_scale).exp()
        return log_scale + (z.square() + _LOG_2PI) / 2

    def spread(self, outputs):
        """s."""
        return _log_scale(outputs).exp()

    def answers(self, outputs):
        """m and s."""
        return {"prediction": outputs[..., 0], "std": self.spread(outputs)}

    def quantiles(self, outputs, levels):
        """m + s Φ⁻¹(level)."""
        return self.at(outputs, ndtri(levels))


class StudentT(Distribution):
    """Student t distributions m + s T_ν from outputs m, a and c: s = exp(8 tanh(a/8)), 1/ν = σ(14 tanh(c/14)) / 2.1.

    The loss is that of outliers: its gradient falls like 1 / abs(y - m) far away. Training starts at ν = 4.2.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from scipy.stats import t
    >>> from statespace.distributions import StudentT
    >>> outputs = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    >>> bool(np.isclose(StudentT().loss(outputs, torch.tensor(4.0)), -t.logpdf(4.0, 4.2, loc=1.0)))
    True
    """

    n_parameters = 3

    def loss(self, outputs, y):
        """-log T(y; m, s, ν), without cancellation for large ν."""
        log_scale, inverse = _log_scale(outputs), self._inverse_degrees(outputs)
        z = (y - outputs[..., 0]) * (-log_scale).exp()
        tail = (1 + inverse) * (inverse * z.square()).log1p() / (2 * inverse)
        return log_scale + tail + _LOG_2PI / 2 - _log_gamma_ratio(0.5 / inverse)

    def spread(self, outputs):
        """s √(ν / (ν - 2))."""
        return _log_scale(outputs).exp() * (1 - 2 * self._inverse_degrees(outputs)).rsqrt()

    def answers(self, outputs):
        """m and s √(ν / (ν - 2))."""
        return {"prediction": outputs[..., 0], "std": self.spread(outputs)}

    def quantiles(self, outputs, levels):
        """m + s T_ν⁻¹(level)."""
        given = torch.from_numpy(np.ascontiguousarray(outputs))[..., None, :]
        scale, degrees = _log_scale(given).exp().numpy(), 1 / self._inverse_degrees(given).numpy()
        return outputs[..., :1] + scale * stdtrit(degrees, levels)

    @staticmethod
    def _inverse_degrees(outputs):
        """1 / ν."""
        return _bounded(outputs[..., 2], _LOGIT).sigmoid() / LEAST_DEGREES


class Quantiles(Distribution):
    """Quantiles at `statespace.quantiles.LEVELS` that cannot cross, linear in z = Φ⁻¹(level) between and beyond.

    The point is the median. A target's score is the z at which it lies.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.distributions import Quantiles
    >>> normal = np.zeros((1, Quantiles.n_parameters))
    >>> Quantiles().quantiles(normal, np.array([0.025, 0.5, 0.975])).round(2) + 0.0
    array([[-1.96,  0.  ,  1.96]])
    >>> Quantiles().score(normal, np.array([3.0])).round(6)
    array([3.])
    """

    n_parameters = ordered.N_OUTPUTS

    def loss(self, outputs, y):
        """The pinball losses, summed over the levels."""
        return ordered.pinball(ordered.ordered_quantiles(outputs), y)

    def answers(self, outputs):
        """The median and the quantiles at `statespace.quantiles.LEVELS`."""
        return {"prediction": outputs[..., 0], "quantiles": ordered.ordered_quantiles(outputs)}

    def spread(self, outputs):
        """That of the distribution which has these quantiles."""
        return ordered.variance(ordered.ordered_quantiles(outputs)).sqrt()

    def quantiles(self, outputs, levels):
        """Linear in Φ⁻¹(level)."""
        return self.at(outputs, ndtri(levels))

    def score(self, outputs, y):
        """z, by inverting the quantile function."""
        return ordered.z_of(self._read(outputs), np.reshape(y, -1)).reshape(outputs.shape[:-1])

    def at(self, outputs, scores):
        """The quantiles at z = scores."""
        shape = (*outputs.shape[:-1], np.shape(scores)[-1])
        values = ordered.at_z(self._read(outputs), np.broadcast_to(scores, shape).reshape(-1, shape[-1]))
        return values.reshape(shape)

    @staticmethod
    def _read(outputs):
        """Quantiles (n, len(LEVELS)) of all targets in turn."""
        rows = torch.from_numpy(np.ascontiguousarray(outputs.reshape(-1, outputs.shape[-1])))
        return ordered.ordered_quantiles(rows).numpy()


DISTRIBUTIONS: dict[str | None, Distribution] = {
    None: Point(),
    "gaussian": Gaussian(),
    "student_t": StudentT(),
    "quantile": Quantiles(),
}


def check_distribution(distribution: str | None) -> None:
    """Refuse a distribution that is none of `DISTRIBUTIONS`.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> from statespace.distributions import check_distribution
    >>> check_distribution("student_t")
    """
    if not (distribution is None or isinstance(distribution, str)) or distribution not in DISTRIBUTIONS:
        raise ValueError(
            f"distribution must be None, 'gaussian', 'student_t' or 'quantile'. Got {distribution!r} instead."
        )


def _log_scale(outputs: Tensor) -> Tensor:
    return _bounded(outputs[..., 1], _LOG_SCALE)


def _bounded(x: Tensor, limit: float) -> Tensor:
    return limit * torch.tanh(x / limit)


def _log_gamma_ratio(a: Tensor) -> Tensor:
    """log Γ(a + 1/2) - log Γ(a) - log(a) / 2, which goes to 0 as 1/a, for a > 1.

    The recurrence Γ(a + 1) = a Γ(a) raises a by 8, where four terms of Stirling's series leave 1e-11.
    """
    raised = a + _RAISED
    inverse = 1 / raised
    square = inverse.square()
    series = -inverse / 8 + inverse * square * (1 / 192 + square * (-1 / 640 + square * 17 / 14336))
    steps = sum((0.5 / (a + k)).log1p() for k in range(_RAISED))
    return series + (_RAISED / a).log1p() / 2 - steps
