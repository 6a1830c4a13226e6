"""Explicit models against dense Gaussian conditioning and a plain joint filter."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from statespace.kalman import LinearGaussianModel

FORMS = ("covariance", "square_root")


def oracle(name):
    path = Path(__file__).parents[1] / "oracles" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DenseGaussian = oracle("dense_gaussian").DenseGaussian
joint_filter = oracle("joint_filter").joint_filter


def covariance(rng, n, rank=None):
    L = rng.normal(size=(n, rank or n))
    return L @ L.T / n


def stable(rng, n):
    A = rng.normal(size=(n, n))
    return 0.9 * A / np.abs(np.linalg.eigvals(A)).max()


def random_case(seed, *, n=3, p=2, T=9, varying=False, start="diffuse", cross=False, inputs=False, missing=0.3):
    """Arguments of a model, a record with missing entries, inputs or None, and the oracle's keywords."""
    rng = np.random.default_rng(seed)
    K, L = (T - 1, T) if varying else (1, 1)
    A = np.stack([stable(rng, n) for _ in range(K)])
    H = rng.normal(size=(L, p, n))
    joint = np.stack([covariance(rng, n + p) for _ in range(L)])
    Q, R, S = joint[:K, :n, :n], joint[:, n:, n:], joint[:K, :n, n:]
    c, d = rng.normal(size=(K, n)), rng.normal(size=(L, p))
    arguments = {"state_intercept": c, "observation_intercept": d}
    if cross:
        arguments["cross_covariance"] = S
    u = None
    total_c, total_d = c, d
    if inputs:
        u, B, D = rng.normal(size=(T, 2)), rng.normal(size=(K, n, 2)), rng.normal(size=(L, p, 2))
        arguments |= {"input_matrix": B, "feedthrough": D}
        total_c = c + np.einsum("tnk,tk->tn", np.broadcast_to(B, (T - 1, n, 2)), u[:-1])
        total_d = d + np.einsum("tpk,tk->tp", np.broadcast_to(D, (T, p, 2)), u)
    if not varying:
        arguments = {name: array[0] for name, array in arguments.items()}
    mean, P, diffuse = rng.normal(size=n), np.zeros((n, n)), np.zeros((n, 0))
    if start == "diffuse":
        diffuse = np.eye(n)
        arguments |= {"initial_covariance": "diffuse", "initial_mean": mean}
    elif start == "partly":
        P, diffuse = covariance(rng, n), rng.normal(size=(n, 1))
        arguments |= {"initial_covariance": P, "initial_diffuse": diffuse, "initial_mean": mean}
    else:
        P = covariance(rng, n)
        arguments |= {"initial_covariance": P, "initial_mean": mean}
    matrices = (A, H, Q, R) if varying else (A[0], H[0], Q[0], R[0])
    y = rng.normal(size=(T, p)) * 3
    y[rng.random((T, p)) < missing] = np.nan
    keywords = {
        "A": A, "H": H, "Q": Q, "R": R, "mean": mean, "covariance": P, "diffuse": diffuse, "c": total_c, "d": total_d,
        "S": S if cross else None,
    }  # fmt: skip
    return matrices, arguments, y, u, keywords


CASES = [
    {"start": "known"},
    {"start": "diffuse"},
    {"start": "partly", "inputs": True},
    {"start": "diffuse", "varying": True, "inputs": True, "T": 7},
    {"start": "diffuse", "cross": True},
    {"start": "partly", "cross": True, "varying": True, "inputs": True, "missing": 0.0},
    {"start": "known", "p": 1, "n": 2},
    {"start": "diffuse", "p": 1, "n": 2, "varying": True},
    {"start": "diffuse", "p": 5, "n": 2, "missing": 0.5},
    {"start": "known", "T": 1, "p": 3, "n": 1},
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_smoother_equals_dense_conditioning(case, seed):
    matrices, arguments, y, u, keywords = random_case(seed, **case)
    model = LinearGaussianModel(*matrices, **arguments)
    dense = DenseGaussian(y, **keywords)
    result = model.smooth(y, u)
    tight = {"rtol": 1e-8, "atol": 1e-8}
    assert result.log_likelihood == pytest.approx(dense.log_likelihood, rel=1e-10)
    assert model.log_likelihood(y, u) == pytest.approx(dense.log_likelihood, rel=1e-10)
    for t in range(len(y)):
        mean, V = dense.state(t)
        np.testing.assert_allclose(result.mean[t], mean, **tight)
        np.testing.assert_allclose(result.covariance[t], V, **tight)
        noise, spread = dense.observation_disturbance(t)
        np.testing.assert_allclose(result.observation_disturbance[t], noise, **tight)
        np.testing.assert_allclose(result.observation_disturbance_covariance[t], spread, **tight)
    for t in range(len(y) - 1):
        np.testing.assert_allclose(result.lag_one_covariance[t], dense.lag_one(t), **tight)
        w, W = dense.state_disturbance(t)
        np.testing.assert_allclose(result.state_disturbance[t], w, **tight)
        np.testing.assert_allclose(result.state_disturbance_covariance[t], W, **tight)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("p", [1, 3])
def test_filter_equals_the_joint_update(p, varying, form):
    matrices, arguments, y, u, keywords = random_case(3, p=p, varying=varying, start="known", inputs=True, T=30)
    result = LinearGaussianModel(*matrices, **arguments, form=form).filter(y, u)
    keywords = {name: array for name, array in keywords.items() if name not in ("diffuse", "S")}
    value, (a, P, v, F, mean, V) = joint_filter(y, **keywords)
    assert result.log_likelihood == pytest.approx(value, rel=1e-11)
    for ours, theirs in zip(result[:6], (mean, V, a, P, v, F), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_forecast_equals_dense_conditioning(form):
    for cross in (False, True):
        matrices, arguments, y, u, keywords = random_case(5, T=12, cross=cross, inputs=True, missing=0.2)
        y[9:] = np.nan
        dense = DenseGaussian(y, **keywords)
        result = LinearGaussianModel(*matrices, **arguments, form=form).forecast(y[:9], 3, u)
        for h in range(3):
            for ours, theirs in zip((result.mean[h], result.covariance[h]), dense.output(9 + h), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)
            np.testing.assert_allclose(result.state_mean[h], dense.state(9 + h)[0], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_square_root_gives_the_same_numbers(case):
    matrices, arguments, y, u, _ = random_case(2, **case)
    plain = LinearGaussianModel(*matrices, **arguments)
    root = LinearGaussianModel(*matrices, **arguments, form="square_root")
    assert root.log_likelihood(y, u) == pytest.approx(plain.log_likelihood(y, u), rel=1e-12)
    for ours, theirs in zip(root.filter(y, u), plain.filter(y, u), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
