"""Sixteen tiles as one mosaic: does the map show where the files meet?

The scene has no labels, so a small network learns classes that thresholds of two indices give. The verdict is how often
neighbouring pixels across a file border differ in class, against the same rate away from the borders.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from _run import ROOT, emit, geoseg, need_shared
from rasterio.merge import merge


def labels(tiles: list[Path], out: Path) -> None:
    """Water, bare, grass and wood from NDWI and NDVI of the mosaic: what the network is to learn."""
    pixels, affine = merge([str(tile) for tile in tiles])
    green, red, nir = (pixels[k].astype(np.float32) for k in (1, 2, 6))
    ndvi, ndwi = (nir - red) / np.maximum(nir + red, 1), (green - nir) / np.maximum(green + nir, 1)
    ids = np.select([ndwi > 0, ndvi < 0.45, ndvi < 0.75], [1, 2, 3], 4).astype(np.uint8)
    ids[(pixels == 0).all(0)] = 255
    with rasterio.open(tiles[0]) as first:
        crs = first.crs
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": crs, "transform": affine, "nodata": 255}
    with rasterio.open(out, "w", height=ids.shape[0], width=ids.shape[1], compress="deflate", **profile) as target:
        target.write(ids, 1)


def borders(tiles: list[Path], mapped: Path) -> tuple[set[int], set[int]]:
    """Rows and columns of the map at which a file begins."""
    with rasterio.open(mapped) as source:
        affine, shape = source.transform, source.shape
    rows, cols = set(), set()
    for tile in tiles:
        with rasterio.open(tile) as source:
            col, row = ~affine @ (source.transform.c, source.transform.f)
        rows.add(round(row))
        cols.add(round(col))
    return {row for row in rows if 0 < row < shape[0]}, {col for col in cols if 0 < col < shape[1]}


def difference_rates(ids: np.ndarray, rows: set[int], cols: set[int]) -> tuple[float, float]:
    """Share of neighbouring mapped pixels that differ: across the borders, and everywhere else."""
    counts = np.zeros((2, 2), np.int64)
    for axis, at in ((0, rows), (1, cols)):
        a, b = (ids[:-1], ids[1:]) if axis == 0 else (ids[:, :-1], ids[:, 1:])
        both, differ = (a != 255) & (b != 255), (a != b)
        border = np.zeros(both.shape, bool)
        index = sorted(k - 1 for k in at)
        border[(index, slice(None)) if axis == 0 else (slice(None), index)] = True
        for k, where in enumerate((border & both, ~border & both)):
            counts[k] += int((differ & where).sum()), int(where.sum())
    return counts[0, 0] / counts[0, 1], counts[1, 0] / counts[1, 1]


def main() -> None:
    tiles = sorted((need_shared("aber") / "aber_tiles").glob("*.tif"))
    folder = ROOT / "runs" / "aber"
    folder.mkdir(parents=True, exist_ok=True)
    labels(tiles, folder / "labels.tif")
    fit = geoseg("fit", "--config", "configs/aber.yaml", "--name", "aber", "--overwrite")
    mapped = folder / "map.tif"
    predict = geoseg("predict", *tiles, "--model", folder / "model.safetensors", "--out", mapped, "--overwrite")
    with rasterio.open(mapped) as source:
        ids = source.read(1)
    rows, cols = borders(tiles, mapped)
    at_border, inside = difference_rates(ids, rows, cols)
    with rasterio.open(folder / "labels.tif") as source:
        natural = difference_rates(source.read(1), rows, cols)
    emit(
        "aber",
        ours=round(at_border, 5),
        reference=round(inside, 5),
        ratio=round(at_border / inside, 3),
        unit="share of neighbouring pixels that differ in class",
        ratio_is="across file borders/elsewhere",
        better="1",
        ratio_in_the_labels=round(natural[0] / natural[1], 3),
        nodata_px=int((ids == 255).sum()),
        fit=fit,
        predict=predict,
    )


if __name__ == "__main__":
    main()
