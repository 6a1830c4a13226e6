"""Operations against counts by hand and torch's counter; the parts of a network against the whole."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch.utils.flop_counter import FlopCounterMode

from statespace import S4DRegressor, SSMClassifier
from statespace.inspection import count_flops, summary
from statespace.layers import LAYERS
from statespace.models import ResidualStack, SaShiMi

GAP = torch.full((1,), 1.5, dtype=torch.float64)
X = np.random.default_rng(0).normal(size=(12, 10))
TINY = {"d_model": 8, "n_layers": 2, "max_epochs": 1, "random_state": 0}


def operations(model, gap, n_before=0):
    """Of one step of a whole network."""
    model = model.double().eval().freeze()
    x = torch.ones(1, model.encoder.in_features, dtype=torch.float64)
    with torch.no_grad():
        state = model(x.expand(1, n_before, -1))[1] if n_before else model.initial_state(1)
    return count_flops(model.step, x, state, gap)


def test_operations_by_hand():
    real, complex = torch.ones(3, 5), torch.ones(3, 5, dtype=torch.complex64)
    by_hand = [
        (lambda: real + real, 15), (lambda: real * 2.0, 15), (lambda: torch.exp(real), 15),
        (lambda: torch.addcmul(real, real, real), 30), (lambda: torch.lerp(real, real, 0.5), 45),
        (lambda: complex + complex, 30), (lambda: complex * complex, 90), (lambda: complex * real, 30),
        (lambda: complex / complex, 165), (lambda: torch.expm1(complex), 30),
        (lambda: real.sum(1), 15), (lambda: real.mean(), 15), (lambda: torch.softmax(real, 1), 45),
        (lambda: real.T.contiguous().view(-1), 0), (lambda: (real > 0).sum(), 0), (lambda: real.double(), 0),
        (lambda: torch.where(real > 0, real, 0.0), 0), (lambda: real.clamp(min=0.0), 0), (lambda: torch.relu(real), 0),
        (lambda: torch.cat([real, real]), 0),
    ]  # fmt: skip
    for k, (function, expected) in enumerate(by_hand):
        assert count_flops(function) == expected, k


def test_products_are_those_of_torchs_counter():
    a, b, c = torch.ones(4, 3), torch.ones(3, 5), torch.ones(2, 3, 7)
    layer = torch.nn.Linear(3, 5)
    for function in (lambda: a @ b, lambda: layer(a), lambda: c.mT @ c, lambda: torch.einsum("ij,bjk->bik", a, c)):
        with FlopCounterMode(display=False) as counter:
            function()
        assert count_flops(function) == counter.get_total_flops() > 0


@pytest.mark.parametrize(("irregular", "decays"), [(False, 0), (True, 4)])
def test_a_block_by_hand(irregular, decays):
    H, n = 8, 3
    model = ResidualStack(2, 1, H, 1, layer_options={"d_state": 2 * n})
    # A node: δΔA is 2 and its expm1 2, s + u 2, the product with the decay 6, the sum 2, the read-out 6 and its sum 1.
    system = H * n * (17 + decays) + 2 * H
    norm, linear_unit, residual = 7 * H, H + 2 * H * 2 * H + 2 * H, H
    table = summary(model, irregular=irregular)
    assert table.loc["block 1", "flops"] == system + norm + linear_unit + residual
    assert table.loc["encoder", "flops"] == 2 * 2 * H
    assert table.loc["head", "flops"] == norm + 2 * H
    assert table.loc["block 1", "state"] == 2 * n * H


@pytest.mark.parametrize("layer", LAYERS)
def test_the_parts_add_up_to_the_whole(layer):
    model = ResidualStack(2, 1, 8, 2, layer)
    for gap in (None, GAP):
        assert summary(model, irregular=gap is not None, length=10).loc["total", "flops"] == operations(model, gap, 9)
    total = summary(model).loc["total"]
    assert total["parameters"] == sum(p.numel() for p in model.parameters())
    assert total["state_bytes"] == 8 * total["state"]


def test_both_directions_are_two_layers_and_a_sum():
    options = {"d_state": 4}
    one = ResidualStack(2, 1, 8, 1, layer_options=options)
    both = ResidualStack(2, 1, 8, 1, layer_options=options | {"bidirectional": True})
    mixer = one.blocks[0].mixer.double().freeze()
    u = torch.ones(1, 8, dtype=torch.float64)
    more = count_flops(mixer.step, u, mixer.initial_state(1), GAP) + 8
    assert summary(both).loc["total", "flops"] == summary(one).loc["total", "flops"] + more
    assert summary(both).loc["total", "state"] == 0
    assert summary(both).loc["block 1", "parameters"] == sum(p.numel() for p in both.blocks[0].parameters())


@pytest.mark.parametrize("unet", [False, True])
def test_slower_scales_are_shared_by_their_samples(unet):
    model = SaShiMi(2, 1, 8, 1, "s4d", {"d_state": 4}, factors=(3, 2), unet=unet).double().eval().freeze()
    x = torch.ones(1, 2, dtype=torch.float64)
    for gap in (None, GAP):
        state, counts = model.initial_state(1), []
        for _ in range(12):
            counts.append(count_flops(model.step, x, state, gap))
            with torch.no_grad():
                _, state = model.step(x, state, gap)
        # Whole cycles; each row is rounded.
        table = summary(model, irregular=gap is not None)
        assert table.loc["total", "flops"] == pytest.approx(np.mean(counts[6:]), abs=len(table) / 2)
    assert summary(model).loc["total", "parameters"] == sum(p.numel() for p in model.parameters())


def test_of_estimators():
    regular = S4DRegressor(**TINY, d_state=4).fit(X, X[:, 0])
    irregular = S4DRegressor(**TINY, d_state=4).fit(X, X[:, 0], times=np.arange(10.0) ** 1.5)
    table = regular.summary()
    assert list(table.index) == ["encoder", "block 1", "block 2", "head", "total"]
    assert table["flops"].dtype == np.int64
    assert irregular.summary().loc["block 1", "flops"] - table.loc["block 1", "flops"] == 8 * 2 * 4
    # The sum of the features, which a stream keeps for their mean.
    assert table.loc["head", "state"] == 8
    assert table.loc["total", "state"] == 2 * 8 * 4 + 8
    with pytest.raises(NotFittedError):
        S4DRegressor().summary()


def test_experts_and_both_strands():
    moe = ResidualStack(2, 1, 8, 2, "s4d", {"d_state": 4}, moe=4)
    assert summary(moe)["layer"].tolist()[1:3] == ["S4D, feed-forward", "S4D, 4 experts"]
    assert summary(moe).loc["total", "flops"] == operations(moe, GAP)
    options = TINY | {"layer_options": {"d_state": 4}, "alphabet": "dna", "validation_fraction": 0.0}
    sequences = ["ACGTACGT", "AACCGGTT", "TTTTAAAA", "CCCCGGGG"]
    one = SSMClassifier(**options).fit(sequences, [0, 1, 0, 1]).summary()
    both = SSMClassifier(**options, reverse_complement="equivariant").fit(sequences, [0, 1, 0, 1]).summary()
    assert both.loc["block 2", "flops"] == 2 * one.loc["block 2", "flops"]
    assert both.loc["total", "parameters"] == one.loc["total", "parameters"]


def test_what_has_no_network_is_refused():
    with pytest.raises(TypeError, match="Got Linear"):
        summary(torch.nn.Linear(1, 1))
