"""One step of the discretised system in torch, by Woodbury's identity: what `pytorch.py` repeats and a layer steps by.

With h = Δ/2, E = 1/(1 − hΛ) and G = P* E P (a real rank × rank matrix), Woodbury's identity makes of the bilinear rule

    q = (I + h G)^{-1} P* E (x + h B u),    x ← x + 2 h E (Λ x + B u − P q):

increments, never Ā itself, so that the state of a slow mode keeps its digits in float32; and x + h E (Λ x + B u), which
over a large gap is small beside both terms, as the one product E (x + h B u).
"""

import torch


def discretise(gap, Lambda, P, B):
    """What a step of this gap needs: E, hEΛ, hEB (..., H, n), hEP (..., H, r, n) and (I + hG)^{-1} (..., H, r, r).

    ``gap`` is real and broadcasts against (H, n); all are in one precision.
    """
    E, hE, E_Lambda = _Resolvent.apply(gap / 2, Lambda)
    EP = hE.unsqueeze(-2) * P
    feedback = 2 * torch.einsum("...rn,...sn->...rs", P.conj().expand_as(EP), EP).real
    rank = feedback.shape[-1]
    if rank == 1:
        return E, E_Lambda, hE * B, EP, 1 / (1 + feedback)
    return E, E_Lambda, hE * B, EP, torch.linalg.inv(torch.eye(rank).to(feedback) + feedback)


def advance(u, x, E, E_Lambda, E_B, E_P, solve, P):
    """The state (..., H, n) after a sample u (..., H)."""
    driven = E_B * u.unsqueeze(-1)
    q = 2 * torch.einsum("...rn,...n->...r", P.conj().expand_as(E_P), E * x + driven).real
    q = torch.matmul(solve, q.unsqueeze(-1))
    return x + 2 * (E_Lambda * x + driven - (q * E_P).sum(-2))


class _Resolvent(torch.autograd.Function):
    """E, hE and hEΛ = E − 1 of h and Λ, with the derivatives

        dE = d(hEΛ) = E² (Λ dh + h dΛ),    d(hE) = E² (dh + h² dΛ),

    which the rules of a product would make sums, E + h Λ E² or h E + h² Λ E², whose terms cancel where h Λ is large.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(half, Lambda):
        E = 1 / (1 - half * Lambda)
        hE = half * E
        return E, hE, hE * Lambda

    @staticmethod
    def setup_context(ctx, inputs, output):
        half, Lambda = inputs
        E, hE, _ = output
        ctx.save_for_backward(half, Lambda, E, hE)

    @staticmethod
    def backward(ctx, of_E, of_hE, of_E_Lambda):
        half, Lambda, E, hE = ctx.saved_tensors
        of_E = of_E + of_E_Lambda
        of_half = of_Lambda = None
        if ctx.needs_input_grad[0]:
            of_half = ((of_E * Lambda.conj() + of_hE) * (E * E).conj()).real.sum_to_size(half.shape)
        if ctx.needs_input_grad[1]:
            of_Lambda = ((of_E * E.conj() + of_hE * hE.conj()) * hE.conj()).sum_to_size(Lambda.shape)
        return of_half, of_Lambda
