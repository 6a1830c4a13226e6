"""A system described by functions: in continuous time by its drift, in discrete time by its transition."""

import numpy as np

from statespace.kalman.nonlinear.circle import Difference
from statespace.kalman.nonlinear.functions import LinearFunction, StateFunction
from statespace.kalman.nonlinear.integration import gaussian_step, random_steps
from statespace.kalman.nonlinear.jacobians import METHODS, Jacobian
from statespace.kalman.nonlinear.noise import Diffusion, Noise
from statespace.kalman.nonlinear.record import Record, future_of, grid
from statespace.kalman.nonlinear.results import Simulation
from statespace.kalman.nonlinear.roots import check_covariance, root_of

# Of a linear drift: records repeat their gaps, and streams of any length must not fill the memory.
_MAX_STEPS_KEPT = 1024


class NonlinearModel:
    """A state-space model given by functions.

    In continuous time, with w a Brownian motion of spectral density Q (Itô),

        dx = f(x, t, u) dt + L(x, t, u) dw,    y_k = h(x(t_k), t_k, u_k) + v_k,  v_k ~ N(0, R),

    in discrete time, for the gap Δ_k = t_k − t_{k−1},

        x_k = f(x_{k−1}, Δ_k, u_{k−1}) + q_k,  q_k ~ N(0, Q).

    The initial mean and covariance are those of the state at the first sample, before it is seen. The input u_k is in
    force from sample k until the next (zero-order hold), as in `statespace.lti`. At gaps of zero nothing moves, also in
    discrete time: several observations of one moment.

    Functions take **any number of states at once**, as arrays of shape (..., n), and return (..., size): write
    ``x[..., 0]`` for ``x[0]`` and join with ``np.stack([...], axis=-1)``. One call then carries all sigma points or
    particles. ``vectorized=False`` calls them state by state instead, which is slower. Beside the state, a function is
    given what it asks for by the name of its parameters: ``t`` (float: the time as given, or for datetimes the time
    since the first in ``time_unit``), ``dt``, ``u`` (n_inputs,). A function may be written in NumPy or in torch.

    Parameters
    ----------
    observation : callable or array-like of shape (p, n)
        h(x, t, u), each of t and u if declared; or the matrix of a linear one.
    observation_noise : float, array-like of shape (p,) or (p, p), or callable, optional
        R: a variance, variances, or a covariance; or a function of any of x, t, u, by these names, that returns
        (p, p). Not needed where ``observation_log_density`` is given.
    initial_mean : array-like of shape (n,)
    initial_covariance : float, array-like of shape (n,) or (n, n)
    drift : callable or array-like of shape (n, n), optional
        f(x, t, u) of a model in continuous time; or the matrix A of a linear drift A x, whose moments over a gap are
        then exact, however long the gap and stiff the matrix.
    diffusion : array-like of shape (n, q) or callable, optional
        L, or a function of any of x, t, u that returns (..., n, q). Without it, the identity.
    spectral_density : float, array-like of shape (q,) or (q, q), default=1.0
        Q of dw, in continuous time.
    transition : callable or array-like of shape (n, n), optional
        f(x, dt, t, u) of a model in discrete time, t being the time at the end of the gap.
    process_noise : float, array-like of shape (n,) or (n, n), or callable, optional
        Q in discrete time; a constant is the noise of one step, whatever its gap. Or a function of any of x, dt, t, u
        that returns (n, n), (..., n, n) if it depends on x.
    drift_jacobian, transition_jacobian, observation_jacobian : callable, optional
        ∂f/∂x (n, n) and ∂h/∂x (p, n) at one state (n,), with arguments by name as their functions have.
    jacobian : {"auto", "torch", "complex", "differences"}, default="auto"
        How Jacobians that are not given are found: by ``torch.func.jacfwd`` for functions in torch, by a complex step,
        or by central differences of sixth order (about eleven digits). "auto" is torch for functions in torch and
        differences for the others.
    state_angles, observation_angles : sequence of int, default=()
        Entries that are angles in radians: their differences and means wrap at ±π.
    state_residual, observation_residual : callable, optional
        In their place, the user's own difference ``residual(a, b)`` of arrays (..., size).
    observation_log_density : callable, optional
        log p(y | x), a function (x, y) and of any of t and u by name, that returns (...,) for states (..., n): for
        observations that are not Gaussian, by `ParticleFilter` only.
    vectorized : bool, default=True
        Whether the functions take several states at once.
    time_unit : str, default="D"
        The unit of gaps between datetimes: a pandas unit or a length such as "365.25D".

    Attributes
    ----------
    n_states : int
    continuous : bool

    Raises
    ------
    ValueError
        For a model that is neither or both of continuous and discrete, and for shapes that do not agree; the message
        names the function, what it must return and what it returned.

    References
    ----------
    S. Särkkä and L. Svensson, *Bayesian Filtering and Smoothing*, 2nd ed., 2023; S. Särkkä and A. Solin, *Applied
    Stochastic Differential Equations*, 2019.

    Examples
    --------
    A pendulum that swings in continuous time, of which sin(angle) is seen now and then:

    >>> import numpy as np
    >>> from statespace.kalman.nonlinear import NonlinearModel, UnscentedKalmanFilter
    >>> def drift(x):
    ...     return np.stack([x[..., 1], -9.8 * np.sin(x[..., 0])], axis=-1)
    >>> model = NonlinearModel(
    ...     drift=drift, diffusion=[[0.0], [1.0]], spectral_density=0.01,
    ...     observation=lambda x: np.sin(x[..., :1]), observation_noise=0.01,
    ...     initial_mean=[1.5, 0.0], initial_covariance=[0.1, 0.1],
    ... )
    >>> states, y = model.simulate(times=[0.0, 0.1, 0.15, 0.4], random_state=0)
    >>> result = UnscentedKalmanFilter(model).filter(y, times=[0.0, 0.1, 0.15, 0.4])
    >>> result.mean.shape, result.covariance.shape
    ((4, 2), (4, 2, 2))
    """

    def __init__(
        self,
        observation,
        observation_noise=None,
        *,
        initial_mean,
        initial_covariance,
        drift=None,
        diffusion=None,
        spectral_density=1.0,
        transition=None,
        process_noise=None,
        drift_jacobian=None,
        transition_jacobian=None,
        observation_jacobian=None,
        jacobian="auto",
        state_angles=(),
        observation_angles=(),
        state_residual=None,
        observation_residual=None,
        observation_log_density=None,
        vectorized=True,
        time_unit="D",
    ):
        if jacobian not in METHODS:
            raise ValueError(f"jacobian must be one of {', '.join(METHODS)}. Got {jacobian!r}.")
        if (drift is None) == (transition is None):
            raise ValueError("Give one of drift (continuous time) and transition (discrete time).")
        self.continuous = drift is not None
        if self.continuous and (process_noise is not None or transition_jacobian is not None):
            raise ValueError("A model with a drift has diffusion and spectral_density, not process_noise.")
        if not self.continuous and (diffusion is not None or drift_jacobian is not None):
            raise ValueError("A model with a transition has process_noise, not diffusion.")
        if not self.continuous and process_noise is None:
            raise ValueError("A model with a transition needs process_noise: 0.0 for none.")
        if observation_noise is None and observation_log_density is None:
            raise ValueError("Give observation_noise, or observation_log_density for a ParticleFilter.")
        self.initial_mean = np.array(initial_mean, dtype=float)
        if self.initial_mean.ndim != 1 or not len(self.initial_mean) or not np.isfinite(self.initial_mean).all():
            raise ValueError(f"initial_mean must be a vector of finite numbers. Got {initial_mean!r}.")
        n = self.n_states = len(self.initial_mean)
        self.initial_covariance = check_covariance(initial_covariance, n, "initial_covariance")
        self.initial_root = root_of(self.initial_covariance, "initial_covariance")
        self.time_unit, self.vectorized = time_unit, vectorized
        self.state_difference = Difference(state_angles, state_residual, "state")
        self.observation_difference = Difference(observation_angles, observation_residual, "observation")
        self.state_difference.check_size(n)
        torch = True if jacobian == "torch" else None
        kind = {"vectorized": vectorized, "torch": torch}

        if self.continuous:
            self.drift = self._function(drift, "drift", ("t", "u"), n, kind)
            self.drift_jacobian = Jacobian(self.drift, drift_jacobian, jacobian, np.subtract, n)
            self.diffusion = Diffusion(diffusion, spectral_density, n, kind)
        else:
            self.transition = self._function(transition, "transition", ("t", "dt", "u"), n, kind)
            self.transition_jacobian = Jacobian(
                self.transition, transition_jacobian, jacobian, self.state_difference, n
            )
            self.process_noise = Noise(process_noise, "process_noise", ("x", "t", "dt", "u"), n, kind)
        self.observation = self._function(observation, "observation", ("t", "u"), None, kind)
        self.observation_jacobian = Jacobian(
            self.observation, observation_jacobian, jacobian, self.observation_difference, n
        )
        self._given_noise, self._kind, self.observation_noise = observation_noise, kind, None
        self.observation_log_density = None
        if observation_log_density is not None:
            self.observation_log_density = StateFunction(
                observation_log_density, "observation_log_density", ("y", "t", "u"), (), **kind
            )
        self._checked = False
        self._steps = {}

    def __repr__(self):
        states = f"{self.n_states} state" + "s" * (self.n_states != 1)
        return f"NonlinearModel({states}, in {'continuous' if self.continuous else 'discrete'} time)"

    def _function(self, given, name, allowed, size, kind):
        if callable(given):
            return StateFunction(given, name, allowed, None if size is None else (size,), **kind)
        matrix = np.atleast_2d(np.asarray(given, dtype=float))
        n = self.n_states
        if matrix.ndim != 2 or matrix.shape[1] != n or size not in (None, len(matrix)):
            rows = "p" if size is None else n
            raise ValueError(f"{name} must be a function or a ({rows}, {n}) matrix. Got shape {matrix.shape}.")
        return LinearFunction(matrix, name)

    def observation_noise_root(self, x, **arguments):
        """√R at one state.

        Parameters
        ----------
        x : ndarray of shape (n,)
        **arguments
            t and u.

        Returns
        -------
        ndarray of shape (p, p)
        """
        if self.observation_noise is None:
            raise ValueError("This model has an observation_log_density and no observation_noise: use ParticleFilter.")
        return self.observation_noise.root_at(x, **arguments)

    def prepare(self, n_outputs=None, t=0.0, u=None):
        """Call each function once, so that a wrong shape is found before the first step.

        Parameters
        ----------
        n_outputs : int, optional
            The number of columns of y.
        t : float
        u : ndarray of shape (n_inputs,), optional

        Returns
        -------
        int
            The number of outputs.

        Raises
        ------
        ValueError
            Naming the function, the expected and the actual shape.
        """
        if self._checked and n_outputs in (None, self.n_outputs):
            return self.n_outputs
        n, x = self.n_states, self.initial_mean
        arguments = {"t": t, "dt": 1.0, "u": u}
        shape = self.observation(x, **arguments).shape
        if n_outputs is not None and shape != (n_outputs,):
            raise ValueError(
                f"observation must return (..., {n_outputs}) for states (..., {n}), as y has {n_outputs} columns; got "
                f"{shape} for one state."
            )
        p = self.n_outputs = shape[0]
        self.observation_difference.check_size(p)
        if self._given_noise is not None:
            self.observation_noise = Noise(self._given_noise, "observation_noise", ("x", "t", "u"), p, self._kind)
            self.observation_noise.root_at(x, **arguments)
        # As many states as none of the sizes has, so that no axis can be taken for another.
        spread = np.maximum(np.sqrt(np.diag(self.initial_covariance)), 1e-3 * np.abs(x) + 1e-6)
        steps = np.linspace(-1.0, 1.0, max(n, p) + 1)
        points = x + 0.1 * spread * steps[:, None]
        dynamics = self.drift if self.continuous else self.transition
        for function in (dynamics, self.observation):
            function(x, **arguments)
            function.check_vectorized(points, arguments)
        if self.continuous:
            self.diffusion.at(x, **arguments)
        else:
            self.process_noise.root_at(x, **arguments)
        self._checked = True
        return p

    def check_jacobians(self, x=None, t=0.0, dt=1.0, u=None, tolerance=1e-5):
        """Compare the given Jacobians with central differences.

        Parameters
        ----------
        x : array-like of shape (n,), optional
            The state; the initial mean by default.
        t, dt : float
        u : array-like of shape (n_inputs,), optional
        tolerance : float, default=1e-5
            Relative to the largest entry of a row.

        Raises
        ------
        ValueError
            Naming the function, the entry and both values.
        """
        x = self.initial_mean if x is None else np.asarray(x, dtype=float)
        u = None if u is None else np.atleast_1d(np.asarray(u, dtype=float))
        arguments = {"t": t, "dt": dt, "u": u}
        spread = np.sqrt(np.diag(self.initial_covariance))
        dynamics = self.drift_jacobian if self.continuous else self.transition_jacobian
        for jacobian in (dynamics, self.observation_jacobian):
            given = jacobian(x, lambda: spread, **arguments)
            expected = jacobian.differences(x, lambda: spread, arguments)
            wrong = np.abs(given - expected) > tolerance * np.abs(expected).max(axis=1, keepdims=True, initial=1e-300)
            if wrong.any():
                i, j = np.argwhere(wrong)[0]
                raise ValueError(
                    f"{jacobian.function.name}_jacobian[{i}, {j}] is {given[i, j]:.6g} at x = {x.tolist()}, and "
                    f"differences of {jacobian.function.name} give {expected[i, j]:.6g}."
                )

    def record(self, y, times=None, u=None, steps=None, future_times=None):
        """y, times and u as checked arrays, for a forecast with what comes after them.

        Parameters
        ----------
        y : array-like of shape (T,) or (T, p)
            NaN where missing, also in parts of a row.
        times : array-like of shape (T,), optional
            Floats or datetimes that do not decrease. Without them a datetime index of y, or a grid of gaps 1.
        u : array-like of shape (T,) or (T, n_inputs), optional
            With T + S rows for a forecast.
        steps : int, optional
        future_times : array-like of shape (S,), optional

        Returns
        -------
        Record
            For a forecast two of them, the second with values NaN.
        """
        record, later = Record.of(y, times, self.time_unit), None
        n_times = len(record.y)
        if steps is not None or future_times is not None:
            t, gaps = future_of(record, steps, future_times, self.time_unit)
            later = Record(np.full((len(t), record.y.shape[1]), np.nan), t, gaps, None, None)
        inputs = Record.inputs_of(u, n_times + (0 if later is None else len(later.t)))
        if inputs is not None:
            record = record._replace(u=inputs[:n_times])
            later = None if later is None else later._replace(u=inputs[n_times:])
        p = self.prepare(None, record.t[0], record.input(0))
        if record.y.shape[1] != p:
            self._checked = False
            self.prepare(record.y.shape[1], record.t[0], record.input(0))
        return record if later is None else (record, later)

    def draw_observations(self, x, t, u, rng):
        """Observations of states, each with noise of its own.

        Parameters
        ----------
        x : ndarray of shape (m, n)
        t : float
        u : ndarray of shape (n_inputs,) or None
        rng : Generator

        Returns
        -------
        ndarray of shape (m, p)
        """
        if self.observation_noise is None:
            raise ValueError("Draws of observations need observation_noise: observation_log_density has no sampler.")
        noise = self.observation_noise.draw(x, rng, t=t, u=u)
        return self.observation_difference.wrapped(self.observation(x, t=t, u=u) + noise)

    def simulate(self, n_times=None, times=None, u=None, n_samples=None, random_state=None, max_step=None):
        """Draw states and observations.

        Parameters
        ----------
        n_times : int, optional
            The number of samples on a grid of gaps 1, where no times are given.
        times : array-like of shape (T,), optional
        u : array-like of shape (T,) or (T, n_inputs), optional
        n_samples : int, optional
            Draw so many records at once: a leading axis.
        random_state : int, Generator or None
        max_step : float, optional
            The longest sub-step of the stochastic integrator; by default a tenth of the drift's shortest time constant.

        Returns
        -------
        Simulation
            ``states`` ([n_samples,] T, n) and ``observations`` ([n_samples,] T, p).
        """
        t, gaps, inputs = grid(n_times, times, u, self.time_unit)
        rng = np.random.default_rng(random_state)
        p = self.prepare(None, t[0], None if inputs is None else inputs[0])
        many = 1 if n_samples is None else n_samples
        states, observations = np.empty((many, len(t), self.n_states)), np.empty((many, len(t), p))
        x = self.initial_mean + rng.standard_normal((many, self.n_states)) @ self.initial_root.T
        held = None
        for k, now in enumerate(t):
            if k and gaps[k] > 0:
                x = random_steps(self, x, now - gaps[k], gaps[k], held, rng, max_step)
            held = None if inputs is None else inputs[k]
            states[:, k] = x
            observations[:, k] = self.draw_observations(x, now, held, rng)
        return Simulation(states, observations) if n_samples else Simulation(states[0], observations[0])

    def linear_step(self, dt):
        """A(Δ) and √Q(Δ) of a linear drift with constant noise.

        Parameters
        ----------
        dt : float

        Returns
        -------
        transition : ndarray of shape (n, n)
        root : ndarray of shape (n, n)
        """
        step = self._steps.get(dt)
        if step is None:
            if len(self._steps) >= _MAX_STEPS_KEPT:
                self._steps.clear()
            step = self._steps[dt] = gaussian_step(self.drift.matrix, self.diffusion.root, dt)
        return step

    @property
    def is_exact(self):
        """Whether the dynamics are linear in continuous time with constant noise: `linear_step` is then exact."""
        return self.continuous and isinstance(self.drift, LinearFunction) and self.diffusion.root is not None
