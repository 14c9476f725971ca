"""Class maps that the benchmarks of the vectoriser share, and what a careful user does without geoseg."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import rasterio.features
import shapely
from affine import Affine
from rasterio.windows import Window
from scipy import ndimage

CLASSES, BASE_PX, PIXEL_M = 8, 2048, 10.0
TOLERANCE_M = 10.0
"""A pixel: staircases become lines."""


def base_map() -> np.ndarray:
    """A patchy map of 2,048 pixels each way, about 22,000 polygons: smooth noise, the largest of eight, with salt."""
    rng = np.random.default_rng(0)

    def noise(sigma: float) -> np.ndarray:
        return ndimage.gaussian_filter(rng.standard_normal((BASE_PX, BASE_PX)).astype(np.float32), sigma, mode="wrap")

    fields = np.stack([noise(4) + 6.6 * noise(12) for _ in range(CLASSES)])
    fields += 0.0045 * rng.standard_normal(fields.shape).astype(np.float32)
    return (fields.argmax(0) + 1).astype(np.uint8)


def write_map(path: Path, side: int, base: np.ndarray) -> Path:
    """A tiled DEFLATE GeoTIFF of `side` pixels each way that repeats the base; memory grows with its width alone."""
    profile = {
        "driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "uint8", "crs": "EPSG:32633",
        "transform": Affine(PIXEL_M, 0, 300_000, 0, -PIXEL_M, 5_000_000), "compress": "deflate", "tiled": True,
        "blockxsize": 512, "blockysize": 512, "nodata": 0,
    }  # fmt: skip
    row_of_bases = np.tile(base, (1, -(-side // BASE_PX)))[:, :side]
    with rasterio.open(path, "w", **profile, num_threads="all_cpus") as file:
        for row in range(0, side, BASE_PX):
            rows = min(BASE_PX, side - row)
            file.write(row_of_bases[:rows], 1, window=Window(0, row, side, rows))
    return path


def reference(source: Path, out: Path, *, tolerance_m: float) -> dict[str, Any]:
    """Seconds of each stage, and the number of polygons, of rasterio, shapely and geopandas from file to file."""
    marks = [("", time.perf_counter())]

    def done(stage: str) -> None:
        marks.append((stage, time.perf_counter()))

    with rasterio.open(source) as file:
        classes, transform, crs, valid = file.read(1), file.transform, file.crs, file.read_masks(1)
    done("read")
    traced = list(rasterio.features.shapes(classes, mask=valid, connectivity=4, transform=transform))
    done("shapes")
    polygons = np.array([shapely.geometry.shape(shape) for shape, _ in traced])
    values = np.array([value for _, value in traced], np.int32)
    done("shapely")
    dense = shapely.segmentize(polygons, abs(transform.a))  # without it neighbours do not share their vertices
    simpler = shapely.coverage_simplify(dense, tolerance_m)
    done("simplify")
    frame = geopandas.GeoDataFrame({"class_id": values, "area_m2": shapely.area(simpler)}, geometry=simpler, crs=crs)
    frame.to_file(out, driver="GPKG", engine="pyogrio")
    done("write")
    stages = {name: round(end - start, 3) for (_, start), (name, end) in pairwise(marks)}
    return {"seconds": round(marks[-1][1] - marks[0][1], 3), "polygons": len(values), "stages": stages}
