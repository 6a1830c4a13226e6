"""Numbers side by side as one Numba type: a vector that LLVM keeps in registers.

Loops over time that carry a state do not vectorise by themselves, and what LLVM's vectoriser makes of an inner loop
depends on what it can prove about memory. With this type a loop says what it means: arithmetic on vectors and with
floats, comparisons, which give a mask, `store`, and the functions below. Vectors come from arrays: who uses them makes
a ``load`` for the number of lanes with `loading`. A processor with narrower registers takes several of them for a
vector. Products fuse with sums ("contract").
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

FLAGS = ("contract",)
ELEMENTS = {types.float32: (ir.FloatType(), ir.IntType(32), 4), types.float64: (ir.DoubleType(), ir.IntType(64), 8)}
# Mantissa bits and exponent bias: 1.5 · 2^mantissa added to a float leaves its nearest integer in the low bits.
BITS = {types.float32: (23, 127), types.float64: (52, 1023)}


class Vector(types.Type):
    """``width`` floats of one type."""

    def __init__(self, element, width):
        self.element, self.width = element, width
        super().__init__(name=f"Vector{width}({element})")


class Mask(types.Type):
    """``width`` truth values."""

    def __init__(self, width):
        self.width = width
        super().__init__(name=f"Mask{width}")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, _llvm(numba_type))


@register_model(Mask)
class MaskModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, ir.VectorType(ir.IntType(1), numba_type.width))


def _llvm(vector):
    return ir.VectorType(ELEMENTS[vector.element][0], vector.width)


def _integers(vector):
    return ir.VectorType(ELEMENTS[vector.element][1], vector.width)


def _spread(builder, x, vector):
    """A float in every lane; what is a vector already stays."""
    if isinstance(x.type, ir.VectorType):
        return x
    own = ELEMENTS[vector.element][0]
    if x.type != own:
        x = builder.fptrunc(x, own) if isinstance(x.type, ir.DoubleType) else builder.fpext(x, own)
    first = builder.insert_element(ir.Constant(_llvm(vector), ir.Undefined), x, ir.Constant(ir.IntType(32), 0))
    order = ir.Constant(ir.VectorType(ir.IntType(32), vector.width), [0] * vector.width)
    return builder.shuffle_vector(first, first, order)


def _call(builder, name, arguments):
    """An LLVM intrinsic of vectors, whose name carries their type."""
    kind = arguments[0].type
    function = ir.FunctionType(kind, [x.type for x in arguments])
    suffix = f"v{kind.count}{'f32' if isinstance(kind.element, ir.FloatType) else 'f64'}"
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{suffix}"), arguments)


def _define(operation, cases, typed, emit):
    """``operation`` on arguments of the types that `typed` gives a signature, by what ``emit(builder, …)`` writes."""

    @infer_global(operation)
    class Operation(AbstractTemplate):
        # Templates for a processor are asked before those for any: dozens, at every operation of every loop.
        metadata = {"target": "cpu"}

        def generic(self, args, kws):
            return typed(*args)

    def lowered(context, builder, signature, arguments):
        vector = next(kind for kind in signature.args if isinstance(kind, Vector | Mask))
        return emit(builder, *(_spread(builder, x, vector) for x in arguments))

    for case in cases:
        lower_builtin(operation, *case)(lowered)


def _pair(result):
    """Types of an operation on two vectors, or on a vector and a number."""

    def typed(*args):
        vectors = [kind for kind in args if isinstance(kind, Vector)]
        numbers = [kind for kind in args if isinstance(kind, types.Integer | types.Float)]
        if len(args) != 2 or not vectors or len(vectors) + len(numbers) != 2 or vectors[0] != vectors[-1]:
            return None
        return signature(result(vectors[0]), *(kind if kind in vectors else types.float64 for kind in args))

    return typed


def _alike(kind):
    """Types of an operation whose arguments and result are all of one type of this ``kind``."""

    def typed(*args):
        return signature(args[0], *args) if isinstance(args[0], kind) and len(set(args)) == 1 else None

    return typed


def _arithmetic(name):
    return lambda builder, x, y: getattr(builder, name)(x, y, flags=FLAGS)


def _comparison(symbol):
    # x != y is the one that holds for NaN
    name = "fcmp_unordered" if symbol == "!=" else "fcmp_ordered"
    return lambda builder, x, y: getattr(builder, name)(symbol, x, y)


PAIRS = [(Vector, Vector), (Vector, types.Float), (types.Float, Vector)]
for _operation, _name in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
):  # fmt: skip
    _define(_operation, PAIRS, _pair(lambda vector: vector), _arithmetic(_name))
for _operation, _symbol in (
    (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">="), (operator.eq, "=="),
    (operator.ne, "!="),
):  # fmt: skip
    _define(_operation, PAIRS, _pair(lambda vector: Mask(vector.width)), _comparison(_symbol))
_define(operator.neg, [(Vector,)], _alike(Vector), lambda builder, x: builder.fneg(x))
_define(operator.and_, [(Mask, Mask)], _alike(Mask), lambda builder, x, y: builder.and_(x, y))
_define(operator.or_, [(Mask, Mask)], _alike(Mask), lambda builder, x, y: builder.or_(x, y))
_define(operator.invert, [(Mask,)], _alike(Mask), lambda builder, x: builder.not_(x))


def _address(context, builder, array_type, array, offset, vector):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _llvm(vector).as_pointer())


def loading(width):
    """A ``load`` of vectors of so many lanes."""

    @intrinsic
    def load(typingctx, x, i):
        """The vector x[i], x[i + 1], … of a flat array."""
        if not isinstance(x, types.Array) or x.dtype not in ELEMENTS:
            return None
        vector = Vector(x.dtype, width)

        def codegen(context, builder, signature, arguments):
            place = _address(context, builder, signature.args[0], *arguments, vector)
            return builder.load(place, align=ELEMENTS[vector.element][2])

        return vector(x, types.intp), codegen

    return load


def spreading(width, times):
    """A ``spread`` of numbers of a flat array, each into ``times`` lanes side by side, to vectors of so many lanes."""

    @intrinsic
    def spread(typingctx, x, i):
        """x[i] in the first lanes, x[i + 1] in the next, …"""
        if not isinstance(x, types.Array) or x.dtype not in ELEMENTS:
            return None
        few, vector = Vector(x.dtype, width // times), Vector(x.dtype, width)

        def codegen(context, builder, signature, arguments):
            place = _address(context, builder, signature.args[0], *arguments, few)
            return _choose(builder, builder.load(place, align=ELEMENTS[x.dtype][2]), [j // times for j in range(width)])

        return vector(x, types.intp), codegen

    return spread


def repeating(times):
    """A ``repeat`` of a vector, so often, in a longer one."""

    @intrinsic
    def repeat(typingctx, x):
        """x, one copy after the other."""

        def codegen(context, builder, signature, arguments):
            return _choose(builder, arguments[0], list(range(x.width)) * times)

        return Vector(x.element, times * x.width)(x), codegen

    return repeat


def folding(times):
    """A ``fold`` of a vector into one with so many times fewer lanes, a sum of its parts."""

    @intrinsic
    def fold(typingctx, x):
        """The sum of the parts of x, one behind the other."""
        part = x.width // times

        def codegen(context, builder, signature, arguments):
            parts = [_choose(builder, arguments[0], list(range(k * part, (k + 1) * part))) for k in range(times)]
            while len(parts) > 1:
                parts = [builder.fadd(one, two, flags=FLAGS) for one, two in zip(parts[::2], parts[1::2], strict=True)]
            return parts[0]

        return Vector(x.element, part)(x), codegen

    return fold


def _choose(builder, x, lanes):
    """The lanes of x with these numbers."""
    return builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def splatting(width):
    """A ``splat`` to vectors of so many lanes."""

    @intrinsic
    def splat(typingctx, x):
        """The float64 x in every lane."""
        vector = Vector(types.float64, width)

        def codegen(context, builder, signature, arguments):
            return _spread(builder, arguments[0], vector)

        return vector(types.float64), codegen

    return splat


@intrinsic
def store(typingctx, value, x, i):
    """Write a vector to x[i], x[i + 1], … of a flat array of its type."""
    if not isinstance(value, Vector) or not isinstance(x, types.Array) or x.dtype != value.element:
        return None

    def codegen(context, builder, signature, arguments):
        place = _address(context, builder, signature.args[1], *arguments[1:], value)
        builder.store(arguments[0], place, align=ELEMENTS[value.element][2])
        return context.get_dummy_value()

    return types.none(value, x, types.intp), codegen


@intrinsic
def prefetch(typingctx, x, i):
    """Ask for the cache line of x[i] of a flat array; any i will do."""
    if not isinstance(x, types.Array):
        return None

    def codegen(context, builder, signature, arguments):
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        function = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        builder.call(function, [place, *(number(hint) for hint in (0, 3, 1))])  # to read, into every cache, data
        return context.get_dummy_value()

    return types.none(x, types.intp), codegen


@intrinsic
def store_rows(typingctx, rows, x, i, apart):
    """Write the vectors of a tuple to x[i], …, x[i + apart], …, x[i + 2 apart], …"""
    if not isinstance(rows, types.UniTuple) or not isinstance(x, types.Array) or x.dtype != rows.dtype.element:
        return None

    def codegen(context, builder, signature, arguments):
        values, array, place, apart = arguments
        for k in range(rows.count):
            address = _address(context, builder, signature.args[1], array, place, rows.dtype)
            builder.store(builder.extract_value(values, k), address, align=ELEMENTS[rows.dtype.element][2])
            place = builder.add(place, apart)
        return context.get_dummy_value()

    return types.none(rows, x, types.intp, types.intp), codegen


@intrinsic
def nothing(typingctx, x):
    """Zeros in a vector of the type of x."""

    def codegen(context, builder, signature, arguments):
        return ir.Constant(arguments[0].type, None)

    return x(x), codegen


@intrinsic
def where(typingctx, condition, x, y):
    """x in the lanes where ``condition`` holds, y in the others."""
    if not isinstance(x, Vector) or x != y or condition != Mask(x.width):
        return None

    def codegen(context, builder, signature, arguments):
        return builder.select(*arguments)

    return x(condition, x, y), codegen


@intrinsic
def somewhere(typingctx, condition):
    """Whether ``condition`` holds in any lane."""

    def codegen(context, builder, signature, arguments):
        together = builder.bitcast(arguments[0], ir.IntType(condition.width))
        return builder.icmp_unsigned("!=", together, ir.Constant(together.type, 0))

    return types.boolean(condition), codegen


@intrinsic
def fused(typingctx, x, y, z):
    """x y + z, rounded once."""

    def codegen(context, builder, signature, arguments):
        return _call(builder, "fma", arguments)

    return x(x, x, x), codegen


@intrinsic
def reciprocal(typingctx, x):
    """1 / x of finite numbers, to a bit or two: an estimate and a step of Newton's where processors have estimates."""

    def codegen(context, builder, signature, arguments):
        one = ir.Constant(arguments[0].type, [1.0] * x.width)
        return builder.fdiv(one, arguments[0], flags=(*FLAGS, "arcp", "ninf"))

    return x(x), codegen


@intrinsic
def nearest(typingctx, x):
    """The nearest integers, as floats."""

    def codegen(context, builder, signature, arguments):
        return _call(builder, "rint", arguments)

    return x(x), codegen


@intrinsic
def at_least(typingctx, x, lowest):
    """The larger one of x and a float, lane by lane; NaN stays NaN."""

    def codegen(context, builder, signature, arguments):
        value, bound = arguments[0], _spread(builder, arguments[1], x)
        return builder.select(builder.fcmp_ordered("<", value, bound), bound, value)

    return x(x, types.float64), codegen


@intrinsic
def at_most(typingctx, x, highest):
    """The smaller one of x and a float, lane by lane; NaN stays NaN."""

    def codegen(context, builder, signature, arguments):
        value, bound = arguments[0], _spread(builder, arguments[1], x)
        return builder.select(builder.fcmp_ordered(">", value, bound), bound, value)

    return x(x, types.float64), codegen


@intrinsic
def without_tiny(typingctx, x, tiny):
    """x, and 0 where its modulus is at most ``tiny``; NaN stays NaN."""

    def codegen(context, builder, signature, arguments):
        value, bound = arguments[0], _spread(builder, arguments[1], x)
        size = _call(builder, "fabs", [value])
        return builder.select(builder.fcmp_unordered(">", size, bound), value, ir.Constant(value.type, None))

    return x(x, types.float64), codegen


@intrinsic
def power_of_two(typingctx, x):
    """2^k from k + 1.5 · 2^mantissa, the sum as it stands in memory."""
    mantissa, bias = BITS[x.element]

    def codegen(context, builder, signature, arguments):
        integers = _integers(x)
        bits = builder.add(builder.bitcast(arguments[0], integers), ir.Constant(integers, [bias] * x.width))
        return builder.bitcast(builder.shl(bits, ir.Constant(integers, [mantissa] * x.width)), arguments[0].type)

    return x(x), codegen


@intrinsic
def odd(typingctx, x):
    """Whether k is odd, from k + 1.5 · 2^mantissa, the sum as it stands in memory."""

    def codegen(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], _integers(x))
        return builder.trunc(bits, ir.VectorType(ir.IntType(1), x.width))

    return Mask(x.width)(x), codegen


@intrinsic
def turned(typingctx, rows):
    """The transpose of as many vectors as they have lanes: lane l of vector k becomes lane k of vector l."""
    width = rows.dtype.width
    if rows.count != width or width & (width - 1):
        return None

    def codegen(context, builder, signature, arguments):
        rows = [builder.extract_value(arguments[0], k) for k in range(width)]
        size = 1
        while size < width:
            # rows k and k + size change the halves of their groups of 2 · size lanes
            first = [j + (width - size if j & size else 0) for j in range(width)]
            second = [j + (width if j & size else size) for j in range(width)]
            orders = [ir.Constant(ir.VectorType(ir.IntType(32), width), order) for order in (first, second)]
            following = list(rows)
            for k in range(width):
                if not k & size:
                    following[k] = builder.shuffle_vector(rows[k], rows[k + size], orders[0])
                    following[k + size] = builder.shuffle_vector(rows[k], rows[k + size], orders[1])
            rows = following
            size *= 2
        return context.make_tuple(builder, signature.return_type, rows)

    return rows(rows), codegen


@intrinsic
def total(typingctx, x):
    """The sum of all lanes."""

    def codegen(context, builder, signature, arguments):
        value = arguments[0]
        while value.type.count > 1:
            half = value.type.count // 2
            parts = [
                builder.shuffle_vector(
                    value, value, ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(start, start + half)))
                )
                for start in (0, half)
            ]
            value = builder.fadd(*parts)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return x.element(x), codegen


@intrinsic
def totals(typingctx, rows):
    """Of as many vectors as they have lanes, the sum of each: that of vector k becomes lane k."""
    width = rows.dtype.width
    if rows.count != width or width & (width - 1):
        return None

    def codegen(context, builder, signature, arguments):
        rows = [builder.extract_value(arguments[0], k) for k in range(width)]
        # Neighbours within two vectors are added, the sums of the first one before those of the second.
        orders = [
            ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, 2 * width, 2))) for start in (0, 1)
        ]
        while len(rows) > 1:
            rows = [
                builder.fadd(*(builder.shuffle_vector(x, y, order) for order in orders))
                for x, y in zip(rows[::2], rows[1::2], strict=True)
            ]
        return rows[0]

    return rows.dtype(rows), codegen
