"""A record of vector observations as the sequence of scalar ones that the kernel filters, and the way back.

Sample t becomes p rows: the first carries the transition, the others none. Correlated observation noise is made
uncorrelated by R = L diag(d) Lᵀ of the observed part, y ↦ L⁻¹y, H ↦ L⁻¹H, which leaves the likelihood as it is (Durbin
& Koopman 2012, section 6.4). What moves the state from outside, c + B u, is a column of the transition that multiplies
a constant last state: unlike a trajectory taken off beforehand, it stays accurate for an unstable system that is held
by its input. Noise of observations that is correlated with that of the states becomes a state itself.

Above: `model`, `smoothing`, `estimation`. Below: `statespace.kernels.kalman_filter`.
"""

import numpy as np

from statespace.kalman.system import AT, BETWEEN, stationary_covariance, unit_triangular
from statespace.kernels.kalman_filter import Blocks, kalman_filter, kalman_gradient, kalman_log_likelihood
from statespace.kernels.kalman_filter.blocks import N_PARAMETERS, TABLE

_NO_PARAMETERS = np.zeros((1, N_PARAMETERS))


def observation_noise_as_state(system):
    """The same model with state (x, ε), whose observations are free of noise: w_t = S R⁺ ε_t + w*_t.

    Parameters
    ----------
    system : System

    Returns
    -------
    System
        Without ``cross_covariance``; n + p states.
    """
    S, R, Q = system.state_cross_covariance(), system.observation_noise, system.state_noise()
    n, p = system.n_states, system.n_outputs
    following = R if len(R) == 1 else np.concatenate([R[1:], R[-1:]])
    R = R if len(R) == 1 else R[: max(len(R) - 1, 1)]
    following = following[: len(R)]
    gain = S @ np.linalg.pinv(R, hermitian=True)
    own = Q - gain @ np.swapaxes(S, 1, 2)
    length = max(len(system.transition), len(own), len(R))
    A, V = np.zeros((length, n + p, n + p)), np.zeros((length, n + p, n + p))
    A[:, :n, :n], A[:, :n, n:] = system.transition, gain
    V[:, :n, :n], V[:, n:, n:] = 0.5 * (own + np.swapaxes(own, 1, 2)), following
    H = system.observation
    covariance = np.zeros((n + p, n + p))
    covariance[:n, :n], covariance[n:, n:] = system.initial_covariance, system.observation_noise[0]
    return system._replace(
        transition=A, process_noise=V, selection=None, cross_covariance=None,
        observation=np.concatenate([H, np.broadcast_to(np.eye(p), (len(H), p, p))], axis=2),
        observation_noise=np.zeros((1, p, p)),
        state_intercept=np.pad(system.state_intercept, ((0, 0), (0, p))),
        input_matrix=np.pad(system.input_matrix, ((0, 0), (0, p), (0, 0))),
        initial_mean=np.pad(system.initial_mean, (0, p)),
        initial_covariance=covariance, initial_diffuse=np.pad(system.initial_diffuse, ((0, p), (0, 0))),
    )  # fmt: skip


# Entries of a matrix up to which more arithmetic in one product costs less than a product for each sample.
_SMALL = 100


class Sequence:
    """One record bound to a system.

    Parameters
    ----------
    system : System
        Its time-varying arrays fit the record: T samples, T − 1 steps.
    y : ndarray of shape (T, p)
        NaN where missing.
    u : ndarray of shape (T, k), optional
    affine : bool
        Whether the constant state is wanted even where nothing moves the state from outside: with it the gradient
        knows the intercepts.
    rows : bool
        Whether each observation has a row of its own even where one would do: the gradient then tells them apart.
    correlated : bool
        Whether observation noise is treated as correlated even where it is not, for the gradient by its covariances.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LinearGaussianModel
    >>> from statespace.kalman.sequential import Sequence
    >>> model = LinearGaussianModel(np.eye(2), np.eye(2), np.eye(2), [[1.0, 0.5], [0.5, 1.0]])
    >>> sequence = Sequence(model.system_, np.array([[1.0, 2.0], [0.5, np.nan]]))
    >>> round(sequence.log_likelihood(), 6)
    -3.347788
    """

    def __init__(self, system, y, u=None, affine=False, rows=False, correlated=False):
        self.given, self.n_given = system, system.n_states
        system = system if system.cross_covariance is None else observation_noise_as_state(system)
        self.system, self.y, self.u = system, y, u
        n = system.n_states
        self.observed = ~np.isnan(y)
        self.offset = system.offset(u)
        push = system.push(u)
        if affine and u is not None and len(push) == 1:
            push = np.repeat(push, max(len(y) - 1, 1), axis=0)
        self.affine = bool(affine or push.any())
        self.n = n + self.affine
        self.A, self.Q = self._steps(push)
        self.mean, self.covariance = system.initial_mean, system.initial_covariance
        self.diffuse = system.initial_diffuse
        self.H = system.observation
        if self.affine:
            self.mean, self.covariance = np.append(self.mean, 1.0), np.pad(self.covariance, (0, 1))
            self.diffuse = np.pad(self.diffuse, ((0, 1), (0, 0)))
            self.H = np.pad(self.H, ((0, 0), (0, 0), (0, 1)))
        self._observations(rows, correlated)

    def _steps(self, push):
        """A and Q of shape (1 or T − 1, m, m)."""
        A, Q, n = self.system.transition, self.system.state_noise(), self.system.n_states
        length = max(len(A), len(Q), len(push))
        if length == 1 and not self.affine:
            return A, Q
        wide_A, wide_Q = np.zeros((length, self.n, self.n)), np.zeros((length, self.n, self.n))
        wide_A[:, :n, :n], wide_Q[:, :n, :n] = A, Q
        if self.affine:
            wide_A[:, :n, n], wide_A[:, n, n] = push, 1.0
        return wide_A, wide_Q

    def _observations(self, rows, correlated):
        """Row by row: values (T p,), h (m,) or (T p, m), R a number or (T p,)."""
        T, p = self.y.shape
        values, H, R = self.y - self.offset, self.H, self.system.observation_noise
        self.scale, self.shift = None, 0.0
        if p > 1 and not R.any():
            # What is seen without noise is known once seen, and the kernel finds out by comparing variances: they need
            # one unit.
            size = np.nanmax(np.abs(values), axis=0, initial=0.0, where=self.observed)
            self.scale = np.where(size > 0.0, size, 1.0)
            values, H, R = values / self.scale, H / self.scale[:, np.newaxis], R / np.outer(self.scale, self.scale)
            self.shift = -float(self.observed.sum(axis=0) @ np.log(self.scale))
        variances = np.diagonal(R, axis1=1, axis2=2)
        self.groups = []
        if p > 1 and (correlated or (variances[:, np.newaxis] * np.eye(p) != R).any()):
            values, H, variances = self._uncorrelated(values, H, R)
        self.by_row = rows or p > 1 or len(H) > 1
        if self.by_row:
            H = np.array(np.broadcast_to(H, (T, p, self.n)))
            if p > 1:
                H[~self.observed] = 0.0
            H = H.reshape(T * p, self.n)
        else:
            H = H[0, 0]
        self.single_noise = p == 1 and len(variances) == 1
        noise = variances[0, 0] if self.single_noise else np.broadcast_to(variances, (T, p)).reshape(-1)
        self.rows = (values.reshape(-1), H, noise)

    def _uncorrelated(self, values, H, R):
        T, p = self.y.shape
        H = np.array(np.broadcast_to(H, (T, p, self.n)))
        values, variances = values.copy(), np.ones((T, p))
        patterns, which = np.unique(self.observed, axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            seen = np.flatnonzero(pattern)
            if len(seen) == 0:
                continue
            times = np.flatnonzero(which.ravel() == k)
            block = (R if len(R) == 1 else R[times])[:, seen[:, np.newaxis], seen]
            L, d = unit_triangular(block)
            inverse = np.linalg.inv(L)
            at = np.ix_(times, seen)
            values[at] = (inverse @ values[at][..., np.newaxis])[..., 0]
            H[at] = inverse @ H[at]
            variances[at] = d
            self.groups.append((times, seen, d, inverse))
        return values, H, variances

    def values_of(self, y):
        """The rows (S T p,) of other records (S, T, p) that miss the same entries."""
        values = y - self.offset
        if self.scale is not None:
            values = values / self.scale
        for times, seen, _, inverse in self.groups:
            at = (slice(None), times[:, np.newaxis], seen)
            values[at] = (inverse @ values[at][..., np.newaxis])[..., 0]
        return values.reshape(-1)

    def arguments(self, each=False, silent=False):
        """What the kernel's functions take.

        ``each``: every step has its own row of the table, so that a gradient tells them apart. ``silent``: the same
        record with all observations and means 0: second moments do not depend on them.
        """
        T, p = self.y.shape
        A, Q = self.A, self.Q
        if each and len(A) < T - 1:
            A, Q = (np.broadcast_to(array, (T - 1, self.n, self.n)) for array in (A, Q))
        # −1: the state stays where it is
        index = np.full((T, p), -1)
        index[1:, 0] = np.arange(T - 1) if len(A) > 1 else 0
        table = A.reshape(len(A), -1), Q.reshape(len(Q), -1)
        blocks = Blocks(np.array([TABLE]), np.array([self.n]), _NO_PARAMETERS, *table, index.reshape(-1))
        values, H, noise = self.rows
        mean = self.mean
        if silent:
            values, mean = np.where(np.isnan(values), np.nan, 0.0), np.zeros_like(mean)
        return values, np.zeros(T * p), blocks, H, noise, mean, self.covariance, self.diffuse

    def log_likelihood(self):
        return kalman_log_likelihood(*self.arguments()) + self.shift

    def filter(self):
        """Means and covariances after and before each sample, what of them is unbounded, and the log-likelihood.

        All with the constant state, where there is one.
        """
        T, p = self.y.shape
        result = kalman_filter(*self.arguments())
        mean, covariance = result.mean[p - 1 :: p], result.covariance[p - 1 :: p]
        return (
            mean,
            covariance,
            *self.predict(mean, covariance),
            *self.unbounded(result.innovation_variance),
            result.log_likelihood + self.shift,
        )

    def predict(self, mean, covariance):
        """E[x_t | the past] and its covariance, from those of the samples themselves."""
        A, Q = self.A, self.Q
        ahead = np.concatenate([self.mean[np.newaxis], applied(A, mean[:-1])])
        spread = np.concatenate([self.covariance[np.newaxis], symmetric(propagated(A, covariance[:-1]) + Q)])
        return ahead, spread

    def unbounded(self, variances):
        """Which states are unbounded after each sample and before it (T, m), and which observations (T, p).

        ``variances`` are those of the innovations row by row, infinite where a row sees a diffuse direction.
        """
        T, p = self.y.shape
        after, before, outputs = np.zeros((T, self.n), bool), np.zeros((T, self.n), bool), np.zeros((T, p), bool)
        D = self.diffuse
        caught = np.isinf(variances).reshape(T, p) & self.observed
        rows = np.broadcast_to(self.rows[1], (T * p, self.n)).reshape(T, p, self.n)
        for t in range(T):
            if D.shape[1] == 0:
                break
            if t > 0:
                D = self.A[min(t - 1, len(self.A) - 1)] @ D
            before[t] = _long(D)
            H = self.H[min(t, len(self.H) - 1)]
            outputs[t] = np.abs(H @ D).max(axis=1) > 1e-9 * np.linalg.norm(H, axis=1) * np.linalg.norm(D)
            for i in np.flatnonzero(caught[t]):
                D = eliminated(D, rows[t, i] @ D)
            after[t] = _long(D)
        return after, before, outputs

    def gradient(self, by_observation=True, by_transition=True):
        """The log-likelihood and its gradient by each array of the system, as a dict; each has its array's shape.

        Without ``by_observation`` or ``by_transition`` the sweep is quicker, and those entries mean nothing.
        """
        free = np.full((1, N_PARAMETERS), by_transition)
        value, g = kalman_gradient(*self.arguments(), free_parameters=free, by_observation=by_observation)
        T, p = self.y.shape
        m, n = self.n, self.system.n_states
        A_bar = g.transition.reshape(-1, m, m)
        Q_bar = g.process_noise.reshape(-1, m, m)[:, :n, :n]
        push = A_bar[:, :n, n] if self.affine else np.zeros((1, n))
        if self.by_row:
            H_bar = g.observation.reshape(T, p, m)
        else:
            H_bar = g.observation.reshape(1, p, m)
        R_bar = np.reshape(g.noise_variance, (-1, p))
        if self.groups:
            H_bar, R_bar = self._correlated(H_bar, R_bar)
        else:
            R_bar = R_bar[:, :, np.newaxis] * np.eye(p)
        if self.scale is not None:
            H_bar, R_bar = H_bar / self.scale[:, np.newaxis], R_bar / np.outer(self.scale, self.scale)
        shift = H_bar[:, :, n] if self.affine else np.zeros((1, p))
        result = {
            "transition": A_bar[:, :n, :n], "state_noise": Q_bar, "state_intercept": push,
            "observation": H_bar[:, :, :n], "observation_noise": R_bar, "observation_intercept": shift,
            "initial_mean": g.mean[:n], "initial_covariance": g.covariance[:n, :n],
        }  # fmt: skip
        if self.u is not None and self.affine:
            result["input_matrix"] = np.einsum("tn,tk->tnk", push, self.u[: len(push)])
            result["feedthrough"] = np.einsum("tp,tk->tpk", shift, self.u[: len(shift)])
        if self.given.cross_covariance is not None:
            result = self._from_wide(result)
        return value + self.shift, self._of_system(result)

    def transition_gradient(self, by_transition=True):
        """The log-likelihood and its gradients by A and G Q Gᵀ, (1 or T − 1, n, n) without the constant state."""
        free = np.full((1, N_PARAMETERS), by_transition)
        value, g = kalman_gradient(*self.arguments(), free_parameters=free, by_observation=False)
        n = self.system.n_states
        cut = (g.transition.reshape(-1, self.n, self.n), g.process_noise.reshape(-1, self.n, self.n))
        return value + self.shift, *(array[:, :n, :n] for array in cut)

    def _correlated(self, H_bar, R_bar):
        """Back through y ↦ L⁻¹y, H ↦ L⁻¹H and R ↦ d, pattern by pattern."""
        T, p = self.y.shape
        values, H, _ = self.rows
        values, H = values.reshape(T, p), H.reshape(T, p, self.n)
        back_H, back_R = np.zeros_like(H_bar), np.zeros((T, p, p))
        for times, seen, d, inverse in self.groups:
            at = np.ix_(times, seen)
            h_bar = H_bar[at]
            # v = y − h·x: the adjoint of y is minus that of the constant state's column
            y_bar = -h_bar[..., -1]
            transposed = np.swapaxes(inverse, 1, 2)
            back_H[at] = transposed @ h_bar
            # L⁻ᵀ (−adjoint · valueᵀ), of which Lᵀ(…) is wanted
            inner = -(h_bar @ np.swapaxes(H[at], 1, 2) + y_bar[..., :, np.newaxis] * values[at][..., np.newaxis, :])
            scale = np.where(d > 0.0, d, np.inf)[..., np.newaxis, :]
            M = np.tril(inner, -1) / scale
            M += R_bar[at][..., :, np.newaxis] * np.eye(len(seen))
            M = 0.5 * (M + np.swapaxes(M, 1, 2))
            back_R[times[:, np.newaxis, np.newaxis], seen[:, np.newaxis], seen] = transposed @ M @ inverse
        return back_H, back_R

    def _from_wide(self, g):
        """From the model with state (x, ε) to the given one: gain = S R⁻¹, own noise = Q − S R⁻¹ Sᵀ."""
        system, n = self.given, self.n_given
        S, R = system.state_cross_covariance(), system.observation_noise
        if len(S) > 1 or len(R) > 1:
            raise ValueError(
                "a gradient needs constant observation_noise and cross_covariance if these are correlated."
            )
        inverse = np.linalg.pinv(R[0], hermitian=True)
        gain = S[0] @ inverse
        A_bar, Q_bar = g["transition"], g["state_noise"]
        gain_bar = A_bar[:, :n, n:].sum(axis=0)
        own_bar = Q_bar[:, :n, :n].sum(axis=0)
        R_bar = Q_bar[:, n:, n:].sum(axis=0) + g["initial_covariance"][n:, n:] + gain.T @ own_bar @ gain
        R_bar -= gain.T @ gain_bar @ inverse
        return g | {
            "transition": A_bar[:, :n, :n], "state_noise": Q_bar[:, :n, :n],
            "cross_covariance": (gain_bar @ inverse - 2.0 * own_bar @ gain)[np.newaxis],
            "state_intercept": g["state_intercept"][:, :n], "observation": g["observation"][:, :, :n],
            "observation_noise": (0.5 * (R_bar + R_bar.T))[np.newaxis],
            "initial_mean": g["initial_mean"][:n], "initial_covariance": g["initial_covariance"][:n, :n],
        } | ({"input_matrix": g["input_matrix"][:, :n]} if "input_matrix" in g else {})  # fmt: skip

    def _of_system(self, g):
        """Through the stationary start and the selection, and sums over time where an array is constant."""
        system = self.given
        if system.stationary:
            g = self._through_stationary_start(g)
        g["process_noise"] = g.pop("state_noise")
        if system.selection is not None:
            transposed = np.swapaxes(system.selection, 1, 2)
            g["process_noise"] = transposed @ g["process_noise"] @ system.selection
            if "cross_covariance" in g:
                g["cross_covariance"] = transposed @ g["cross_covariance"]
        for name in BETWEEN + AT:
            if name in g:
                length = len(getattr(system, name))
                g[name] = g[name].sum(axis=0, keepdims=True) if length == 1 else _spread(g[name], length)
        return g

    def _through_stationary_start(self, g):
        """P = A P Aᵀ + Q and m = A m + c: their adjoints solve the transposed equations."""
        s = slice(0, self.given.stationary)
        A, P, m = self.given.transition[0, s, s], self.given.initial_covariance[s, s], self.given.initial_mean[s]
        Y = stationary_covariance(A.T, g["initial_covariance"][s, s])
        z = np.linalg.solve(np.eye(len(A)) - A.T, g["initial_mean"][s])
        g = g | {name: g[name].copy() for name in ("transition", "state_noise", "state_intercept")}
        g["transition"][0, s, s] += 2.0 * Y @ A @ P + np.outer(z, m)
        g["state_noise"][0, s, s] += Y
        g["state_intercept"][0, s] += z
        return g


def applied(M, x):
    """M x of shape (T, p), for M (1 or T, p, n) and x (T, n)."""
    return x @ M[0].T if len(M) == 1 else (M @ x[..., np.newaxis])[..., 0]


def propagated(M, P):
    """M P Mᵀ of shape (T, p, p), for M (1 or T, p, n) and P (T, n, n)."""
    p, n = M.shape[1:]
    if len(M) == 1 and n * p <= _SMALL:
        # (M ⊗ M) vec P, for all samples in one product of matrices
        return (np.reshape(P, (len(P), n * n)) @ np.kron(M[0], M[0]).T).reshape(len(P), p, p)
    return M @ P @ np.swapaxes(M, 1, 2)


def symmetric(P):
    """The symmetric part of matrices (T, n, n), which rounding may have left."""
    return 0.5 * (P + np.swapaxes(P, 1, 2))


def _spread(array, length):
    return np.array(np.broadcast_to(array, (length, *array.shape[1:]))) if len(array) == 1 else array


def _long(D):
    """Which rows of D are more than rounding noise."""
    sizes = np.linalg.norm(D, axis=1)
    return sizes > 1e-9 * max(sizes.max(initial=0.0), 1e-300)


def eliminated(D, g):
    """The directions D (m, d) without the one that an observation with D ᵀh = g has seen."""
    pivot = int(np.argmax(np.abs(g)))
    w = g / np.abs(g[pivot])
    w[pivot] += np.copysign(np.linalg.norm(w), w[pivot])
    return np.delete(D - np.outer(D @ w, w) * (2.0 / (w @ w)), pivot, axis=1)
