"""The matrix product of torch's own library, for compiled loops, which torch's functions cannot be called from."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LIBRARIES = ("libtorch_cpu.so", "torch_cpu.dll")
"""Where torch keeps `sgemm_` of the BLAS; with some builds it is nowhere to be had."""

_I32, _BYTE, _F32 = ir.IntType(32), ir.IntType(8), ir.FloatType()


@lru_cache(maxsize=1)
def sgemm_address() -> int:
    """Where `sgemm_` lies in memory; 0 where torch does not give it away."""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
            return int(ctypes.cast(library.sgemm_, ctypes.c_void_p).value or 0)
        except (OSError, AttributeError):
            continue
    return 0


def _product(
    _: Any, sgemm: Any, a: Any, a_row: Any, b: Any, out: Any, rows: Any, inner: Any, cols: Any
) -> Any:  # fmt: skip
    """`out = a b` of float32 matrices, `(rows, inner)` times `(inner, cols)`, in the order of C.

    Args:
        sgemm: Address of the BLAS's `sgemm_`.
        a: Address; its rows are `a_row` numbers apart.
        a_row: Numbers.
        b: Address.
        out: Address.
        rows: Of `a`.
        inner: Columns of `a`.
        cols: Of `b`.
    """

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        sgemm, a, a_row, b, out, rows, inner, cols = arguments

        def held(value: Any, kind: Any) -> Any:
            """A pointer to a value, as Fortran wants it."""
            with builder.goto_entry_block():  # for memory that is taken in a loop adds up
                place = builder.alloca(kind)
            builder.store(value, place)
            return builder.bitcast(place, _BYTE.as_pointer())

        def number(value: Any) -> Any:
            return held(builder.trunc(value, _I32), _I32)

        def address(value: Any) -> Any:
            return builder.inttoptr(value, _BYTE.as_pointer())

        plain = held(ir.Constant(_BYTE, ord("N")), _BYTE)
        one, zero = held(ir.Constant(_F32, 1.0), _F32), held(ir.Constant(_F32, 0.0), _F32)
        function = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer()] * 13)
        # Fortran goes down the columns: to it this is the product of the transposed, the other way round.
        builder.call(
            builder.inttoptr(sgemm, function.as_pointer()),
            [plain, plain, number(cols), number(rows), number(inner), one, address(b), number(cols), address(a),
             number(a_row), zero, address(out), number(cols)],
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 8), generate


product: Any = intrinsic(_product)
