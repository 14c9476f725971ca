"""Degrees, non-square pixels, 598 labelled pixels in 23 polygons of another CRS: does the whole way hold?

The verdict is the mapped area, summed over the polygons, against the geodesic area of the mapped pixels.
"""

from __future__ import annotations

import geopandas
import numpy as np
import pyproj
import rasterio
from _run import ROOT, emit, geoseg, need_shared, scores


def pixel_areas_m2(path: str) -> float:
    """Sum of the geodesic areas of all mapped pixels, each taken as a box on the ellipsoid."""
    geod = pyproj.Geod(ellps="WGS84")
    with rasterio.open(path) as source:
        counts = (source.read(1) != source.nodata).sum(1)
        affine = source.transform
    total = 0.0
    for row, count in enumerate(counts):
        top, bottom = affine.f + row * affine.e, affine.f + (row + 1) * affine.e
        lons, lats = [0, affine.a, affine.a, 0], [top, top, bottom, bottom]
        total += int(count) * abs(geod.polygon_area_perimeter(lons, lats)[0])
    return total


def main() -> None:
    data = need_shared("beaufort") / "beaufort"
    folder = ROOT / "runs" / "beaufort"
    model, mapped, figures = folder / "model.safetensors", folder / "map.tif", folder / "accuracy.json"
    fit = geoseg("fit", "--config", "configs/beaufort.yaml", "--name", "beaufort", "--overwrite")
    scene = data / "beaufort_s2_b01_b08.tif"
    predict = geoseg("predict", scene, "--model", model, "--out", mapped, "--nodata", 255, "--overwrite")
    reference = f"{{path: {data}/rcr_landcover.shp, column: Classvalue}}"
    geoseg("assess", mapped, "--reference", reference, "--out", figures, "--overwrite")
    polygons = folder / "map.gpkg"
    vectorize = geoseg("vectorize", mapped, "--out", polygons, "--min-area-m2", 2000, "--overwrite")
    frame = geopandas.read_file(polygons, layer="map")
    area, truth = float(frame["area_m2"].sum()), pixel_areas_m2(str(mapped))
    found = scores(figures)
    emit(
        "beaufort",
        ours=round(area / 1e6, 4),
        reference=round(truth / 1e6, 4),
        ratio=float(np.round(area / truth, 8)),
        unit="km2 mapped",
        ratio_is="sum of polygon areas/geodesic area of mapped pixels",
        better="1",
        training_agreement=round(found["overall_accuracy"], 4),
        fit=fit,
        predict=predict,
        vectorize=vectorize,
        polygons=len(frame),
        km2={name: round(area / 1e6, 3) for name, area in frame.groupby("class_name")["area_m2"].sum().items()},
    )


if __name__ == "__main__":
    main()
