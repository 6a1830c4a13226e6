"""What networks say about targets: likelihoods against SciPy's, in float32 too; spreads, quantiles, their inverses."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammaln

from statespace.distributions import DISTRIBUTIONS, Gaussian, Quantiles, StudentT, _log_gamma_ratio, check_distribution
from statespace.quantiles import LEVELS, at_z, ordered_quantiles, z_of

UNCERTAIN = [name for name in DISTRIBUTIONS if name is not None]
LEVELS_ASKED = np.array([1e-4, 0.013, 0.3, 0.5, 0.62, 0.95, 0.9999])


def outputs_of(name, n=200, seed=0, spread=2.0):
    rng = np.random.default_rng(seed)
    return spread * rng.normal(size=(n, DISTRIBUTIONS[name].n_parameters)), spread * rng.standard_t(3, size=n)


def student(outputs):
    """The same distributions as SciPy writes them."""
    degrees = 2.1 * (1 + np.exp(-14 * np.tanh(outputs[:, 2] / 14)))
    return stats.t(degrees, loc=outputs[:, 0], scale=np.exp(8 * np.tanh(outputs[:, 1] / 8)))


def normal(outputs):
    return stats.norm(outputs[:, 0], np.exp(8 * np.tanh(outputs[:, 1] / 8)))


@pytest.mark.parametrize(("name", "truth"), [("gaussian", normal), ("student_t", student)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 3e-5)])
def test_likelihoods_are_those_of_scipy(name, truth, dtype, tolerance):
    outputs, y = outputs_of(name)
    loss = DISTRIBUTIONS[name].loss(torch.from_numpy(outputs).to(dtype), torch.from_numpy(y).to(dtype))
    np.testing.assert_allclose(loss, -truth(outputs).logpdf(y), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "truth"), [("gaussian", normal), ("student_t", student)])
def test_moments_and_quantiles_are_those_of_scipy(name, truth):
    outputs, y = outputs_of(name)
    one = DISTRIBUTIONS[name]
    np.testing.assert_allclose(one.location(outputs), truth(outputs).mean(), rtol=1e-12)
    np.testing.assert_allclose(one.std(outputs), truth(outputs).std(), rtol=1e-9)
    expected = np.stack([truth(outputs).ppf(level) for level in LEVELS_ASKED], axis=-1)
    np.testing.assert_allclose(one.quantiles(outputs, LEVELS_ASKED), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("a", [1.05, 1.5, 2.0, 7.3, 50.0, 1e4, 1e6])
def test_the_ratio_of_gamma_functions(a):
    if a < 1e3:
        expected = gammaln(a + 0.5) - gammaln(a) - np.log(a) / 2
    else:  # where the difference of two large numbers is lost
        expected = -1 / (8 * a) + 1 / (192 * a**3)
    assert float(_log_gamma_ratio(torch.tensor(a, dtype=torch.float64))) == pytest.approx(expected, rel=1e-8, abs=1e-11)
    single = float(_log_gamma_ratio(torch.tensor(a, dtype=torch.float32)))
    assert single == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("c", [-14.0, -40.0, -1e4])
def test_many_degrees_of_freedom_are_the_normal_distribution(c):
    y = torch.linspace(-5, 5, 41)
    t = StudentT().loss(torch.tensor([0.3, -0.7, c]).expand(41, 3), y)
    torch.testing.assert_close(t, Gaussian().loss(torch.tensor([0.3, -0.7]).expand(41, 2), y), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", UNCERTAIN)
@pytest.mark.parametrize("y", [0.0, 1e-6, 1.0, 1e3, 1e8, -1e8])
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
def test_losses_and_gradients_stay_finite(name, y, size):
    k = DISTRIBUTIONS[name].n_parameters
    for signs in (1.0, -1.0):
        outputs = torch.full((1, k), size * signs)
        outputs[:, 0] = 0.0
        outputs.requires_grad_()
        loss = DISTRIBUTIONS[name].loss(outputs, torch.tensor([y])).sum()
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(outputs.grad).all()


@pytest.mark.parametrize("name", [None, *UNCERTAIN])
def test_gradients_of_the_losses(name):
    outputs, y = outputs_of(name, n=20)
    given = torch.from_numpy(outputs).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: DISTRIBUTIONS[name].loss(x, torch.from_numpy(y)), given)


@pytest.mark.parametrize("name", [None, *UNCERTAIN])
def test_scores_are_inverted(name):
    outputs, y = outputs_of(name)
    one = DISTRIBUTIONS[name]
    scores = one.score(outputs, y)
    np.testing.assert_allclose(one.at(outputs, scores[:, None])[:, 0], y, rtol=1e-9, atol=1e-9)
    many = one.at(outputs, np.linspace(-6, 6, 41))
    assert (np.diff(many, axis=-1) > 0).all()
    assert np.isnan(one.score(outputs, np.full(len(y), np.nan))).all()


def test_outputs_have_any_number_of_axes():
    for name, one in DISTRIBUTIONS.items():
        outputs, y = outputs_of(name, n=24)
        whole = outputs.reshape(4, 3, 2, -1)
        assert one.std(whole).shape == (4, 3, 2)
        np.testing.assert_array_equal(one.score(whole, y.reshape(4, 3, 2)).reshape(-1), one.score(outputs, y))
        each = np.arange(4.0).reshape(2, 2)  # scores of each of two outputs
        expected = [one.at(whole[:, :, j], each[j]) for j in range(2)]
        np.testing.assert_array_equal(one.at(whole, each), np.stack(expected, axis=2))
        if name is not None:
            assert one.quantiles(whole, LEVELS_ASKED).shape == (4, 3, 2, 7)


def test_the_learned_distribution_is_that_of_the_data():
    """Each loss is least at the parameters from which the data were drawn, or close to them."""
    rng = np.random.default_rng(3)
    y = torch.from_numpy(0.5 + 0.3 * rng.standard_t(4, size=8_000))
    for name, truth in [("student_t", [0.5, 0.3, 4.0]), ("gaussian", [0.5, float(y.std(correction=0))])]:
        outputs = torch.zeros(DISTRIBUTIONS[name].n_parameters, dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS([outputs], max_iter=60, line_search_fn="strong_wolfe")

        def closure(name=name, outputs=outputs, search=search):
            search.zero_grad()
            loss = DISTRIBUTIONS[name].loss(outputs.expand(len(y), -1), y).mean()
            loss.backward()
            return loss

        search.step(closure)
        found = outputs.detach().numpy()
        scale = np.exp(8 * np.tanh(found[1] / 8))
        learned = [
            found[0],
            scale,
            *([2.1 * (1 + np.exp(-14 * np.tanh(found[2] / 14)))] if name == "student_t" else []),
        ]
        np.testing.assert_allclose(learned, truth, rtol=0.1 if name == "student_t" else 0.03)


def test_quantiles_are_those_of_the_forecasters():
    outputs, _ = outputs_of("quantile", n=5)
    expected = ordered_quantiles(torch.from_numpy(outputs)).numpy()
    np.testing.assert_allclose(Quantiles().quantiles(outputs, LEVELS), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(Quantiles().location(outputs), expected[:, 5])


def test_quantiles_that_are_equal_are_inverted_without_a_warning():
    flat = np.zeros((3, len(LEVELS)))
    with np.errstate(all="raise", over="ignore"):
        z = z_of(flat, np.array([-1.0, 0.0, 1.0]))
    assert z[0] < -1e100
    assert z[2] > 1e100
    assert np.isfinite(z[1])
    assert np.isinf(at_z(flat, np.array([-np.inf, np.inf]))).all()


@pytest.mark.parametrize("wrong", ["normal", "Gaussian", 3, ["gaussian"]])
def test_an_unknown_distribution_is_refused(wrong):
    with pytest.raises(ValueError, match="distribution must be None, 'gaussian'"):
        check_distribution(wrong)
