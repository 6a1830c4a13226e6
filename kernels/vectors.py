"""Sixteen numbers side by side as one Numba type: a vector that LLVM keeps in registers.

Loops over time that carry a state do not vectorise by themselves, and what LLVM's vectoriser makes of an inner loop
depends on what it can prove about memory. With this type a loop says what it means: arithmetic on vectors and with
floats, `load` and `store`, and the few functions below. A processor with narrower registers takes several of them for a
vector. Products fuse with sums ("contract").
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

WIDTH = 16
FLAGS = ("contract",)
ELEMENTS = {types.float32: (ir.FloatType(), ir.IntType(32), 4), types.float64: (ir.DoubleType(), ir.IntType(64), 8)}
# Mantissa bits and exponent bias: 1.5 · 2^mantissa added to a float leaves its nearest integer in the low bits.
BITS = {types.float32: (23, 127), types.float64: (52, 1023)}


class Vector(types.Type):
    """``WIDTH`` floats of one type."""

    def __init__(self, element):
        self.element = element
        super().__init__(name=f"Vector{WIDTH}({element})")


VECTORS = {element: Vector(element) for element in ELEMENTS}


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _llvm(numba_type))


def _llvm(vector):
    return ir.VectorType(ELEMENTS[vector.element][0], WIDTH)


def _spread(builder, x, vector):
    """A float in every lane; what is a vector already stays."""
    if isinstance(x.type, ir.VectorType):
        return x
    own = ELEMENTS[vector.element][0]
    if x.type != own:
        x = builder.fptrunc(x, own) if isinstance(x.type, ir.DoubleType) else builder.fpext(x, own)
    target = _llvm(vector)
    first = builder.insert_element(ir.Constant(target, ir.Undefined), x, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))


def _call(builder, name, arguments):
    """An LLVM intrinsic of vectors, whose name carries their type."""
    kind = arguments[0].type
    function = ir.FunctionType(kind, [x.type for x in arguments])
    suffix = f"v{WIDTH}{'f32' if isinstance(kind.element, ir.FloatType) else 'f64'}"
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{suffix}"), arguments)


def _define(operation, name):
    cases = [
        signature(vector, *pair)
        for vector in VECTORS.values()
        for pair in ((vector, vector), (vector, types.float64), (types.float64, vector))
    ]

    @infer_global(operation)
    class Operation(ConcreteTemplate):
        pass

    Operation.cases = cases

    def lowered(context, builder, signature, arguments):
        x, y = (_spread(builder, argument, signature.return_type) for argument in arguments)
        return getattr(builder, name)(x, y, flags=FLAGS)

    for case in cases:
        lower_builtin(operation, *case.args)(lowered)


for _operation, _name in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
):  # fmt: skip
    _define(_operation, _name)


def _address(context, builder, array_type, array, offset, vector):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _llvm(vector).as_pointer())


@intrinsic
def load(typingctx, x, i):
    """The vector x[i], x[i + 1], … of a flat array."""
    vector = VECTORS[x.dtype]

    def codegen(context, builder, signature, arguments):
        place = _address(context, builder, signature.args[0], *arguments, vector)
        return builder.load(place, align=ELEMENTS[vector.element][2])

    return vector(x, types.intp), codegen


@intrinsic
def store(typingctx, value, x, i):
    """Write a vector to x[i], x[i + 1], … of a flat array."""

    def codegen(context, builder, signature, arguments):
        place = _address(context, builder, signature.args[1], *arguments[1:], value)
        builder.store(arguments[0], place, align=ELEMENTS[value.element][2])
        return context.get_dummy_value()

    return types.none(value, x, types.intp), codegen


@intrinsic
def nothing(typingctx, x):
    """Zeros in a vector of the type of x."""

    def codegen(context, builder, signature, arguments):
        return ir.Constant(arguments[0].type, None)

    return x(x), codegen


@intrinsic
def fused(typingctx, x, y, z):
    """x y + z, rounded once."""

    def codegen(context, builder, signature, arguments):
        return _call(builder, "fma", arguments)

    return x(x, x, x), codegen


@intrinsic
def nearest(typingctx, x):
    """The nearest integers, as floats."""

    def codegen(context, builder, signature, arguments):
        return _call(builder, "rint", arguments)

    return x(x), codegen


@intrinsic
def at_least(typingctx, x, lowest):
    """The larger one of x and a float, lane by lane."""

    def codegen(context, builder, signature, arguments):
        value, bound = arguments[0], _spread(builder, arguments[1], x)
        return builder.select(builder.fcmp_ordered(">", value, bound), value, bound)

    return x(x, types.float64), codegen


@intrinsic
def without_tiny(typingctx, x, tiny):
    """x, and 0 where its modulus is not above ``tiny``."""

    def codegen(context, builder, signature, arguments):
        value, bound = arguments[0], _spread(builder, arguments[1], x)
        size = _call(builder, "fabs", [value])
        return builder.select(builder.fcmp_ordered(">", size, bound), value, ir.Constant(value.type, None))

    return x(x, types.float64), codegen


@intrinsic
def power_of_two(typingctx, x):
    """2^k from k + 1.5 · 2^mantissa, the sum as it stands in memory."""
    mantissa, bias = BITS[x.element]

    def codegen(context, builder, signature, arguments):
        integers = ir.VectorType(ELEMENTS[x.element][1], WIDTH)
        bits = builder.add(builder.bitcast(arguments[0], integers), ir.Constant(integers, [bias] * WIDTH))
        return builder.bitcast(builder.shl(bits, ir.Constant(integers, [mantissa] * WIDTH)), arguments[0].type)

    return x(x), codegen
