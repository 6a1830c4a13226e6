"""Sequence layers: a state-space system each, with its parallel and its recurrent face side by side in one file.

Above: ``statespace.models`` stacks them into networks, and people who write PyTorch use them on their own. Below:
``statespace.kernels`` computes their scans and convolutions. All follow the contract of :class:`SequenceMixer`.
"""

from statespace.layers.attention import Attention
from statespace.layers.base import SequenceMixer
from statespace.layers.channel_mixing import ChannelMixing
from statespace.layers.deltanet import DeltaNet
from statespace.layers.dss import DSS
from statespace.layers.h3 import H3
from statespace.layers.linear import LinearMixer
from statespace.layers.mamba import Mamba
from statespace.layers.mamba2 import Mamba2
from statespace.layers.mamba3 import Mamba3
from statespace.layers.registry import LAYERS, make_layer
from statespace.layers.rwkv import RWKV, RWKVBlock
from statespace.layers.s4 import S4
from statespace.layers.s4d import S4D
from statespace.layers.s5 import S5
from statespace.layers.selective import SelectiveMixer
from statespace.layers.tides import TIDES

__all__ = [
    "DSS", "H3", "LAYERS", "RWKV", "S4", "S4D", "S5", "TIDES", "Attention", "ChannelMixing", "DeltaNet",
    "LinearMixer", "Mamba", "Mamba2", "Mamba3", "RWKVBlock", "SelectiveMixer", "SequenceMixer", "make_layer",
]  # fmt: skip
