"""The peer torchgeo: a plain loop over GridGeoSampler and DataLoader, stitched by hand.

Of each tile that has a neighbour half the overlap is left to it; nothing is blended, as in torchgeo's tutorials.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from _peer_common import load_network, measure, parse, write_map
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import GridGeoSampler


def offset(bounds: Any, grid: Any) -> tuple[int, int]:
    """Row and column of a tile's first pixel; torchgeo counts from the south-west, so a tile may begin outside."""
    col, row = ~grid * (bounds[0].start, bounds[1].stop)
    return round(row), round(col)


def place(classes: Any, tile: Any, row: int, col: int, *, margin: int) -> None:
    """Put what is a tile's own into the map: all of it but the margins towards neighbours."""
    (top, bottom), (left, right) = (
        (max(off + margin * (off > 0), 0), min(off + side - margin * (off + side < size), size))
        for off, side, size in zip((row, col), tile.shape, classes.shape, strict=True)
    )
    classes[top:bottom, left:right] = tile[top - row : bottom - row, left - col : right - col]


def main() -> None:
    """Measure and print."""
    options = parse(batch=4)
    network, _ = load_network(options.model)

    def map_scene(scene: Path, out: Path) -> None:
        with rasterio.open(scene) as file:
            grid, classes = file.transform, np.zeros(file.shape, np.uint8)
        for row, col, found in predictions(scene, grid):
            place(classes, found, row, col, margin=options.overlap // 2)
        write_map(out, classes, like=scene)

    def predictions(scene: Path, grid: Any) -> Iterator[tuple[int, int, Any]]:
        dataset = RasterDataset(str(scene))
        sampler = GridGeoSampler(dataset, size=options.tile, stride=options.tile - options.overlap)
        for batch in DataLoader(dataset, options.batch, sampler=sampler, collate_fn=stack_samples):
            with torch.inference_mode():
                found = network(batch["image"]).argmax(dim=1).to(torch.uint8).numpy()
            for bounds, tile in zip(batch["bounds"], found, strict=True):
                yield *offset(bounds, grid), tile

    measure(
        map_scene, options, package="torchgeo", precision="fp32", blends="nothing; half the overlap is cut",
        writes="class map, DEFLATE", input="raw, standardised in a module around the network",
    )  # fmt: skip


if __name__ == "__main__":
    main()
