"""The state as a triple (a, b, o) for each channel, sums a e^o and b e^o: how it comes in and how it goes out."""

import torch

# The exponent of nothing: finite, so that no difference of two of them is NaN.
EMPTY = -1e30


def taken(state, B, D, like):
    """a, b and o (B, D) of a state (B, D, 3), of None or of one whose denominator is 0: sums of nothing."""
    if state is None:
        zero = like.new_zeros(B, D)
        return zero, zero, zero + EMPTY
    a, b, o = state.to(like.dtype).unbind(-1)
    known = b > 0
    return torch.where(known, a, 0.0), torch.where(known, b, 0.0), torch.where(known, o, EMPTY)


def given(a, b, o):
    """The one form (mean, 1, logarithm of the weight) of all triples of the same sums; zeros where there is none."""
    known = b > 0
    divisor = torch.where(known, b, 1.0)
    return torch.stack(
        [torch.where(known, a / divisor, 0.0), known.to(a.dtype), torch.where(known, o + divisor.log(), 0.0)], dim=-1
    )
