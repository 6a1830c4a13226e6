"""The layers by name: what ``layer="s4d"`` means in an estimator, a stack or a saved file."""

from inspect import signature

from statespace.layers.attention import Attention
from statespace.layers.base import SequenceMixer
from statespace.layers.channel_mixing import ChannelMixing
from statespace.layers.deltanet import DeltaNet
from statespace.layers.dss import DSS
from statespace.layers.h3 import H3
from statespace.layers.mamba import Mamba
from statespace.layers.mamba2 import Mamba2
from statespace.layers.mamba3 import Mamba3
from statespace.layers.rwkv import RWKV
from statespace.layers.s4 import S4
from statespace.layers.s4d import S4D
from statespace.layers.s5 import S5
from statespace.layers.tides import TIDES

LAYERS: dict[str, type[SequenceMixer]] = {
    "attention": Attention, "channel_mixing": ChannelMixing, "deltanet": DeltaNet, "dss": DSS, "h3": H3,
    "mamba": Mamba, "mamba2": Mamba2, "mamba3": Mamba3, "rwkv": RWKV, "s4": S4, "s4d": S4D, "s5": S5, "tides": TIDES,
}  # fmt: skip


def make_layer(name: str, d_model: int, **options) -> SequenceMixer:
    """The layer called ``name``.

    Parameters
    ----------
    name : str
        Key of ``LAYERS``: "attention", "channel_mixing", "deltanet", "dss", "h3", "mamba", "mamba2", "mamba3", "rwkv",
        "s4", "s4d", "s5" or "tides".
    d_model : int
        Number of channels.
    **options
        Arguments of the layer.

    Raises
    ------
    ValueError
        No layer of this name.
    TypeError
        The layer has no such argument; the message lists those it has.

    Examples
    --------
    >>> from statespace.layers import make_layer
    >>> make_layer("s4d", 8, d_state=16).d_state
    16
    """
    if name not in LAYERS:
        raise ValueError(f"layer must be one of {', '.join(map(repr, LAYERS))}. Got {name!r} instead.")
    taken = [option for option in signature(LAYERS[name]).parameters if option != "d_model"]
    for option in options:
        if option not in taken:
            raise TypeError(f"layer {name!r} has no argument {option!r}. It takes {', '.join(taken)}.")
    return LAYERS[name](d_model, **options)
