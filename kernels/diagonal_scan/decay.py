"""exp(z) - 1 of complex z in polynomials: the library's functions take one number at a time, these take vectors.

With z = Δ (a + 2πi f), a <= 0, Δ a / ln 2 = k + r with the nearest integer k, and t = Δ f reduced to [-1/2, 1/2] turns,

    e = exp(Δ a) - 1 = 2^k (2^r - 1) + (2^k - 1)
    Re = e - 2 (e + 1) sin²(πt),    Im = 2 (e + 1) sin(πt) cos(πt),

sums of one sign, so that a tiny z keeps all its digits. Frequencies come as sums of two numbers and meet the gap in a
fused multiply-add: after hundreds of turns a single float32 product would have lost the phase's last three digits.

Sine and cosine carry a factor of √2. The phase is reduced twice: beyond 2^24 turns (2^53 in float64) the nearest number
to Δ f is off by turns, of which the polynomials would make something that no decay brings back to zero.

Few decays halve within one gap: where |Δ a / ln 2| <= 1/2 there is no k, and where no phase makes 2^20 turns the
nearest whole turn is what a sum with a large number leaves. A quarter of the work is saved.
"""

from numba import types
from numba.extending import overload

from statespace.kernels.exponential import exp2m1, half_turn
from statespace.kernels.vectors import at_least, fused, nearest, nothing, power_of_two

# Up to here `expm1_near` takes the decay, in halvings, and the phase, in turns.
NEAR, TURNS = 0.5, 2.0**20


def expm1_complex(gap, a, f, f_low):
    """Real and imaginary part of exp(Δ (a ln 2 + 2πi (f + f_low))) - 1, for Δ >= 0 and a <= 0, in vectors."""
    raise TypeError("called from compiled code only")


@overload(expm1_complex)
def _expm1_complex(gap, a, f, f_low):
    single = gap.element == types.float32
    lowest = -126.0 if single else -1022.0
    magic = 1.5 * 2.0 ** (23 if single else 52)

    def implementation(gap, a, f, f_low):
        x = at_least(gap * a, lowest)
        shifted = x + magic
        power = power_of_two(shifted)
        e = power * exp2m1(x - (shifted - magic)) + (power - 1.0)
        t = fused(gap, f, 0.0 - nearest(gap * f)) + gap * f_low
        s, c = half_turn(t - nearest(t))
        size = e * s + s
        return e - size * s, size * c

    return implementation


def expm1_near(gap, a, f, f_low):
    """As `expm1_complex`, where |Δ a| <= ``NEAR`` and |Δ f| <= ``TURNS``."""
    raise TypeError("called from compiled code only")


@overload(expm1_near)
def _expm1_near(gap, a, f, f_low):
    magic = 1.5 * 2.0 ** (23 if gap.element == types.float32 else 52)

    def implementation(gap, a, f, f_low):
        e = exp2m1(gap * a)
        shifted = fused(gap, f, nothing(gap) + magic)
        s, c = half_turn(fused(gap, f, magic - shifted) + gap * f_low)
        size = e * s + s
        return e - size * s, size * c

    return implementation
