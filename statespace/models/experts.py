"""Mixtures of experts: feed-forward maps of which each step takes a few, as a router chooses.

    p = softmax(R h)                                          router, over all E experts
    y = Σ_{e among the k largest of p} p_e V_e (silu(W_e h) ⊙ U_e h)
    balance = E Σ_e f_e P_e                                   f_e share of the choices that fell on e, P_e mean of p_e

Letters: h (..., d_model) features of steps, E experts, k chosen for each step. The balance is 1 where all experts get
the same, and more the fewer of them do the work; its gradient flows through P.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Jamba's arrangement: two experts a step, and a mixture in every other block.
_TOP_K, _EVERY = 2, 2
_OPTIONS = ("n_experts", "top_k", "every", "expand", "load_balance", "router_z")


class _Permutation(torch.autograd.Function):
    """The rows of x in another order; its gradient goes by the inverse and adds nothing up."""

    @staticmethod
    def forward(ctx, x, order, inverse):
        ctx.save_for_backward(order, inverse)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx, gradient):
        order, inverse = ctx.saved_tensors
        return _Permutation.apply(gradient, inverse, order), None, None


class MixtureOfExperts(nn.Module):
    """A feed-forward map, at each step alone, as a sum over the ``top_k`` experts that a router finds most probable.

        y = Σ_{e among the k largest of p} p_e V_e (silu(W_e h) ⊙ U_e h),    p = softmax(R h)

    The work does not grow with the number of experts: steps are sorted by expert, and each expert reads its own. None
    is dropped, and none depends on another. Probabilities are taken over all experts and not divided by their sum over
    those chosen, so that the router learns from ``top_k=1`` too, as in [1]_ and [2]_.

    Parameters
    ----------
    d_model : int
        Width of the features.
    n_experts : int
        E; with one there is no router.
    top_k : int, optional
        k; None takes 2, or 1 of one expert.
    expand : int, default=2
        Width between the maps, in units of ``d_model``.
    load_balance : float, default=0.01
        Factor of the balance in `auxiliary_loss`; Switch's 0.01 [1]_, equations 4-6.
    router_z : float, default=0.0
        Factor of the mean square of log Σ_e exp(R h)_e there, which keeps the router's logits small [3]_, equation 5.

    Raises
    ------
    ValueError
        An option out of its range.

    References
    ----------
    .. [1] W. Fedus, B. Zoph, N. Shazeer (2021). Switch Transformers: Scaling to Trillion Parameter Models with Simple
       and Efficient Sparsity.
    .. [2] O. Lieber et al. (2024). Jamba: A Hybrid Transformer-Mamba Language Model.
    .. [3] B. Zoph et al. (2022). ST-MoE: Designing Stable and Transferable Sparse Expert Models.

    Examples
    --------
    >>> import torch
    >>> from statespace.models import MixtureOfExperts
    >>> layer = MixtureOfExperts(8, n_experts=4)
    >>> y = layer(torch.randn(2, 5, 8))
    >>> y.shape
    torch.Size([2, 5, 8])
    >>> bool(layer.auxiliary_loss() >= 0.0099)
    True
    """

    def __init__(
        self,
        d_model: int,
        n_experts: int,
        *,
        top_k: int | None = None,
        expand: int = 2,
        load_balance: float = 0.01,
        router_z: float = 0.0,
    ):
        super().__init__()
        top_k = min(_TOP_K, n_experts) if top_k is None else top_k
        if n_experts < 1 or expand < 1:
            raise ValueError(f"n_experts and expand must be >= 1. Got {n_experts!r} and {expand!r} instead.")
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"top_k must be between 1 and n_experts = {n_experts}. Got {top_k!r} instead.")
        if not load_balance >= 0 or not router_z >= 0:
            raise ValueError(f"load_balance and router_z must be >= 0. Got {load_balance!r} and {router_z!r} instead.")
        self.n_experts, self.top_k, self.load_balance, self.router_z = n_experts, top_k, load_balance, router_z
        width = expand * d_model
        self.router = nn.Linear(d_model, n_experts, bias=False) if n_experts > 1 else None
        self.inner = nn.Parameter(torch.empty(n_experts, 2 * width, d_model).uniform_(-1, 1) * d_model**-0.5)
        self.outer = nn.Parameter(torch.empty(n_experts, d_model, width).uniform_(-1, 1) * width**-0.5)
        self.forget()

    def forward(self, h: Tensor, dt: Tensor | None = None) -> Tensor:
        """h (..., d_model) -> (..., d_model); ``dt`` (...), the gaps, says by 0 which steps are padding.

        Padding is neither routed nor counted, and answered by 0.
        """
        if self.router is None:
            return self._expert(0, h)
        if torch.compiler.is_exporting():
            return self._dense(h, self.router)
        real = None if dt is None else dt > 0
        if real is None or bool(real.all()):
            return self._routed(h.flatten(0, -2), self.router).unflatten(0, h.shape[:-1])
        y = torch.zeros_like(h)
        y[real] = self._routed(h[real], self.router)
        return y

    def _expert(self, e: int, h: Tensor) -> Tensor:
        gate, value = F.linear(h, self.inner[e]).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * value, self.outer[e])

    def _dense(self, h: Tensor, router: nn.Linear) -> Tensor:
        """As `forward` without padding, in a graph that is the same for every choice: each expert reads all steps."""
        weights, chosen = router(h).softmax(dim=-1).topk(self.top_k, dim=-1)
        shares = torch.zeros_like(h[..., :1]).expand(*h.shape[:-1], self.n_experts).scatter(-1, chosen, weights)
        return torch.stack([shares[..., e : e + 1] * self._expert(e, h) for e in range(self.n_experts)]).sum(dim=0)

    def _routed(self, h: Tensor, router: nn.Linear) -> Tensor:
        """h (n, d_model) -> (n, d_model)."""
        logits = router(h)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        weights, chosen = logits.softmax(dim=-1).topk(self.top_k, dim=-1)
        counts = torch.bincount(chosen.flatten(), minlength=self.n_experts)
        # A choice is one row: sorted, those of an expert stand together; every row goes to one place and comes back.
        order = torch.argsort(chosen.flatten(), stable=True)
        back = torch.argsort(order)
        rows = _Permutation.apply(h.unsqueeze(1).expand(-1, self.top_k, -1).flatten(0, 1), order, back)
        answers = torch.cat([self._expert(e, own) for e, own in enumerate(rows.split(counts.tolist()))])
        answers = _Permutation.apply(answers, back, order).unflatten(0, (-1, self.top_k))
        if self.training and torch.is_grad_enabled():
            self._seen.append((len(h), counts, logits))
        return (weights.to(h.dtype).unsqueeze(-1) * answers).sum(dim=1)

    def auxiliary_loss(self) -> Tensor:
        """Balance and logits of all steps that were read in training mode since this was last called; 0 if none were.

        What was counted is forgotten: one call for one step of an optimiser.
        """
        seen = self._seen
        self.forget()
        n = sum(n for n, _, _ in seen)
        if not n:
            return self.inner.new_zeros(())
        logits = torch.cat([logits for _, _, logits in seen])
        share = torch.stack([counts for _, counts, _ in seen]).sum(dim=0).to(logits.dtype) / (n * self.top_k)
        balance = self.n_experts * (share * logits.softmax(dim=-1).mean(dim=0)).sum()
        return self.load_balance * balance + self.router_z * logits.logsumexp(dim=-1).square().mean()

    def forget(self) -> None:
        """Begin to count anew."""
        self._seen: list[tuple[int, Tensor, Tensor]] = []

    def train(self, mode: bool = True) -> "MixtureOfExperts":
        """Training or evaluation mode; either begins to count anew."""
        self.forget()
        return super().train(mode)

    def __getstate__(self):
        # What was counted belongs to a graph, which neither copies nor pickles hold.
        return self.__dict__ | {"_seen": []}


def auxiliary_loss(model: nn.Module) -> Tensor | float:
    """What the mixtures of experts in a model add to its loss; see `MixtureOfExperts.auxiliary_loss`.

    It covers what the model read last, a record in training mode and the steps that followed it, and may be asked once.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    loss : Tensor or float
        The sum over all mixtures; 0.0 where there are none.

    Examples
    --------
    >>> import torch
    >>> from statespace.models import ResidualStack, auxiliary_loss
    >>> model = ResidualStack(1, 1, d_model=8, n_layers=2, layer_options={"d_state": 4}, moe=4)
    >>> y, _ = model(torch.randn(3, 10, 1))
    >>> loss = y.square().mean() + auxiliary_loss(model)
    """
    return sum((part.auxiliary_loss() for part in model.modules() if isinstance(part, MixtureOfExperts)), 0.0)


def make_feed_forwards(
    moe: int | Mapping[str, Any] | None, d_model: int, n_layers: int
) -> Sequence[MixtureOfExperts | None]:
    """The feed-forward maps of ``n_layers`` blocks, every so many of them a mixture; as in `ResidualStack`.

    Examples
    --------
    >>> from statespace.models.experts import make_feed_forwards
    >>> [part.n_experts for part in make_feed_forwards({"n_experts": 8, "every": 2}, d_model=4, n_layers=4)]
    [1, 8, 1, 8]
    """
    if moe is None:
        return [None] * n_layers
    if isinstance(moe, bool) or not isinstance(moe, int | Mapping):
        raise ValueError(
            f"moe must be a number of experts, or a mapping of {', '.join(_OPTIONS)}. Got {moe!r} instead."
        )
    options = {"n_experts": moe} if isinstance(moe, int) else dict(moe)
    for name in options:
        if name not in _OPTIONS:
            raise ValueError(f"moe has no option {name!r}. It takes {', '.join(_OPTIONS)}.")
    if "n_experts" not in options:
        raise ValueError(f"moe needs n_experts, such as {{'n_experts': 4}}. Got {moe!r} instead.")
    every = options.pop("every", _EVERY)
    if n_layers and not 1 <= every <= n_layers:
        raise ValueError(
            f"moe has a mixture in every {every} blocks, and there are {n_layers}: take more layers, or "
            "{'every': 1} for one in each block."
        )
    dense = {"n_experts": 1, "expand": options.get("expand", 2)}
    return [MixtureOfExperts(d_model, **(options if (i + 1) % every == 0 else dense)) for i in range(n_layers)]
