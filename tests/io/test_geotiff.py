"""A Raster written is the Raster read; what cannot be marked as invalid is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError, OutputExistsError
from geoseg.io import open_source, read_legend
from geoseg.io.geotiff import write_raster
from geoseg.legend import Legend
from geoseg.raster import Raster


def raster(dtype: str, seed: int, *, bands: int = 2, shape: tuple[int, int] = (30, 41)) -> Raster:
    rng = np.random.default_rng(seed)
    geobox = GeoBox(shape, Affine(10, 0, 400_000, 0, -10, 5_000_000), "EPSG:32633")
    pixels = rng.integers(1, 100, (bands, *shape)).astype(dtype)
    return Raster(pixels, rng.random(shape) > 0.2, geobox, tuple(f"b{k}" for k in range(bands)))


@settings(max_examples=12)
@given(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]), st.integers(0, 99), st.integers(1, 4))
def test_written_and_read_again(tmp_path_factory, dtype: str, seed: int, bands: int) -> None:
    given_raster = raster(dtype, seed, bands=bands)
    path = write_raster(given_raster, tmp_path_factory.mktemp("w") / "x.tif", nodata=0)
    found = open_source(str(path)).read(given_raster.geobox)
    assert (found.bands, found.dtype) == (given_raster.bands, given_raster.dtype)
    np.testing.assert_array_equal(found.valid, given_raster.valid)
    np.testing.assert_array_equal(found.pixels[:, found.valid], given_raster.pixels[:, given_raster.valid])


def test_class_ids_carry_their_legend(tmp_path: Path) -> None:
    legend = Legend.from_dict({k: f"class {k}" for k in range(1, 100)})
    path = write_raster(raster("uint8", 3, bands=1), tmp_path / "ids.tif", legend=legend)
    assert read_legend(str(path)).names == legend.names
    assert not open_source(str(path)).read(raster("uint8", 3).geobox).valid.all()


@pytest.mark.parametrize("nodata", [None, -9999, 70_000])
def test_a_nodata_that_the_dtype_cannot_hold(tmp_path: Path, nodata: float | None) -> None:
    with pytest.raises(InputError, match="nodata"):
        write_raster(raster("uint16", 1), tmp_path / "x.tif", nodata=nodata)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_by_accident(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_text("precious")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_raster(raster("uint8", 1), tmp_path / "x.tif", nodata=0)
    assert (tmp_path / "x.tif").read_text() == "precious"
