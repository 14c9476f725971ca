"""Small georeferenced files, and pixels that say where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)


@pytest.fixture
def write_tif(tmp_path: Path) -> Callable[..., str]:
    """Writes `(band, row, col)` pixels to a GeoTIFF: north-up UTM at 10 m unless told otherwise."""

    def write(
        name: str,
        pixels: Any,
        *,
        affine: Affine = UTM,
        crs: str | None = "EPSG:32612",
        names: tuple[str, ...] = (),
        **profile: Any,
    ) -> str:
        pixels = np.asarray(pixels)
        pixels = pixels[None] if pixels.ndim == 2 else pixels
        path = tmp_path / name
        count, rows, cols = pixels.shape
        profile = {"driver": "GTiff", **profile}
        with rasterio.open(
            path, "w", width=cols, height=rows, count=count, dtype=pixels.dtype, crs=crs, transform=affine, **profile
        ) as file:
            file.write(pixels)
            for index, band in enumerate(names, start=1):
                file.set_band_description(index, band)
        return str(path)

    return write


@pytest.fixture
def encoded() -> Callable[..., np.ndarray]:
    """Pixels `(1, row, col)` whose value is `1 + row * 1000 + col`, so that no other place has it, and 0 is none."""

    def pixels(rows: int, cols: int, dtype: str = "int32") -> np.ndarray:
        return (1 + np.arange(rows)[:, None] * 1000 + np.arange(cols)[None, :])[None].astype(dtype)

    return pixels
