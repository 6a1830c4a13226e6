"""LTIRegressor: a linear system from records of its input and output.

Above: who uses `statespace.lti`. Below: subspaces for a start, prediction errors for the rest.
"""

import warnings
from numbers import Real

import numpy as np
from scipy.linalg import eig
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from statespace.lti.identified import IdentifiedSystem, is_count
from statespace.lti.initialization import begin
from statespace.lti.prediction import with_prior
from statespace.lti.prediction_error import Innovations, OutputError
from statespace.lti.records import read, read_outputs
from statespace.lti.search import refine_best, trial
from statespace.lti.subspace import METHODS
from statespace.times import median_gap

# The directions of search are the null space of n² · n² numbers: beyond this neither memory nor time would do.
_MOST_STATES = 64


class LTIRegressor(IdentifiedSystem):
    """Identify a linear system with any number of inputs and outputs from samples at any times.

        x'(t) = A x(t) + B u(t) + L w(t),    y(t_k) = C x(t_k) + D u(t_k) + offset + v_k,

    with white noise w and v. A subspace method finds a start on a regular grid; Gauss-Newton steps with exact
    derivatives then maximise the likelihood on the true times. Rows are successive samples: X is the input u,
    and the prediction of one row depends on those before it.

    Parameters
    ----------
    order : "auto" or int, default="auto"
        The number of states, at most 64; "auto" takes the best by ``criterion``.
    method : {"n4sid", "moesp", "cva"}, default="n4sid"
        The weighting of the subspace (Van Overschee & De Moor 1996; Verhaegen 1994; Larimore 1990).
    refine : bool, default=True
        Whether prediction errors are minimised from the start (Ljung 1999). On a complete regular grid the start is the
        subspace's alone; elsewhere a system that was grown mode by mode on the true samples, with a few such steps
        after each mode, stands beside it.
    feedthrough : bool, default=False
        Whether D is estimated; else it is 0.
    noise_model : {"innovations", "output_error"}, default="innovations"
        "output_error" has no w: it minimises the errors of a simulation, and is the choice for a model that is to
        simulate. "innovations" has one: a Kalman filter predicts each sample from those before it, over the gap there
        really was.
    criterion : {"aic", "bic", "singular_values"}, default="bic"
        Chooses the order: an information criterion of the fits of the orders 1, 2, …, up to the third in a row that is
        no improvement; or the largest ratio of successive singular values.
    domain : {"continuous", "discrete"}, default="continuous"
        "discrete" identifies x_{k+1} = A x_k + B u_k on a regular grid.
    hold : {"zoh", "foh"}, default="zoh"
        What the input does between samples: it is held, or changes linearly. In discrete time it is held.
    fit_intercept : bool, default=True
        Whether input and output have an operating point: their means are subtracted, and the offset is estimated.
    stable : bool, default=True
        Whether the system must be stable.
    horizon : int, optional
        The block rows of past and future in the subspace's data matrix. None: the better of two.
    max_order : int, default=10
        The highest order that "auto" considers.
    time_unit : str, default="D"
        What one unit of time is for datetimes: a pandas unit such as "h", or a length such as "15min".
    max_iter : int, default=200
        Gauss-Newton steps.
    tol : float, default=1e-4
        The search ends when a step promises to raise the log-likelihood by less, or when three in a row did.
    random_state : int, RandomState or None, default=None
        Draws a start where the records are too short for a subspace.

    Attributes
    ----------
    system_ : LinearSystem
        In continuous time, or with its ``dt``; between deviations from the operating point.
    order_ : int
    poles_ : ndarray of shape (order,)
        Eigenvalues of A, per unit of time.
    pole_errors_ : ndarray of shape (order,)
        Standard errors: of the real parts in the real part, of the imaginary ones in the imaginary. NaN if not refined.
    singular_values_ : ndarray
        Of the subspace; empty if the records are too short for one.
    criterion_ : ndarray or None
        The criterion of the orders 1, 2, …, if it chose.
    noise_covariance_ : ndarray of shape (n_outputs, n_outputs)
        Of v.
    process_noise_ : ndarray of shape (order, order)
        The intensity L Lᵀ, per unit of time (per sample in discrete time).
    initial_states_ : ndarray of shape (n_records, order)
        At the first sample of each record.
    input_mean_, output_offset_ : ndarray of shape (n_inputs,), (n_outputs,)
        The operating point.
    log_likelihood_ : float
        Gaussian, with all constants.
    n_iter_ : int
    time_scale_ : float
        The median gap.
    clock_ : {"numbers", "datetimes", "timedeltas"} or None
        The kind of times; None if there were none.

    Notes
    -----
    Times are given as ``times=``, or as the index of a frame, where they survive slicing and cross-validation. Without
    times the rows lie on a regular grid with a gap of 1. NaN in y is a missing output; inputs must be known.

    References
    ----------
    Van Overschee, P. & De Moor, B. (1996), Subspace Identification for Linear Systems, chapters 2-4.
    Ljung, L. (1999), System Identification, 2nd edition, chapters 4, 7 and 10.
    McKelvey, T., Helmersson, A. & Ribarits, T. (2004), Data driven local coordinates, Automatica 40.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti import LTIRegressor
    >>> rng = np.random.default_rng(0)
    >>> t = np.cumsum(rng.exponential(size=300))
    >>> u = rng.normal(size=(300, 1))
    >>> x = np.zeros(300)
    >>> for k in range(299):  # x' = -0.5 x + u
    ...     a = np.exp(-0.5 * (t[k + 1] - t[k]))
    ...     x[k + 1] = a * x[k] + (1 - a) / 0.5 * u[k, 0]
    >>> plant = LTIRegressor(order=1).fit(u, x + 0.01 * rng.normal(size=300), times=t)
    >>> plant.poles_.round(2)
    array([-0.5+0.j])
    >>> bool(plant.score(u, x, times=t) > 0.999)
    True
    """

    def __init__(
        self,
        order="auto",
        *,
        method="n4sid",
        refine=True,
        feedthrough=False,
        noise_model="innovations",
        criterion="bic",
        domain="continuous",
        hold="zoh",
        fit_intercept=True,
        stable=True,
        horizon=None,
        max_order=10,
        time_unit="D",
        max_iter=200,
        tol=1e-4,
        random_state=None,
    ):
        self.order = order
        self.method = method
        self.refine = refine
        self.feedthrough = feedthrough
        self.noise_model = noise_model
        self.criterion = criterion
        self.domain = domain
        self.hold = hold
        self.fit_intercept = fit_intercept
        self.stable = stable
        self.horizon = horizon
        self.max_order = max_order
        self.time_unit = time_unit
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = True  # on rows that are no successive samples
        tags.input_tags.three_d_array = True
        return tags

    # Fitting.

    def fit(self, X, y, times=None):
        """Identify the system.

        Parameters
        ----------
        X : array-like of shape (n_times, n_inputs)
            The input u, one record, its rows in the order of time; a frame may have the times in its index. Or several
            records (experiments): of shape (n_series, n_times, n_inputs), a list of tables, a frame with a (series,
            time) MultiIndex, or a SeriesCollection.
        y : array-like of shape (n_times,) or (n_times, n_outputs)
            The output; a list of these for several records. NaN is missing.
        times : array-like of shape (n_times,), or a list of these, optional
            Numbers, datetimes or timedeltas that do not decrease.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or y is empty, of unequal length or not finite (but NaN in y); if times decrease; if ``domain`` is
            "discrete" and the times lie on no regular grid; if a parameter is not one of its values.
        """
        self._check_parameters()
        records = read(X, times, self, reset=True)
        outputs, self._single = read_outputs(y, records)
        if max(map(len, records.u)) < 2:
            raise ValueError("Found array with 1 sample(s) while a minimum of 2 is required: a system needs a record.")
        self.clock_ = records.clock
        elapsed = records.elapsed(self.time_unit)
        self.time_scale_ = median_gap(elapsed)
        u, y = np.concatenate(records.u), np.concatenate(outputs)
        n_known = int(np.isfinite(y).sum())
        if self.order != "auto" and self.order >= max(n_known, 2):
            raise ValueError(
                f"order={self.order} needs more known values of y than that, and there are {n_known}. Lower order, "
                "or give longer records."
            )
        self._u_shift, self._u_scale = _location(u, self.fit_intercept)
        self._y_shift, self._y_scale = _location(y, self.fit_intercept)
        data = self._data(records.u, outputs, elapsed)
        scaled_times = np.concatenate(elapsed) / self.time_scale_

        innovations = self.noise_model == "innovations"
        free = {"feedthrough": self.feedthrough, "intercept": self.fit_intercept, "stable": self.stable}
        criterion = (Innovations if innovations else OutputError)(data)
        options = {**free, "tol": self.tol}
        start = begin(
            data, scaled_times, order=self.order, max_order=self.max_order, method=self.method, horizon=self.horizon,
            criterion=self.criterion, innovations=innovations, random_state=check_random_state(self.random_state),
            search=(lambda starts: trial(starts, criterion, **options).value) if self.refine else None, tol=self.tol,
            **free,
        )  # fmt: skip
        found = refine_best(start.candidates, criterion, max_iter=self.max_iter if self.refine else 0, **options)
        if self.refine and not found.converged:
            warnings.warn(
                f"The likelihood was still rising after max_iter={self.max_iter} steps. Raise max_iter, or lower "
                "order.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.singular_values_, self.criterion_ = start.singular_values, start.criterion
        self.n_iter_ = found.n_iter
        n_seen = (~np.isnan(y)).sum(axis=0)
        constant = 0.5 * np.log(2 * np.pi) * n_seen.sum() + n_seen @ np.log(self._y_scale)
        self.log_likelihood_ = float(-found.value - constant)
        self._conclude(with_prior(found.parameters, data))
        self.pole_errors_ = self._pole_errors(found) if self.refine else np.full(self.order_, np.nan + 0j)
        return self

    def _check_parameters(self):
        choices = {
            "method": METHODS, "noise_model": ("innovations", "output_error"), "domain": ("continuous", "discrete"),
            "criterion": ("aic", "bic", "singular_values"), "hold": ("zoh", "foh"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}. Got {getattr(self, name)!r}.")
        if self.order != "auto" and not is_count(self.order):
            raise ValueError(f"order must be 'auto' or an int >= 1. Got {self.order!r}.")
        for name in ("max_order", "max_iter"):
            if not is_count(getattr(self, name)):
                raise ValueError(f"{name} must be an int >= 1. Got {getattr(self, name)!r}.")
        for name in ("order", "max_order"):
            if getattr(self, name) != "auto" and getattr(self, name) > _MOST_STATES:
                raise ValueError(f"{name} must be at most {_MOST_STATES}. Got {getattr(self, name)}.")
        if self.horizon is not None and not (is_count(self.horizon) and self.horizon >= 2):
            raise ValueError(f"horizon must be None or an int >= 2. Got {self.horizon!r}.")
        if not isinstance(self.tol, Real) or not self.tol > 0:
            raise ValueError(f"tol must be a number > 0. Got {self.tol!r}.")
        if self.domain == "discrete" and self.hold == "foh":
            raise ValueError("hold='foh' has no meaning in discrete time. Take hold='zoh', or domain='continuous'.")

    def _pole_errors(self, found):
        """Standard errors from Fisher's information: dλ = wᴴ dA v / wᴴ v for left and right eigenvectors w and v."""
        values, left, right = eig(found.parameters.A, left=True, right=True)
        products = np.sum(left.conj() * right, axis=0)
        rate = 1.0 if self.domain == "discrete" else 1.0 / self.time_scale_
        changes = np.zeros((len(found.directions), len(values)), complex)
        for j, direction in enumerate(found.directions):
            if "A" in direction:
                changes[j] = np.sum(left.conj() * (direction["A"] @ right), axis=0) / products * rate
        covariance = np.linalg.pinv(found.information, rcond=1e-14, hermitian=True)
        spread = [np.sqrt(np.maximum(np.sum(part * (covariance @ part), axis=0), 0)) for part in
                  (changes.real, changes.imag)]  # fmt: skip
        errors = spread[0] + 1j * spread[1]
        return errors[[int(np.argmin(np.abs(values * rate - pole))) for pole in self.poles_]]


def _location(values, centred):
    """What is subtracted from each column, and what it is divided by: mean and standard deviation, NaN left out."""
    mean = np.nanmean(values, axis=0) if centred else np.zeros(values.shape[1])
    with np.errstate(over="ignore"):
        scale = np.sqrt(np.nanmean((values - mean) ** 2, axis=0))
    if not np.isfinite(scale).all():
        raise ValueError(
            f"values of {np.nanmax(np.abs(values)):.3g} cannot be squared in float64. Give X and y in units in which "
            "they are nearer to 1."
        )
    size = np.nanmax(np.abs(values), axis=0)
    scale = np.where(scale > 1e-13 * size, scale, np.where(size > 0, size, 1.0))
    return mean, scale
