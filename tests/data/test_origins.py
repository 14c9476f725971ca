"""What images are made of, whatever they are called; what cannot be told is empty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

from geoseg.data.origins import origins_of
from geoseg.io import open_source
from geoseg.io.gdal import GdalSource


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three images without a CRS in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "mask"):
        with rasterio.open(
            f"{name}.tif", "w", driver="GTiff", count=2, height=8, width=8, dtype="uint8",
            transform=Affine(2, 0, 0, 0, -2, 0),
        ) as file:  # fmt: skip
            file.write(np.ones((2, 8, 8), np.uint8))
    return tmp_path.resolve()


def test_a_file_is_itself_however_it_is_spelled_and_whatever_is_taken_of_it(files):
    (files / "link.tif").symlink_to("a.tif")
    (files / "folder").mkdir()
    spellings = [
        "a.tif",
        "./a.tif",
        str(files / "a.tif"),
        "folder/../a.tif",
        "link.tif",
        {"path": "a.tif", "select": [2]},
    ]
    assert {origins_of(open_source(spelled)) for spelled in spellings} == {frozenset({str(files / "a.tif")})}


def test_members_and_files_of_a_vrt_count_and_masks_do_not(files):
    from rasterio.shutil import copy

    copy("a.tif", "a.vrt", driver="VRT")
    assert origins_of(open_source("a.vrt")) == {str(files / "a.vrt"), str(files / "a.tif")}
    assert origins_of(open_source({"stack": ["a.tif", "b.tif"]})) == {str(files / "a.tif"), str(files / "b.tif")}
    masked = open_source({"path": "a.tif", "mask": {"path": "mask.tif", "select": [1], "kind": "values", "drop": [0]}})
    assert origins_of(masked) == {str(files / "a.tif")}


def test_addresses_are_told_without_what_signs_them():
    one, other = (GdalSource(f"https://localhost/a.tif?sig={sign}") for sign in "xy")
    assert origins_of(one) == origins_of(other) == {"https://localhost/a.tif"}


def test_arrays_in_memory_are_told_by_their_values_or_not_at_all():
    @dataclass(frozen=True)
    class Held:
        pixels: np.ndarray

    cubes = [xr.DataArray(np.full((1, 8, 8), value, np.uint8), dims=("band", "y", "x")) for value in (1, 1, 2)]
    one, same, other = (origins_of(open_source(cube)) for cube in cubes)
    assert one == same != other
    assert origins_of(Held(np.zeros((2, 2)))) == origins_of("a.tif") == frozenset()
