"""The numbers of several records side by side as one Numba type: a vector that LLVM keeps in a register.

A loop written for one record does the same for ``WIDTH`` of them when its floats become vectors: + − × ÷, comparisons
(which give a mask), and the functions below. There is no vectoriser to persuade; a processor with narrower registers
takes several of them for a vector. Products fuse with sums ("contract"), as in the loops for single records.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

WIDTH = 8
FLAGS = ("contract",)
FLOATS = ir.VectorType(ir.DoubleType(), WIDTH)
INTEGERS = ir.VectorType(ir.IntType(64), WIDTH)
BITS = ir.VectorType(ir.IntType(1), WIDTH)


class Vector(types.Type):
    """``WIDTH`` float64."""

    def __init__(self):
        super().__init__(name=f"Vector{WIDTH}")


class Mask(types.Type):
    """``WIDTH`` truth values."""

    def __init__(self):
        super().__init__(name=f"Mask{WIDTH}")


vector, mask = Vector(), Mask()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, FLOATS)


@register_model(Mask)
class MaskModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, BITS)


def spread(builder, x):
    """A float in every lane."""
    if isinstance(x.type, ir.VectorType):
        return x
    first = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), x, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))


def define(operation, result, cases, emit):
    """``operation`` on arguments of each of the types in ``cases``, by what ``emit(builder, *arguments)`` writes."""

    @infer_global(operation)
    class Operation(ConcreteTemplate):
        pass

    Operation.cases = [signature(result, *case) for case in cases]

    def lowered(context, builder, signature, arguments):
        return emit(builder, *arguments)

    for case in cases:
        lower_builtin(operation, *case)(lowered)


PAIRS = [(vector, vector), (vector, types.float64), (types.float64, vector)]


def arithmetic(name):
    def emit(builder, x, y):
        return getattr(builder, name)(spread(builder, x), spread(builder, y), flags=FLAGS)

    return emit


def comparison(symbol):
    def emit(builder, x, y):
        compare = builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered
        return compare(symbol, spread(builder, x), spread(builder, y))

    return emit


for _operation, _name in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
):  # fmt: skip
    define(_operation, vector, PAIRS, arithmetic(_name))
for _operation, _symbol in (
    (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">="), (operator.eq, "=="),
    (operator.ne, "!="),
):  # fmt: skip
    define(_operation, mask, PAIRS, comparison(_symbol))
define(operator.neg, vector, [(vector,)], lambda builder, x: builder.fneg(x))
define(operator.and_, mask, [(mask, mask)], lambda builder, x, y: builder.and_(x, y))
define(operator.or_, mask, [(mask, mask)], lambda builder, x, y: builder.or_(x, y))
define(operator.invert, mask, [(mask,)], lambda builder, x: builder.not_(x))


@intrinsic
def splat(typingctx, x):
    """The float x in every lane."""

    def codegen(context, builder, signature, arguments):
        return spread(builder, arguments[0])

    return vector(types.float64), codegen


def address(context, builder, array_type, array, offset):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), FLOATS.as_pointer())


@intrinsic
def load(typingctx, x, i):
    """The vector x[i], x[i + 1], … of a flat array."""

    def codegen(context, builder, signature, arguments):
        return builder.load(address(context, builder, signature.args[0], *arguments), align=8)

    return vector(x, types.int64), codegen


@intrinsic
def store(typingctx, value, x, i):
    """Write a vector to x[i], x[i + 1], … of a flat array."""

    def codegen(context, builder, signature, arguments):
        builder.store(arguments[0], address(context, builder, signature.args[1], *arguments[1:]), align=8)
        return context.get_dummy_value()

    return types.none(vector, x, types.int64), codegen


@intrinsic
def where(typingctx, condition, x, y):
    """x in the lanes where ``condition`` holds, y in the others."""

    def codegen(context, builder, signature, arguments):
        return builder.select(*arguments)

    return vector(mask, vector, vector), codegen


@intrinsic
def somewhere(typingctx, condition):
    """Whether ``condition`` holds in any lane."""

    def codegen(context, builder, signature, arguments):
        together = builder.bitcast(arguments[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("!=", together, ir.Constant(together.type, 0))

    return types.boolean(mask), codegen


@intrinsic
def power_of_two(typingctx, x):
    """2ᵏ from the bits of k + 1.5 · 2⁵² in every lane."""

    def codegen(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], INTEGERS)
        bits = builder.add(bits, ir.Constant(INTEGERS, [1023] * WIDTH))
        return builder.bitcast(builder.shl(bits, ir.Constant(INTEGERS, [52] * WIDTH)), FLOATS)

    return vector(vector), codegen


@intrinsic
def odd(typingctx, x):
    """Whether k is odd, from the bits of k + 1.5 · 2⁵²."""

    def codegen(context, builder, signature, arguments):
        return builder.trunc(builder.bitcast(arguments[0], INTEGERS), BITS)

    return mask(vector), codegen


@intrinsic
def turned(typingctx, rows):
    """The transpose of ``WIDTH`` vectors: what stood in lane l of vector k stands in lane k of vector l."""

    def codegen(context, builder, signature, arguments):
        rows = [builder.extract_value(arguments[0], k) for k in range(WIDTH)]
        size = 1
        while size < WIDTH:
            # rows k and k + size change the halves of their groups of 2 · size lanes
            first = [j + (WIDTH - size if j & size else 0) for j in range(WIDTH)]
            second = [j + (WIDTH if j & size else size) for j in range(WIDTH)]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), order) for order in (first, second)]
            following = list(rows)
            for k in range(WIDTH):
                if not k & size:
                    following[k] = builder.shuffle_vector(rows[k], rows[k + size], masks[0])
                    following[k + size] = builder.shuffle_vector(rows[k], rows[k + size], masks[1])
            rows = following
            size *= 2
        return context.make_tuple(builder, signature.return_type, rows)

    return types.UniTuple(vector, WIDTH)(rows), codegen
