"""The shift system of H3 (Dao, Fu et al. 2023, section 3.1): a register of the last samples, read out by taps.

    x_k = S x_{k-1} + e_1 u_k,    y_k = C x_k = Σ_{j < m} C_j u_{k-j},    S e_j = e_{j+1}, S e_m = 0

The register counts samples, not time. S is nilpotent, so it has no logarithm: no x'(t) = A x(t) reaches it at Δ = 1,
and there is no power of it for a gap to take. What came j samples ago is read as such whatever the gaps; a padded step
is no sample.
"""

import torch

from statespace.kernels import long_convolution


def shift(u, taps, register=None, real=None, *, backend=None):
    """A record through the shift system, and the register at its end.

    Parameters
    ----------
    u : Tensor of shape (batch, channels, length)
    taps : Tensor of shape (channels, m)
        C; tap j reads the sample j steps ago.
    register : Tensor of shape (batch, channels, m - 1), optional
        The last samples before the record, the latest one last; None is zero.
    real : Tensor of bool of shape (batch, length), optional
        Which steps are samples; the others are padding and do not enter. None: all.
    backend : str, optional
        Backend of :func:`statespace.kernels.long_convolution`.

    Returns
    -------
    y : Tensor of shape (batch, channels, length)
        Of no meaning at padded steps.
    register : Tensor of shape (batch, channels, m - 1)

    Examples
    --------
    >>> import torch
    >>> from statespace.layers.shift import shift
    >>> y, register = shift(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[10.0, 1.0]]))
    >>> y.round().tolist(), register.tolist()
    ([[[10.0, 21.0, 32.0]]], [[[3.0]]])
    """
    L, reach = u.shape[-1], taps.shape[-1] - 1
    order = None
    if real is not None and not bool(real.all()):
        # Samples first, in their order, padding behind them: there it enters nothing that is read.
        order = torch.argsort((~real).byte(), dim=1, stable=True).unsqueeze(1).expand_as(u)
        u = u.gather(-1, order)
    if register is None:
        register = u.new_zeros(*u.shape[:2], reach)
        y = long_convolution(u, taps.to(u.dtype), backend=backend)
    else:
        y = long_convolution(_behind(register, u), taps.to(u.dtype), backend=backend)[..., reach:]
    if order is None:
        return y, (u[..., L - reach :] if reach <= L else torch.cat([register[..., L:].to(u.dtype), u], dim=-1))
    last = real.sum(1)[:, None, None] + torch.arange(reach, device=u.device)
    register = _behind(register, u).gather(-1, last.expand(*u.shape[:2], reach))
    return torch.empty_like(y).scatter(-1, order, y), register


def _behind(register, u):
    """The register and the record after it, channels last in memory where those of the record are."""
    return torch.cat([register.to(u.dtype).transpose(1, 2), u.transpose(1, 2)], dim=1).transpose(1, 2)
