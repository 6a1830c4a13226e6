"""Programs of both faces answer as `predict` does, for records of other shapes than those that were traced."""

import numpy as np
import pytest
import torch

from statespace import SSMClassifier, SSMRegressor
from statespace.export import export_program

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 9, 2))
TIMES = np.cumsum(RNG.exponential(size=(6, 9)) + 0.01, axis=1)
SIZES = {"d_model": 4, "n_layers": 1, "max_epochs": 1, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def hybrid():
    model = SSMRegressor("h3", layer_options={"d_state": 4}, distribution="gaussian", **SIZES)
    return model.fit(X, np.cumsum(X, axis=1), times=TIMES)


def test_records_of_any_shape(hybrid, tmp_path):
    torch.export.save(export_program(hybrid), tmp_path / "record.pt2")
    program = torch.export.load(tmp_path / "record.pt2").module()
    for rows, length in ((6, 9), (2, 5)):
        x, times = X[:rows, :length], TIMES[:rows, :length]
        dt = torch.tensor(np.diff(times, axis=1, prepend=0.0))
        prediction, std = (part.numpy() for part in program(torch.tensor(x), dt))
        expected, expected_std = hybrid.predict(x, times=times, return_std=True)
        np.testing.assert_allclose(prediction, expected, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(std, expected_std, rtol=1e-11)


def test_one_sample_after_another(hybrid):
    program = export_program(hybrid, "step").module()
    assert not any("complex" in str(node.target) for node in program.graph.nodes)
    stream = hybrid.stream()
    state = [torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4, 3), torch.zeros(1, 4, 1, 1, 2, 2)]
    state = [part.double() if part.is_floating_point() else part for part in state]
    for k in range(4):
        gap = TIMES[0, k] - TIMES[0, k - 1] if k else 0.0
        prediction, std, *state = program(torch.tensor(X[:1, k]), torch.tensor([gap]).double(), *state)
        mean, spread = stream.step(X[0, k], dt=gap)
        np.testing.assert_allclose(prediction[0], mean, rtol=1e-11)
        np.testing.assert_allclose(std[0], spread, rtol=1e-11)
    # A gap of 0 is no sample: nothing but the answer comes of it.
    *_, after = program(torch.tensor(X[:1, 5]), torch.zeros(1).double(), *state)
    assert torch.equal(after, state[-1])


def test_a_model_that_reads_both_ways_has_a_program_of_one_shape():
    model = SSMClassifier("s4d", layer_options={"d_state": 4}, bidirectional=True, **SIZES)
    model.fit(X, [0, 1, 2] * 2, times=TIMES)
    with pytest.raises(ValueError, match=r"give shape=\(batch, length\)"):
        export_program(model)
    program = export_program(model, shape=(6, 9)).module()
    (probabilities,) = program(torch.tensor(X), torch.tensor(np.diff(TIMES, axis=1, prepend=0.0)))
    np.testing.assert_allclose(probabilities.numpy(), model.predict_proba(X, times=TIMES), rtol=1e-10)


def test_other_faces_are_refused(hybrid):
    with pytest.raises(ValueError, match=r"'record' or 'step'[.] Got 'both'"):
        export_program(hybrid, "both")
