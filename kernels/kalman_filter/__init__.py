"""Filter, smoother, likelihood and exact gradient of a linear-Gaussian model on irregular times.

    x_k = A(Δ_k) x_{k−1} + w_k,  w_k ~ N(0, Q(Δ_k)),    y_k = H_k x_k + ε_k,  ε_k ~ N(0, R_k),

with A and Q block diagonal (``Blocks``), y scalar and possibly missing, and x_1 ~ N(mean, covariance + κ D Dᵀ) in
the exact limit κ → ∞. README.md derives the recursions. Every function here checks its arguments, brings them to
C-contiguous float64, and hands them to a backend: ``cpu`` (Numba), ``reference`` (NumPy, slow) or ``cupy`` (CUDA, for
arrays on a GPU or where it is asked for). Arrays of CuPy and torch tensors on a GPU give such arrays back.
"""

import math
from functools import cache

import numpy as np

from statespace.kernels import cuda
from statespace.kernels.dispatch import OF_A_GPU, BackendError, choose, is_tensor, on_gpu
from statespace.kernels.kalman_filter.blocks import TABLE, Blocks, at_hand, behaved, check_blocks
from statespace.kernels.kalman_filter.results import FilterResult, Gradient, SmootherResult, Step

__all__ = [
    "Blocks",
    "FilterResult",
    "Gradient",
    "SmootherResult",
    "Step",
    "contract_blocks",
    "discretize_blocks",
    "kalman_filter",
    "kalman_gradient",
    "kalman_log_likelihood",
    "kalman_smoother",
    "kalman_step",
    "kalman_stepper",
]


def _backend(name, *arrays):
    if name in OF_A_GPU or on_gpu(*arrays):
        return choose("kalman_filter", name, *arrays)
    return _usual(name)


@cache
def _usual(name):
    return choose("kalman_filter", name)


def _given_back(result, y):
    """The arrays of a result as torch tensors where y was one on a GPU."""
    if not is_tensor(y) or not on_gpu(y):
        return result
    return type(result)(*(cuda.returned(x, y) if on_gpu(x) else x for x in result))


def kalman_filter(
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse=None, *, starts=None, backend=None
):
    """Filtered moments E[x_t | y_1 … y_t], cov[x_t | y_1 … y_t], innovations and log-likelihood.

    With v = y − H a and F = H P Hᵀ + R, an observed sample adds −½ (log 2π + log F + v²/F) to the log-likelihood.
    One that sees a diffuse direction adds −½ (log 2π + log F∞) with F∞ = H P∞ Hᵀ, P∞ = D Dᵀ: the full convention of
    Durbin & Koopman (2012, section 7.2), every observed sample counted. A noise-free observation (R = 0) of what is
    already known exactly adds nothing, or −∞ if it contradicts.

    Parameters
    ----------
    y : array_like of shape (n_times,)
        Observations; NaN where missing.
    dt : array_like of shape (n_times,)
        Gaps Δ ≥ 0 in the unit of time of ``blocks``. ``dt[0]`` leads from the initial state to the first sample: 0 for
        a fresh record, the true gap when a state is carried on.
    blocks : Blocks
        A(Δ) and Q(Δ).
    observation : array_like of shape (n_states,) or (n_times, n_states)
        H, the same for all samples or one row for each.
    noise_variance : float or array_like of shape (n_times,)
        R ≥ 0.
    mean : array_like of shape (n_states,)
    covariance : array_like of shape (n_states, n_states)
        Initial moments; ``covariance`` is the finite part P∗.
    diffuse : array_like of shape (n_states, d), optional
        D: directions of the initial state with infinite variance, linearly independent. Scaling a column by c adds
        −log c to the log-likelihood.
    starts : array_like of int, shape (n_records + 1,), optional
        Many records in one call, on several threads: the arrays over time hold one record after the other, record i
        being samples starts[i] … starts[i + 1] − 1. Each begins at (mean, covariance, diffuse), from which
        ``dt[starts[i]]`` leads to its first sample. The result does not depend on the number of threads.
    backend : {None, "cpu", "cupy", "reference"}

    Returns
    -------
    FilterResult
        ``log_likelihood``, ``mean`` (n_times, n_states), ``covariance`` (n_times, n_states, n_states), ``innovation``,
        ``innovation_variance`` (n_times,), ``diffuse`` (the directions left after the last sample) and ``n_diffuse``.
        With ``starts``, ``log_likelihood`` and ``n_diffuse`` have shape (n_records,) and ``diffuse`` (n_records,
        n_states, d), with columns of zeros for the directions that are resolved.

    Raises
    ------
    ValueError
        Shapes that do not fit, negative or infinite gaps, negative noise, infinite observations, an empty record.
    BackendError
        A backend that cannot run here.

    Notes
    -----
    A record can be cut anywhere and carried on, also while directions are still diffuse: start the second part from
    ``mean[-1]``, ``covariance[-1]`` and ``diffuse`` of the first, with its own first gap in ``dt[0]``.

    References
    ----------
    Koopman (1997), "Exact initial Kalman filtering and smoothing for nonstationary time series models".
    Durbin & Koopman (2012), "Time Series Analysis by State Space Methods", sections 4.3, 5.2, 6.4.

    Examples
    --------
    A local level, first whole and then in two parts:

    >>> import numpy as np
    >>> from statespace.kernels.kalman_filter import Blocks, kalman_filter
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK
    >>> level = Blocks([RANDOM_WALK], [1], [[0.5, 0.0]])
    >>> y, dt = [1.0, np.nan, 2.0, 4.0], [0.0, 1.0, 0.3, 2.0]
    >>> whole = kalman_filter(y, dt, level, [1.0], 1.0, [0.0], [[0.0]], [[1.0]])
    >>> first = kalman_filter(y[:2], dt[:2], level, [1.0], 1.0, [0.0], [[0.0]], [[1.0]])
    >>> rest = kalman_filter(y[2:], dt[2:], level, [1.0], 1.0, first.mean[-1], first.covariance[-1], first.diffuse)
    >>> bool(np.allclose(rest.mean, whole.mean[2:]))
    True
    """
    arguments, starts = _check(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts)
    return _given_back(_backend(backend, *_record(arguments)).kalman_filter(*arguments, starts=starts), y)


def kalman_log_likelihood(
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse=None, *, starts=None, backend=None
):
    """The log-likelihood alone: the arguments, convention and errors of ``kalman_filter``, nothing stored per sample.

    Returns
    -------
    float, or with ``starts`` ndarray of shape (n_records,)

    Examples
    --------
    >>> from statespace.kernels.kalman_filter import Blocks, kalman_log_likelihood
    >>> from statespace.kernels.kalman_filter.blocks import OU
    >>> process = Blocks([OU], [1], [[0.5, 2.0]])
    >>> round(kalman_log_likelihood([0.3, -0.1], [0.0, 1.5], process, [1.0], 0.1, [0.0], [[2.0]]), 6)
    -2.504658
    """
    arguments, starts = _check(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts)
    value = _backend(backend, *_record(arguments)).kalman_log_likelihood(*arguments, starts=starts)
    return cuda.returned(value, y) if on_gpu(value) else value


def kalman_gradient(
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse=None, *, free_parameters=None,
    by_observation=True, starts=None, backend=None,
):  # fmt: skip
    """The log-likelihood and its exact gradient with respect to every input, by one backward sweep.

    The sweep is the smoother's recursion (r, N of Durbin & Koopman, in powers of 1/κ through the diffuse start): the
    adjoint of a predicted mean is r, of a predicted covariance ½ (r rᵀ − N), contracted with dA/dθ and dQ/dθ of each
    block on the way. Predicted moments are kept for about 64 MB of samples at most and recomputed from checkpoints
    beyond, so memory does not grow with the record's moments.

    Parameters
    ----------
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts, backend
        As in ``kalman_filter``.
    free_parameters : array_like of bool, shape as ``blocks.parameters``, optional
        The entries of ``blocks.parameters`` whose gradient is wanted; that of the others is returned as 0. Where no
        free one enters A(Δ), and ``by_observation`` is False, the sweep costs about as much as the filter. For a
        TABLE, column 0 says whether the gradient by its ``transition`` is wanted.
    by_observation : bool, default=True
        Whether the gradient with respect to ``observation`` is wanted; it is returned as 0 otherwise.

    Returns
    -------
    log_likelihood : float, or with ``starts`` ndarray of shape (n_records,)
    gradient : Gradient
        Of the log-likelihood, or of the sum of those of all records.
        ``parameters`` (n_blocks, 3), ``transition``, ``process_noise`` (tables), ``noise_variance``, ``observation``,
        ``mean``, ``covariance`` (symmetric) and ``diffuse``, each with the shape in which the input was given.

    References
    ----------
    Koopman & Shephard (1992), "Exact score for time series models in state space form".

    Examples
    --------
    >>> from statespace.kernels.kalman_filter import Blocks, kalman_gradient
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK
    >>> level = Blocks([RANDOM_WALK], [1], [[0.5, 0.0]])
    >>> value, gradient = kalman_gradient([1.0, 2.0], [0.0, 1.0], level, [1.0], 1.0, [0.0], [[0.0]], [[1.0]])
    >>> round(value, 6), round(float(gradient.parameters[0, 0]), 6), round(float(gradient.noise_variance), 6)
    (-2.496022, -0.12, -0.24)
    """
    arguments, starts = _check(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts)
    shape = np.shape(blocks.parameters)
    free = np.ones(shape, dtype=bool) if free_parameters is None else np.asarray(free_parameters, dtype=bool)
    if free.shape != shape:
        raise ValueError(f"free_parameters must have shape {shape}, as blocks.parameters; got {free.shape}.")
    whole = np.zeros(arguments[2].parameters.shape, dtype=bool)
    whole[:, : shape[1]] = free
    chosen = _backend(backend, *_record(arguments))
    value, gradient = chosen.kalman_gradient(*arguments, whole, bool(by_observation), starts=starts)
    value, gradient = cuda.returned(value, y) if on_gpu(value) else value, _given_back(gradient, y)
    return value, gradient._replace(
        parameters=gradient.parameters[:, : shape[1]],
        noise_variance=gradient.noise_variance.reshape(np.shape(noise_variance))[()],
        observation=gradient.observation.reshape(np.shape(observation)),
    )


def kalman_smoother(
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse=None, readout=None, *, starts=None,
    backend=None,
):  # fmt: skip
    """Smoothed moments E[x_t | all y], cov[x_t | all y], or only those of linear combinations of the state.

    Parameters
    ----------
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts, backend
        As in ``kalman_filter``. A time with y = NaN is interpolated or forecast.
    readout : array_like of shape (r, n_states) or (n_times, r, n_states), optional
        Rows z whose z·x_t is wanted. Memory is then O(n_times · r) beside one segment of checkpoints.

    Returns
    -------
    SmootherResult
        ``log_likelihood``, ``mean`` (n_times, n_states) and ``covariance`` (n_times, n_states, n_states); with
        ``readout`` means (n_times, r) and variances (n_times, r). A variance that the data leave unbounded is infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels.kalman_filter import Blocks, kalman_smoother
    >>> from statespace.kernels.kalman_filter.blocks import TREND
    >>> trend = Blocks([TREND], [2], [[0.0, 0.0]])
    >>> y, dt = [1.0, np.nan, 3.0], [0.0, 0.5, 0.5]
    >>> line = kalman_smoother(y, dt, trend, [1.0, 0.0], 0.1, np.zeros(2), np.zeros((2, 2)), np.eye(2), [[1.0, 0.0]])
    >>> line.mean.ravel().round(6).tolist(), line.covariance.ravel().round(6).tolist()
    ([1.0, 2.0, 3.0], [0.1, 0.05, 0.1])
    """
    arguments, starts = _check(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts)
    if readout is not None:
        n_times, n = len(arguments[0]), len(arguments[5])
        given, readout = np.shape(readout), behaved(readout)
        readout = readout[None] if readout.ndim == 2 else readout
        if readout.ndim != 3 or readout.shape[2] != n or len(readout) not in (1, n_times) or readout.shape[1] == 0:
            raise ValueError(f"readout must have shape (r, {n}) or ({n_times}, r, {n}), r ≥ 1; got {given}.")
    result = _backend(backend, *_record(arguments), readout).kalman_smoother(*arguments, readout, starts=starts)
    return _given_back(result, y)


def kalman_step(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse=None, *, backend=None):
    """One sample of the filter, for streams: predict over the gap ``dt``, then update with ``y`` (NaN only predicts).

    Parameters
    ----------
    y, dt, noise_variance : float
    blocks, mean, covariance, diffuse, backend
        As in ``kalman_filter``; a ``gap_index`` has one entry.
    observation : array_like of shape (n_states,)

    Returns
    -------
    Step
        ``mean``, ``covariance``, ``diffuse`` to start the next step from, ``innovation`` and ``innovation_variance``.

    Examples
    --------
    >>> from statespace.kernels.kalman_filter import Blocks, kalman_step
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK
    >>> level = Blocks([RANDOM_WALK], [1], [[0.5, 0.0]])
    >>> state = kalman_step(1.0, 0.0, level, [1.0], 1.0, [0.0], [[0.0]], [[1.0]])
    >>> state = kalman_step(2.0, 1.0, level, [1.0], 1.0, state.mean, state.covariance, state.diffuse)
    >>> state.mean.round(6).tolist(), state.covariance.round(6).tolist()
    ([1.6], [[0.6]])
    """
    y, dt, noise_variance = float(y), float(dt), float(noise_variance)
    if math.isinf(y) or not 0.0 <= dt < math.inf or not noise_variance >= 0.0:
        raise ValueError(
            f"y must be finite or NaN, dt finite and not negative, noise_variance not negative; got y={y}, dt={dt}, "
            f"noise_variance={noise_variance}."
        )
    stepper = kalman_stepper(blocks, observation, mean, covariance, diffuse, backend=backend)
    stepper.step(y, dt, noise_variance)
    return Step(stepper.mean, stepper.covariance, stepper.diffuse, stepper.innovation, stepper.innovation_variance)


def kalman_stepper(blocks, observation, mean, covariance, diffuse=None, *, backend=None):
    """A filter that holds its state and takes samples one by one; the model is checked here, and only here.

    Parameters
    ----------
    blocks, observation, mean, covariance, diffuse, backend
        As in ``kalman_step``; all are copied.

    Returns
    -------
    Stepper
        ``step(y, dt, noise_variance, observation=None, table=None, predict=True)`` is a ``kalman_step`` in place, of
        floats that the caller has checked: y finite or NaN, dt finite and ≥ 0, noise_variance ≥ 0. ``observation``
        (n_states,) and ``table``, a row each for ``transition`` and ``process_noise``, replace those before;
        ``predict=False`` stays in place and only updates, for a further value at the same time. ``mean`` and
        ``covariance`` (overwritten by the next step), ``diffuse`` and its number of columns ``n_diffuse`` are the
        state, ``innovation`` and ``innovation_variance`` those of the last sample. ``copy.deepcopy`` branches it.

    Examples
    --------
    >>> from statespace.kernels.kalman_filter import Blocks, kalman_stepper
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK
    >>> stepper = kalman_stepper(Blocks([RANDOM_WALK], [1], [[0.5, 0.0]]), [1.0], [0.0], [[0.0]], [[1.0]])
    >>> stepper.step(1.0, 0.0, 1.0)
    >>> stepper.step(2.0, 1.0, 1.0)
    >>> stepper.mean.round(6).tolist(), stepper.covariance.round(6).tolist()
    ([1.6], [[0.6]])
    """
    blocks, observation, mean, covariance, diffuse = _check_model(1, blocks, observation, mean, covariance, diffuse)
    chosen = _backend(backend)
    if not hasattr(chosen, "Stepper"):
        raise BackendError(f"backend={backend!r} filters whole records; for one sample at a time use 'cpu'.")
    return chosen.Stepper(blocks, observation, mean, covariance, diffuse)


def discretize_blocks(blocks, dt, *, backend=None):
    """Dense A(Δ) and Q(Δ) for an array of gaps; the formulas are those that the filter uses.

    Parameters
    ----------
    blocks : Blocks
    dt : array_like of shape (n_times,)
        Gaps Δ ≥ 0.
    backend : {None, "cpu", "cupy", "reference"}

    Returns
    -------
    transition, process_noise : ndarray of shape (n_times, n_states, n_states)

    Examples
    --------
    >>> from statespace.kernels.kalman_filter import Blocks, discretize_blocks
    >>> from statespace.kernels.kalman_filter.blocks import TREND
    >>> A, Q = discretize_blocks(Blocks([TREND], [2], [[1.0, 3.0]]), [2.0])
    >>> A[0].tolist(), Q[0].tolist()
    ([[1.0, 2.0], [0.0, 1.0]], [[10.0, 6.0], [6.0, 6.0]])
    """
    dt = behaved(dt)
    _check_gaps(dt, dt.shape)
    return _backend(backend, dt).discretize_blocks(check_blocks(blocks, len(dt)), dt)


def contract_blocks(blocks, dt, transition_bar, process_noise_bar, *, backend=None):
    """Σ_t ⟨Ā_t, dA(Δ_t)/dθ⟩ + ⟨Q̄_t, dQ(Δ_t)/dθ⟩ for each parameter θ of the blocks: `discretize_blocks`, pulled back.

    Parameters
    ----------
    blocks : Blocks
        Without tables, whose entries are their own gradient.
    dt : array_like of shape (n_times,)
        Gaps Δ ≥ 0.
    transition_bar, process_noise_bar : array_like of shape (n_times, n_states, n_states)
        Ā and Q̄; only their diagonal blocks are read.
    backend : {None, "cpu", "cupy", "reference"}

    Returns
    -------
    ndarray of shape (n_blocks, 3)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kernels.kalman_filter import Blocks, contract_blocks
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK
    >>> contract_blocks(Blocks([RANDOM_WALK], [1], [[0.5, 0.0, 0.0]]), [2.0], np.zeros((1, 1, 1)), np.ones((1, 1, 1)))
    array([[2., 0., 0.]])
    """
    dt, transition_bar, process_noise_bar = behaved(dt), behaved(transition_bar), behaved(process_noise_bar)
    _check_gaps(dt, dt.shape)
    blocks = check_blocks(blocks, len(dt))
    shape = (len(dt), blocks.n_states, blocks.n_states)
    if (blocks.kind == TABLE).any() or transition_bar.shape != shape or process_noise_bar.shape != shape:
        raise ValueError(
            f"contract_blocks needs blocks without tables and adjoints of shape {shape}; got kinds "
            f"{blocks.kind.tolist()} and shapes {transition_bar.shape}, {process_noise_bar.shape}."
        )
    chosen = _backend(backend, dt, transition_bar, process_noise_bar)
    return chosen.contract_blocks(blocks, dt, transition_bar, process_noise_bar)


def _check(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts=None):
    """Every argument as the backends take it: C-contiguous float64, H (1, n) or (T, n), R (1,) or (T,), D (n, d).

    ``starts`` comes beside them, as int64.
    """
    y, dt, noise_variance = behaved(y), behaved(dt), behaved(noise_variance)
    if y.ndim != 1 or len(y) == 0:
        raise ValueError(f"y must have shape (n_times,) with at least one sample; got {y.shape}.")
    T = len(y)
    if starts is not None:
        starts = _check_starts(starts, T)
    if np.isinf(y).any():
        t = int(np.flatnonzero(np.isinf(y))[0])
        raise ValueError(f"y[{t}]{_place(t, starts)} is infinite. Use NaN for a missing observation.")
    _check_gaps(dt, (T,), starts)
    if noise_variance.shape != () and noise_variance.shape != (T,):
        raise ValueError(f"noise_variance must be a number or have shape ({T},); got shape {noise_variance.shape}.")
    if not (noise_variance >= 0.0).all():
        t = int(np.flatnonzero(~(noise_variance.reshape(-1) >= 0.0))[0])
        which = f"noise_variance[{t}]{_place(t, starts)}" if noise_variance.ndim else "it"
        raise ValueError(f"noise_variance must not be negative or NaN; {which} is {noise_variance.reshape(-1)[t]}.")
    blocks, observation, mean, covariance, diffuse = _check_model(T, blocks, observation, mean, covariance, diffuse)
    return (y, dt, blocks, observation, noise_variance.reshape(-1), mean, covariance, diffuse), starts


def _record(arguments):
    """What decides where a call runs: y, Δ, h and R; the few numbers of a model go where these are."""
    y, dt, blocks, observation, noise_variance, *_ = arguments
    return y, dt, observation, noise_variance, blocks.gap_index


def _check_starts(starts, T):
    given = at_hand(starts, None)
    if given.ndim != 1 or len(given) < 2 or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(
            f"starts must hold whole numbers, shape (n_records + 1,), n_records ≥ 1; got {given.dtype}, {given.shape}."
        )
    starts = behaved(given, np.int64)
    if starts[0] != 0 or starts[-1] != T:
        raise ValueError(f"starts must lead from 0 to n_times = {T}; got {starts[0]} to {starts[-1]}.")
    if (np.diff(starts) < 1).any():
        i = np.flatnonzero(np.diff(starts) < 1)[0]
        raise ValueError(
            f"record {i} has no sample: starts[{i}] = {starts[i]}, starts[{i + 1}] = {starts[i + 1]}. Leave it out."
        )
    return starts


def _place(t, starts):
    """Where in which record a sample stands, for an error's sentence."""
    if starts is None:
        return ""
    i = np.searchsorted(starts, t, side="right") - 1
    return f" (sample {t - starts[i]} of record {i})"


def _check_model(T, blocks, observation, mean, covariance, diffuse):
    blocks = check_blocks(blocks, T)
    n = blocks.n_states
    observation, mean, covariance = behaved(observation), at_hand(mean), at_hand(covariance)
    diffuse = np.zeros((n, 0)) if diffuse is None else at_hand(diffuse)
    if observation.shape != (n,) and observation.shape != (T, n):
        raise ValueError(f"observation must have shape ({n},) or ({T}, {n}); got {observation.shape}.")
    if mean.shape != (n,) or covariance.shape != (n, n):
        raise ValueError(
            f"blocks have {n} states, so mean must have shape ({n},) and covariance ({n}, {n}); got {mean.shape} and "
            f"{covariance.shape}."
        )
    if diffuse.ndim != 2 or len(diffuse) != n or diffuse.shape[1] > n:
        raise ValueError(f"diffuse must have shape ({n}, d), d ≤ {n}, one column a direction; got {diffuse.shape}.")
    return blocks, observation.reshape(-1, n), mean, covariance, diffuse


def _check_gaps(dt, shape, starts=None):
    if dt.ndim != 1 or dt.shape != shape:
        raise ValueError(f"dt must have shape {shape if len(shape) == 1 else '(n_times,)'}; got {dt.shape}.")
    if len(dt) and not (dt.min() >= 0.0 and dt.max() < np.inf):
        t = int(np.flatnonzero(~((dt >= 0.0) & (dt < np.inf)))[0])
        raise ValueError(
            f"dt must be finite and not negative; dt[{t}]{_place(t, starts)} = {dt[t]}. Sort the samples by time."
        )
