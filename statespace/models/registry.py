"""The backbones by name: what ``backbone="stack"`` means in an estimator or a saved file."""

from statespace.models.sashimi import SaShiMi
from statespace.models.stack import ResidualStack

BACKBONES: dict[str, type] = {"stack": ResidualStack, "sashimi": SaShiMi}


def make_backbone(name: str, **config) -> ResidualStack:
    """The network called ``name``.

    Parameters
    ----------
    name : {"stack", "sashimi"}
        Key of ``BACKBONES``.
    **config
        Arguments of the network, those of `ResidualStack` or `SaShiMi`.

    Raises
    ------
    ValueError
        No backbone of this name.

    Examples
    --------
    >>> from statespace.models import make_backbone
    >>> make_backbone("stack", d_input=1, d_output=2, d_model=8, n_layers=1, layer_options={"d_state": 4}).causal
    True
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(map(repr, BACKBONES))}. Got {name!r} instead.")
    return BACKBONES[name](**config)
