"""The extended Kalman filter: functions replaced by their tangents."""

import numpy as np

from statespace.kalman.nonlinear.gaussian import GaussianFilter, deviation_of


class ExtendedKalmanFilter(GaussianFilter):
    """Filter, smoother and forecasts with functions linearised at the mean.

    Discrete: m⁻ = f(m), P⁻ = F P Fᵀ + Q. Continuous: dm/dt = f(m, t), dP/dt = F P + P Fᵀ + L Q Lᵀ, integrated over the
    gap with an error of at most ``tolerance``. Update with H = ∂h/∂x at m⁻. All covariances are kept as square roots.
    On a linear model this is the exact Kalman filter.

    Parameters
    ----------
    model : NonlinearModel
    iterations : int, default=1
        With more than one, the observation is linearised anew at the updated mean, up to so many times (iterated
        extended Kalman filter: Gauss–Newton steps towards the posterior's mode). The innovations and the likelihood
        are those of the first.
    tolerance : float, default=1e-10
        Of the moments in continuous time, relative to the standard deviations.
    substeps : int, optional
        So many fourth-order Runge–Kutta steps a gap in the place of adaptive ones: faster and less exact.

    References
    ----------
    Särkkä and Svensson 2023, secs. 7.2 (filter), 7.4 (iterated), 13.1 (smoother); Särkkä and Sarmavuori, *Gaussian
    filtering and smoothing for continuous-discrete dynamic systems*, Signal Processing 93, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.nonlinear import ExtendedKalmanFilter, NonlinearModel
    >>> model = NonlinearModel(
    ...     transition=lambda x: x + 0.1 * np.sin(x), process_noise=0.01, observation=lambda x: x**2,
    ...     observation_noise=0.1, initial_mean=[1.0], initial_covariance=1.0,
    ... )
    >>> ekf = ExtendedKalmanFilter(model)
    >>> result = ekf.filter([1.2, np.nan, 1.9])
    >>> state = None
    >>> for y_t in [1.2, np.nan, 1.9]:
    ...     state = ekf.step(state, y_t)
    >>> bool(np.isclose(state.mean[0], result.mean[-1, 0]))
    True
    """

    def __init__(self, model, *, iterations=1, tolerance=1e-10, substeps=None):
        super().__init__(model, tolerance=tolerance, substeps=substeps)
        if int(iterations) != iterations or iterations < 1:
            raise ValueError(f"iterations must be a whole number >= 1. Got {iterations}.")
        self.iterations = iterations

    def _rates(self, mean, covariance, columns, arguments, least):
        model = self.model

        def deviation():
            return np.maximum(np.sqrt(np.maximum(covariance.diagonal(), 0.0)), least)

        jacobian = model.drift_jacobian(mean, deviation, **arguments)
        noise = model.diffusion.at(mean, **arguments)
        return model.drift(mean, **arguments), jacobian @ columns, noise @ noise.T

    def _move(self, mean, root, arguments):
        model = self.model
        jacobian = model.transition_jacobian(mean, lambda: deviation_of(root), **arguments)
        return model.transition(mean, **arguments), jacobian @ root, root

    def _observe(self, mean, root, arguments):
        model = self.model
        jacobian = model.observation_jacobian(mean, lambda: deviation_of(root), **arguments)
        return model.observation(mean, **arguments), jacobian @ root, root

    def _correct(self, state, y_t, arguments):
        first = self._condition(state.mean, state.root, y_t, arguments)
        if self.iterations == 1 or np.isnan(y_t).all():
            return first
        mean, root = first[:2]
        difference, model = self.model.state_difference, self.model
        for _ in range(self.iterations - 1):
            # The tangent at the new mean, seen from the prediction.
            expected = model.observation(mean, **arguments)
            deviation = deviation_of(root)
            jacobian = model.observation_jacobian(mean, lambda values=deviation: values, **arguments)
            expected = expected + jacobian @ difference(state.mean, mean)
            linearised = expected, jacobian @ state.root, state.root
            new_mean, root = self._condition(state.mean, state.root, y_t, arguments, linearised)[:2]
            moved, mean = difference(new_mean, mean), new_mean
            if np.abs(moved).max() <= 1e-12 * (np.abs(mean).max() + deviation.max()):
                break
        return (mean, root, *first[2:])

