"""Winograd's transforms on 16 channels at a time, written down as vector instructions.

A loop would say the same, but compilers do not turn one over 36 places at once into vectors. These are straight lines
of LLVM on vectors of 16 float32; a processor with shorter registers takes several for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
"""Channels that are transformed at a time."""

FLOAT_BYTES = 4

_I32, I64 = ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
_NOTHING = ir.Constant(VECTOR, ir.Undefined)

Values = list[Any]

IDLE = 2
"""The row of B^T that gives zero for an image twice as large as the one read: its places 1, 2 and 3, 4 are equal."""

_ORDER = sorted(((i, j) for i in range(6) for j in range(6)), key=lambda place: IDLE in place)
PLANES = {place: number for number, place in enumerate(_ORDER)}
"""In which order the 36 products of a square are kept."""

BUSY_PLANES = 25
"""Those that are not zero for an image twice as large; the first ones."""


def _float32s(_: Any, address: Any) -> Any:
    """A pointer to the float32 numbers at an address."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.uint64), generate


float32s: Any = intrinsic(_float32s)


class Lines:
    """Writes instructions on vectors of `LANES` float32; addresses are integers."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def add(self, a: Any, b: Any) -> Any:
        """The sum of two vectors."""
        return self.builder.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        """Their difference."""
        return self.builder.fsub(a, b)

    def times(self, factor: float, a: Any) -> Any:
        """A number times a vector."""
        return self.builder.fmul(ir.Constant(VECTOR, [factor] * LANES), a)

    def larger(self, a: Any, b: Any) -> Any:
        """The larger of two; NaN where `a` is."""
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), b, a)

    def filled(self, scalar: Any) -> Any:
        """A vector of one number."""
        first = self.builder.insert_element(_NOTHING, scalar, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(first, _NOTHING, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))

    def number(self, address: Any) -> Any:
        """The number at an address."""
        return self.builder.load(self.builder.inttoptr(address, ir.FloatType().as_pointer()), align=FLOAT_BYTES)

    def load(self, address: Any) -> Any:
        """The vector at an address."""
        return self.builder.load(self.builder.inttoptr(address, VECTOR.as_pointer()), align=FLOAT_BYTES)

    def store(self, value: Any, address: Any) -> None:
        """Put a vector at an address."""
        self.builder.store(value, self.builder.inttoptr(address, VECTOR.as_pointer()), align=FLOAT_BYTES)

    def past(self, base: Any, count: int) -> Any:
        """The address so many bytes behind another."""
        return self.builder.add(base, ir.Constant(I64, count))

    def place(self, base: Any, *steps: tuple[int, Any]) -> Any:
        """An address: a base, and a number of times a stride for each step."""
        for count, stride in steps:
            base = self.builder.add(base, self.builder.mul(ir.Constant(I64, count), stride))
        return base


def _to_products(lines: Lines, d: Values) -> Values:
    """The rows of B^T times six numbers, for F(4, 3) (Lavin and Gray 2016, section 4.2)."""
    add, sub, times = lines.add, lines.sub, lines.times
    p, q = sub(d[4], times(4, d[2])), sub(d[3], times(4, d[1]))
    r, s = sub(d[4], d[2]), times(2, sub(d[3], d[1]))
    first = add(sub(times(4, d[0]), times(5, d[2])), d[4])
    last = add(sub(times(4, d[1]), times(5, d[3])), d[5])
    return [first, add(p, q), sub(p, q), add(r, s), sub(r, s), last]


def _from_products(lines: Lines, m: Values) -> Values:
    """The rows of A^T times six numbers, for F(4, 3)."""
    add, sub, times = lines.add, lines.sub, lines.times
    a, b, c, d = add(m[1], m[2]), sub(m[1], m[2]), add(m[3], m[4]), sub(m[3], m[4])
    return [
        add(add(m[0], a), c), add(b, times(2, d)), add(a, times(4, c)), add(add(b, times(8, d)), m[5]),
    ]  # fmt: skip


def _twice(transform: Callable[[Lines, Values], Values], lines: Lines, square: Sequence[Values]) -> list[Values]:
    """A transform along both axes of a square of vectors."""
    columns = [transform(lines, [row[col] for row in square]) for col in range(len(square[0]))]
    return [transform(lines, [column[row] for column in columns]) for row in range(len(columns[0]))]


def _input_transform(places: Sequence[int], *, planes: int) -> Any:
    """An intrinsic for `B^T d B`, where row (and column) `i` of `d` is row `places[i]` of what is read."""

    def transform(_: Any, source: Any, row: Any, col: Any, target: Any, step: Any) -> Any:
        """Read a square of vectors at `source`, `row` and `col` bytes apart, and write planes, `step` bytes apart."""

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            source, row, col, target, step = arguments
            lines, side = Lines(builder), range(max(places) + 1)
            read = [[lines.load(lines.place(source, (i, row), (j, col))) for j in side] for i in side]
            for i, products in enumerate(_twice(_to_products, lines, [[read[i][j] for j in places] for i in places])):
                for j, value in enumerate(products):
                    if PLANES[i, j] < planes:
                        lines.store(value, lines.place(target, (PLANES[i, j], step)))
            return context.get_dummy_value()

        return types.void(*[types.uint64] * 5), generate

    return intrinsic(transform)


input_transform: Any = _input_transform((0, 1, 2, 3, 4, 5), planes=len(PLANES))
upsampled_transform: Any = _input_transform((0, 1, 1, 2, 2, 3), planes=BUSY_PLANES)
"""The same of an image that is twice as large as the one read, each pixel four times, beginning with a second half."""


def _output_transform(
    _: Any, source: Any, step: Any, bias: Any, plus: Any, plus_row: Any, plus_col: Any, least: Any, target: Any,
    row: Any, col: Any,
) -> Any:  # fmt: skip
    """`A^T m A` of 36 vectors at `source`, plus the vector at `bias` and 4 x 4 at `plus`, at least `least`."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        source, step, bias, plus, plus_row, plus_col, least, target, row, col = arguments
        lines = Lines(builder)
        offset, floor = lines.load(bias), lines.filled(least)
        read = [[lines.load(lines.place(source, (PLANES[i, j], step))) for j in range(6)] for i in range(6)]
        for i, found in enumerate(_twice(_from_products, lines, read)):
            for j, value in enumerate(found):
                more = lines.load(lines.place(plus, (i, plus_row), (j, plus_col)))
                whole = lines.add(lines.add(value, offset), more)
                lines.store(lines.larger(whole, floor), lines.place(target, (i, row), (j, col)))
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 6, types.float32, *[types.uint64] * 3), generate


output_transform: Any = intrinsic(_output_transform)
