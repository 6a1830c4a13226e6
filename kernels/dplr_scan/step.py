"""One step of the discretised system in torch, by Woodbury's identity: what `pytorch.py` repeats and a layer steps by.

With h = Δ/2, E = 1/(1 − hΛ) and G = P* E P (a real rank × rank matrix), Woodbury's identity makes of the bilinear rule

    e = h E (Λ x + B u),    q = (I + h G)^{-1} P* (x + e),    x ← x + 2 (e − h E P q):

increments, never Ā itself, so that the state of a slow mode keeps its digits in float32.
"""

import torch


def discretise(gap, Lambda, P, B):
    """What a step of this gap needs: hEΛ, hEB (..., H, n), hEP (..., H, r, n) and (I + hG)^{-1} (..., H, r, r).

    ``gap`` is real and broadcasts against (H, n); all are in one precision.
    """
    half = gap / 2
    E = 1 / (1 - half * Lambda)
    hE = half * E
    EP = hE.unsqueeze(-2) * P
    feedback = 2 * torch.einsum("...rn,...sn->...rs", P.conj().expand_as(EP), EP).real
    rank = feedback.shape[-1]
    if rank == 1:
        return hE * Lambda, hE * B, EP, 1 / (1 + feedback)
    return hE * Lambda, hE * B, EP, torch.linalg.inv(torch.eye(rank).to(feedback) + feedback)


def advance(u, x, E_Lambda, E_B, E_P, solve, P):
    """The state (..., H, n) after a sample u (..., H)."""
    e = E_Lambda * x + E_B * u.unsqueeze(-1)
    q = 2 * torch.einsum("...rn,...n->...r", P.conj().expand_as(E_P), x + e).real
    q = torch.matmul(solve, q.unsqueeze(-1))
    return x + 2 * (e - (q * E_P).sum(-2))
