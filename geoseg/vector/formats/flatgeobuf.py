"""FlatGeobuf: features in the order of a spatial index, read over the web by the part."""

from __future__ import annotations

from pathlib import Path

from geoseg.vector.formats.ogr import Progress, not_whole, write_ogr
from geoseg.vector.formats.styles import write_style
from geoseg.vector.layer import PolygonLayer

_NODE = 40  # bytes: a box of four float64, and an offset of 8 bytes
_NODE_SIZE = 16  # children of a node


def write_flatgeobuf(layer: PolygonLayer, path: Path, progress: Progress) -> None:
    """Writes a FlatGeobuf. GDAL sorts the features through a file beside it."""
    options = {"TEMPORARY_DIR": str(path.parent)}
    count = write_ogr(layer, path, driver="FlatGeobuf", progress=progress, layer_options=options)
    if count > 0 and _expected_size(path, count) != path.stat().st_size:
        raise not_whole()
    write_style(layer, path)


def _expected_size(path: Path, count: int) -> int:
    """Where the last feature ends: magic bytes, header, index, then each feature after its size.

    The index is a packed R-tree, its leaves last and in the order of the features; each holds the offset of its
    feature: https://github.com/flatgeobuf/flatgeobuf/blob/master/doc/README.md
    """
    with path.open("rb") as file:
        header = int.from_bytes(file.read(12)[8:], "little")
        features = 12 + header + _NODE * _count_nodes(count)
        file.seek(features - 8)
        last = features + int.from_bytes(file.read(8), "little")
        file.seek(last)
        return last + 4 + int.from_bytes(file.read(4), "little")


def _count_nodes(count: int) -> int:
    """Nodes of a packed R-tree, leaves included.

    >>> [_count_nodes(count) for count in (1, 2, 16, 17, 257)]
    [2, 3, 17, 20, 277]
    """
    nodes = level = count
    while True:
        level = -(-level // _NODE_SIZE)
        nodes += level
        if level == 1:
            return nodes
