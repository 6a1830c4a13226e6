"""What Numba has no name for: single instructions on numbers (`vectors` has them on vectors), calls by address."""

from llvmlite import ir
from numba import typeof, types
from numba.core import cgutils
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


def address_of(function, *arguments):
    """Where the machine code of a compiled function begins that takes arguments of these types; compiled if need be.

    What another compiled function calls by its name becomes a part of it and is optimised once more in each of its
    callers. A large one that is called by its address is compiled once.
    """
    kinds = tuple(map(typeof, arguments))
    function.compile(kinds)
    compiled = function.overloads[kinds]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def calling(result):
    """A ``call(address, arguments)`` of functions that return the type ``result``.

    The arguments stand in a tuple, and have exactly the types for which `address_of` found the address: nothing checks
    this.
    """

    @intrinsic
    def call(typingctx, address, arguments):
        if not isinstance(arguments, types.BaseTuple):
            return None
        kinds = tuple(map(types.unliteral, arguments.types))

        def codegen(context, builder, signature, values):
            convention = context.call_conv
            kind = convention.get_function_type(result, kinds)
            function = builder.inttoptr(values[0], kind.as_pointer())
            parts = [
                context.cast(builder, builder.extract_value(values[1], i), *pair)
                for i, pair in enumerate(zip(signature.args[1].types, kinds, strict=True))
            ]
            status, value = convention.call_function(builder, function, result, kinds, parts)
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return value if result != types.none else context.get_dummy_value()

        return result(types.intp, arguments), codegen

    return call
