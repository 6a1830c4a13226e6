"""The layers' own parameters as estimators show them, written once for regression, classification and forecasting.

An estimator is a dataclass: its constructor stores the fields that its bases declare, those of the layer from here and
those of training from ``deep`` or ``forecasting.deep``. The classes here have no constructor, which sktime's would call
again. Above: the estimators. Below: the layers' names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar


class LayerParameters:
    """The parameters of one kind of layer; a subclass names the layer and declares its arguments as fields."""

    _layer: ClassVar[str]

    def _layers(self, **shared):
        """What `ResidualStack` calls ``layer`` and ``layer_options``; every layer also takes ``shared``."""
        own = next(kind for kind in type(self).__mro__ if "_layer" in vars(kind))
        return self._layer, shared | {field.name: getattr(self, field.name) for field in fields(own)}


@dataclass(init=False, eq=False, repr=False)
class SSMParameters(LayerParameters):
    """Any layer by name, or a pattern of layers."""

    layer: str | Sequence[str] = "s4d"
    _: KW_ONLY
    layer_options: Mapping[str, Any] | None = None

    def _layers(self, **shared):
        options = {} if self.layer_options is None else self.layer_options
        if not isinstance(options, Mapping):
            raise ValueError(
                "layer_options must be a mapping of the layer's arguments, or for a pattern of layers one from name to "
                f"such a mapping. Got {options!r} instead."
            )
        if isinstance(self.layer, str):
            return self.layer, shared | dict(options)
        for name, own in options.items():
            if name not in self.layer or not isinstance(own, Mapping):
                raise ValueError(
                    f"layer_options of the pattern {list(self.layer)} must map its names to mappings of arguments. "
                    f"Got {name!r}: {own!r}."
                )
        return list(self.layer), {name: shared | dict(options.get(name, {})) for name in self.layer}


@dataclass(init=False, eq=False, repr=False)
class S4DParameters(LayerParameters):
    """Of `statespace.layers.S4D`."""

    _layer: ClassVar[str] = "s4d"
    d_state: int = 64
    _: KW_ONLY
    init: str = "lin"
    discretization: str = "zoh"
    dt_min: float = 1e-3
    dt_max: float = 1e-1


@dataclass(init=False, eq=False, repr=False)
class S5Parameters(LayerParameters):
    """Of `statespace.layers.S5`."""

    _layer: ClassVar[str] = "s5"
    d_state: int = 64
    _: KW_ONLY
    n_blocks: int = 1
    init: str = "legs"
    discretization: str = "zoh"
    dt_min: float = 1e-3
    dt_max: float = 1e-1


@dataclass(init=False, eq=False, repr=False)
class H3Parameters(LayerParameters):
    """Of `statespace.layers.H3`."""

    _layer: ClassVar[str] = "h3"
    d_state: int = 64
    _: KW_ONLY
    d_shift: int | None = None
    head_dim: int = 1
    init: str = "lin"
    discretization: str = "zoh"
    dt_min: float = 1e-3
    dt_max: float = 1e-1


@dataclass(eq=False, repr=False)
class S4Parameters(LayerParameters):
    """Of `statespace.layers.S4`."""

    _layer: ClassVar[str] = "s4"
    d_state: int = 64
    _: KW_ONLY
    measure: str = "legs"
    rank: int | None = None
    dt_min: float = 1e-3
    dt_max: float = 1e-1


@dataclass(init=False, eq=False, repr=False)
class MambaParameters(LayerParameters):
    """Of `statespace.layers.Mamba`."""

    _layer: ClassVar[str] = "mamba"
    d_state: int = 16
    _: KW_ONLY
    d_conv: int = 4
    expand: float = 2
    dt_rank: int | str = "auto"
    dt_min: float = 1e-3
    dt_max: float = 1e-1


@dataclass(init=False, eq=False, repr=False)
class Mamba2Parameters(LayerParameters):
    """Of `statespace.layers.Mamba2`."""

    _layer: ClassVar[str] = "mamba2"
    d_state: int = 64
    _: KW_ONLY
    d_conv: int = 4
    expand: int = 2
    head_dim: int | None = None
    n_groups: int = 1
    dt_min: float = 1e-3
    dt_max: float = 1e-1


@dataclass(init=False, eq=False, repr=False)
class RWKVParameters(LayerParameters):
    """Of `statespace.layers.RWKV`, which has none but those of all layers."""

    _layer: ClassVar[str] = "rwkv"


@dataclass(init=False, eq=False, repr=False)
class DeltaNetParameters(LayerParameters):
    """Of `statespace.layers.DeltaNet`."""

    _layer: ClassVar[str] = "deltanet"
    _: KW_ONLY
    n_heads: int | None = None
    d_conv: int | None = 4
    gated: bool = False
