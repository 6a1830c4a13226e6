"""Composed systems have the composed frequency responses, which is what the words mean."""

import numpy as np
import pytest

from statespace.lti import LinearSystem

F = np.array([0.0, 0.01, 0.3, 2.0, 50.0])


def response(system):
    return system.frequency_response(F).reshape(len(F), system.n_outputs, system.n_inputs)


def same(system, expected):
    np.testing.assert_allclose(response(system), expected, rtol=1e-10, atol=1e-12)


def test_series_sends_the_input_through_the_right_one_first(drawn):
    first, last = drawn(3, 2, 4, seed=0), drawn(2, 4, 1, seed=1)
    same(last * first, response(last) @ response(first))
    same(last @ first, response(last) @ response(first))
    u = np.random.default_rng(0).normal(size=(50, 2))
    # On a grid too, where a zero-order hold of the middle signal is exact.
    first, last = first.discretize(0.3), last.discretize(0.3)
    chained = last.simulate(first.simulate(u).output).output
    np.testing.assert_allclose((last * first).simulate(u).output, chained, atol=1e-12)


def test_parallel_and_gains(drawn):
    one, two = drawn(3, 2, 2, seed=0), drawn(2, 2, 2, seed=1)
    same(one + two, response(one) + response(two))
    same(one - two, response(one) - response(two))
    same(-one, -response(one))
    same(2.0 * one, 2.0 * response(one))
    same(one * 2, 2.0 * response(one))
    K = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 1.0]])
    same(K @ one, K @ response(one))
    same(K * one, K @ response(one))
    same(one @ K.T, response(one) @ K.T)
    same(one + np.ones((2, 2)), response(one) + 1.0)
    same(1.0 - one, np.eye(2) - response(one))


@pytest.mark.parametrize("sign", [-1, 1])
def test_feedback(drawn, sign):
    forward, back = drawn(3, 2, 4, seed=2), drawn(2, 4, 2, seed=3)
    G, H = response(forward), response(back)
    same(forward.feedback(back, sign=sign), np.linalg.solve(np.eye(4) - sign * G @ H, G))


def test_unity_feedback(drawn):
    G = drawn(3, 2, 2, seed=4)
    same(G.feedback(), np.linalg.solve(np.eye(2) + response(G), response(G)))
    # K = place the pole of an integrator
    assert LinearSystem(0.0, 1.0, 1.0).feedback(7.0).poles == [-7.0]


def test_parts(drawn):
    G = drawn(4, 3, 2, seed=5)
    H = response(G)
    same(G[1, 2], H[:, 1:2, 2:3])
    same(G[:, 1], H[:, :, 1:2])
    same(G[[1, 0], ::2], H[:, ::-1, ::2])
    assert G[0, 0].n_states == 4
    with pytest.raises(IndexError, match="outputs and inputs"):
        G[0]
    with pytest.raises(IndexError):
        G[2, 0]


def test_similarity(drawn):
    G = drawn(4, 2, 2, seed=6)
    T = np.random.default_rng(0).normal(size=(4, 4))
    other = G.transform(T)
    same(other, response(G))
    u, x = np.ones((20, 2)), np.arange(4.0)
    states = G.simulate(u, initial_state=x).state
    np.testing.assert_allclose(other.simulate(u, initial_state=np.linalg.solve(T, x)).state @ T.T, states, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda G: G * LinearSystem(-1.0, 1.0, np.ones((3, 1))), "as many inputs of G2"),
        (lambda G: G + LinearSystem(-1.0, np.ones((1, 3)), 1.0), "as many outputs and inputs"),
        (lambda G: G + G.discretize(0.1), "same dt"),
        (lambda G: G.feedback(np.ones((2, 3))), "way back must have 1"),
        (lambda G: G.feedback(sign=2), "-1 or 1"),
        (lambda G: (G + 1.0).feedback(-1.0), "ill-posed"),
        (lambda G: G.feedback("unity"), "Got str"),
        (lambda G: G.transform([[0.0]]), "invertible"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(LinearSystem(-1.0, 1.0, 1.0))


def test_other_types_are_refused():
    with pytest.raises(TypeError):
        LinearSystem(-1.0, 1.0, 1.0) * "2"
    with pytest.raises(TypeError):
        LinearSystem(-1.0, 1.0, 1.0) * [1.0, 2.0]
