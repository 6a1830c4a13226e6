"""Components whose matrices the kernel knows in closed form, for any gap and without a table."""

import copy

import numpy as np

from statespace.kalman.base import Component
from statespace.kernels.kalman_filter import discretize_blocks
from statespace.kernels.kalman_filter.blocks import RANDOM_WALK, ROTATION, TREND, Blocks

_NO_TABLE = np.zeros((1, 0))


class ClosedForm(Component):
    """A component whose A and Q are blocks that the kernel knows in closed form; its parameters have `units`.

    A subclass gives ``blocks``, ``observation``, ``initial``, and ``derivatives``: for each parameter the derivatives
    of the block parameters and of the initial covariance by its logarithm.
    """

    tabulated = False

    def transition(self, dt):
        """A(Δ) of shape (..., n, n) for gaps of shape (...)."""
        return self._discretized(dt)[0]

    def process_noise(self, dt):
        """Q(Δ) of shape (..., n, n) for gaps of shape (...)."""
        return self._discretized(dt)[1]

    def _discretized(self, dt):
        dt = np.asarray(dt, dtype=float)
        A, Q = discretize_blocks(self.blocks(), dt.ravel())
        return A.reshape(*dt.shape, *A.shape[1:]), Q.reshape(*dt.shape, *Q.shape[1:])

    def derivatives(self):
        """For each parameter the derivatives of (block parameters, initial covariance or None) by its logarithm."""
        raise TypeError(f"{type(self).__name__} must define derivatives().")

    @property
    def start_moves(self):
        """Whether the state at the first sample depends on θ."""
        derivatives = self.derivatives()
        return any(derivatives[name][1] is not None for name in self.free)

    def free_block_parameters(self, gaps=None):
        """ndarray of bool, shape (n_blocks, 3): which parameters of its blocks depend on θ."""
        derivatives = self.derivatives()
        result = np.zeros(self.blocks().parameters.shape, dtype=bool)
        for name in self.free:
            result |= derivatives[name][0] != 0
        return result

    def noise_by_theta(self, gap):
        """dQ/dθ of shape (n_free, n, n) where θ enters nothing but Q; else None."""
        blocks = self.blocks()
        turns = blocks.kind == ROTATION
        if not set(blocks.kind.tolist()) <= {RANDOM_WALK, TREND, ROTATION}:
            return None
        derivatives, n = self.derivatives(), self.n_states
        result = np.empty((len(self.free), n, n))
        for j, name in enumerate(self.free):
            by_blocks, by_covariance = derivatives[name]
            if by_covariance is not None or by_blocks[turns, 0].any():
                return None
            # these blocks' Q is linear in its parameters
            result[j] = discretize_blocks(blocks._replace(parameters=by_blocks), [gap])[1][0]
        return result

    def pullback(self, gradient, gaps=None):
        """The gradient by θ, given the gradient by the block parameters and the initial covariance."""
        derivatives = self.derivatives()
        result = np.empty(len(self.free))
        for j, name in enumerate(self.free):
            by_blocks, by_covariance = derivatives[name]
            result[j] = np.vdot(gradient.parameters, by_blocks)
            if by_covariance is not None:
                result[j] += np.vdot(gradient.covariance, by_covariance)
        return result

    def rescaled(self, scale):
        """The same process for y / ``scale.value`` and times / ``scale.time``."""
        clone = copy.copy(self)
        for name, (of_value, of_time) in self.units.items():
            factor = scale.value**-of_value * scale.time**-of_time
            setattr(clone, name, self.value(name) * factor)
            bounds = getattr(self, f"{name}_bounds")
            if bounds is not None and not isinstance(bounds, str):
                setattr(clone, f"{name}_bounds", (bounds[0] * factor, bounds[1] * factor))
        return clone


def closed_blocks(kind, size, parameters):
    """Blocks of closed form: no table."""
    parameters = np.asarray(parameters, dtype=float)
    count = len(parameters)
    return Blocks(np.array([kind] * count), np.array([size] * count), parameters, _NO_TABLE, _NO_TABLE, None)
