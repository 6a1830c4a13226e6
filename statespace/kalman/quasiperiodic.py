"""A seasonal pattern whose shape changes and is forgotten: a product with a Matérn process."""

import copy

import numpy as np

from statespace.kalman.base import Initial
from statespace.kalman.closed import ClosedForm
from statespace.kalman.components import Seasonal
from statespace.kalman.stationary import Matern, OrnsteinUhlenbeck
from statespace.kernels.kalman_filter.blocks import (
    MATERN32,
    MATERN52,
    OU,
    ROTATED_MATERN32,
    ROTATED_MATERN52,
    ROTATED_OU,
    Blocks,
)

_TURNED = {OU: ROTATED_OU, MATERN32: ROTATED_MATERN32, MATERN52: ROTATED_MATERN52}
# The weights of harmonics fall as h^(−decay): 0.1 is nearly equal, 10 nearly a sine.
_LIKELY_DECAY, _DECAY_BOUNDS = (0.5, 5.0), (1e-2, 20.0)


class QuasiPeriodic(ClosedForm):
    """A pattern that repeats and changes shape as it does: a `Seasonal` times a Matérn process, as ``*`` makes it.

    f(t) = Σ_h a_h(t) cos ω_h t + b_h(t) sin ω_h t, ω_h = 2π h / period, with independent a_h, b_h ~ Matérn, has the
    kernel

        k(r) = k_envelope(r) Σ_h w_h cos(ω_h r),    w_h ∝ h^(−decay), Σ w_h = 1,

    the marginal variance is the envelope's. ``decay`` is about 2m + 1 for a pattern with m derivatives, and is fitted;
    0 would weigh all harmonics alike. A state (a_h, b_h and their derivatives) turns by ω_hΔ while the envelope decays:
    A = R(ω_hΔ) ⊗ A_envelope, Q = I ⊗ Q_envelope (Solin & Särkkä 2014, "Explicit link between periodic covariance
    functions and state space models"). After several length scales of the envelope nothing is left of the pattern; for
    one that drifts without bound and is never forgotten take `Seasonal` alone.

    Parameters
    ----------
    seasonal : Seasonal
        Its period and number of harmonics; what makes it change is the envelope, so it has no variance of its own.
    envelope : Matern or OrnsteinUhlenbeck
    decay : float, optional
        None starts between 0.5 and 5. With one harmonic there is none.
    decay_bounds : pair of float, "fixed" or None, default=None

    Examples
    --------
    >>> from statespace.kalman import Matern, Seasonal
    >>> process = Seasonal(1.0, harmonics=2) * Matern(nu=1.5, length_scale=5.0, variance=2.0)
    >>> process.hyperparameters()
    ['envelope__length_scale', 'envelope__variance', 'decay']
    >>> process.n_states
    8
    """

    def __init__(self, seasonal, envelope, decay=None, decay_bounds=None):
        self.seasonal = seasonal
        self.envelope = envelope
        self.decay = decay
        self.decay_bounds = decay_bounds

    def _check(self):
        if not isinstance(self.seasonal, Seasonal) or not isinstance(self.envelope, Matern | OrnsteinUhlenbeck):
            raise ValueError(
                "QuasiPeriodic needs a Seasonal and a Matern or OrnsteinUhlenbeck. "
                f"Got {self.seasonal!r} and {self.envelope!r}."
            )
        if self.seasonal.variance is not None:
            raise ValueError(
                "a Seasonal in a product drifts as the other factor does, so it has no variance. Leave that away, or "
                f"add the Seasonal as a term of its own. Got {self.seasonal!r}."
            )

    def validate(self):
        """Refuse factors of another kind, and parameters that are no positive numbers."""
        self._check()
        self.seasonal.validate()
        self.envelope.validate()
        super().validate()

    # The parameters: the period where it is fitted, those of the envelope, and the decay.

    def _parts(self):
        """(name, component, its free parameters that count)."""
        period = ("period",) if "period" in self.seasonal.free else ()
        return (("seasonal", self.seasonal, period), ("envelope", self.envelope, self.envelope.free))

    @property
    def free(self):
        """The names of the parameters that are fitted, in the order of ``theta``."""
        names = [f"{name}__{parameter}" for name, _, parameters in self._parts() for parameter in parameters]
        return tuple(names + ["decay"] * (self._is_free("decay") and self.seasonal._count() > 1))

    def _own(self, name):
        part, _, parameter = name.rpartition("__")
        return (getattr(self, part), parameter) if part else (self, parameter)

    @property
    def theta(self):
        """ndarray of shape (n_free,): the natural logarithms of the free parameters."""
        return np.log([float(part.value(parameter)) for part, parameter in map(self._own, self.free)])

    @property
    def bounds(self):
        """ndarray of shape (n_free, 2): the natural logarithms of their bounds."""
        return np.log([part._bounds_of(parameter) for part, parameter in map(self._own, self.free)]).reshape(-1, 2)

    def clone_with_theta(self, theta):
        """The same process with other free parameters."""
        names, theta = self.free, np.asarray(theta, dtype=float)
        if theta.shape != (len(names),):
            raise ValueError(f"theta must have {len(names)} entries {names}, got an array of shape {theta.shape}.")
        clone = copy.copy(self)
        clone.seasonal, clone.envelope = copy.copy(self.seasonal), copy.copy(self.envelope)
        for (part, parameter), value in zip(map(clone._own, names), np.exp(theta), strict=True):
            setattr(part, parameter, float(value))
        return clone

    def get_params(self, deep=True):
        """The arguments of ``__init__``, and with ``deep`` those of both factors as ``factor__parameter``."""
        params = super().get_params()
        if deep:
            for name in ("seasonal", "envelope"):
                params |= {f"{name}__{key}": value for key, value in getattr(self, name).get_params().items()}
        return params

    def set_params(self, **params):
        """Set an argument of ``__init__``, or a factor's parameter as ``factor__parameter``, in place."""
        for key, value in params.items():
            name, _, parameter = key.partition("__")
            if parameter and name in ("seasonal", "envelope"):
                getattr(self, name).set_params(**{parameter: value})
            else:
                super().set_params(**{key: value})
        return self

    def resolved(self, scale):
        """A copy in which neither a parameter, a bound nor the number of harmonics is None any more."""
        self.validate()
        clone = copy.copy(self)
        clone.seasonal, clone.envelope = self.seasonal.resolved(scale), self.envelope.resolved(scale)
        clone.seasonal.variance = None
        if self.decay is None:
            clone.decay = float(np.sqrt(np.prod(_LIKELY_DECAY)))
        if self.decay_bounds is None:
            clone.decay_bounds = min(_DECAY_BOUNDS[0], clone.decay / 10), max(_DECAY_BOUNDS[1], clone.decay * 10)
        return clone

    def ranges(self, scale):
        """ndarray of shape (n_free, 2): the logarithms of the likely values, to start from."""
        own = zip(self.envelope.free, self.envelope.ranges(scale), strict=True)
        likely = {f"envelope__{name}": pair for name, pair in own}
        likely["decay"] = np.log(_LIKELY_DECAY if self.decay is None else (self.decay, self.decay))
        if self.seasonal.period is not None:
            likely["seasonal__period"] = np.log([self.seasonal.period] * 2)
        return np.array([likely[name] for name in self.resolved(scale).free]).reshape(-1, 2)

    def is_variance(self):
        """ndarray of shape (n_free,): which of ``theta`` scale a noise, which vanishes when they run to zero."""
        return np.array([name == "envelope__variance" for name in self.free], dtype=bool)

    def rescaled(self, scale):
        """The same process for y / ``scale.value`` and times / ``scale.time``."""
        clone = copy.copy(self)
        clone.seasonal, clone.envelope = self.seasonal.rescaled(scale), self.envelope.rescaled(scale)
        clone.seasonal.variance = None
        return clone

    # The process.

    def _weights(self):
        powers = np.arange(1.0, self.seasonal._count() + 1) ** -float(self.value("decay"))
        return powers / powers.sum()

    def blocks(self, gaps=None):
        """The kernel's description of A and Q: one turning Matérn process for each harmonic."""
        own, frequencies, weights = self.envelope.blocks(), self.seasonal._parameters()[:, 0], self._weights()
        n = len(weights)
        parameters = np.tile(own.parameters, (n, 1))
        parameters[:, 1] *= weights
        parameters[:, 2] = frequencies
        kind, size = _TURNED[int(own.kind[0])], 2 * int(own.size[0])
        nothing = np.zeros((1, 0))
        return Blocks(np.full(n, kind), np.full(n, size), parameters, nothing, nothing, None)

    def derivatives(self):
        """The derivatives of the block parameters and the stationary covariance by the parameters' logarithms."""
        parameters, weights = self.blocks().parameters, self._weights()
        result = {}
        for name, (by_parameters, by_covariance) in self.envelope.derivatives().items():
            by_blocks = np.zeros(parameters.shape)
            by_blocks[:, 0] = by_parameters[0, 0]
            by_blocks[:, 1] = by_parameters[0, 1] * weights
            result[f"envelope__{name}"] = by_blocks, self._stack(by_covariance, weights)
        result["seasonal__period"] = parameters * [0.0, 0.0, -1.0], None
        logs = np.log(np.arange(1.0, len(weights) + 1))
        slopes = self.value("decay") * weights * (weights @ logs - logs)
        by_blocks = np.zeros(parameters.shape)
        by_blocks[:, 1] = self.envelope.value("variance") * slopes
        result["decay"] = by_blocks, self._stack(self.envelope.initial().covariance, slopes)
        return result

    def _stack(self, covariance, weights):
        return None if covariance is None else np.kron(np.diag(np.repeat(weights, 2)), covariance)

    def observation(self):
        """The row H: the first cosine state of each harmonic."""
        return np.tile(np.append(self.envelope.observation(), 0 * self.envelope.observation()), self.seasonal._count())

    def initial(self):
        """Stationary."""
        covariance = self._stack(self.envelope.initial().covariance, self._weights())
        return Initial(np.zeros(len(covariance)), covariance, np.zeros((len(covariance), 0)))
