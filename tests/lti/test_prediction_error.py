"""The criteria, their derivatives and their recursions against differences, matrix exponentials and dense Gaussians."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import multivariate_normal

from statespace.lti import process_noise
from statespace.lti.parametrization import Parameters, directions
from statespace.lti.prediction import joined
from statespace.lti.prediction_error import (
    Innovations,
    OutputError,
    filtered,
    simulated,
    solve_linear,
    transitions,
)
from statespace.lti.search import refine


def example(seed=0, n=3, m=2, p=2):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n))
    A -= (np.linalg.eigvals(A).real.max() + 0.3) * np.eye(n)
    P0 = rng.normal(size=(n, n))
    return Parameters(
        A, rng.normal(size=(n, m)), rng.normal(size=(p, n)), rng.normal(size=(p, m)), rng.normal(size=(n, p)),
        np.tril(rng.normal(size=(p, p))), rng.normal(size=p), rng.normal(size=(2, n)), P0 @ P0.T,
    )  # fmt: skip


def observed(parameters, linear=False, discrete=False, missing=True, lengths=(30, 11), seed=1):
    rng = np.random.default_rng(seed)
    m, p = parameters.B.shape[1], len(parameters.C)
    elapsed = [np.cumsum(np.ones(n) if discrete else rng.choice([0.0, 1e-3, 0.4, 1.0, 7.0], n)) for n in lengths]
    u = [rng.normal(size=(n, m)) for n in lengths]
    y = [rng.normal(size=(n, p)) for n in lengths]
    if missing:
        for part in y:
            part[rng.random(part.shape) < 0.2] = np.nan
        y[0][4] = np.nan
    return joined(u, y, elapsed, 1.0, discrete, linear)


def difference(function, parameters, direction):
    """Central differences, extrapolated twice: the error is of the sixth order in the step."""
    def central(h):
        return (function(parameters.moved(direction, h)) - function(parameters.moved(direction, -h))) / (2 * h)

    h = 2e-3
    first = [(4 * central(s / 2) - central(s)) / 3 for s in (h, h / 2)]
    return (16 * first[1] - first[0]) / 15


@pytest.mark.parametrize("criterion", [OutputError, Innovations])
@pytest.mark.parametrize("mode", ["zoh", "foh", "discrete"])
def test_the_gradient_is_exact(criterion, mode):
    parameters = example()
    if mode == "discrete":
        parameters = Parameters(**{**vars(parameters), "A": expm(parameters.A)})
    fitted = criterion(observed(parameters, linear=mode == "foh", discrete=mode == "discrete"))
    along = directions(parameters, True, True, fitted.innovations)
    gradient, information = fitted.expansion(parameters, along)
    expected = np.array([difference(fitted.value, parameters, direction) for direction in along])
    np.testing.assert_allclose(gradient, expected, atol=1e-8 * np.abs(expected).max())
    np.testing.assert_allclose(information, information.T)
    assert np.linalg.eigvalsh(information).min() > -1e-9 * np.abs(information).max()


def test_the_information_is_the_expected_hessian():
    # Over draws from the model itself the products of the gradient's entries have the mean of the information: each
    # sample's gradient given the past has mean 0, and the information as its covariance.
    parameters = example(n=2, m=1, p=1)
    along = directions(parameters, False, False, True)[:3]
    rng, data = np.random.default_rng(0), observed(parameters, missing=False, lengths=(25, 1))
    found = filtered(parameters, data)
    # Innovations are independent N(0, S) and linear in y: e = zero + T y.
    n = len(data.y)
    zero = filtered(parameters, data._replace(y=np.zeros((n, 1)))).e[:, 0]
    T = np.array([filtered(parameters, data._replace(y=np.eye(n)[:, [k]])).e[:, 0] - zero for k in range(n)]).T
    squares, mean = np.zeros((2, 3, 3))
    for _ in range(1500):
        e = np.sqrt(found.S[:, 0, 0]) * rng.normal(size=n)
        y = np.linalg.solve(T, e - zero)[:, np.newaxis]
        gradient, information = Innovations(data._replace(y=y)).expansion(parameters, along)
        squares += np.outer(gradient, gradient) / 1500
        mean += information / 1500
    np.testing.assert_allclose(squares, mean, atol=0.12 * np.abs(mean).max())


@pytest.mark.parametrize("linear", [False, True])
def test_transitions_are_matrix_exponentials(linear):
    parameters = example(seed=2)
    A, Q = parameters.A, parameters.L @ parameters.L.T
    n = len(A)
    gaps = np.array([0.0, 1e-8, 0.01, 1.0, 30.0])
    data = observed(parameters, linear)._replace(gaps=gaps)
    found = transitions(parameters, data, True)
    for k, gap in enumerate(gaps):
        M = np.zeros((3 * n, 3 * n))
        M[:n, :n], M[:n, n : 2 * n], M[n : 2 * n, 2 * n :] = A, np.eye(n), np.eye(n)
        E = expm(M * gap)
        np.testing.assert_allclose(found.E[k], E[:n, :n], atol=1e-13)
        np.testing.assert_allclose(found.F[k], E[:n, n : 2 * n], rtol=1e-10, atol=1e-13)
        if gap:
            np.testing.assert_allclose(found.H[k], E[:n, 2 * n :] / gap, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(found.W[k], process_noise(A, Q, gap), rtol=1e-10, atol=1e-14 * gap)


def test_the_likelihood_is_that_of_the_joint_gaussian():
    parameters = example(seed=3)
    data = observed(parameters, linear=True, lengths=(9, 6))
    value = float(filtered(parameters, data).value)
    mean = simulated(parameters, data)
    total = 0.0
    for first, last in zip(data.starts[:-1], data.starts[1:], strict=True):
        total += _joint(parameters, data, mean, slice(first, last))
    n_seen = int((~np.isnan(data.y)).sum())
    assert value - 0.5 * n_seen * np.log(2 * np.pi) == pytest.approx(total, rel=1e-10)


def _joint(parameters, data, mean, rows):
    A, C, Q = parameters.A, parameters.C, parameters.L @ parameters.L.T
    gaps = data.gaps[data.gap_index[rows]][:-1]
    n, p = len(gaps) + 1, len(C)
    P, states = parameters.P0, []
    for k in range(n):
        states.append(P)
        if k < n - 1:
            E = expm(A * gaps[k])
            P = E @ P @ E.T + process_noise(A, Q, gaps[k])
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    covariance = np.zeros((n * p, n * p))
    for i in range(n):
        for j in range(i, n):
            block = C @ expm(A * (times[j] - times[i])) @ states[i] @ C.T
            covariance[j * p : (j + 1) * p, i * p : (i + 1) * p] = block
            covariance[i * p : (i + 1) * p, j * p : (j + 1) * p] = block.T
    covariance += np.kron(np.eye(n), parameters.G @ parameters.G.T)
    y = data.y[rows].ravel()
    seen = ~np.isnan(y)
    return multivariate_normal(mean[rows].ravel()[seen], covariance[np.ix_(seen, seen)]).logpdf(y[seen])


def test_settled_covariances_are_those_of_every_step():
    parameters = example(seed=4)
    data = observed(parameters, missing=False, lengths=(400, 1))
    regular = data._replace(gap_index=np.full(401, 2))
    # Gaps that are equal but bear two names never settle.
    doubled = regular._replace(gaps=np.append(data.gaps, data.gaps[2]), gap_index=regular.gap_index.copy())
    doubled.gap_index[::2] = len(data.gaps)
    one, other = filtered(parameters, regular), filtered(parameters, doubled)
    np.testing.assert_allclose(one.S, other.S, rtol=1e-11)
    np.testing.assert_allclose(one.e, other.e, atol=1e-10)
    assert (one.S[200] == one.S[201]).all()


def test_a_missing_sample_unsettles_the_covariances():
    parameters = example(seed=4)
    data = observed(parameters, missing=False, lengths=(300, 1))
    data = data._replace(gap_index=np.full(301, 2))
    data.y[200, 0] = data.y[210] = np.nan
    named = data._replace(gaps=np.append(data.gaps, data.gaps[2]), gap_index=data.gap_index.copy())
    named.gap_index[::2] = len(data.gaps)
    np.testing.assert_allclose(filtered(parameters, data).e, filtered(parameters, named).e, atol=1e-10)
    np.testing.assert_allclose(filtered(parameters, data).S, filtered(parameters, named).S, rtol=1e-11)


def test_the_information_about_a_variance():
    # Of the scale of all noise: S = g² S₁ has the information 2 / g² for each output that was seen.
    parameters = example(n=2, m=1, p=1)
    parameters = Parameters(**{**vars(parameters), "L": 0 * parameters.L, "P0": 0 * parameters.P0})
    data = observed(parameters, lengths=(40, 12))
    _, information = Innovations(data).expansion(parameters, [{"G": np.ones((1, 1))}])
    n_seen = int((~np.isnan(data.y)).sum())
    np.testing.assert_allclose(information, [[2 * n_seen / parameters.G[0, 0] ** 2]], rtol=1e-8)


def test_directions_are_across_all_changes_of_the_basis():
    parameters, rng = example(), np.random.default_rng(0)
    for innovations in (False, True):
        along = directions(parameters, False, False, innovations)
        names = ["A", "B", "C", "L"] if innovations else ["A", "B", "C"]
        for _ in range(5):
            X, h = rng.normal(size=(3, 3)), 1e-6
            ahead, behind = (parameters.in_basis(np.eye(3) + s * h * X) for s in (1, -1))
            change = {name: (getattr(ahead, name) - getattr(behind, name)) / (2 * h) for name in names}
            for direction in along:
                product = sum(float(np.sum(change[name] * direction.get(name, 0.0))) for name in names)
                assert abs(product) < 1e-7


def test_directions_leave_out_changes_of_the_basis():
    parameters = example()
    n, m, p = 3, 2, 2
    along = directions(parameters, True, True, False)
    assert len(along) == n * (m + p) + m * p + p + 2 * n
    # No direction is a change of basis: the outputs of a simulation move along every combination of them.
    J = OutputError(observed(parameters, missing=False, lengths=(80, 60))).sensitivities(parameters, along)
    singular_values = np.linalg.svd(J.reshape(len(along), -1), compute_uv=False)
    assert singular_values[-1] > 1e-6 * singular_values[0]
    # With noise: n p more for L less the turns of w, and the lower triangle of G; but no initial states.
    assert len(directions(parameters, True, True, True)) == n * (m + 2 * p) - 1 + m * p + p + 3


def test_another_basis_is_the_same_system():
    parameters, T = example(), np.random.default_rng(5).normal(size=(3, 3))
    data, other = observed(parameters), parameters.in_basis(T)
    np.testing.assert_allclose(simulated(other, data), simulated(parameters, data), atol=1e-10)
    assert Innovations(data).value(other) == pytest.approx(Innovations(data).value(parameters), rel=1e-10)


def test_linear_parameters_are_solved_for():
    parameters = example()
    data = observed(parameters, missing=False, lengths=(60, 30))
    data = data._replace(y=simulated(parameters, data))
    found = solve_linear(Parameters(**{**vars(parameters), "B": 0 * parameters.B}), data, True, True)
    for name in ("B", "D", "offset", "x0"):
        np.testing.assert_allclose(getattr(found, name), getattr(parameters, name), atol=1e-9)


def test_a_search_ends_where_the_gradient_is_zero():
    parameters = example(seed=6)
    data = observed(parameters, missing=False, lengths=(150, 40))
    noise = 0.05 * np.random.default_rng(0).normal(size=data.y.shape)
    criterion = OutputError(data._replace(y=simulated(parameters, data) + noise))
    start = parameters.moved({"A": 0.05 * np.ones((3, 3))}, 1.0)
    fit = refine(start, criterion, feedthrough=True, intercept=True, stable=True, max_iter=50, tol=1e-9)
    assert fit.converged
    assert fit.value < criterion.value(parameters)
    gradient, information = criterion.expansion(fit.parameters, fit.directions)
    # What a Newton step could still gain.
    assert gradient @ np.linalg.solve(information, gradient) < 1e-8
