"""What the Gaussian filters share: the record, the update, the backward pass, forecasts, draws and streams."""

import math

import numpy as np

from statespace.kalman.nonlinear.integration import gaussian_step, moments
from statespace.kalman.nonlinear.interface import StateFilter
from statespace.kalman.nonlinear.model import NonlinearModel
from statespace.kalman.nonlinear.results import GaussianState, Kernel, SmootherResult
from statespace.kalman.nonlinear.roots import condition, root_of, solve_lower, triangular

# Parts of the standard deviation: how near points may come where there is no uncertainty to spread them.
_NEAR = 1e-5
_LOG_TWO_PI = math.log(2 * math.pi)


class GaussianFilter(StateFilter):
    """A filter that keeps the state as N(m, S Sᵀ).

    A subclass says how a Gaussian passes through a function, as deviations (see `roots`).

    Parameters
    ----------
    model : NonlinearModel
    tolerance : float, default=1e-10
        Of the moments in continuous time, relative to the standard deviations.
    substeps : int, optional
        So many fourth-order Runge–Kutta steps a gap in the place of adaptive ones.
    """

    def __init__(self, model, *, tolerance=1e-10, substeps=None):
        if not isinstance(model, NonlinearModel):
            raise ValueError(f"model must be a NonlinearModel. Got {type(model).__name__}.")
        if not 0.0 < tolerance < 1.0:
            raise ValueError(f"tolerance must lie between 0 and 1. Got {tolerance}.")
        if substeps is not None and (int(substeps) != substeps or substeps < 1):
            raise ValueError(f"substeps must be a whole number >= 1, or None. Got {substeps}.")
        super().__init__(model)
        self.tolerance, self.substeps = tolerance, substeps

    # What a subclass gives.

    def _rates(self, mean, covariance, columns, arguments, least):
        """f̄, F applied to columns, and the expected L Q Lᵀ of a drift; no point closer than ``least``."""
        raise NotImplementedError

    def _move(self, mean, root, arguments):
        """Through the transition: mean, deviations after, and deviations before in the same columns."""
        raise NotImplementedError

    def _observe(self, mean, root, arguments):
        """Through the observation: mean (p,), its deviations, and those of the state in the same columns."""
        raise NotImplementedError

    def _correct(self, state, y_t, arguments):
        """Mean and root given the observed entries, innovation, its covariance, and the log-density."""
        return self._condition(state.mean, state.root, y_t, arguments)

    def initial_state(self, time=0.0):
        """The state at the first sample, before it is seen.

        Parameters
        ----------
        time : float, default=0.0

        Returns
        -------
        GaussianState
        """
        return GaussianState(self.model.initial_mean, self.model.initial_root, float(time))

    def _predict(self, state, gap, u, with_kernel=False):
        """The state after a gap, and the kernel back over it."""
        model, n = self.model, len(state.mean)
        if gap == 0.0:
            kernel = Kernel(state.mean, state.mean, np.eye(n), np.zeros((n, n))) if with_kernel else None
            return state, kernel
        end = state.time + gap
        if not model.continuous:
            arguments = {"t": end, "dt": gap, "u": u}
            mean, after, before = self._move(state.mean, state.root, arguments)
            noise = model.process_noise.root_at(state.mean, **arguments)
        elif model.is_exact:
            transition, noise = model.linear_step(gap)
            mean, after, before = transition @ state.mean, transition @ state.root, state.root
        else:
            least = self._least(state, gap, u)

            def rates(s, mean, deviations, noise):
                if not np.isfinite(mean).all():
                    return np.full(n, np.nan), np.nan, np.nan
                covariance = deviations @ deviations.T + noise
                columns = np.concatenate([deviations, noise], axis=1)
                return self._rates(mean, covariance, columns, {"t": state.time + s, "u": u}, _NEAR * least)

            floor = np.where(deviation_of(state.root) > 0.0, 0.0, least)
            mean, after, noise = moments(
                rates, state.mean, state.root, gap, self.tolerance, self.substeps, floor
            )
            noise, before = root_of(noise, "the noise over the gap"), state.root
        mean = model.state_difference.wrapped(mean)
        if not with_kernel:
            root, kernel = triangular(np.concatenate([noise, after], axis=1)), None
        else:
            root, cross, remainder = condition(noise, after, before)
            kernel = _kernel(state.mean, mean, root, cross, remainder)
        return GaussianState(mean, root, end, *state[3:]), kernel

    def _least(self, state, gap, u):
        """Standard deviations that uncertainty has or, where it has none yet, soon gets."""
        model, deviation = self.model, deviation_of(state.root)
        if deviation.all():
            return deviation
        arguments = {"t": state.time, "u": u}
        jacobian = model.drift_jacobian(state.mean, lambda: deviation, **arguments)
        # For one time constant of the drift at most: its tangent at the start does not hold for longer.
        short = min(gap, 1.0 / max(np.linalg.norm(jacobian, 1), 1e-300))
        transition, root = gaussian_step(jacobian, model.diffusion.at(state.mean, **arguments), short)
        return deviation_of(np.concatenate([transition @ state.root, root], axis=1))

    def _update(self, state, y_t, u):
        arguments = {"t": state.time, "u": u}
        mean, root, innovation, covariance, density = self._correct(state, y_t, arguments)
        return GaussianState(
            mean, root, state.time, state.n_samples + 1, state.log_likelihood + density, innovation, covariance
        )

    def _condition(self, mean, root, y_t, arguments, linearised=None):
        model = self.model
        expected, observed, deviations = linearised or self._observe(mean, root, arguments)
        noise = model.observation_noise_root(mean, **arguments)
        innovation = model.observation_difference(y_t, expected)
        missing = np.isnan(y_t)
        values, covariance = innovation, None
        if missing.any():
            covariance = observed @ observed.T + noise @ noise.T
            innovation = np.where(missing, np.nan, innovation)
            if missing.all():
                return mean, root, innovation, covariance, 0.0
            values, noise, observed = values[~missing], noise[~missing], observed[~missing]
        root_total, cross, new_root = condition(noise, observed, deviations)
        scaled = solve_lower(root_total, values)
        density = log_density(root_total, scaled)
        if not math.isfinite(density):
            _explain(values, root_total, arguments["t"])
        if covariance is None:
            covariance = root_total @ root_total.T
        return model.state_difference.wrapped(mean + cross @ scaled), new_root, innovation, covariance, density

    def _expect(self, state, u):
        arguments = {"t": state.time, "u": u}
        mean, observed, _ = self._observe(state.mean, state.root, arguments)
        noise = self.model.observation_noise_root(state.mean, **arguments)
        return mean, observed @ observed.T + noise @ noise.T

    def smooth(self, y, times=None, u=None):
        """The state at each sample given all samples (Rauch, Tung and Striebel), in square-root form.

        Parameters
        ----------
        y, times, u
            As in `filter`. States between the samples: rows of NaN at their times.

        Returns
        -------
        SmootherResult
        """
        record = self.model.record(y, times, u)
        states, kernels = [], []
        for _, state, kernel in self._forward(record, with_kernels=True):
            states.append(state)
            kernels.append(kernel)
        n_times, n = len(states), self.model.n_states
        means, covariances = np.empty((n_times, n)), np.empty((n_times, n, n))
        lagged = np.empty((n_times - 1, n, n))
        mean, root = states[-1].mean, states[-1].root
        means[-1], covariances[-1] = mean, root @ root.T
        for k in range(n_times - 2, -1, -1):
            lagged[k] = covariances[k + 1] @ kernels[k + 1].gain.T
            mean, root = self._back(mean, root, kernels[k + 1])
            means[k], covariances[k] = mean, root @ root.T
        return SmootherResult(means, covariances, states[-1].log_likelihood, lagged)

    def _back(self, mean, root, kernel):
        """A smoothed state one sample earlier."""
        difference = self.model.state_difference
        earlier = kernel.mean + kernel.gain @ difference(mean, kernel.predicted)
        return difference.wrapped(earlier), triangular(np.concatenate([kernel.remainder, kernel.gain @ root], axis=1))

    def _paths(self, record, n_samples, rng):
        forward = list(self._forward(record, with_kernels=True))
        n, difference = self.model.n_states, self.model.state_difference
        paths = np.empty((n_samples, len(forward), n))
        state = forward[-1][1]
        paths[:, -1] = difference.wrapped(state.mean + rng.standard_normal((n_samples, n)) @ state.root.T)
        for k in range(len(forward) - 2, -1, -1):
            kernel = forward[k + 1][2]
            moved = kernel.mean + difference(paths[:, k + 1], kernel.predicted) @ kernel.gain.T
            paths[:, k] = difference.wrapped(moved + rng.standard_normal((n_samples, n)) @ kernel.remainder.T)
        return paths


def deviation_of(root):
    """Standard deviations of S Sᵀ.

    Parameters
    ----------
    root : ndarray of shape (n, m)

    Returns
    -------
    ndarray of shape (n,)
    """
    return np.sqrt(np.square(root).sum(axis=1))


def log_density(root, scaled):
    """log N(v; 0, L Lᵀ) of scaled = L⁻¹ v.

    Parameters
    ----------
    root : ndarray of shape (p, p)
    scaled : ndarray of shape (p,)

    Returns
    -------
    float
    """
    size = 0.0
    for entry in root.diagonal().tolist():
        if entry == 0.0:
            return math.inf
        size += math.log(abs(entry))
    return -0.5 * (float(scaled @ scaled) + len(scaled) * _LOG_TWO_PI) - size


def _kernel(mean, predicted, root, cross, remainder):
    """The kernel back over a gap, with the gain cov(before, after) F⁻¹ = G L⁻¹."""
    size = np.abs(root).sum(axis=1)
    if (np.abs(root.diagonal()) > 1e-13 * size).all():
        return Kernel(mean, predicted, solve_lower(root, np.asfortranarray(cross.T), transposed=True).T, remainder)
    # Directions that do not vary after the gap say nothing about the state before it.
    size[size == 0.0] = 1.0
    inverse = np.linalg.pinv(root / size[:, None], rcond=1e-12)
    unsaid = cross - cross @ inverse @ (root / size[:, None])
    return Kernel(mean, predicted, cross @ inverse / size, triangular(np.concatenate([remainder, unsaid], axis=1)))


def _explain(values, root, t):
    if not np.isfinite(root).all() or not np.isfinite(values).all():
        raise ValueError(
            f"The prediction at t = {t:g} is not finite: the model's functions returned NaN or infinity for the states "
            "that the filter reached."
        )
    raise ValueError(
        f"The observation at t = {t:g} is predicted without any uncertainty: give observation_noise, or a larger "
        "initial_covariance or process noise."
    )
