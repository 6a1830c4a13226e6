"""The residual stack: an encoder, n blocks around a sequence mixer, a norm, a head.

    h = E x + e                                           encoder, at every step
    h = h + dropout(GLU(W gelu(mixer(norm(h), Δ))))       each block; only the mixer looks across time
    h = h + dropout(mixer(norm(h), Δ))                    where it has a gate of its own, as Mamba
    h = h + dropout(experts(norm(h)))                     after it, with `moe`
    y = V norm(h) + v                                     head, at every step or on the pooled features

Letters: x (B, L, d_input) inputs, h (B, L, d_model) features, Δ (B, L) gaps, y (B, L, d_output) outputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statespace.layers import LAYERS, SelectiveMixer, SequenceMixer, make_layer
from statespace.models.experts import MixtureOfExperts, make_feed_forwards


class ResidualBlock(nn.Module):
    """One block: norm, sequence mixer, GELU, gated linear unit, dropout, and the residual around them.

    A mixer with a gate of its own (``gated_unit`` False), as Mamba, is added as it is, as in its paper. With a
    feed-forward map there follow norm, map, dropout, and a residual around these; then no selective layer has a unit,
    as in Jamba [1]_.

    Parameters
    ----------
    d_model : int
        Width of the features.
    mixer : SequenceMixer
        A layer with ``forward(u, dt, state)`` and ``step(u_t, state, dt)``.
    dropout : float, default=0.0
        Share of the block's outputs dropped while training.
    feed_forward : MixtureOfExperts, optional
        The map behind the mixer.

    References
    ----------
    .. [1] Lieber et al., "Jamba: A Hybrid Transformer-Mamba Language Model", 2024, figure 1.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers import S4D
    >>> from statespace.models import ResidualBlock
    >>> h, state = ResidualBlock(8, S4D(8, d_state=4))(torch.randn(2, 5, 8))
    >>> h.shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        d_model: int,
        mixer: SequenceMixer,
        dropout: float = 0.0,
        feed_forward: MixtureOfExperts | None = None,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.mixer: SequenceMixer = mixer
        alone = not mixer.gated_unit or (feed_forward is not None and isinstance(mixer, SelectiveMixer))
        self.gate = None if alone else nn.Linear(d_model, 2 * d_model)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = feed_forward
        if feed_forward is not None:
            self.feed_forward_norm = nn.LayerNorm(d_model)

    def forward(self, h: Tensor, dt: Tensor | None = None, state: Any = None) -> tuple[Tensor, Any]:
        """h (B, L, d_model) -> (h (B, L, d_model), state)."""
        y, state = self.mixer(self.norm(h), dt=dt, state=state)
        return self._add(h, y, dt), state

    def step(self, h_t: Tensor, state: Any, dt: Tensor | None = None) -> tuple[Tensor, Any]:
        """h_t (B, d_model) -> (h_t (B, d_model), state)."""
        y_t, state = self.mixer.step(self.norm(h_t), state, dt=dt)
        return self._add(h_t, y_t, dt), state

    def initial_state(self, batch_size: int) -> Any:
        """The mixer's state before the first step."""
        return self.mixer.initial_state(batch_size)

    def _add(self, h: Tensor, y: Tensor, dt: Tensor | None) -> Tensor:
        if self.gate is not None:
            # A mixer's outputs lie in memory with time last; made contiguous, what follows takes half the time.
            y = F.glu(self.gate(F.gelu(y.contiguous())), dim=-1)
        h = h + self.dropout(y)
        if self.feed_forward is None:
            return h
        return h + self.dropout(self.feed_forward(self.feed_forward_norm(h), dt))


def make_mixers(
    layer: str | Sequence[str], layer_options: Mapping[str, Any] | None, d_model: int, n_layers: int
) -> list[SequenceMixer]:
    """The mixers of ``n_layers`` blocks from a name, or a pattern of names, and their arguments; as in `ResidualStack`.

    Examples
    --------
    >>> from statespace.models.stack import make_mixers
    >>> [mixer.d_state for mixer in make_mixers("s4d", {"d_state": 4}, d_model=8, n_layers=2)]
    [4, 4]
    """
    pattern = [layer] if isinstance(layer, str) else list(layer)
    if not pattern:
        raise ValueError("layer must be a name or a sequence of at least one name. Got an empty sequence instead.")
    options = dict(layer_options or {})
    names = [pattern[i % len(pattern)] for i in range(n_layers)]
    mixers = []
    for i, name in enumerate(names):
        own = options if isinstance(layer, str) else options.get(name, {})
        if name in LAYERS and "position" in signature(LAYERS[name]).parameters:
            # Its starting values depend on its place in the stack.
            own = {"position": (i, n_layers)} | own
        mixers.append(make_layer(name, d_model, **own))
    return mixers


class ResidualStack(nn.Module):
    """Encoder, residual blocks around sequence mixers, norm and head: a model for whole records and for streams.

    Pre-norm residual blocks with a gated linear unit, as in S4D and S5 [1]_ [2]_. Only the mixers look across time, so
    the stack keeps their contract: folding ``step`` over a record equals ``forward``, a record may be cut anywhere if
    the state is passed on, and a padded step (Δ = 0) changes nothing that follows it.

    Parameters
    ----------
    d_input, d_output : int
        Channels of the input and of the output.
    d_model : int, default=64
        Width of the features.
    n_layers : int, default=4
        Number of blocks.
    layer : str or sequence of str, default="s4d"
        Name of the sequence mixer, or a pattern of names repeated over the blocks.
    layer_options : mapping, optional
        Arguments of the mixer, e.g. ``{"d_state": 16}``. With a pattern: a mapping from name to such a mapping.
    dropout : float, default=0.0
        Share of each block's outputs dropped while training.
    pooling : {None, "mean", "last"}, default=None
        None gives one output a step; ``"mean"`` and ``"last"`` one output a series, from the mean of the features over
        the real steps or from those at the last real step.
    moe : int or mapping, optional
        Mixtures of experts, and of how many: a feed-forward map behind each mixer, every other one of which is a
        mixture, as in Jamba [3]_. A mapping sets ``"n_experts"``, ``"every"`` (2; 1 is MoE-Mamba [4]_) and the
        arguments of `MixtureOfExperts`. None has no feed-forward maps.

    Raises
    ------
    ValueError
        Unknown layers or options.

    References
    ----------
    .. [1] Gu, Gupta, Goel & Ré, "On the Parameterization and Initialization of Diagonal State Space Models", 2022.
    .. [2] Smith, Warrington & Linderman, "Simplified State Space Layers for Sequence Modeling", 2023, appendix G.
    .. [3] Lieber et al., "Jamba: A Hybrid Transformer-Mamba Language Model", 2024, section 2.
    .. [4] Pióro et al., "MoE-Mamba: Efficient Selective State Space Models with Mixture of Experts", 2024.

    Examples
    --------
    >>> import torch
    >>> from statespace.models import ResidualStack
    >>> model = ResidualStack(d_input=2, d_output=1, d_model=8, n_layers=2, layer_options={"d_state": 4})
    >>> x, dt = torch.randn(3, 10, 2), torch.rand(3, 10) + 0.5
    >>> y, state = model(x, dt)
    >>> y.shape
    torch.Size([3, 10, 1])
    >>> y_t, state = model.step(torch.randn(3, 2), state, torch.ones(3))
    >>> y_t.shape
    torch.Size([3, 1])
    """

    def __init__(
        self,
        d_input: int,
        d_output: int,
        d_model: int = 64,
        n_layers: int = 4,
        layer: str | Sequence[str] = "s4d",
        layer_options: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        pooling: str | None = None,
        moe: int | Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if pooling not in (None, "mean", "last"):
            raise ValueError(f"pooling must be None, 'mean' or 'last'. Got {pooling!r} instead.")
        # What rebuilds this very model: persistence writes it beside the weights.
        self.config: dict[str, Any] = {
            "d_input": d_input, "d_output": d_output, "d_model": d_model, "n_layers": n_layers,
            "layer": layer if isinstance(layer, str) else list(layer), "layer_options": dict(layer_options or {}),
            "dropout": dropout, "pooling": pooling, "moe": dict(moe) if isinstance(moe, Mapping) else moe,
        }  # fmt: skip
        self.pooling = pooling
        self.encoder = nn.Linear(d_input, d_model)
        mixers = make_mixers(layer, layer_options, d_model, n_layers)
        maps = make_feed_forwards(moe, d_model, n_layers)
        self.blocks = nn.ModuleList(
            ResidualBlock(d_model, mixer, dropout, map) for mixer, map in zip(mixers, maps, strict=True)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, d_output)

    def freeze(self) -> "ResidualStack":
        """Prepare for many steps with weights that no longer change; returns self."""
        for block in self._blocks:
            block.mixer.freeze()
        return self

    @property
    def _blocks(self) -> Iterator[ResidualBlock]:
        return cast(Iterator[ResidualBlock], iter(self.blocks))

    @property
    def causal(self) -> bool:
        """Whether an output depends on earlier steps only, so that the record may be cut and streamed."""
        return not any(getattr(block.mixer, "bidirectional", False) for block in self._blocks)

    def features(self, x: Tensor, dt: Tensor | None = None, state: Any = None) -> tuple[Tensor, tuple]:
        """Features before the head.

        Parameters
        ----------
        x : Tensor of shape (B, L, d_input)
        dt : Tensor of shape (B, L), optional
            Gaps before each step, in units of the training data's median gap; 0 at padded steps. None: a regular grid.
        state : tuple, optional
            What an earlier call returned; None starts from nothing.

        Returns
        -------
        h : Tensor of shape (B, L, d_model)
        state : tuple
            One state for each block.
        """
        states = [None] * len(self.blocks) if state is None else state
        self._count_anew()
        h, after = self.encoder(x), []
        for block, before in zip(self._blocks, states, strict=True):
            h, block_state = block(h, dt, before)
            after.append(block_state)
        return self.norm(h), tuple(after)

    def _count_anew(self) -> None:
        """Let the mixtures of experts forget what they have counted."""
        for block in self._blocks:
            if block.feed_forward is not None:
                block.feed_forward.forget()

    def pool(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features of a series from those of its real steps: (B, L, d_model) -> (B, d_model).

        ``lengths`` (B,) counts the real steps, which come first; None: all are real.
        """
        if lengths is None:
            return h.mean(dim=1) if self.pooling == "mean" else h[:, -1]
        if self.pooling == "last":
            return h[torch.arange(len(h), device=h.device), lengths - 1]
        # On a GPU, to look at the lengths would be to wait for them; `where` and its gradient take longer on a CPU.
        if h.device.type == "cpu" and not torch.compiler.is_compiling() and bool((lengths == h.shape[1]).all()):
            return h.mean(dim=1)
        real = torch.arange(h.shape[1], device=h.device) < lengths[:, None]
        # `where` and not a product: a padded step may hold anything, NaN too.
        return torch.where(real[..., None], h, 0).sum(dim=1) / lengths[:, None].to(h.dtype)

    def forward(
        self, x: Tensor, dt: Tensor | None = None, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple]:
        """Outputs at every step (B, L, d_output), or of every series (B, d_output) with pooling; and the state.

        Arguments as in `features`; ``lengths`` (B,) counts the real steps of each series, for pooling.
        """
        h, state = self.features(x, dt, state)
        return self.head(h if self.pooling is None else self.pool(h, lengths)), state

    def step(self, x_t: Tensor, state: Any, dt: Tensor | None = None) -> tuple[Tensor, tuple]:
        """One step of the recurrence: x_t (B, d_input), dt (B,) or None -> (outputs (B, d_output), state).

        Pooling is not applied: the outputs are those of this step alone (``step_features`` gives what to pool).
        """
        h_t, state = self.step_features(x_t, state, dt)
        return self.head(h_t), state

    def step_features(self, x_t: Tensor, state: Any, dt: Tensor | None = None) -> tuple[Tensor, tuple]:
        """The features of `step` before the head: (B, d_model), and the state."""
        h_t, after = self.encoder(x_t), []
        for block, before in zip(self._blocks, state, strict=True):
            h_t, block_state = block.step(h_t, before, dt)
            after.append(block_state)
        return self.norm(h_t), tuple(after)

    def initial_state(self, batch_size: int) -> tuple:
        """The state before the first step: one for each block."""
        return tuple(block.initial_state(batch_size) for block in self._blocks)
