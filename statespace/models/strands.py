"""Both strands of DNA read alike: the reverse complement of sequences, and a network that does not tell them apart.

    RC(x)_k = P x_{L+1-k}                              the other strand: bases exchanged with their partners, in reverse
    h_k = [f(x)_k, f(RC(x))_{L+1-k}]                   the features of both strands at base k, with the same weights f
    y_k = V (f(x)_k + f(RC(x))_{L+1-k}) / 2 + v        so that y(RC(x))_k = y(x)_{L+1-k}

Letters: x (B, L, d_input) rows of bases, P the exchange of partners, L the length of each record without its padding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from statespace.models.stack import ResidualStack


class Strand(NamedTuple):
    """The other strand of a batch.

    Attributes
    ----------
    x : Tensor of shape (B, L, d_input)
    dt : Tensor of shape (B, L) or None
        Gaps: between each base and the one before it on this strand; the first is that of the record.
    source : Tensor of shape (B, L)
        Where each step of it lies in the record; padded steps stay where they are. Its own inverse.

    Examples
    --------
    >>> import torch
    >>> from statespace.models import reverse_complement
    >>> reverse_complement(torch.eye(4)[None], None, [3, 2, 1, 0]).source
    tensor([[3, 2, 1, 0]])
    """

    x: Tensor
    dt: Tensor | None
    source: Tensor

    def turned(self, y: Tensor) -> Tensor:
        """Rows (B, L, ...) in the order of the other strand; twice, in their own."""
        return along(y, self.source)


def along(y: Tensor, source: Tensor) -> Tensor:
    """The steps of y (B, L, ...) at ``source`` (B, L)."""
    index = source.view(*source.shape, *[1] * (y.ndim - 2)).expand(*source.shape, *y.shape[2:])
    return y.gather(1, index)


def reverse_complement(x: Tensor, dt: Tensor | None, complement: Sequence[int] | Tensor) -> Strand:
    """Each record from its end to its start, every base exchanged with its partner.

    Parameters
    ----------
    x : Tensor of shape (B, L, d_input)
        Rows of bases.
    dt : Tensor of shape (B, L) or None
        Gaps; 0 at padded steps, wherever they are. None: no padding, all gaps 1.
    complement : sequence of int
        The channel of each channel's partner.

    Returns
    -------
    strand : Strand

    Examples
    --------
    >>> import torch
    >>> from statespace.models import reverse_complement
    >>> x = torch.eye(4)[[0, 1, 1, 0]][None]  # A C C and a padded step
    >>> strand = reverse_complement(x, torch.tensor([[1.0, 2.0, 3.0, 0.0]]), [3, 2, 1, 0])
    >>> strand.x[0, :3].argmax(-1)
    tensor([2, 2, 3])
    >>> strand.dt
    tensor([[1., 3., 2., 0.]])
    """
    index = torch.as_tensor(complement, device=x.device)
    steps = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    if dt is None:
        return Strand(x.index_select(-1, index).flip(1), None, steps.flip(1))
    real = dt > 0
    last = real.sum(1, keepdim=True) - 1
    rank = real.cumsum(1) - 1
    # Where the real steps of each record are, in their order.
    places = torch.argsort((~real).byte(), dim=1, stable=True)
    source = torch.where(real, places.gather(1, (last - rank).clamp(min=0)), steps)
    following = places.gather(1, (last - rank + 1).clamp(0, x.shape[1] - 1))
    behind = torch.where(real & (rank > 0), following, steps)
    return Strand(along(x.index_select(-1, index), source), along(dt, behind), source)


class ReverseComplement(nn.Module):
    """A network that reads a sequence and its reverse complement with the same weights, as Caduceus-PS does [1]_.

    Outputs at every step of the reverse complement are those of the sequence, in reverse; outputs of every series are
    the same for both. In Caduceus half of the channels reads each strand and no layer mixes the halves, which is one
    network of that width on both strands, as here.

    Parameters
    ----------
    strand : ResidualStack
        What reads one strand; it may be bidirectional.
    complement : sequence of int
        The channel of each input channel's partner.

    Attributes
    ----------
    config : dict
        That of ``strand``, and ``complement``.

    Notes
    -----
    It needs the whole record, so that it has no ``step`` and takes no state. ``pooling="last"`` joins the features that
    each strand ends with.

    References
    ----------
    .. [1] Schiff, Kao, Gokaslan, Dao, Gu & Kuleshov, "Caduceus: Bi-Directional Equivariant Long-Range DNA Sequence
       Modeling", 2024, sections 3.2 and 4.1.

    Examples
    --------
    >>> import torch
    >>> from statespace.models import ResidualStack, ReverseComplement, reverse_complement
    >>> strand = ResidualStack(4, 1, d_model=8, n_layers=2, layer_options={"d_state": 4}).double().eval()
    >>> model = ReverseComplement(strand, [3, 2, 1, 0])
    >>> x = torch.eye(4, dtype=torch.double)[torch.randint(4, (2, 30))]
    >>> y, _ = model(x)
    >>> other, _ = model(reverse_complement(x, None, [3, 2, 1, 0]).x)
    >>> torch.allclose(other.flip(1), y, rtol=0, atol=1e-12)
    True
    """

    causal = False
    complement: Tensor

    def __init__(self, strand: ResidualStack, complement: Sequence[int]):
        super().__init__()
        self.strand = strand
        self.config = strand.config | {"complement": list(complement)}
        self.pooling = strand.pooling
        if sorted(complement) != list(range(strand.encoder.in_features)):
            raise ValueError(f"complement must name each of the input channels once. Got {list(complement)} instead.")
        self.register_buffer("complement", torch.tensor(list(complement)), persistent=False)

    @property
    def encoder(self) -> nn.Linear:
        """The linear map that embeds the bases of both strands."""
        return self.strand.encoder

    def freeze(self) -> "ReverseComplement":
        """Prepare for many records with weights that no longer change; returns self."""
        self.strand.freeze()
        return self

    def features(self, x: Tensor, dt: Tensor | None = None, state: Any = None) -> tuple[Tensor, None]:
        """Features before the head: those of the strand that is given, and beside them those of the other.

        Parameters
        ----------
        x : Tensor of shape (B, L, d_input)
        dt : Tensor of shape (B, L), optional
            As in `ResidualStack.features`.
        state : None
            There is none to pass on.

        Returns
        -------
        h : Tensor of shape (B, L, 2 · d_model)
        state : None
        """
        if state is not None:
            raise ValueError("a network that reads both strands needs the whole record: it takes no state.")
        other = reverse_complement(x, dt, self.complement)
        gaps = None if dt is None or other.dt is None else torch.cat([dt, other.dt])
        h, _ = self.strand.features(torch.cat([x, other.x]), gaps)
        h, h_other = h.chunk(2)
        return torch.cat([h, other.turned(h_other)], dim=-1), None

    def pool(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features of a series from those of its real steps: (B, L, 2 · d_model) -> (B, 2 · d_model)."""
        if self.pooling == "mean":
            return self.strand.pool(h, lengths)
        h, h_other = h.chunk(2, dim=-1)
        # The other strand ends where the record begins.
        return torch.cat([self.strand.pool(h, lengths), h_other[:, 0]], dim=-1)

    def head(self, h: Tensor) -> Tensor:
        """Outputs from the features of both strands: (..., 2 · d_model) -> (..., d_output)."""
        h, h_other = h.chunk(2, dim=-1)
        return self.strand.head((h + h_other) / 2)

    def forward(
        self, x: Tensor, dt: Tensor | None = None, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Outputs at every step (B, L, d_output), or of every series (B, d_output) with pooling; and no state.

        Arguments as in `ResidualStack.forward`.
        """
        h, state = self.features(x, dt, state)
        return self.head(h if self.pooling is None else self.pool(h, lengths)), state
