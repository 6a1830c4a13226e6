"""Explicit linear-Gaussian models: matrices in, filtered, smoothed, forecast, drawn and fitted states out."""

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state

from statespace.forms import as_floats
from statespace.kalman.criteria import InformationCriteria
from statespace.kalman.estimation import fit
from statespace.kalman.results import FilterResult, ForecastResult, Sample
from statespace.kalman.sequential import Sequence, applied, propagated, symmetric
from statespace.kalman.simulation import draw, draw_given
from statespace.kalman.smoothing import smooth
from statespace.kalman.system import AT, BETWEEN, System, check_covariance, checked, stationary_covariance
from statespace.times import gaps

_STARTS = ("diffuse", "stationary")
_FORMS = ("covariance", "square_root")


class LinearGaussianModel(InformationCriteria):
    """A state-space model with explicit matrices, for vectors of observations with any pattern of missing ones.

        x_{t+1} = A_t x_t + c_t + B_t u_t + G_t w_t,   w_t ~ N(0, Q_t),
        y_t     = H_t x_t + d_t + D_t u_t + ε_t,       ε_t ~ N(0, R_t),   cov(w_t, ε_t) = S_t,
        x_1     ~ N(m, P + κ Δ Δᵀ) in the exact limit κ → ∞.

    Each array may have one more axis in front, and then changes from time to time: entry t of H, R, d, D belongs to
    sample t, entry t of A, Q, c, B, G, S to the step from sample t to t + 1, so that T samples need T of the former and
    T − 1 of the latter. Longer ones are cut; forecasts need them longer.

    Parameters
    ----------
    transition : array_like of shape (n, n) or (K, n, n)
        A.
    observation : array_like of shape (p, n) or (K, p, n)
        H.
    process_noise : array_like of shape (r, r) or (K, r, r)
        Q; r = n without ``selection``.
    observation_noise : array_like of shape (p, p) or (K, p, p)
        R; may be singular, or 0.
    initial_mean : array_like of shape (n,), optional
        m; None is 0, or with a stationary start its mean (I − A)⁻¹ c.
    initial_covariance : "diffuse", "stationary" or array_like of shape (n, n)
        P. "diffuse": nothing is known, exactly. "stationary": P = A P Aᵀ + G Q Gᵀ, for constant, stable A.
    initial_diffuse : array_like of shape (n, d), optional
        Δ: directions of infinite variance beside a matrix P, linearly independent. A column scaled by c lowers the
        log-likelihood by log c.
    state_intercept : array_like of shape (n,) or (K, n), optional
        c.
    observation_intercept : array_like of shape (p,) or (K, p), optional
        d.
    input_matrix : array_like of shape (n, k) or (K, n, k), optional
        B.
    feedthrough : array_like of shape (p, k) or (K, p, k), optional
        D.
    cross_covariance : array_like of shape (r, p) or (K, r, p), optional
        S. The noise of the observations then becomes p further states inside.
    selection : array_like of shape (n, r) or (K, n, r), optional
        G.
    form : {"covariance", "square_root"}, default="covariance"
        "square_root" filters with triangular factors of the covariances, which cannot lose their positivity; slower,
        the same numbers to rounding. It serves `filter`, `log_likelihood` and `forecast`; `smooth`, `sample` and `fit`
        work with covariances in either form.

    Attributes
    ----------
    transition_, observation_, process_noise_, observation_noise_, … : ndarray
        The arrays in use, each as it was given or, after `fit`, as it was learned.
    params_ : DataFrame
        After `fit`: estimate and standard error of each free entry.
    log_likelihood_ : float
        After `fit`.
    history_ : ndarray
        After `fit`: the log-likelihood after each iteration.
    converged_ : bool
        After `fit`.
    n_observed_, n_estimated_ : int
        After `fit`: the numbers that were seen; the free entries, and the diffuse directions of each record.
    aic_, aicc_, bic_, hqic_ : float
        After `fit`: the information criteria of Akaike, of Akaike for short records, of Schwarz, of Hannan and Quinn.

    Raises
    ------
    ValueError
        Shapes that do not fit each other, covariances that are none, a stationary start without a stable transition.

    References
    ----------
    Durbin & Koopman (2012), "Time Series Analysis by State Space Methods", chapters 4 to 7; Koopman (1997) for the
    diffuse start; Anderson & Moore (1979), "Optimal Filtering", section 5.5 for correlated noises.

    Examples
    --------
    A trend seen by two instruments, one of which misses a sample:

    >>> import numpy as np
    >>> from statespace.kalman import LinearGaussianModel
    >>> model = LinearGaussianModel(
    ...     transition=[[1.0, 1.0], [0.0, 1.0]], observation=[[1.0, 0.0], [1.0, 0.0]],
    ...     process_noise=np.diag([0.1, 0.01]), observation_noise=[[1.0, 0.2], [0.2, 0.5]],
    ... )
    >>> y = np.array([[1.0, 1.2], [2.1, np.nan], [2.9, 3.1]])
    >>> round(model.log_likelihood(y), 4)
    -5.5357
    >>> model.forecast(y, steps=2).mean.round(2)
    array([[4.  , 4.  ],
           [4.95, 4.95]])
    """

    # added to every log-likelihood: what a class of models counts otherwise
    _constant = 0.0

    def __init__(
        self, transition, observation, process_noise, observation_noise, initial_mean=None,
        initial_covariance="diffuse", *, initial_diffuse=None, state_intercept=None, observation_intercept=None,
        input_matrix=None, feedthrough=None, cross_covariance=None, selection=None, form="covariance",
    ):  # fmt: skip
        if form not in _FORMS:
            raise ValueError(f"form must be one of {_FORMS}. Got {form!r}.")
        self.form = form
        varying: set[str] = set()
        if np.ndim(transition) < 2:
            raise ValueError(
                f"transition must be a matrix of shape (n, n), [[1.0]] for one state. Got shape {np.shape(transition)}."
            )
        n = np.shape(transition)[-1]
        A = checked("transition", transition, (n, n), varying)
        H = checked("observation", observation, (None, n), varying)
        p = H.shape[1]
        G = None if selection is None else checked("selection", selection, (n, None), varying)
        r = n if G is None else G.shape[2]
        Q = checked("process_noise", process_noise, (r, r), varying)
        R = checked("observation_noise", observation_noise, (p, p), varying)
        check_covariance("process_noise", Q)
        check_covariance("observation_noise", R)
        k = next((np.shape(array)[-1] for array in (input_matrix, feedthrough) if np.ndim(array) > 0), 0)
        optional = {
            "state_intercept": (state_intercept, (n,)), "observation_intercept": (observation_intercept, (p,)),
            "input_matrix": (input_matrix, (n, k)), "feedthrough": (feedthrough, (p, k)),
        }  # fmt: skip
        extra = {
            name: np.zeros((1, *shape)) if array is None else checked(name, array, shape, varying)
            for name, (array, shape) in optional.items()
        }
        S = None if cross_covariance is None else checked("cross_covariance", cross_covariance, (r, p), varying)
        if S is not None and Q.ndim == R.ndim == S.ndim and len(Q) == len(R) == len(S) == 1:
            check_covariance("[[process_noise, cross_covariance], [cross_covarianceᵀ, observation_noise]]",
                             np.block([[Q[0], S[0]], [S[0].T, R[0]]]))  # fmt: skip
        self._varying = frozenset(varying)
        self._inputs = input_matrix is not None or feedthrough is not None
        self._stationary = isinstance(initial_covariance, str) and initial_covariance == "stationary"
        self._centred = initial_mean is None
        self.initial_covariance = initial_covariance if isinstance(initial_covariance, str) else "given"
        mean = np.zeros(n) if initial_mean is None else checked("initial_mean", initial_mean, (n,), set())[0]
        P, D = np.zeros((n, n)), np.zeros((n, 0))
        if isinstance(initial_covariance, str):
            if initial_covariance not in _STARTS:
                raise ValueError(
                    f"initial_covariance must be a matrix or one of {_STARTS}. Got {initial_covariance!r}."
                )
            if initial_diffuse is not None:
                raise ValueError("initial_diffuse stands beside a matrix initial_covariance, not beside a word.")
            D = np.eye(n) if initial_covariance == "diffuse" else D
        else:
            P = checked("initial_covariance", initial_covariance, (n, n), set())[0]
            check_covariance("initial_covariance", P)
            if initial_diffuse is not None:
                D = checked("initial_diffuse", initial_diffuse, (n, None), set())[0]
                if np.linalg.matrix_rank(D) < D.shape[1]:
                    raise ValueError("the columns of initial_diffuse must be linearly independent.")
        system = System(A, H, Q, R, *extra.values(), S, G, mean, P, D, n if self._stationary else 0)
        moving = varying & {"transition", "process_noise", "selection", "state_intercept"}
        if self._stationary and moving:
            raise ValueError(f"a stationary start needs constant matrices, and {', '.join(sorted(moving))} change.")
        self._take(system)

    def _settle(self, system):
        """A system with the stationary start that follows from it, where the model has one."""
        s = system.stationary
        if not s:
            return system
        P, m = system.initial_covariance.copy(), system.initial_mean.copy()
        A = system.transition[0, :s, :s]
        P[:s, :s] = stationary_covariance(A, system.state_noise()[0, :s, :s])
        if self._centred:
            m[:s] = np.linalg.solve(np.eye(s) - A, system.state_intercept[0, :s])
        return system._replace(initial_covariance=P, initial_mean=m)

    def _take(self, system):
        """Take a system into use."""
        self.system_ = self._settle(system)

    def __repr__(self):
        settings = self._settings()
        if not settings:
            counts = (self.system_.n_states, "state"), (self.system_.n_outputs, "output")
            shown = ", ".join(f"{n} {word}" + "s" * (n != 1) for n, word in counts)
        else:
            shown = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        return f"{type(self).__name__}({shown})"

    def __getattr__(self, name):
        if name.endswith("_") and name[:-1] in System._fields and "system_" in self.__dict__:
            array = getattr(self.system_, name[:-1])
            return (
                array[0]
                if name[:-1] in BETWEEN + AT and name[:-1] not in self._varying and array is not None
                else array
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def from_component(cls, process, times, noise_variance, *, unit="D", **options):
        """The matrices of a process in continuous time on given times.

        Parameters
        ----------
        process : Component
        times : array-like of shape (n_times,)
            Floats, datetimes or timedeltas that do not decrease.
        noise_variance : float or array_like of shape (n_times,)
        unit : str, default="D"
            The unit of time of the process where the times are datetimes.
        **options
            Further arguments of the class.

        Returns
        -------
        LinearGaussianModel
            Its likelihood is that of a `KalmanRegressor` at the same parameters, and it can be changed freely.

        Examples
        --------
        >>> from statespace.kalman import LinearGaussianModel, LocalLevel
        >>> model = LinearGaussianModel.from_component(LocalLevel(2.0), [0.0, 1.0, 3.5], noise_variance=0.1)
        >>> model.process_noise_.ravel()
        array([2., 5.])
        """
        steps = np.asarray(gaps(times, unit=unit))[1:]
        initial = process.initial()
        noise = np.asarray(noise_variance, dtype=float)
        if noise.ndim and noise.shape != (len(steps) + 1,):
            raise ValueError(
                f"noise_variance must be a number or one for each of {len(steps) + 1} times. Got {noise.shape}."
            )
        steps = steps if len(steps) else np.zeros(1)
        return cls(
            process.transition(steps), np.atleast_2d(process.observation()), process.process_noise(steps),
            noise.reshape(*noise.shape, 1, 1), initial.mean, initial.covariance, initial_diffuse=initial.diffuse,
            **options,
        )  # fmt: skip

    # What is asked for a record.

    def filter(self, y, u=None):
        """Moments of the states given the samples so far, innovations and log-likelihood.

        Parameters
        ----------
        y : array_like of shape (T, p), or (T,) where p = 1
            NaN where missing.
        u : array_like of shape (T, k), optional
            Inputs; needed where the model has ``input_matrix`` or ``feedthrough``.

        Returns
        -------
        FilterResult
        """
        y, u, system = self._record(y, u)
        return self._filtered(Sequence(system, y, u))[0]

    def _filtered(self, sequence):
        """A `FilterResult`, and the means of the observations given those before."""
        system, n = sequence.system, sequence.n_given
        if self.form == "square_root":
            from statespace.kalman.square_root import square_root_filter

            moments = square_root_filter(sequence)
        else:
            moments = sequence.filter()
        mean, V, ahead, spread, after, before, outputs, value = moments
        H = sequence.H
        expected = sequence.offset + applied(H, ahead)
        F = symmetric(propagated(H, spread) + system.observation_noise)
        V, spread = V[:, :n, :n].copy(), spread[:, :n, :n].copy()
        for array, unbounded in ((V, after[:, :n]), (spread, before[:, :n]), (F, outputs)):
            t, i = np.nonzero(unbounded)
            array[t, i, i] = np.inf
        return FilterResult(
            mean[:, :n], V, ahead[:, :n], spread, sequence.y - expected, F, value + self._constant
        ), expected

    def log_likelihood(self, y, u=None):
        """log p(y_1 … y_T), every observed number counted, those that resolve the diffuse start by −½ log 2πF∞.

        Parameters
        ----------
        y, u
            As in `filter`.

        Returns
        -------
        float
        """
        y, u, system = self._record(y, u)
        sequence = Sequence(system, y, u)
        if self.form == "square_root":
            from statespace.kalman.square_root import square_root_log_likelihood

            return square_root_log_likelihood(sequence) + self._constant
        return sequence.log_likelihood() + self._constant

    def smooth(self, y, u=None):
        """Moments of states and disturbances given the whole record.

        Parameters
        ----------
        y, u
            As in `filter`.

        Returns
        -------
        SmootherResult
        """
        y, u, system = self._record(y, u)
        result = smooth(Sequence(system, y, u))
        return result._replace(log_likelihood=result.log_likelihood + self._constant)

    def forecast(self, y, steps, u=None):
        """Moments of the next states and observations.

        Parameters
        ----------
        y : array_like of shape (T, p), or (T,) where p = 1
        steps : int
        u : array_like of shape (T + steps, k), optional
            Inputs of the record and after it.

        Returns
        -------
        ForecastResult
        """
        if not (isinstance(steps, int | np.integer) and steps >= 1):
            raise ValueError(f"steps must be an integer, at least 1. Got {steps!r}.")
        y = self._observations(y)
        y, u, system = self._record(np.concatenate([y, np.full((steps, y.shape[1]), np.nan)]), u)
        sequence = Sequence(system, y, u)
        result, expected = self._filtered(sequence)
        last = slice(len(y) - steps, None)
        return ForecastResult(
            expected[last], result.innovation_covariance[last], result.predicted_mean[last],
            result.predicted_covariance[last], result.log_likelihood,
        )  # fmt: skip

    def sample(self, n_times=None, *, y=None, u=None, n_samples=1, random_state=None):
        """Draws of the model or, given a record, of its states (simulation smoother).

        Parameters
        ----------
        n_times : int, optional
            Length of a draw without ``y``. The diffuse part of the initial state is then at its mean.
        y : array_like of shape (T, p), or (T,) where p = 1, optional
            The record on which the draws are conditioned.
        u : array_like of shape (n_times, k), optional
        n_samples : int, default=1
        random_state : None, int, RandomState or Generator

        Returns
        -------
        Sample
            ``state`` (n_samples, n_times, n) and ``observation`` (n_samples, n_times, p).

        References
        ----------
        Durbin & Koopman (2002), "A simple and efficient simulation smoother for state space time series analysis".
        """
        if (n_times is None) == (y is None):
            raise ValueError("give either n_times, for draws of the model, or y, for draws given a record.")
        if not isinstance(random_state, np.random.Generator):
            random_state = check_random_state(random_state)
        if y is not None:
            y, u, system = self._record(y, u)
            return draw_given(system, y, u, n_samples, random_state)
        y, u, system = self._record(np.full((n_times, self.system_.n_outputs), np.nan), u)
        drawn = draw(system, n_times, u, n_samples, random_state)
        return Sample(drawn.state[..., : system.n_states], drawn.observation)

    def fit(self, y, u=None, *, method="ml", free=None, max_iter=None, tolerance=None, standard_errors=True):
        """Maximum likelihood in the arrays that are free, for one record or for several that share them.

        Parameters
        ----------
        y : array_like of shape (T, p) or (T,), or list of those
            A list holds records of any lengths.
        u : array_like of shape (T, k) or list of those, optional
        method : {"ml", "em"}, default="ml"
            "ml": L-BFGS with the exact gradient. "em": expectation-maximisation, whose steps are closed and never
            lower the likelihood, slow near the maximum.
        free : list of str, or dict of str to {True, "diagonal", "scalar"} or mask
            Names of the arguments that are to be learned, from the values that they have as a start. A covariance is
            free as a whole (True), on its ``"diagonal"``, as a ``"scalar"`` multiple of I, or in the diagonal entries
            of a mask of shape (n,); another array as a whole or where a mask of its shape is True. None frees
            ``process_noise`` and ``observation_noise``.
        max_iter : int, optional
            500 for "ml", 1000 for "em".
        tolerance : float, optional
            Where to stop. "ml": the gradient in units of its likely standard deviation, 1e-5. "em": the gain in
            log-likelihood for each observation, 1e-8.
        standard_errors : bool, default=True
            Whether ``params_`` has them; they cost two gradients for each free parameter.

        Returns
        -------
        self
            With ``params_``, ``log_likelihood_``, ``history_`` and ``converged_``; the arrays with a trailing
            underscore are the estimates. What was given stays the start of the next fit only if the model is made anew.

        References
        ----------
        Shumway & Stoffer (1982); Koopman & Shephard (1992).

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.kalman import LinearGaussianModel
        >>> y = np.random.default_rng(0).normal(size=200).cumsum() + np.random.default_rng(1).normal(size=200)
        >>> model = LinearGaussianModel([[1.0]], [[1.0]], [[1.0]], [[1.0]]).fit(y)
        >>> em = LinearGaussianModel([[1.0]], [[1.0]], [[1.0]], [[1.0]]).fit(y, method="em")
        >>> bool(abs(model.log_likelihood_ - em.log_likelihood_) < 1e-3)
        True
        """
        records = self._records(y, u)
        learned = fit(
            self.system_, self._varying, self._settle, records, method=method, free=free, max_iter=max_iter,
            tolerance=tolerance, errors=standard_errors,
        )  # fmt: skip
        self._take(self.system_._replace(**learned.arrays))
        _, self.log_likelihood_, self.history_, self.converged_, self.params_ = learned
        self._count([record for record, _, _ in records])
        return self

    def _count(self, records):
        """What the information criteria count."""
        seen = [int(np.isfinite(y).sum()) for y in records]
        n_diffuse = self.system_.initial_diffuse.shape[1]
        self.n_observed_ = sum(seen)
        self.n_estimated_ = len(self.params_) + sum(min(n_diffuse, n) for n in seen)

    # In a file: see `statespace.persistence`.

    def _settings(self):
        """The arguments that a model of this class is made from before it has matrices."""
        return {}

    def _export(self):
        if "system_" not in self.__dict__:
            raise NotFittedError(f"this {type(self).__name__} has no parameters to save yet: call fit first.")
        kept = ("form", "initial_covariance", "_inputs", "_stationary", "_centred", "log_likelihood_", "converged_",
                "n_observed_", "n_estimated_")  # fmt: skip
        state = {name: self.__dict__[name] for name in kept if name in self.__dict__}
        state |= {"settings": self._settings(), "varying": sorted(self._varying), "stationary": self.system_.stationary}
        arrays = {name: np.asarray(array) for name, array in self.system_._asdict().items() if array is not None}
        del arrays["stationary"]
        if "params_" in self.__dict__:
            state["names"] = list(self.params_.index)
            arrays |= {"history_": self.history_, "params_": self.params_.to_numpy()}
        return state, arrays

    @classmethod
    def _import(cls, state, arrays):
        settings, names = state["settings"], state.get("names")
        model = cls(**settings) if settings else cls.__new__(cls)
        special = ("settings", "varying", "stationary", "names")
        model.__dict__.update({name: value for name, value in state.items() if name not in special})
        model._varying = frozenset(state["varying"])
        given = {name: arrays.get(name) for name in System._fields if name != "stationary"}
        model.system_ = System(**given, stationary=state["stationary"])
        if names is not None:
            model.history_ = arrays["history_"]
            model.params_ = pd.DataFrame(arrays["params_"], index=names, columns=["estimate", "standard_error"])
        return model

    # Checks at the door.

    def _records(self, y, u):
        several = (
            isinstance(y, list | tuple)
            and len(y) > 0
            and np.ndim(y[0]) > 0
            and not _is_table(y, self.system_.n_outputs)
        )
        if not several:
            return [self._record(y, u)]
        inputs = [None] * len(y) if u is None else u
        if len(inputs) != len(y):
            raise ValueError(f"u must hold one array for each of {len(y)} records. Got {len(inputs)}.")
        return [self._record(*pair) for pair in zip(y, inputs, strict=True)]

    def _observations(self, y):
        if isinstance(y, pd.DataFrame | pd.Series):
            y = y.to_numpy(dtype=float, na_value=np.nan)
        y = as_floats(y, "y")
        p = self.system_.n_outputs
        y = y[:, np.newaxis] if y.ndim == 1 and p == 1 else y
        if y.ndim != 2 or y.shape[1] != p or len(y) == 0:
            words = f"(n_times, {p})" + (" or (n_times,)" if p == 1 else "")
            raise ValueError(f"y must have shape {words} with at least one sample. Got {y.shape}.")
        if np.isinf(y).any():
            t, i = np.argwhere(np.isinf(y))[0]
            raise ValueError(f"y[{t}, {i}] is infinite. Use NaN for a missing observation.")
        return y

    def _record(self, y, u):
        """y (T, p), u (T, k) or None, and the system of these T samples."""
        y = self._observations(y)
        T, k = len(y), self.system_.n_inputs
        if self._inputs and u is None:
            raise ValueError(f"the model has inputs: give u of shape ({T}, {k}).")
        if u is not None:
            if not self._inputs:
                raise ValueError("u was given, but the model has neither input_matrix nor feedthrough.")
            u = as_floats(u, "u")
            u = u[:, np.newaxis] if u.ndim == 1 and k == 1 else u
            if u.shape != (T, k):
                raise ValueError(
                    f"u must have shape ({T}, {k}), a row for each sample (and forecast step). Got {u.shape}."
                )
            if not np.isfinite(u).all():
                raise ValueError("u must be finite: an input cannot be missing.")
        for name in self._varying:
            needed = T - 1 if name in BETWEEN else T
            if len(getattr(self.system_, name)) < needed:
                raise ValueError(
                    f"{name} has {len(getattr(self.system_, name))} entries in time, and {T} samples (forecasts "
                    f"included) need {needed}."
                )
        return y, u, self.system_.part(T)


def _is_table(y, p):
    """Whether a list is one record written as a list of its rows."""
    return all(np.ndim(row) == 1 and len(row) == p for row in y) and (p > 1 or all(len(row) == 1 for row in y))
