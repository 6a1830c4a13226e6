"""What the Gaussian filters share: the record, the update, the backward pass, forecasts, draws and streams."""

import numpy as np

from statespace.kalman.nonlinear.integration import moments
from statespace.kalman.nonlinear.model import NonlinearModel
from statespace.kalman.nonlinear.record import Record, future_of, gap_of, sample_of
from statespace.kalman.nonlinear.results import FilterResult, ForecastResult, GaussianState, Kernel, SmootherResult
from statespace.kalman.nonlinear.roots import condition, root_of, solve_lower, triangular

_LOG_TWO_PI = float(np.log(2 * np.pi))


class GaussianFilter:
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
        self.model, self.tolerance, self.substeps = model, tolerance, substeps

    # What a subclass gives.

    def _rates(self, mean, covariance, columns, arguments):
        """f̄, F applied to columns, and the expected L Q Lᵀ of a drift."""
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

    # One sample.

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

    def predict(self, state, dt=None, u=None):
        """The state after a gap, without an observation.

        Parameters
        ----------
        state : GaussianState
        dt : float or timedelta, optional
            1 by default.
        u : array-like of shape (n_inputs,), optional

        Returns
        -------
        GaussianState
        """
        return self._predict(state, gap_of(dt, self.model.time_unit), _input(u))[0]

    def update(self, state, y_t, u=None):
        """The state given an observation made where it stands.

        Parameters
        ----------
        state : GaussianState
        y_t : float or array-like of shape (p,)
            NaN where missing.
        u : array-like of shape (n_inputs,), optional

        Returns
        -------
        GaussianState
        """
        u = _input(u)
        p = self.model.prepare(None, state.time, u)
        return self._update(state, sample_of(y_t, p), u)

    def step(self, state, y_t, dt=None, u=None):
        """Advance by a gap and take a sample: O(1), equal to filtering the whole.

        Parameters
        ----------
        state : GaussianState or None
            None begins a record.
        y_t : float or array-like of shape (p,)
            NaN where missing; all NaN only predicts.
        dt : float or timedelta, optional
            The time since the sample before, 1 by default. Not used for the first sample.
        u : array-like of shape (n_inputs,), optional
            The input over this gap.

        Returns
        -------
        GaussianState
        """
        state = self.initial_state() if state is None else state
        if state.n_samples:
            state = self.predict(state, dt, u)
        return self.update(state, y_t, u)

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
            noise = self._step_noise(state, arguments)
        elif model.is_exact:
            transition, noise = model.linear_step(gap)
            mean, after, before = transition @ state.mean, transition @ state.root, state.root
        else:

            def rates(s, mean, deviations, noise):
                if not np.isfinite(mean).all():
                    return np.full(n, np.nan), np.nan, np.nan
                covariance = deviations @ deviations.T + noise
                columns = np.concatenate([deviations, noise], axis=1)
                return self._rates(mean, covariance, columns, {"t": state.time + s, "u": u})

            mean, after, noise = moments(rates, state.mean, state.root, gap, self.tolerance, self.substeps)
            noise, before = root_of(noise, "the noise over the gap"), state.root
        mean = model.state_difference.wrapped(mean)
        if not with_kernel:
            root = triangular(np.concatenate([noise, after], axis=1))
            return state._replace(mean=mean, root=root, time=end), None
        root, cross, remainder = condition(noise, after, before)
        kernel = _kernel(state.mean, mean, root, cross, remainder)
        return state._replace(mean=mean, root=root, time=end), kernel

    def _step_noise(self, state, arguments):
        return self.model.process_noise_root(state.mean, **arguments)

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
        covariance = observed @ observed.T + noise @ noise.T
        innovation = model.observation_difference(y_t, expected)
        seen = ~np.isnan(y_t)
        if not seen.any():
            return mean, root, np.full(len(y_t), np.nan), covariance, 0.0
        values = innovation
        if not seen.all():
            values, noise, observed = innovation[seen], noise[seen], observed[seen]
            innovation = np.where(seen, innovation, np.nan)
        root_total, cross, new_root = condition(noise, observed, deviations)
        scaled = solve_lower(root_total, values)
        density = log_density(root_total, scaled)
        if not np.isfinite(density):
            _explain(values, root_total, arguments["t"])
        return model.state_difference.wrapped(mean + cross @ scaled), new_root, innovation, covariance, density

    # A record.

    def _forward(self, record, with_kernels=False):
        """Yield the predicted and the filtered state of each sample, and the kernel back over its gap."""
        state = self.initial_state(record.t[0])
        for k, y_t in enumerate(record.y):
            u = record.input(k)
            kernel = None
            if k:
                state, kernel = self._predict(state, record.gaps[k], u, with_kernels)
                state = state._replace(time=record.t[k])  # sums of gaps would drift away from the times
            predicted, state = state, self._update(state, y_t, u)
            yield predicted, state, kernel

    def filter(self, y, times=None, u=None):
        """The state at each sample given the samples up to it.

        Parameters
        ----------
        y : array-like of shape (T,) or (T, p)
            NaN where missing, also in parts of a row.
        times : array-like of shape (T,), optional
            Floats or datetimes that do not decrease; equal ones are several samples of one moment. Without them a grid
            of gaps 1 (or the datetime index of y).
        u : array-like of shape (T,) or (T, n_inputs), optional
            Row k is in force over the gap that ends at sample k.

        Returns
        -------
        FilterResult

        Raises
        ------
        ValueError
            For input of a wrong shape or order, and where the model itself fails; the message says at which sample.
        """
        record = self.model.record(y, times, u)
        n_times, p = record.y.shape
        n = self.model.n_states
        result = FilterResult(*(np.empty((n_times, *shape)) for shape in ((n,), (n, n), (n,), (n, n), (p,), (p, p))), 0.0)
        for k, (predicted, state, _) in enumerate(self._forward(record)):
            result.mean[k], result.covariance[k] = state.mean, state.covariance
            result.predicted_mean[k], result.predicted_covariance[k] = predicted.mean, predicted.covariance
            result.innovation[k], result.innovation_covariance[k] = state.innovation, state.innovation_covariance
        return result._replace(log_likelihood=state.log_likelihood)

    def log_likelihood(self, y, times=None, u=None):
        """log p(y) with all constants.

        Parameters
        ----------
        y, times, u
            As in `filter`.

        Returns
        -------
        float
        """
        record = self.model.record(y, times, u)
        for _, state, _ in self._forward(record):
            pass
        return state.log_likelihood

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

    def forecast(self, y, steps=None, times=None, u=None, future_times=None, future_u=None):
        """Observations and states after a record.

        Parameters
        ----------
        y, times, u
            As in `filter`.
        steps : int, optional
            So many steps of the record's median gap.
        future_times : array-like of shape (S,), optional
            In the place of steps.
        future_u : array-like of shape (S,) or (S, n_inputs), optional
            The inputs of these steps.

        Returns
        -------
        ForecastResult
        """
        record = self.model.record(y, times, u)
        for _, state, _ in self._forward(record):
            pass
        t, gaps = future_of(record, steps, future_times, self.model.time_unit)
        inputs = Record.inputs_of(future_u, len(t))
        n, p = self.model.n_states, record.y.shape[1]
        likelihood = state.log_likelihood
        result = ForecastResult(*(np.empty((len(t), *shape)) for shape in ((p,), (p, p), (n,), (n, n))), likelihood)
        for k, gap in enumerate(gaps):
            u_k = None if inputs is None else inputs[k]
            state = self._predict(state, gap, u_k)[0]._replace(time=t[k])
            result.state_mean[k], result.state_covariance[k] = state.mean, state.covariance
            arguments = {"t": t[k], "u": u_k}
            result.mean[k], observed, _ = self._observe(state.mean, state.root, arguments)
            noise = self.model.observation_noise_root(state.mean, **arguments)
            result.covariance[k] = observed @ observed.T + noise @ noise.T
        return result

    def sample(self, y, times=None, u=None, n_samples=1, random_state=None):
        """Draw paths of the state given all samples.

        Parameters
        ----------
        y, times, u
            As in `filter`.
        n_samples : int, default=1
        random_state : int, Generator or None

        Returns
        -------
        ndarray of shape (n_samples, T, n)
        """
        record = self.model.record(y, times, u)
        rng = np.random.default_rng(random_state)
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
    with np.errstate(divide="ignore", invalid="ignore"):
        log_root = np.log(np.abs(root.diagonal())).sum()
    return -0.5 * float(scaled @ scaled + len(scaled) * _LOG_TWO_PI) - float(log_root)


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


def _input(u):
    return None if u is None else np.atleast_1d(np.asarray(u, dtype=float))


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
