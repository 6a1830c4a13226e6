"""The backbones by name: what ``backbone="stack"`` means in an estimator or a saved file."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch

from statespace.models.sashimi import SaShiMi
from statespace.models.stack import ResidualStack

BACKBONES: dict[str, type[ResidualStack]] = {"stack": ResidualStack, "sashimi": SaShiMi}
_COMMON = signature(ResidualStack).parameters


def make_backbone(name: str, options: Mapping[str, Any] | None = None, **config) -> ResidualStack:
    """The network called ``name``.

    Parameters
    ----------
    name : {"stack", "sashimi"}
        Key of ``BACKBONES``.
    options : mapping, optional
        Arguments of this network that `ResidualStack` does not have.
    **config
        Arguments of the network; those that `ResidualStack` has are common to all.

    Raises
    ------
    ValueError
        No backbone of this name.
    TypeError
        The backbone has no such argument, or it is not one of the ``options``.

    Examples
    --------
    >>> from statespace.models import make_backbone
    >>> make_backbone("stack", d_input=1, d_output=2, d_model=8, n_layers=1, layer_options={"d_state": 4}).causal
    True
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(map(repr, BACKBONES))}. Got {name!r} instead.")
    own = [option for option in signature(BACKBONES[name]).parameters if option not in _COMMON]
    for option in options or {}:
        if option not in own:
            raise TypeError(
                f"backbone {name!r} has no option {option!r}. It takes {', '.join(own) or 'none'}; what all networks "
                "have in common are parameters of the estimator."
            )
    return BACKBONES[name](**config, **(options or {}))


def restored_model(make: Callable[[], torch.nn.Module], weights: Mapping[str, torch.Tensor]) -> Any:
    """A network with the weights of a file, in evaluation mode.

    It is first made without memory, so that a description that claims more than there are weights costs nothing.

    Parameters
    ----------
    make : callable
        Makes the network that is described.
    weights : mapping of str to Tensor

    Raises
    ------
    ValueError
        The network that is described has other weights, of which the first is named.

    Examples
    --------
    >>> from statespace.models import make_backbone, restored_model
    >>> def make():
    ...     return make_backbone("stack", d_input=1, d_output=2, d_model=8, n_layers=1, layer_options={"d_state": 4})
    >>> restored_model(make, make().state_dict()).training
    False
    """
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            claimed = {name: tuple(value.shape) for name, value in make().state_dict().items()}
        given = {name: tuple(value.shape) for name, value in weights.items()}
        for name in [*claimed, *given]:
            if claimed.get(name) != given.get(name):
                raise ValueError(
                    f"the network that is described has {name} of shape {claimed.get(name)}, and what is given "
                    f"{given.get(name)}"
                )
        model = make()
    model.load_state_dict(weights)
    return model.eval()
