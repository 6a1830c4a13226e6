"""Mixtures of experts against a loop over steps; the balance of equations 4-6; hybrids in one stack with one state."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from statespace.models import MixtureOfExperts, ResidualStack, SaShiMi, auxiliary_loss, make_backbone
from statespace.models.experts import make_feed_forwards
from statespace.training import fit

JAMBA = {"layer": ["s4d", "s5", "attention"], "layer_options": {"s4d": {"d_state": 4}, "s5": {"d_state": 4}}}


def make(**options):
    torch.manual_seed(0)
    return MixtureOfExperts(6, **{"n_experts": 5} | options).double()


def steps(*shape):
    return torch.randn(*shape, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def mixture_by_loops(layer, h):
    """y = Σ p_e V_e (silu(W_e h) ⊙ U_e h), one step and one expert after the other; and what was chosen."""
    answers, chosen = [], []
    for step in h.reshape(-1, 6):
        p = torch.softmax(layer.router.weight @ step, dim=0)
        best = sorted(range(layer.n_experts), key=lambda e: -p[e].item())[: layer.top_k]
        total = 0.0
        for e in best:
            W, U = layer.inner[e].chunk(2)
            total = total + p[e] * (layer.outer[e] @ (F.silu(W @ step) * (U @ step)))
        answers.append(total)
        chosen.append(best)
    return torch.stack(answers).reshape(h.shape), chosen


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_the_mixture_is_its_formula_with_all_gradients(top_k):
    layer, h = make(top_k=top_k), steps(3, 7).requires_grad_()
    weights = steps(3, 7).flip(0)
    results = []
    for y in (layer(h), mixture_by_loops(layer, h)[0]):
        results.append([y, *torch.autograd.grad((y * weights).sum(), [h, *layer.parameters()])])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)
        assert bool((got != 0).any())


def test_gradients():
    layer, h = make(n_experts=3, router_z=0.1), steps(4).requires_grad_()

    def call(h, *weights):
        names = [name for name, _ in layer.named_parameters()]
        y = torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (h,))
        return y, layer.auxiliary_loss()

    # The share of an expert is no differentiable quantity, and constant where no choice changes.
    assert torch.autograd.gradcheck(call, [h, *layer.parameters()])


def test_one_expert_is_a_plain_map():
    layer, h = make(n_experts=1), steps(2, 3)
    W, U = layer.inner[0].chunk(2)
    torch.testing.assert_close(layer(h), (F.silu(h @ W.T) * (h @ U.T)) @ layer.outer[0].T)
    assert layer.router is None
    assert layer.auxiliary_loss() == 0


def test_padding_is_neither_routed_nor_counted():
    layer, alone = make(), make()
    h, dt = steps(2, 9), torch.ones(2, 9)
    dt[0, 4:7], dt[1, :2] = 0, 0
    h[dt == 0] = torch.nan
    y = layer(h, dt)
    torch.testing.assert_close(y[dt > 0], alone(h[dt > 0]), rtol=1e-13, atol=1e-13)
    assert bool((y[dt == 0] == 0).all())
    torch.testing.assert_close(layer.auxiliary_loss(), alone.auxiliary_loss())
    assert bool((layer(h, torch.zeros(2, 9)) == 0).all())


@pytest.mark.parametrize("top_k", [1, 2])
def test_balance_is_that_of_switch(top_k):
    layer, h = make(top_k=top_k, load_balance=0.3, router_z=0.2), steps(40)
    layer(h)
    logits = h @ layer.router.weight.T
    P = logits.softmax(dim=-1).mean(dim=0)
    f = torch.zeros(5, dtype=torch.float64)
    for chosen in mixture_by_loops(layer, h)[1]:
        for e in chosen:
            f[e] += 1 / (40 * top_k)
    expected = 0.3 * 5 * (f * P).sum() + 0.2 * (logits.exp().sum(dim=-1).log() ** 2).mean()
    torch.testing.assert_close(layer.auxiliary_loss(), expected)


def test_balance_is_least_where_all_experts_get_the_same():
    layer = make(n_experts=6, top_k=1, load_balance=1.0)
    with torch.no_grad():
        layer.router.weight.copy_(torch.eye(6))
    layer(torch.eye(6, dtype=torch.float64).repeat(4, 1))
    torch.testing.assert_close(layer.auxiliary_loss(), torch.tensor(1.0, dtype=torch.float64))
    layer(50 * torch.eye(6, dtype=torch.float64)[:1].repeat(24, 1))
    torch.testing.assert_close(layer.auxiliary_loss(), torch.tensor(6.0, dtype=torch.float64))


def test_several_calls_count_as_one():
    layer, whole = make(), make()
    h = steps(30)
    layer(h[:11])
    layer(h[11:])
    whole(h)
    torch.testing.assert_close(layer.auxiliary_loss(), whole.auxiliary_loss())
    assert layer.auxiliary_loss() == 0
    # Copies and pickles hold no graph, evaluation counts nothing, and a change of mode begins anew.
    layer(h)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.eval()):
        assert other.auxiliary_loss() == 0
    layer(h)
    assert layer.auxiliary_loss() == 0


def test_training_spreads_the_work():
    """A router that prefers one expert learns to use the others from the balance, which the loop adds to the loss."""
    x = steps(80, 16).float() + 1.0

    class Records:
        lengths = np.full(80, 16)

        def __len__(self):
            return 80

        def batch(self, indices):
            return {"x": x[indices]}

    def nothing(model, batch):
        return model(batch["x"]).sum() * 0, torch.tensor(1)

    def largest_share(layer):
        chosen = layer.router(x).argmax(dim=-1).flatten()
        return torch.bincount(chosen, minlength=4).max().item() / len(chosen)

    results = []
    for factor in (0.0, 1.0):
        layer = make(n_experts=4, top_k=1, load_balance=factor).float()
        with torch.no_grad():
            layer.router.weight[0] += 1.0
        before = largest_share(layer)
        history = fit(layer, Records(), nothing, max_epochs=1, batch_size=1, learning_rate=0.05, weight_decay=0.0)
        assert history.loss == [0.0]
        results.append((before, largest_share(layer)))
    assert results[0][0] == results[0][1] > 0.8
    assert results[1][1] < 0.4


def stack(pooling=None, **options):
    torch.manual_seed(0)
    given = JAMBA | {"moe": 3} | options
    return ResidualStack(3, 2, d_model=8, n_layers=6, dropout=0.3, pooling=pooling, **given).double().eval()


def ragged():
    torch.manual_seed(1)
    x, dt = torch.randn(2, 21, 3, dtype=torch.float64), torch.rand(2, 21, dtype=torch.float64) + 0.2
    x[1, 13:], dt[1, 13:] = 0, 0
    return x, dt


def test_every_other_map_is_a_mixture_as_in_jamba():
    model = stack()
    assert [type(block.mixer).__name__ for block in model.blocks] == ["S4D", "S5", "Attention"] * 2
    assert [block.feed_forward.n_experts for block in model.blocks] == [1, 3] * 3
    # A linear layer keeps its gated unit; attention has an output projection and is added as it is.
    assert [block.gate is None for block in model.blocks] == [False, False, True] * 2


def test_a_block_is_mixer_and_experts():
    block = stack().blocks[5]
    h = torch.randn(2, 7, 8, dtype=torch.float64)
    after = h + block.mixer(block.norm(h))[0]
    after = after + block.feed_forward(block.feed_forward_norm(after))
    torch.testing.assert_close(block(h)[0], after)


@torch.no_grad()
def test_one_state_for_a_hybrid():
    """Folding step, cutting anywhere and padding, over S4D, S5 and attention with experts between them."""
    model = stack()
    x, dt = ragged()
    whole, _ = model(x, dt)
    state, outputs = model.initial_state(2), []
    for k in range(21):
        y, state = model.step(x[:, k], state, dt[:, k])
        outputs.append(y)
    real = dt > 0
    torch.testing.assert_close(torch.stack(outputs, dim=1)[real], whole[real], rtol=1e-9, atol=1e-10)
    for cut in (1, 13, 20):
        first, state = model(x[:, :cut], dt[:, :cut])
        second, _ = model(x[:, cut:], dt[:, cut:], state)
        torch.testing.assert_close(torch.cat([first, second], dim=1)[real], whole[real], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model(x[1:, :13], dt[1:, :13])[0][0], whole[1, :13], rtol=1e-9, atol=1e-10)


def test_the_configuration_rebuilds_the_model():
    moe = {"n_experts": 4, "top_k": 1, "every": 3, "expand": 1, "load_balance": 0.1, "router_z": 0.01}
    model = stack(moe=moe)
    again = make_backbone("stack", **model.config).double().eval()
    again.load_state_dict(model.state_dict())
    x, dt = ragged()
    torch.testing.assert_close(again(x, dt)[0], model(x, dt)[0], rtol=0, atol=0)
    assert [block.feed_forward.n_experts for block in again.blocks] == [1, 1, 4] * 2
    assert again.blocks[2].feed_forward.router_z == 0.01


def test_without_experts_nothing_changes():
    """Weights by name, and the draws that they start from: files and seeds of before stay good."""
    torch.manual_seed(0)
    plain = ResidualStack(1, 1, d_model=4, n_layers=2, layer_options={"d_state": 4})
    names = {name.removeprefix("blocks.0.") for name in plain.state_dict() if name.startswith("blocks.0.")}
    assert {name for name in names if not name.startswith("mixer.")} == {
        "norm.weight", "norm.bias", "gate.weight", "gate.bias"
    }  # fmt: skip
    assert auxiliary_loss(plain) == 0.0


def test_the_loss_of_a_model_is_that_of_what_it_read_last():
    model = stack().train()
    x, dt = ragged()
    model(x, dt)
    first = auxiliary_loss(model)
    assert 0.03 * 0.999 <= first.item() < 0.09  # three balances of 1 at least and 3 at most, each times 0.01
    model(x, dt)
    torch.testing.assert_close(auxiliary_loss(model), first, rtol=0.2, atol=0)
    first.backward()
    assert all(bool((block.feed_forward.router.weight.grad != 0).any()) for block in list(model.blocks)[1::2])


@pytest.mark.parametrize("bidirectional", [False, True])
@torch.no_grad()
def test_mixtures_on_every_scale(bidirectional):
    torch.manual_seed(0)
    options = {"d_state": 4, "bidirectional": bidirectional}
    model = SaShiMi(
        3, 2, d_model=4, n_layers=2, layer_options=options, factors=(2, 2), moe={"n_experts": 3}, unet=True
    ).double()
    x, dt = ragged()
    whole, _ = model.eval()(x, dt)
    torch.testing.assert_close(model(x[1:, :13], dt[1:, :13])[0][0], whole[1, :13], rtol=1e-9, atol=1e-10)
    if not bidirectional:
        state = model.initial_state(2)
        for k in range(21):
            y, state = model.step(x[:, k], state, dt[:, k])
            torch.testing.assert_close(y[dt[:, k] > 0], whole[:, k][dt[:, k] > 0], rtol=1e-9, atol=1e-10)
    again = make_backbone("sashimi", **model.config).double().eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(x, dt)[0], whole)
    with torch.enable_grad():
        model.train()(x, dt)
        assert auxiliary_loss(model).item() > 0.01 * 4


@pytest.mark.parametrize(
    ("moe", "message"),
    [
        (0, "n_experts and expand must be >= 1. Got 0"),
        (True, "moe must be a number of experts, or a mapping of n_experts, top_k, every"),
        ("four", "Got 'four' instead"),
        ({"top_k": 1}, "moe needs n_experts"),
        ({"n_experts": 4, "experts": 3}, "moe has no option 'experts'. It takes n_experts"),
        ({"n_experts": 4, "top_k": 5}, "top_k must be between 1 and n_experts = 4. Got 5"),
        (
            {"n_experts": 4, "every": 3},
            "a mixture in every 3 blocks, and there are 2: take more layers, or {'every': 1}",
        ),
        ({"n_experts": 4, "load_balance": -1.0}, "load_balance and router_z must be >= 0. Got -1.0"),
    ],
)
def test_bad_options_are_named(moe, message):
    with pytest.raises(ValueError, match=message):
        make_feed_forwards(moe, d_model=4, n_layers=2)
