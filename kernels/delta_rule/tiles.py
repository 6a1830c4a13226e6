"""Matrices in tiles of 16 × 16 numbers, row after row, which a processor multiplies in its registers.

All tiles lie in one flat array ``w`` and are named by where they begin. Matrices of any size consist of tiles whose
last ones are filled up with zeros.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from statespace.kernels.compiled import helper
from statespace.kernels.vectors import ELEMENTS, FLAGS, Vector, loading, nothing, store, turned

SIDE = 16
TILE = SIDE * SIDE
ROWS = 8  # of a product, in registers at once
load = loading(SIDE)


class _Emitter:
    """Writes loads, stores and multiply-adds of vectors of the array ``w``."""

    def __init__(self, context, builder, array_type, array):
        self.builder = builder
        self.element, self.integer, self.align = ELEMENTS[array_type.dtype]
        self.vector = ir.VectorType(self.element, SIDE)
        self.data = context.make_array(array_type)(context, builder, array).data

    def place(self, at, offset):
        builder = self.builder
        return builder.gep(self.data, [builder.add(at, ir.Constant(at.type, offset))])

    def row(self, at, offset):
        where = self.builder.bitcast(self.place(at, offset), self.vector.as_pointer())
        return self.builder.load(where, align=self.align)

    def put(self, value, at, offset):
        where = self.builder.bitcast(self.place(at, offset), self.vector.as_pointer())
        self.builder.store(value, where, align=self.align)

    def number(self, at, offset):
        """One number in every lane."""
        builder, index = self.builder, ir.IntType(32)
        x = builder.load(self.place(at, offset), align=self.align)
        first = builder.insert_element(ir.Constant(self.vector, ir.Undefined), x, ir.Constant(index, 0))
        order = ir.Constant(ir.VectorType(index, SIDE), [0] * SIDE)
        return builder.shuffle_vector(first, first, order)

    def add(self, x, y, z):
        return self.builder.fadd(self.builder.fmul(x, y, flags=FLAGS), z, flags=FLAGS)

    def subtract(self, x, y, z):
        return self.builder.fsub(z, self.builder.fmul(x, y, flags=FLAGS), flags=FLAGS)


def _multiplying(transposed, fresh):
    @intrinsic
    def multiply(typingctx, w, out, a, a_step, b, b_step, n):
        def codegen(context, builder, signature, arguments):
            emit = _Emitter(context, builder, signature.args[0], arguments[0])
            out, a, a_step, b, b_step, n = arguments[1:]
            constant = lambda x: ir.Constant(n.type, x)  # noqa: E731
            sums = [cgutils.alloca_once(builder, emit.vector) for _ in range(ROWS)]
            with cgutils.for_range(builder, constant(SIDE // ROWS)) as block:
                to = builder.add(out, builder.mul(block.index, constant(ROWS * SIDE)))
                first = builder.add(a, builder.mul(block.index, constant(ROWS if transposed else ROWS * SIDE)))
                for r, place in enumerate(sums):
                    builder.store(ir.Constant(emit.vector, None) if fresh else emit.row(to, r * SIDE), place)
                with cgutils.for_range(builder, n) as tile:
                    left = builder.add(first, builder.mul(tile.index, a_step))
                    right = builder.add(b, builder.mul(tile.index, b_step))
                    with cgutils.for_range(builder, constant(SIDE)) as p:
                        row = emit.row(builder.add(right, builder.mul(p.index, constant(SIDE))), 0)
                        column = builder.mul(p.index, constant(SIDE)) if transposed else p.index
                        column = builder.add(left, column)
                        for r, place in enumerate(sums):
                            factor = emit.number(column, r if transposed else r * SIDE)
                            builder.store(emit.add(factor, row, builder.load(place)), place)
                for r, place in enumerate(sums):
                    emit.put(builder.load(place), to, r * SIDE)
            return context.get_dummy_value()

        return types.none(w, *[types.intp] * 6), codegen

    return multiply


def _substituting(transposed):
    @intrinsic
    def substitute(typingctx, w, x, t):
        def codegen(context, builder, signature, arguments):
            emit = _Emitter(context, builder, signature.args[0], arguments[0])
            x, t = arguments[1:]
            rows = [emit.row(x, r * SIDE) for r in range(SIDE)]
            for j in reversed(range(SIDE)) if transposed else range(SIDE):
                for i in range(j) if transposed else range(j + 1, SIDE):
                    factor = emit.number(t, j * SIDE + i if transposed else i * SIDE + j)
                    rows[i] = emit.subtract(factor, rows[j], rows[i])
            for r, row in enumerate(rows):
                emit.put(row, x, r * SIDE)
            return context.get_dummy_value()

        return types.none(w, types.intp, types.intp), codegen

    return substitute


@intrinsic
def _rows(typingctx, w, a):
    vector = Vector(w.dtype, SIDE)

    def codegen(context, builder, signature, arguments):
        emit = _Emitter(context, builder, signature.args[0], arguments[0])
        rows = [emit.row(arguments[1], r * SIDE) for r in range(SIDE)]
        return context.make_tuple(builder, signature.return_type, rows)

    return types.UniTuple(vector, SIDE)(w, types.intp), codegen


@intrinsic
def _put_rows(typingctx, rows, w, out):
    def codegen(context, builder, signature, arguments):
        emit = _Emitter(context, builder, signature.args[1], arguments[1])
        for r in range(SIDE):
            emit.put(builder.extract_value(arguments[0], r), arguments[2], r * SIDE)
        return context.get_dummy_value()

    return types.none(rows, w, types.intp), codegen


_multiply, _multiply_add = _multiplying(False, True), _multiplying(False, False)
_transposed_multiply_add = _multiplying(True, False)
_substitute, _substitute_transposed = _substituting(False), _substituting(True)


@helper()
def product(w, out, a, a_step, b, b_step, n):
    """The tile Σ A B over n pairs of tiles, each at a step from the one before."""
    _multiply(w, out, a, a_step, b, b_step, n)


@helper()
def add_product(w, out, a, a_step, b, b_step, n):
    _multiply_add(w, out, a, a_step, b, b_step, n)


@helper()
def add_product_of_transpose(w, out, a, a_step, b, b_step, n):
    """The tile Σ Aᵀ B, added to what is there."""
    _transposed_multiply_add(w, out, a, a_step, b, b_step, n)


@helper()
def solve(w, x, t):
    """X ← (I + T)^{-1} X, with what T has below its diagonal."""
    _substitute(w, x, t)


@helper()
def solve_transposed(w, x, t):
    """X ← (I + T)^{-T} X."""
    _substitute_transposed(w, x, t)


@helper()
def transpose(w, out, a):
    _put_rows(turned(_rows(w, a)), w, out)


@helper()
def row_sums(w, out, a, scratch):
    """The sum of each row of a tile, as sixteen numbers at ``out``."""
    transpose(w, scratch, a)
    total = load(w, scratch)
    for r in range(1, SIDE):
        total = total + load(w, scratch + r * SIDE)
    store(total, w, out)


@helper()
def bring(x, at, stride, rows, columns, w, out):
    """Rows of the flat array x, which begin at at, at + stride, …, as tiles side by side."""
    zero = nothing(load(w, out))
    for first in range(0, columns, SIDE):
        for r in range(SIDE):
            to = out + first * SIDE + r * SIDE
            if r >= rows:
                store(zero, w, to)
            elif first + SIDE <= columns:
                store(load(x, at + r * stride + first), w, to)
            else:
                for i in range(SIDE):
                    w[to + i] = x[at + r * stride + first + i] if first + i < columns else 0.0


@helper()
def hand_out(w, a, x, at, stride, rows, columns):
    """The way back."""
    for first in range(0, columns, SIDE):
        for r in range(rows):
            place = a + first * SIDE + r * SIDE
            if first + SIDE <= columns:
                store(load(w, place), x, at + r * stride + first)
            else:
                for i in range(columns - first):
                    x[at + r * stride + first + i] = w[place + i]


@helper()
def row_products(w, out, a, b, n, scratch, work):
    """The sum of the products along each row of two matrices of n tiles, as sixteen numbers at ``out``."""
    for r in range(0, TILE, SIDE):
        total = load(w, a + r) * load(w, b + r)
        for i in range(TILE, n * TILE, TILE):
            total = total + load(w, a + i + r) * load(w, b + i + r)
        store(total, w, scratch + r)
    row_sums(w, out, scratch, work)


@helper()
def scale_rows(w, out, a, factors):
    """Each row of a tile times its own one of sixteen factors."""
    for r in range(SIDE):
        store(load(w, a + r * SIDE) * w[factors + r], w, out + r * SIDE)
