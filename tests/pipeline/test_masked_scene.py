"""`geoseg.predict` of scenes with clouds and of several dates: nodata where nothing is seen, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

import geoseg

NODATA = 255


def write_scl(path: Path, codes: np.ndarray, *, gsd_m: float = 20) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=codes.shape[0], width=codes.shape[1], count=1, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(500_000, 5_300_000, gsd_m, gsd_m), nodata=0,
    ) as file:  # fmt: skip
        file.write(codes, 1)
    return path


def mapped(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def test_a_map_is_nodata_under_clouds_and_the_same_as_ever_beside_them(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene, codes = write_scene(), np.full((50, 65), 4, "uint8")
    codes[20:30, 10:40], codes[5, 60] = 9, 3
    mask = {"path": str(write_scl(tmp_path / "SCL_20m.tif", codes)), "grow_px": 2}
    plain, masked = tmp_path / "plain.tif", tmp_path / "masked.tif"
    geoseg.predict(str(scene), model=str(model), out=str(plain))
    geoseg.predict({"path": str(scene), "mask": mask}, model=str(model), out=str(masked))
    hidden = np.zeros((100, 130), bool)
    for row, col in np.argwhere(np.kron(codes != 4, np.ones((2, 2), bool))):
        rows, cols = np.indices(hidden.shape)
        hidden |= (rows - row) ** 2 + (cols - col) ** 2 <= 4
    expected = np.where(hidden, NODATA, mapped(plain))
    assert np.array_equal(mapped(masked), expected)
    assert 0.05 < hidden.mean() < 0.3
    assert (mapped(plain) == NODATA).sum() == 7 * 9


def test_a_map_of_two_dates_has_no_gap_where_one_of_them_sees_the_ground(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene, dates = write_scene(), []
    for day, hidden in (("2021-05-01", slice(0, 30)), ("2021-05-11", slice(20, 65))):
        codes = np.full((50, 65), 5, "uint8")
        codes[:, hidden] = 8
        scl = write_scl(tmp_path / f"scl_{day}.tif", codes)
        dates.append({"path": str(scene), "date": day, "mask": str(scl)})
    plain, both = tmp_path / "plain.tif", tmp_path / "both.tif"
    geoseg.predict(str(scene), model=str(model), out=str(plain))
    geoseg.predict({"dates": dates, "combine": "least_cloud"}, model=str(model), out=str(both))
    expected = mapped(plain)
    expected[:, 40:60] = NODATA
    assert np.array_equal(mapped(both), expected)
