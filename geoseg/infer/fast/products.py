"""Products of matrices, a block of the result at a time that stays in the registers, for compiled loops.

Libraries are made for large matrices; on those of a network's outer layers, 16 to 64 numbers deep, they reach a third
of what a core can do, and on several threads some add up parts of a sum, so that its last bits hang on how many these
are. Here each number is one sum, in the order of the depth.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from geoseg.infer.fast.vectors import FLOAT_BYTES, I64, LANES, VECTOR, Lines

VECTOR_BYTES = LANES * FLOAT_BYTES

STEPS = 4
"""Of the depth, how much is unrolled; a depth is a multiple of `LANES`."""

# Enough sums at once to keep the multipliers busy, few enough to lie in registers with what is multiplied. Processors
# with 512 bits have 32 of them, of a vector each; others 16, of half a vector (or the like: ARM 32, of a quarter).
WIDE_ROWS, WIDE_VECTORS, NARROW_ROWS = (8, 2, 16) if binding.get_host_cpu_features().get("avx512f") else (6, 1, 6)
"""Rows of a block that is `WIDE_VECTORS` wide, and of one that is a vector wide."""


def block_shape(width: int) -> tuple[int, int]:
    """Rows, and vectors side by side, of the blocks that make up a result of `width` columns."""
    return (WIDE_ROWS, WIDE_VECTORS) if width % (WIDE_VECTORS * LANES) == 0 else (NARROW_ROWS, 1)


def rows_of(rows: int, vectors: int) -> Any:
    """An intrinsic that makes a panel of a product, in blocks of `rows` and `vectors`."""

    def panel(_: Any, a: Any, a_row: Any, b: Any, out: Any, out_row: Any, depth: Any, count: Any) -> Any:
        """`out = a b` for rows of `a` and a panel of `b`, float32.

        Args:
            a: Address of the first row; `depth` numbers each.
            a_row: Bytes from row to row.
            b: Address of the panel `(depth, vectors * LANES)`.
            out: Address.
            out_row: Bytes from row to row.
            depth: A multiple of `STEPS`.
            count: How many rows, at least one; those that fill the last block are made too.
        """

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            builder.call(_function(builder.module, rows, vectors), arguments)
            return context.get_dummy_value()

        return types.void(*[types.uint64] * 7), generate

    return intrinsic(panel)


def _function(module: Any, rows: int, vectors: int) -> Any:
    """The function of a module that `rows_of` calls: by itself, so that the compiler keeps its registers for it."""
    name = f"geoseg_rows_{rows}_{vectors}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 7), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    a, a_row, b, out, out_row, depth, count = function.args
    start, block, loop, end, leave = (function.append_basic_block() for _ in range(5))
    builder = ir.IRBuilder(start)
    lines = Lines(builder)
    fma = cgutils.get_or_insert_function(module, ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32")

    def number(value: int) -> Any:
        return ir.Constant(I64, value)

    builder.branch(block)
    builder.position_at_end(block)
    row, first, target = (builder.phi(I64) for _ in range(3))
    builder.branch(loop)
    builder.position_at_end(loop)
    done, left, right = (builder.phi(I64) for _ in range(3))
    sums = [builder.phi(VECTOR) for _ in range(rows * vectors)]
    found = list(sums)
    for step in range(STEPS):
        seen = [
            lines.load(builder.add(right, number((step * vectors + vector) * VECTOR_BYTES)))
            for vector in range(vectors)
        ]  # fmt: skip
        for i in range(rows):
            scalar = lines.number(builder.add(lines.place(left, (i, a_row)), number(step * FLOAT_BYTES)))
            for vector in range(vectors):
                place = i * vectors + vector
                found[place] = builder.call(fma, [lines.filled(scalar), seen[vector], found[place]])
    after = builder.add(done, number(STEPS))
    moved = builder.add(left, number(STEPS * FLOAT_BYTES)), builder.add(right, number(STEPS * vectors * VECTOR_BYTES))
    builder.cbranch(builder.icmp_unsigned("<", after, depth), loop, end)
    for value, before, then in [
        (done, number(0), after), (left, first, moved[0]), (right, b, moved[1]),
        *((value, ir.Constant(VECTOR, [0.0] * LANES), then) for value, then in zip(sums, found, strict=True)),
    ]:  # fmt: skip
        value.add_incoming(before, block)
        value.add_incoming(then, loop)
    builder.position_at_end(end)
    for i in range(rows):
        for vector in range(vectors):
            there = builder.add(lines.place(target, (i, out_row)), number(vector * VECTOR_BYTES))
            lines.store(found[i * vectors + vector], there)
    next_row = builder.add(row, number(rows))
    further = builder.icmp_unsigned("<", next_row, count)
    for value, before, then in [
        (row, number(0), next_row), (first, a, lines.place(first, (rows, a_row))),
        (target, out, lines.place(target, (rows, out_row))),
    ]:  # fmt: skip
        value.add_incoming(before, start)
        value.add_incoming(then, end)
    builder.cbranch(further, block, leave)
    builder.position_at_end(leave)
    builder.ret_void()
    return function


wide_rows: Any = rows_of(WIDE_ROWS, WIDE_VECTORS)
narrow_rows: Any = rows_of(NARROW_ROWS, 1)
