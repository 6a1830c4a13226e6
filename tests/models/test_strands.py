"""f(RC x) = RC f(x), with padding anywhere; and RC itself against a loop over letters."""

import numpy as np
import pytest
import torch

from statespace.models import BACKBONES, ResidualStack, ReverseComplement, make_backbone, reverse_complement
from statespace.training import RandomStrands, SeriesBatches, parameter_groups

COMPLEMENT = [3, 2, 1, 0]
# Padding at the end, at the start and in the middle; one record without, and one of a single base.
REAL = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]]).bool()


def batch(length=None, seed=0):
    """Random rows of shares, gaps and which steps are real."""
    generator = torch.Generator().manual_seed(seed)
    real = REAL if length is None else torch.ones(3, length, dtype=torch.bool)
    x = torch.rand(*real.shape, 4, generator=generator, dtype=torch.double)
    dt = torch.rand(real.shape, generator=generator, dtype=torch.double) + 0.1
    return torch.where(real[..., None], x, 0), torch.where(real, dt, 0), real


def test_the_other_strand_against_a_loop():
    x, dt, real = batch()
    strand = reverse_complement(x, dt, COMPLEMENT)
    for b in range(len(x)):
        places = [k for k in range(x.shape[1]) if real[b, k]]
        for rank, k in enumerate(places):
            other = places[len(places) - 1 - rank]
            assert torch.equal(strand.x[b, k], x[b, other].flip(0))
            assert strand.source[b, k] == other
            # The gap that led away from a base leads to it; the first of the record stays the first.
            leads = places[len(places) - rank] if rank else places[0]
            assert strand.dt[b, k] == dt[b, leads]
        for k in set(range(x.shape[1])) - set(places):
            assert strand.source[b, k] == k
            assert (strand.x[b, k] == 0).all()
            assert strand.dt[b, k] == 0
    again = reverse_complement(strand.x, strand.dt, COMPLEMENT)
    assert torch.equal(again.x, x)
    assert torch.equal(again.dt, dt)
    assert torch.equal(strand.turned(strand.turned(x)), x)


def test_without_gaps_it_is_the_grid():
    x, _, _ = batch(7)
    plain, gaps = reverse_complement(x, None, COMPLEMENT), reverse_complement(x, torch.ones(3, 7), COMPLEMENT)
    assert torch.equal(plain.x, gaps.x)
    assert torch.equal(plain.source, gaps.source)
    assert plain.dt is None
    assert (gaps.dt == 1).all()


def make(pooling=None, backbone="stack", bidirectional=False, dtype=torch.double, layer="s4d"):
    torch.manual_seed(0)
    config = {"factors": [2]} if backbone == "sashimi" else {}
    options = {"d_state": 4, "bidirectional": bidirectional}
    strand = make_backbone(
        backbone, config, d_input=4, d_output=3, d_model=8, n_layers=2, layer=layer, layer_options=options,
        pooling=pooling,
    )  # fmt: skip
    return ReverseComplement(strand, COMPLEMENT).to(dtype).eval()


@pytest.mark.parametrize("irregular", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("backbone", list(BACKBONES))
@pytest.mark.parametrize("dtype", [torch.double, torch.float32])
def test_steps_are_equivariant(dtype, backbone, bidirectional, irregular):
    model = make(backbone=backbone, bidirectional=bidirectional, dtype=dtype)
    for x, dt, real in (batch(), batch(13)):
        x, dt = x.to(dtype), dt.to(dtype) if irregular else real.to(dtype)
        other = reverse_complement(x, dt, COMPLEMENT)
        with torch.no_grad():
            y, after = model(x, dt)
            y_other, _ = model(other.x, other.dt)
        assert after is None
        tolerance = 1e-12 if dtype == torch.double else 1e-5
        torch.testing.assert_close(other.turned(y_other)[real], y[real], rtol=0, atol=tolerance)
        assert (other.turned(y) - y)[real].abs().max() > 1e-3


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_selective_layer_is_equivariant(bidirectional):
    model = make(bidirectional=bidirectional, layer="mamba")
    x, dt, real = batch()
    other = reverse_complement(x, dt, COMPLEMENT)
    with torch.no_grad():
        y, y_other = model(x, dt)[0], model(other.x, other.dt)[0]
    torch.testing.assert_close(other.turned(y_other)[real], y[real], rtol=0, atol=1e-12)
    assert (other.turned(y) - y)[real].abs().max() > 1e-3


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_series_are_invariant(bidirectional, pooling):
    model = make(pooling, bidirectional=bidirectional)
    x, dt, real = (value[[0, 3]] for value in batch())
    lengths = real.sum(1)
    other = reverse_complement(x, dt, COMPLEMENT)
    with torch.no_grad():
        y, _ = model(x, dt, lengths=lengths)
        y_other, _ = model(other.x, other.dt, lengths=lengths)
        # Each strand by itself, without padding: what the definition says, record by record.
        for b, n in enumerate(lengths):
            both = [model.strand(x_b[b : b + 1, :n], gaps[b : b + 1, :n])[0] for x_b, gaps in (other[:2], (x, dt))]
            torch.testing.assert_close(y[b : b + 1], (both[0] + both[1]) / 2, rtol=0, atol=1e-12)
            assert (both[0] - both[1]).abs().max() > 1e-3
    torch.testing.assert_close(y_other, y, rtol=0, atol=1e-12)


def test_steps_join_the_strands_at_the_right_bases():
    model = make()
    x, _, _ = batch(9)
    with torch.no_grad():
        own, _ = model.strand(x)
        other, _ = model.strand(reverse_complement(x, None, COMPLEMENT).x)
        torch.testing.assert_close(model(x)[0], (own + other.flip(1)) / 2, rtol=0, atol=1e-12)


def test_gradients_reach_the_shared_weights_once():
    model = make().train()
    x, dt, real = batch()
    model(x, dt)[0][real].square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert {name.split(".")[0] for name in model.state_dict()} == {"strand"}
    groups = parameter_groups(model, learning_rate=1.0, ssm_learning_rate=0.5, weight_decay=0.1)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {group["lr"] for group in groups} == {1.0, 0.5}


def test_it_needs_the_whole_record_and_the_partners():
    model = make()
    assert not model.causal
    with pytest.raises(ValueError, match="needs the whole record"):
        model(torch.zeros(1, 3, 4), state=())
    with pytest.raises(ValueError, match="complement must name each of the input channels once"):
        ReverseComplement(ResidualStack(5, 1, d_model=4, n_layers=1, layer_options={"d_state": 4}), COMPLEMENT)
    assert model.config["complement"] == COMPLEMENT


@pytest.mark.parametrize("per_step", [False, True])
def test_random_strands(per_step):
    rng = np.random.default_rng(0)
    lengths = [1, 4, 7]
    # None of them is its own reverse complement.
    inputs = [np.eye(4)[codes] for codes in ([0], [0, 0, 1, 0], [2, 1, 1, 3, 0, 0, 2])]
    gaps = [rng.uniform(0.5, 2, n) for n in lengths]
    steps = [np.arange(n, dtype=float)[:, None] for n in lengths]
    targets = steps if per_step else np.arange(3.0)[:, None]
    data = SeriesBatches(inputs, gaps, targets, dtype=torch.double)
    strands = RandomStrands(data, COMPLEMENT, torch.Generator().manual_seed(0))
    indices = np.array([2, 0, 1])
    plain, turned = data.batch(indices), np.zeros(3)
    other = reverse_complement(plain["x"], plain["dt"], COMPLEMENT)
    for _ in range(200):
        drawn = strands.batch(indices)
        for b, n in enumerate(np.array(lengths)[indices]):
            is_other = not torch.equal(drawn["x"][b], plain["x"][b])
            turned[b] += is_other
            assert torch.equal(drawn["x"][b], (other.x if is_other else plain["x"])[b])
            assert torch.equal(drawn["dt"][b], (other.dt if is_other else plain["dt"])[b])
            if per_step:
                expected = plain["y"][b, :n].flip(0) if is_other else plain["y"][b, :n]
                assert torch.equal(drawn["y"][b, :n], expected)
                assert drawn["y"][b, n:].isnan().all()
            else:
                assert torch.equal(drawn["y"], plain["y"])
    assert (np.abs(turned / 200 - 0.5) < 0.12).all()
    first, second = (RandomStrands(data, COMPLEMENT, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.batch(indices)["x"], second.batch(indices)["x"])
