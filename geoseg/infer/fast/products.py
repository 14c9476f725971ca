"""Products of matrices, a block of the result at a time that stays in the registers, for compiled loops.

Libraries are made for large matrices; on those of a network's outer layers, 16 to 64 numbers deep, they reach a third
of what a core can do, and on several threads some add up parts of a sum, so that its last bits hang on how many these
are. Here each number is one sum, in the order of the depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from geoseg.infer.fast.vectors import FLOAT_BYTES, I64, LANES, VECTOR, Lines

VECTOR_BYTES = LANES * FLOAT_BYTES

STEPS = 4
"""Of the depth, how much is unrolled; a depth is a multiple of `LANES`."""


def target_has(feature: str) -> bool:
    """Whether what is compiled is for a processor with a feature, such as `fma`: this one, unless numba is told."""
    told: str | None = getattr(config, "CPU_FEATURES", None)
    if told is None:
        return bool(binding.get_host_cpu_features().get(feature))
    return f"+{feature}" in told.split(",")


# Enough sums at once to keep the multipliers busy, few enough to lie in registers with what is multiplied. Processors
# with 512 bits have 32 of them, of a vector each; others 16, of half a vector (or the like: ARM 32, of a quarter).
WIDE_ROWS, WIDE_VECTORS, NARROW_ROWS = (8, 2, 16) if target_has("avx512f") else (6, 1, 6)
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
    builder = ir.IRBuilder(function.append_basic_block())
    lines, size = Lines(builder), ir.Constant(I64, rows)
    sums = [[builder.alloca(VECTOR) for _ in range(vectors)] for _ in range(rows)]  # which become registers
    blocks = builder.udiv(builder.add(count, ir.Constant(I64, rows - 1)), size)
    with cgutils.for_range(builder, blocks) as block:
        row = builder.mul(block.index, size)
        for place in (place for line in sums for place in line):
            builder.store(ir.Constant(VECTOR, [0.0] * LANES), place)
        first = builder.add(a, builder.mul(row, a_row))
        with cgutils.for_range(builder, builder.udiv(depth, ir.Constant(I64, STEPS))) as loop:
            left, right = (
                lines.place(start, (step, loop.index))
                for start, step in ((first, STEPS * FLOAT_BYTES), (b, STEPS * vectors * VECTOR_BYTES))
            )
            for step in range(STEPS):
                _add_products(lines, lines.past(left, step * FLOAT_BYTES), a_row,
                              lines.past(right, step * vectors * VECTOR_BYTES), sums)  # fmt: skip
        target = builder.add(out, builder.mul(row, out_row))
        for i, line in enumerate(sums):
            for vector, place in enumerate(line):
                there = lines.past(lines.place(target, (i, out_row)), vector * VECTOR_BYTES)
                lines.store(builder.load(place), there)
    builder.ret_void()
    return function


def _add_products(lines: Lines, left: Any, a_row: Any, right: Any, sums: Sequence[Sequence[Any]]) -> None:
    """Add the products of a column of a block, `a_row` bytes from number to number, with a row of the panel."""
    builder = lines.builder
    fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32")
    seen = [lines.load(lines.past(right, vector * VECTOR_BYTES)) for vector in range(len(sums[0]))]
    for i, line in enumerate(sums):
        scalar = lines.filled(lines.number(lines.place(left, (i, a_row))))
        for place, values in zip(line, seen, strict=True):
            builder.store(builder.call(fma, [scalar, values, builder.load(place)]), place)


wide_rows: Any = rows_of(WIDE_ROWS, WIDE_VECTORS)
narrow_rows: Any = rows_of(NARROW_ROWS, 1)
