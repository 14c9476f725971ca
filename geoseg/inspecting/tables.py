"""Figures as people read them: tables of plain text, the same on a terminal and in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any


@dataclass(frozen=True, slots=True)
class Info:
    """What was found: plain values, and the text that shows them.

    Attributes:
        kind: `scene`, `class map`, `folder`, `config` or `model`.
        values: Everything, as JSON holds it.
        blocks: The same for people; blocks of lines with an empty line between.
        warnings: What is probably wrong, a line each; they end the text.
    """

    kind: str
    values: dict[str, Any]
    blocks: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"kind": self.kind, **self.values, "warnings": list(self.warnings)}

    def __str__(self) -> str:
        said = "\n".join(f"warning: {line}" for line in self.warnings)
        return "\n\n".join(block for block in (*self.blocks, said) if block)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Lines of a name and what is said of it, the latter in one column.

    >>> print(facts([("size", "10 x 20"), ("crs", "none")]))
    size  10 x 20
    crs   none
    """
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in pairs)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A table of plain text: the first `left` columns to the left, the others to the right.

    >>> print(table(["class", "px"], [["1 water", "5"], ["2 sand", "1,200"]]))
    class       px
    1 water      5
    2 sand   1,200
    """
    cells = [list(heads), *map(list, rows)]
    widths = [max(len(row[col]) for row in cells) for col in range(len(heads))]
    lines = []
    for row in cells:
        sides = [
            cell.ljust(width) if col < left else cell.rjust(width)
            for col, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(sides).rstrip())
    return "\n".join(lines)


def number(value: float | None) -> str:
    """A value of a band in at most five digits, whole where it is; `-` for none.

    >>> number(65535.0), number(0.1234567), number(1234567.0), number(None)
    ('65,535', '0.12346', '1,234,567', '-')
    """
    if value is None or not isfinite(value):
        return "-"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:,.5g}"


def percent(share: float | None) -> str:
    """A share in percent with as many digits as it needs; `-` for none.

    >>> percent(0.5), percent(0.00012), percent(1.0), percent(0.0), percent(0.99999), percent(None)
    ('50.0 %', '0.01 %', '100 %', '0 %', '> 99.9 %', '-')
    """
    if share is None or not isfinite(share):
        return "-"
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    if share > 0.9995:
        return "> 99.9 %"
    if share < 0.00005:
        return "< 0.01 %"
    return f"{100 * share:.1f} %" if share >= 0.0095 else f"{100 * share:.2f} %"


def hectares(area_m2: float | None) -> str:
    """An area in hectares; `-` for none.

    >>> hectares(1_234_567.0), hectares(900.0), hectares(None)
    ('123', '0.09', '-')
    """
    if area_m2 is None:
        return "-"
    area = area_m2 / 1e4
    return f"{area:,.0f}" if area >= 100 else f"{area:.3g}" if area else "0"


def three_digits(value: float) -> float:
    """An estimate in the digits that can be believed.

    >>> three_digits(123_456_789), three_digits(0.0)
    (123000000.0, 0.0)
    """
    return float(f"{value:.3g}")


def finite(value: float | None) -> float | None:
    """The value, None where it is no finite number, which JSON has no word for."""
    return float(value) if value is not None and isfinite(value) else None


def some(names: Sequence[str], *, most: int = 5, between: str = ", ") -> str:
    """The names with commas between, the last ones only counted where there are many.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = between.join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
