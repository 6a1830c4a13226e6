"""Single instructions that Numba has no name for, on numbers; `vectors` has them on vectors."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def fused(typingctx, x, y, z):
    """x y + z, rounded once."""

    def codegen(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return x(x, x, x), codegen


@intrinsic
def as_float(typingctx, bits):
    """The float whose bits these are."""
    result = types.float32 if bits == types.int32 else types.float64

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType() if result == types.float32 else ir.DoubleType())

    return result(bits), codegen
