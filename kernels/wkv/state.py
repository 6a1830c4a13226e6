"""The state as a triple (a, b, o) for each channel, sums a e^o and b e^o: how it comes in and how it goes out."""

import torch

# The logarithm of no weight: finite, so that no difference of two of them is NaN.
NOTHING = -1e30


def taken(state, B, D, like):
    """The mean a / b of a state (B, D, 3) and the logarithm of its weight, o + log b, both (B, D).

    They are 0 and `NOTHING` where b is 0, and where there is no state.
    """
    if state is None:
        mean = like.new_zeros(B, D)
        return mean, mean + NOTHING
    a, b, o = state.to(like.dtype).unbind(-1)
    known = b > 0
    b = torch.where(known, b, 1.0)
    return torch.where(known, a / b, 0.0), torch.where(known, o + b.log(), NOTHING)


def given(mean, weight):
    """The triple (mean, 1, logarithm of the weight) (B, D, 3); zeros where there is no weight."""
    known = weight > NOTHING / 2
    return torch.stack([torch.where(known, mean, 0.0), known.to(mean.dtype), torch.where(known, weight, 0.0)], dim=-1)
