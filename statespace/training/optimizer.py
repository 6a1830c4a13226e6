"""Which parameter learns how fast: the groups of AdamW and the schedule of their rates."""

import math
from collections.abc import Callable, Mapping
from numbers import Real

from torch import nn

# What a parameter of the dynamics sets: the state matrix, the input matrix, the step.
ROLES = ("A", "B", "dt")


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    ssm_learning_rate: float | Mapping[str, float],
    weight_decay: float,
) -> list[dict]:
    """Groups for ``torch.optim.AdamW``: weights, vectors, and the dynamics.

    A, B and Δ of a state-space layer learn at rates of their own and are not pulled to zero, for zero is no neutral
    value of a pole or of a time scale (S4 [1]_, S4D [2]_ and S5 [3]_ alike, where these rates are 1e-3 or less and the
    others up to 1e-2). Neither are biases and the gains of norms.

    A layer marks such a parameter by ``parameter._optim = {"group": "ssm", "role": "A"}`` (or ``"B"``, ``"dt"``; see
    `statespace.layers.SequenceMixer`); without a role it counts as ``"A"``. The mark of any parameter may also hold
    ``"lr"``, a rate in the place of the group's, ``"lr_scale"``, a factor on its rate, and ``"weight_decay"``.

    Parameters
    ----------
    model : torch.nn.Module
    learning_rate : float
        Rate of the ordinary parameters.
    ssm_learning_rate : float or mapping
        Rate of the dynamics: one for all, or one for each of ``"A"``, ``"B"`` and ``"dt"``. What a mapping leaves out
        learns at ``learning_rate``.
    weight_decay : float
        Decoupled weight decay of the weight matrices.

    Returns
    -------
    groups : list of dict
        One for each pair of rate and decay, in the order of the model's parameters.

    Raises
    ------
    ValueError
        A rate for another role, or a negative one.

    References
    ----------
    .. [1] A. Gu, K. Goel, C. Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022, appendix D.
    .. [2] A. Gu, A. Gupta, K. Goel, C. Ré, "On the Parameterization and Initialization of Diagonal State Space Models",
       2022.
    .. [3] J. Smith, A. Warrington, S. Linderman, "Simplified State Space Layers for Sequence Modeling", 2023,
       appendix G.

    Examples
    --------
    >>> from statespace.layers import S4D
    >>> from statespace.training import parameter_groups
    >>> rates = {"A": 1e-3, "dt": 2e-3}
    >>> groups = parameter_groups(S4D(4), learning_rate=1e-2, ssm_learning_rate=rates, weight_decay=0.1)
    >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
    [(1, 0.002, 0.0), (2, 0.001, 0.0), (2, 0.01, 0.0), (1, 0.01, 0.1)]
    """
    rates = ssm_rates(ssm_learning_rate, learning_rate)
    groups: dict[tuple[float, float], list] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        mark = getattr(parameter, "_optim", {})
        if mark.get("group") == "ssm":
            rate, decay = rates[mark.get("role", "A")], 0.0
        else:
            rate, decay = learning_rate, (weight_decay if parameter.ndim > 1 else 0.0)
        rate = mark.get("lr", rate) * mark.get("lr_scale", 1.0)
        groups.setdefault((rate, mark.get("weight_decay", decay)), []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def ssm_rates(ssm_learning_rate: float | Mapping[str, float], learning_rate: float) -> dict[str, float]:
    """The rate of each role.

    Parameters
    ----------
    ssm_learning_rate, learning_rate
        As in `parameter_groups`.

    Returns
    -------
    rates : dict
        By ``"A"``, ``"B"`` and ``"dt"``.

    Raises
    ------
    ValueError
        A rate for another role, or one that is no number of at least 0.

    Examples
    --------
    >>> from statespace.training import ssm_rates
    >>> ssm_rates({"A": 1e-4}, 1e-2)
    {'A': 0.0001, 'B': 0.01, 'dt': 0.01}
    """
    if not isinstance(ssm_learning_rate, Mapping):
        ssm_learning_rate = dict.fromkeys(ROLES, ssm_learning_rate)
    for role, rate in ssm_learning_rate.items():
        if role not in ROLES:
            raise ValueError(f"ssm_learning_rate has rates for 'A', 'B' and 'dt'. Got one for {role!r} instead.")
        if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 <= rate < math.inf:
            raise ValueError(
                f"ssm_learning_rate must be a number of at least 0, or a mapping of 'A', 'B' and 'dt' to such numbers. "
                f"Got {rate!r} instead."
            )
    return {role: float(ssm_learning_rate.get(role, learning_rate)) for role in ROLES}


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
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))))

    return factor
