"""From parts to outputs: one COG a layer, the QGIS style and the STAC Item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import shapely

import geoseg
from geoseg.errors import OutputError
from geoseg.infer.layers import Layer
from geoseg.infer.memory import memory_returned
from geoseg.infer.parts import JobFolder, Outputs, write_text
from geoseg.infer.reading import Unread
from geoseg.infer.task import SceneTask
from geoseg.io.cog import write_cog
from geoseg.io.combine import Mosaic
from geoseg.io.dates import said_span
from geoseg.io.item import MapAsset, map_item, write_item
from geoseg.io.regions import Area
from geoseg.io.stamps import paths_in, unsigned
from geoseg.tiling import Block, Window

LARGE_PX = 8192**2
"""Pixels from which memory that is freed is returned at once, which takes a twentieth of the time: GDAL would come to
hold more than the blocks did."""


AREA_TAG = "GEOSEG_AREA"
AREA_POINTS = 500
"""Points of an area that are written into a map's tags, which are read with every look at it."""


def assemble(
    task: SceneTask, blocks: Sequence[Block], folder: JobFolder, outputs: Outputs, *, model: Mapping[str, str],
    unread: Sequence[Unread],
) -> None:  # fmt: skip
    """Put all outputs together in the job's folder, to be moved from there.

    Raises:
        OutputError: They cannot be written.
    """
    legend, geobox, tags = task.legend, task.source.geobox, _tags(task, model)
    try:
        staged = outputs.within(folder.stage())

        def write(layer: Layer) -> None:
            write_cog(
                [folder.part(block, layer.name) for block in blocks], staged.layer(layer.name), geobox=geobox,
                dtype=layer.dtype(legend), nodata=layer.nodata(legend), resampling=layer.resampling, tags=tags,
                legend=legend if layer.kind == "class" else None, band_names=layer.bands(legend), unit=layer.unit,
            )  # fmt: skip

        large = geobox.shape[0] * geobox.shape[1] > LARGE_PX
        with memory_returned() if large else nullcontext():
            for layer in task.layers:
                write(layer)
        write_text(staged.style, legend.to_qml())
        assets = {
            "map" if layer.name == "class" else layer.name: MapAsset(
                staged.layer(layer.name), layer.title, layer.bands(legend), classes=layer.kind == "class"
            )
            for layer in task.layers
        }
        item = map_item(
            assets, style=staged.style, geobox=geobox, legend=legend, created=folder.created,
            taken=said_span(member.source for member in task.scenes), tags=tags,
        )  # fmt: skip
        if unread:
            item["properties"]["geoseg:unread"] = [entry.to_list() for entry in unread]
        write_item(staged.item, item)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{outputs.class_map} cannot be put together: {error.strerror or error}") from error


def _area_tags(area: Area) -> dict[str, str]:
    """An area as JSON that `--area` takes; of polygons with many points the box around them, which is then said."""
    region = area.region
    if isinstance(region, Window):
        return {
            AREA_TAG: json.dumps({"rows": [region.row_off, region.row_stop], "cols": [region.col_off, region.col_stop]})
        }
    crs = {} if region.crs is None else {"crs": str(region.crs)}
    ground = shapely.union_all(shapely.get_parts(region.geometries))
    if shapely.get_num_coordinates(ground) > AREA_POINTS:
        return {AREA_TAG: json.dumps({"bbox": list(region.bounds), **crs}), f"{AREA_TAG}_IS": "the box around the area"}
    return {AREA_TAG: json.dumps({**json.loads(shapely.to_geojson(ground)), **crs})}


def _tags(task: SceneTask, model: Mapping[str, str]) -> dict[str, str]:
    """Where the map comes from. No time: the same job gives the same bytes; the STAC Item says when."""
    tiling = task.tiling
    own = {
        "GEOSEG_VERSION": geoseg.__version__,
        "GEOSEG_SOURCES": ", ".join(map(unsigned, paths_in(task.source))),
        "GEOSEG_BANDS": ", ".join(task.source.bands),
        "GEOSEG_TILE_PX": f"{tiling.rows.tile} {tiling.cols.tile}",
        "GEOSEG_OVERLAP_PX": f"{tiling.rows.overlap} {tiling.cols.overlap}",
        "GEOSEG_BLEND": task.blend,
        **({"GEOSEG_RULE": task.rule} if isinstance(task.source, Mosaic) or task.members else {}),
        **({} if task.area is None else _area_tags(task.area)),
    }
    return own | {f"GEOSEG_MODEL_{key.upper()}": value for key, value in model.items()}
