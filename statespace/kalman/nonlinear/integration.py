"""Moments and paths of stochastic differential equations over a gap, short or long.

The moments obey, with the drift linearised as f(x) ≈ f̄ + F (x − m) (Särkkä and Solin 2019, sec. 9.1),

    dm/dt = f̄,    dP/dt = F P + P Fᵀ + L Q Lᵀ.

P is kept in two parts: D Dᵀ, what is left of the deviations at the start, D' = F D, and W, the noise since. Neither is
found by a difference, and D ties the end of the gap to its start, which is what a smoother needs.
"""

import numpy as np
from scipy.integrate import DOP853

from statespace.kalman.nonlinear.roots import triangular

_MAX_STEPS, _MAX_PATH_STEPS = 10_000, 100_000
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 5.0
# A step that is so short a part of the gap ends nowhere.
_SHORTEST = 1e-10
# A standard deviation that is so small beside the state itself is not resolved further.
_NEGLIGIBLE = 1e-7
# A step of this length, in units of the matrix's norm, is summed as a Taylor series of so many terms: to 1e-19.
_SHORT, _TERMS = 0.5, 17
# A stochastic sub-step by default, times the norm of the drift's Jacobian.
_PATH_STEP = 0.1


def moments(rates, mean, root, length, tolerance, substeps=None, least=0.0):
    """Integrate the moments over a gap.

    Parameters
    ----------
    rates : callable
        ``rates(s, mean, deviations, noise)`` -> f̄ (n,), F [D W] (n, m + n) and L Q Lᵀ (n, n), at s after the start.
    mean : ndarray of shape (n,)
    root : ndarray of shape (n, m)
        D at the start.
    length : float
    tolerance : float
        Of a step's error, relative to the standard deviations (and, for the mean, to its size).
    substeps : int, optional
        So many steps of the classical fourth-order Runge–Kutta scheme in the place of adaptive ones.
    least : ndarray of shape (n,), optional
        Standard deviations below which errors do not matter: without uncertainty at the start, those at its end. Its
        first growth, as a power of the time, has a relative error that no step is short enough for.

    Returns
    -------
    mean : ndarray of shape (n,)
    deviations : ndarray of shape (n, m)
    noise : ndarray of shape (n, n)
        W, symmetric.
    """
    n, m = root.shape

    def derivative(s, y):
        y = y.reshape(n, 1 + m + n)
        drift, linear, diffusion = rates(s, y[:, 0], y[:, 1 : 1 + m], y[:, 1 + m :])
        result = np.empty_like(y)
        result[:, 0] = drift
        result[:, 1:] = linear
        noise = result[:, 1 + m :]
        noise += noise.T.copy()
        noise += diffusion
        return result.ravel()

    def scale(y):
        y = np.abs(y.reshape(n, 1 + m + n))
        variances = np.square(y[:, 1 : 1 + m]).sum(axis=1) + y[:, 1 + m :].diagonal()
        deviations = np.maximum(np.sqrt(variances), np.maximum(least, _NEGLIGIBLE * y[:, 0]))
        result = np.empty_like(y)
        result[:, 0] = y[:, 0] + deviations
        result[:, 1 : 1 + m] = deviations[:, None]
        result[:, 1 + m :] = np.outer(deviations, deviations)
        return result.ravel()

    y = np.zeros((n, 1 + m + n))
    y[:, 0], y[:, 1 : 1 + m] = mean, root
    if substeps is None:
        y = _adaptive(derivative, y.ravel(), length, tolerance, scale)
    else:
        y = _fixed(derivative, y.ravel(), length, substeps)
    y = y.reshape(n, 1 + m + n)
    noise = y[:, 1 + m :]
    return y[:, 0].copy(), y[:, 1 : 1 + m].copy(), (noise + noise.T) / 2


def _adaptive(derivative, y, length, tolerance, scale):
    """Dormand and Prince's pair of order 8 with scipy's coefficients; the first step tried is the whole gap."""
    a, b, c = DOP853.A, DOP853.B, DOP853.C
    stages = np.empty((13, y.size))
    s, h, rejected = 0.0, length, False
    stages[0] = derivative(0.0, y)
    for _ in range(_MAX_STEPS):
        h = min(h, length - s)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for i in range(1, 12):
                stages[i] = derivative(s + c[i] * h, y + h * (a[i, :i] @ stages[:i]))
            new = y + h * (b @ stages[:12])
            stages[12] = derivative(s + h, new)
            error = _error(stages, h, np.maximum(scale(y), scale(new)) * tolerance)
        if error <= 1.0:
            if s + h >= length:
                return new
            s, y = s + h, new
            stages[0] = stages[12]
            grow = _GROW if error == 0.0 else min(_GROW, _SAFETY * error**-0.125)
            h *= min(1.0, grow) if rejected else grow
            rejected = False
        else:
            h *= max(_SHRINK, _SAFETY * error**-0.125) if np.isfinite(error) else _SHRINK
            rejected = True
        if h < _SHORTEST * length:
            break
    raise ValueError(
        f"The moments could not be integrated over a gap of {length:g}: stopped after {s:g} of it. The drift may "
        "grow without bound there, or be stiff: give a linear drift as a matrix, raise tolerance, or use substeps."
    )


def _error(stages, h, allowed):
    allowed = np.maximum(allowed, np.finfo(float).tiny)
    fifth = np.linalg.norm(DOP853.E5 @ stages / allowed) ** 2
    third = np.linalg.norm(DOP853.E3 @ stages / allowed) ** 2
    if fifth == 0.0 and third == 0.0:
        return 0.0
    return h * fifth / np.sqrt((fifth + 0.01 * third) * stages.shape[1])


def _fixed(derivative, y, length, substeps):
    h = length / substeps
    for i in range(substeps):
        s = i * h
        k1 = derivative(s, y)
        k2 = derivative(s + h / 2, y + h / 2 * k1)
        k3 = derivative(s + h / 2, y + h / 2 * k2)
        k4 = derivative(s + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


def gaussian_step(matrix, noise_root, dt):
    """exp(AΔ) and a root of ∫ exp(As) L Q Lᵀ exp(Aᵀs) ds, by doubling a short step: all of it is sums and products.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        A.
    noise_root : ndarray of shape (n, q)
        L √Q.
    dt : float

    Returns
    -------
    transition : ndarray of shape (n, n)
    root : ndarray of shape (n, n)
    """
    n = len(matrix)
    size = np.linalg.norm(matrix, 1) * dt
    if not np.isfinite(size):
        raise ValueError(f"The drift's matrix must be finite. Got {matrix.tolist()}.")
    doublings = max(0, int(np.ceil(np.log2(size / _SHORT)))) if size > _SHORT else 0
    h = dt / 2.0**doublings
    powers = [np.eye(n)]
    for k in range(1, _TERMS):
        powers.append(powers[-1] @ matrix * (h / k))
    # Gauss–Legendre sums of squares: exact for the polynomials that chains of integrators give, and never negative.
    nodes, weights = np.polynomial.legendre.leggauss(max(n, 8))
    fractions = ((nodes + 1) / 2)[:, None] ** np.arange(_TERMS)
    transitions = np.tensordot(fractions, powers, axes=1)
    columns = np.sqrt(h * weights / 2)[:, None, None] * (transitions @ noise_root)
    root = triangular(np.concatenate(list(columns), axis=1))
    transition = np.sum(powers, axis=0)
    for _ in range(doublings):
        root = triangular(np.concatenate([root, transition @ root], axis=1))
        transition = transition @ transition
    return transition, root


def random_steps(model, x, t, dt, u, rng, max_step=None):
    """Move states over a gap, each with noise of its own.

    Discrete models and linear drifts take one exact step. Others take sub-steps: of strong order 1.5 where the
    diffusion is constant (Rößler 2010, SRA1), otherwise Euler–Maruyama (order 0.5).

    Parameters
    ----------
    model : NonlinearModel
    x : ndarray of shape (m, n)
    t : float
        At the start of the gap.
    dt : float
    u : ndarray of shape (n_inputs,) or None
    rng : Generator
    max_step : float, optional

    Returns
    -------
    ndarray of shape (m, n)
    """
    difference = model.state_difference
    if not model.continuous:
        arguments = {"t": t + dt, "dt": dt, "u": u}
        noise = model.process_noise.draw(x, rng, **arguments)
        return difference.wrapped(model.transition(x, **arguments) + noise)
    if model.is_exact:
        transition, root = model.linear_step(dt)
        return difference.wrapped(x @ transition.T + rng.standard_normal(x.shape) @ root.T)
    count = _n_steps(model, x, t, dt, u, max_step)
    h = dt / count
    for i in range(count):
        now = {"t": t + i * h, "u": u}
        noise = model.diffusion.at(x, **now)
        first = np.sqrt(h) * rng.standard_normal((len(x), noise.shape[-1]))
        rate = model.drift(x, **now)
        if model.diffusion.is_constant:
            second = (first + np.sqrt(h / 3) * rng.standard_normal(first.shape)) / 2
            middle = x + 0.75 * h * rate + 1.5 * second @ noise.T
            later = model.drift(middle, t=now["t"] + 0.75 * h, u=u)
            x = x + h * (rate + 2 * later) / 3 + first @ noise.T
        else:
            x = x + h * rate + np.einsum("...ij,...j->...i", noise, first)
    return difference.wrapped(x)


def _n_steps(model, x, t, dt, u, max_step):
    """Sub-steps of a gap: by the drift's Jacobian at the mean of the states unless the user says."""
    if max_step is None:
        mean = x.mean(axis=0)
        if not np.isfinite(mean).all():
            raise ValueError("The states became infinite or NaN: the drift grows without bound, or max_step is long.")
        jacobian = model.drift_jacobian(mean, lambda: x.std(axis=0), t=t, u=u)
        max_step = _PATH_STEP / max(np.linalg.norm(jacobian, 1), 1e-300)
    count = int(np.ceil(min(dt / max_step, _MAX_PATH_STEPS + 1.0)))
    if count > _MAX_PATH_STEPS:
        raise ValueError(f"A gap of {dt:g} would need more than {_MAX_PATH_STEPS} sub-steps: give a longer max_step.")
    return max(count, 1)
