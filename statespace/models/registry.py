"""The backbones by name: what ``backbone="stack"`` means in an estimator or a saved file."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

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
