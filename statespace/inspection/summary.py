"""What a network is made of: the parameters, the state and the operations a step of every part."""

from copy import deepcopy

import pandas as pd
import torch

from statespace.inspection.flops import count_flops
from statespace.inspection.parts import network
from statespace.models import ResidualBlock, ReverseComplement, SaShiMi
from statespace.models.sashimi import FeedForward
from statespace.models.windows import Windows

# A stream computes in float64.
_BYTES = 8


def summary(model, *, irregular=None, length=1024):
    """Parameters, state and floating-point operations a step of every part of a network.

    Operations are those of one step of the recurrence, what a stream does for each sample: 1 for each addition,
    multiplication, division or value of a function of real numbers, hence 2 for a multiply-add; see `count_flops`. What
    depends on the weights alone is computed before, and not counted.

    Parameters
    ----------
    model : DeepEstimator, DeepForecaster or ResidualStack
        An estimator has been fitted.
    irregular : bool, optional
        Whether each step has a gap of its own, for which its decays have to be computed. None: whether the estimator
        was fitted with times; True for a model.
    length : int, default=1024
        The samples before the step, which attention without a window looks back at. It keeps them: no other state
        depends on it.

    Returns
    -------
    table : DataFrame
        A row for each part, and ``"total"``. Columns: ``layer``, its class; ``parameters``; ``state``, the real numbers
        that are carried from step to step; ``state_bytes``, what a stream needs to keep them, in float64; ``flops``.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        The estimator is not fitted.

    Notes
    -----
    A bidirectional layer cannot step. It is counted as two layers that can, one for each direction, whose outputs are
    added; its state is 0, as it carries none. A network that reads both strands of DNA is counted twice. A block of a
    slower scale of `statespace.models.SaShiMi` steps once for many samples; its operations are divided by their number.
    Of a mixture of experts those that a step takes are counted.

    Examples
    --------
    >>> from statespace.inspection import summary
    >>> from statespace.models import ResidualStack
    >>> model = ResidualStack(2, 1, d_model=8, n_layers=2, layer="s4d", layer_options={"d_state": 4})
    >>> summary(model)
              layer  parameters  state  state_bytes  flops
    part
    encoder  Linear          24      0            0     32
    block 1     S4D         272     32          256    696
    block 2     S4D         272     32          256    696
    head     Linear          25      0            0     72
    total                   593     64          512   1496
    """
    stack, _ = network(model)
    found = getattr(model, "model_", model)
    if irregular is None:
        irregular = getattr(model, "clock_", "numbers") is not None
    gap = torch.full((1,), 1.5, dtype=torch.float64) if irregular else None
    twin = _twin(stack)
    last = twin.windows[-1] if isinstance(twin, SaShiMi) and len(twin.windows) else None
    strands = 2 if isinstance(found, ReverseComplement) else 1
    rows = [("encoder", "Linear", _size(stack.encoder), 0, strands * _flops(twin.encoder, stack.encoder.in_features))]
    parts = zip(_parts(stack), _parts(twin), strict=True)
    for (name, part, every), (_, own, _) in parts:
        state, flops = _step(own, gap, length)
        if own is last:
            # The residual around the slowest scale.
            flops += own.down_map.out_features / own.factor
        if isinstance(part, ResidualBlock) and getattr(part.mixer, "bidirectional", False):
            # The other direction, and the sum of both.
            state, flops = 0, flops + _step(own.mixer, gap, length)[1] + part.mixer.d_model
        rows.append((name, _kind(part), _size(part), state, strands * flops / every))
    width = stack.head.in_features
    flops = strands * _flops(twin.norm, width) + _flops(twin.head, width)
    # A mean over the steps is a sum, and a quotient; the strands meet in another.
    pooled = width if stack.pooling == "mean" else 0
    flops += strands * 2 * pooled + (strands - 1) * 2 * width
    rows.append(("head", "Linear", _size(stack.norm) + _size(stack.head), pooled * stack.causal, flops))
    table = pd.DataFrame(rows, columns=["part", "layer", "parameters", "state", "flops"]).set_index("part")
    table.insert(3, "state_bytes", _BYTES * table["state"])
    table["flops"] = table["flops"].round().astype("int64")
    table.loc["total"] = ["", *table.drop(columns="layer").sum()]
    return table


def _size(module):
    return sum(p.numel() for p in module.parameters())


def _numbers(state):
    if isinstance(state, torch.Tensor):
        return state.numel() if state.is_floating_point() else 0
    return sum(map(_numbers, state))


def _row(width):
    return torch.ones(1, width, dtype=torch.float64)


def _flops(module, width):
    return count_flops(module, _row(width))


def _twin(stack):
    """A copy of the network that can step: of one that reads in both directions, the like that reads forwards."""
    if stack.causal:
        return deepcopy(stack).double().eval().freeze()
    config = dict(stack.config)
    options = config["layer_options"]
    if isinstance(config["layer"], str):
        config["layer_options"] = options | {"bidirectional": False}
    else:
        config["layer_options"] = {name: dict(own) | {"bidirectional": False} for name, own in options.items()}
    with torch.random.fork_rng(devices=[]):
        return type(stack)(**config).double().eval().freeze()


def _parts(stack):
    """The name of each part, the part, and in how many samples it steps once."""
    if not isinstance(stack, SaShiMi):
        for i, block in enumerate(stack._blocks, start=1):
            yield f"block {i}", block, 1
        return
    every, factors = 1, stack.config["factors"]
    for i, scale in enumerate(stack.scales):
        if i < len(factors):
            yield from _of_scale(f"scale {i + 1}, down", stack.descents[i], every)
            yield f"scale {i + 1}, windows", stack.windows[i], every
        yield from _of_scale(f"scale {i + 1}", scale, every)
        if i < len(factors):
            every *= factors[i]


def _of_scale(name, scale, every):
    for j, (block, map) in enumerate(scale, start=1):
        yield f"{name}, block {j}", block, every
        if _size(map):
            yield f"{name}, map {j}", map, every


def _kind(part):
    if not isinstance(part, ResidualBlock):
        return type(part).__name__
    name, map = type(part.mixer).__name__, part.feed_forward
    if map is None:
        return name
    return f"{name}, {map.n_experts} experts" if map.n_experts > 1 else f"{name}, feed-forward"


def _step(part, gap, length):
    """State and operations of one step."""
    if isinstance(part, Windows):
        return _pooling(part, gap)
    if isinstance(part, FeedForward):
        return 0, _flops(part, part.inner.in_features)
    mixer = part.mixer if isinstance(part, ResidualBlock) else part
    u, state = _row(mixer.d_model), mixer.initial_state(1)
    if _numbers(state) == 0 and length > 1:
        # What it keeps grows with the record.
        with torch.no_grad():
            _, state = mixer(u.expand(1, length - 1, -1))
    return _numbers(state), count_flops(part.step, u, state, gap)


def _pooling(windows, gap):
    """State and operations of a step into a window and out of one, and of the slower step in equal shares."""
    state = windows.initial_state(1)
    h, slow = _row(windows.fast), _row(windows.down_map.out_features)
    full = torch.ones(1, dtype=torch.bool)
    each = count_flops(windows.push, h, gap, state) + windows.fast
    slower = count_flops(windows.pooled, state, full, gap is None) + count_flops(windows.emptied, state, full, slow)
    return _numbers(state), each + slower / windows.factor
