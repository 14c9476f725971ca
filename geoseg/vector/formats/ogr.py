"""Layers through GDAL, a batch at a time: Arrow goes in, so that neither side handles a single feature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyogrio
from pyogrio.raw import write_arrow

from geoseg.errors import InputError
from geoseg.vector.formats.wkb import to_wkb
from geoseg.vector.layer import PolygonLayer

Progress = Callable[[int, int], None]

GEOMETRY = "geometry"


def check_driver(driver: str, *, others: Mapping[str, str | None]) -> None:
    """That this build of GDAL can write a format.

    Args:
        driver: GDAL's name of it.
        others: Extension and driver of each format there is; None for one that needs no driver.

    Raises:
        InputError: It cannot.
    """
    writable = pyogrio.list_drivers(write=True)
    if driver in writable:
        return
    able = [extension for extension, name in others.items() if name is None or name in writable]
    raise InputError(f"this build of GDAL has no driver '{driver}' that writes; it can write {', '.join(able)}")


def write_ogr(
    layer: PolygonLayer,
    path: Path,
    *,
    driver: str,
    progress: Progress,
    dataset_options: Mapping[str, str] | None = None,
    layer_options: Mapping[str, str] | None = None,
) -> int:
    """Writes a layer, which is named after the file. Returns the number of features.

    One or two batches stand in memory at a time, besides what the driver keeps for its index.

    Args:
        layer: What to write.
        path: The file, which does not exist.
        driver: GDAL's name of the format.
        progress: Told how many features are written, and how many there are.
        dataset_options: Creation options of the driver.
        layer_options: The same of the layer.

    Raises:
        pyogrio.errors.DataSourceError: GDAL cannot write it.
        pyogrio.errors.DataLayerError: The same.
    """
    source = _Source(layer, progress)
    try:
        write_arrow(
            pa.RecordBatchReader.from_batches(source.schema, source.batches()),
            path,
            layer=path.stem,
            driver=driver,
            geometry_name=GEOMETRY,
            geometry_type="MultiPolygon" if layer.multi else "Polygon",
            crs=None if layer.crs is None else layer.crs.to_wkt("WKT2_2019"),
            dataset_options=dataset_options,
            layer_options=layer_options,
        )
    except RuntimeError:
        if source.error is not None:  # of the batches; GDAL tells only that there was one
            raise source.error from None
        raise
    return source.done


def not_whole() -> OSError:
    """The error for a file whose last bytes found no room: GDAL does not tell when that happens as it closes one."""
    return OSError("its end is missing, as on a full disk")


class _Source(AbstractContextManager["_Source"]):
    """The batches of a layer as GDAL takes them, and the error that ended them."""

    def __init__(self, layer: PolygonLayer, progress: Progress) -> None:
        self._layer = layer
        self._progress = progress
        self.schema = pa.schema([_as_field(field) for field in layer.schema] + [(GEOMETRY, pa.large_binary())])
        self.done = 0
        self.error: BaseException | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, GeneratorExit):  # the reader closed, for reasons of its own
            self.error = error

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Record batches with a column of geometries."""
        with self:
            for batch in self._layer.batches():
                columns = [
                    column.cast(field.type) for column, field in zip(batch.table.columns, self.schema, strict=False)
                ]
                parted = len(batch.parts) < len(batch.rings.polygon_offsets)
                columns.append(to_wkb(batch, multi=self._layer.multi or parted))
                yield pa.RecordBatch.from_arrays(columns, schema=self.schema)
                self.done += batch.table.num_rows
                self._progress(min(self.done, self._layer.count), self._layer.count)  # some may have been parted


def _as_field(field: pa.Field) -> pa.Field:
    """A column's type in GDAL's terms: it would make floats of unsigned numbers of 64 bits."""
    return field.with_type(pa.int64()) if field.type == pa.uint64() else field
