"""Which parameter learns how fast: the groups of AdamW and the schedule of their rates."""

import math
from collections.abc import Callable

from torch import nn


def parameter_groups(
    model: nn.Module, *, learning_rate: float, ssm_learning_rate: float, weight_decay: float
) -> list[dict]:
    """Groups for ``torch.optim.AdamW``: weights, vectors, and the dynamics.

    A, B and Δ of a state-space layer carry ``param._optim = {"group": "ssm"}``: they learn at a rate of their own and
    are not pulled to zero, for zero is no neutral value of a pole or of a time scale (Gu et al. 2022, S4, appendix).
    Neither are biases and the gains of norms.

    Parameters
    ----------
    model : torch.nn.Module
    learning_rate, ssm_learning_rate : float
        Rate of the ordinary parameters and of the dynamics.
    weight_decay : float
        Decoupled weight decay of the weight matrices.

    Returns
    -------
    groups : list of dict
        Empty groups are left out.

    Examples
    --------
    >>> from statespace.layers import S4D
    >>> from statespace.training import parameter_groups
    >>> groups = parameter_groups(S4D(4), learning_rate=1e-2, ssm_learning_rate=1e-3, weight_decay=0.1)
    >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
    [(1, 0.01, 0.1), (1, 0.01, 0.0), (4, 0.001, 0.0)]
    """
    weights, vectors, dynamics = [], [], []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if getattr(parameter, "_optim", {}).get("group") == "ssm":
            dynamics.append(parameter)
        elif parameter.ndim < 2:
            vectors.append(parameter)
        else:
            weights.append(parameter)
    groups = [
        {"params": weights, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": vectors, "lr": learning_rate, "weight_decay": 0.0},
        {"params": dynamics, "lr": ssm_learning_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def warmup_cosine(n_steps: int, warmup: float = 0.1) -> Callable[[int], float]:
    """Factor of the learning rates at each of ``n_steps`` steps: a linear rise, then half a cosine down to zero.

    Parameters
    ----------
    n_steps : int
        Steps of the whole training.
    warmup : float, default=0.1
        Share of the steps in which the rate rises.

    Examples
    --------
    >>> from statespace.training import warmup_cosine
    >>> factor = warmup_cosine(100, warmup=0.1)
    >>> round(factor(0), 3), factor(9), round(factor(55), 3)
    (0.1, 1.0, 0.5)
    """
    n_warmup = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        if step < n_warmup:
            return (step + 1) / n_warmup
        return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))

    return factor
