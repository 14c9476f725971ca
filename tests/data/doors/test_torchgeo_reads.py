"""torchgeo's datasets with a reading of their own, as sources on their own grid."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from geoseg.data.doors import expand_scenes
from geoseg.data.doors.torchgeo import torchgeo_source
from geoseg.data.doors.torchgeo_identity import bare
from geoseg.data.doors.torchgeo_reads import GeoDatasetSource, Held, Recoded, grid_of
from geoseg.errors import GridError, ReadError
from geoseg.io import open_labels, open_source
from geoseg.io.grids import crop
from geoseg.tiling import Window

datasets = pytest.importorskip("torchgeo.datasets")

LEFT, TOP, RES, SIDE = 500_000.0, 4_500_000.0, 10.0, 24


def write(path, pixels, *, left=LEFT, top=TOP, crs=32633):
    with rasterio.open(path, "w", driver="GTiff", width=pixels.shape[1], height=pixels.shape[0], count=1,
                       dtype=pixels.dtype, crs=crs, transform=Affine(RES, 0, left, 0, -RES, top)) as file:  # fmt: skip
        file.write(pixels, 1)


def positions(*, plus=0):
    return (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) + 1 + plus).astype(np.uint16)


class Doubled(datasets.RasterDataset):
    """A dataset with image and mask in one sample, made of its files in a way that no base class knows."""

    filename_regex = r"tile_(?P<date>\d{8})"
    classes = ("even", "odd")

    def __getitem__(self, query):
        sample = super().__getitem__(query)
        image = sample["image"]
        return {**sample, "image": image * 2, "mask": (image[0] % 2).long()}


@pytest.fixture
def doubled(tmp_path):
    """Two tiles side by side with a gap of 4 pixels, of one date, and one of another date."""
    write(tmp_path / "tile_20200101_a.tif", positions())
    write(tmp_path / "tile_20200101_b.tif", positions(plus=2000), left=LEFT + RES * (SIDE + 4))
    write(tmp_path / "tile_20210101_a.tif", positions(plus=4000))
    return Doubled(str(tmp_path))


def test_a_dataset_is_read_through_its_own_getitem(doubled):
    scenes = expand_scenes([{"torchgeo": doubled}])

    assert [scene["name"] for scene in scenes] == ["Doubled 0", "Doubled 1", "Doubled 2"]
    for scene, plus in zip(scenes, (0, 2000, 4000), strict=True):
        image, (labels, legend) = open_source(scene["image"]), open_labels(scene["labels"])
        raster, ids = image.read(image.geobox), labels.read(image.geobox)
        np.testing.assert_array_equal(raster.pixels[0], positions(plus=plus) * 2)
        np.testing.assert_array_equal(ids.pixels[0], positions(plus=plus) % 2)
        assert raster.valid.all()
        assert raster.dtype == np.float32
        assert legend.names == ("even", "odd")
        assert "region" not in scene


def test_what_lies_between_files_and_outside_is_invalid(doubled):
    held = Held(bare(doubled))
    bounds = LEFT, TOP - RES * SIDE, LEFT + RES * (2 * SIDE + 4), TOP
    first, last = pd.Timestamp("2020-01-01").value, pd.Timestamp("2020-12-31").value
    source = GeoDatasetSource(held, grid_of(doubled, bounds), "image", first, last)

    wide = crop(source.geobox, Window(-2, -3, SIDE + 4, 2 * SIDE + 10))
    raster = source.read(wide)

    assert raster.valid.sum() == 2 * SIDE * SIDE
    np.testing.assert_array_equal(raster.pixels[0, 2:-2, 3 : 3 + SIDE], positions() * 2)
    np.testing.assert_array_equal(raster.pixels[0, 2:-2, 7 + SIDE : 7 + 2 * SIDE], positions(plus=2000) * 2)
    far = source.read(crop(source.geobox, Window(900, 900, 4, 4)))
    assert not far.valid.any()


@pytest.mark.parametrize("seed", range(4))
def test_a_window_of_a_read_is_the_read_of_that_window(doubled, seed):
    rng = np.random.default_rng(seed)
    image = expand_scenes([{"torchgeo": doubled}])[1]["image"]
    grid = GeoBox(
        (40, 40), Affine(7.3, 0.4, image.geobox.affine.c - 9, 0.3, -7.1, image.geobox.affine.f + 8), "EPSG:32633"
    )
    whole = image.read(grid)
    row, col, rows, cols = rng.integers(1, 20, 4)

    part = image.read(crop(grid, Window(row, col, rows, cols)))

    np.testing.assert_array_equal(part.pixels, whole.pixels[:, row : row + rows, col : col + cols])
    np.testing.assert_array_equal(part.valid, whole.valid[row : row + rows, col : col + cols])


def test_another_crs_is_resampled_by_geoseg_as_a_file_is(doubled, tmp_path):
    image = expand_scenes([{"torchgeo": doubled}])[0]["image"]
    write(tmp_path / "copy.tif", positions() * 2)
    grid = GeoBox.from_bbox(image.geobox.extent.to_crs("EPSG:3857").boundingbox, "EPSG:3857", resolution=17)

    ours, file = image.read(grid), open_source(str(tmp_path / "copy.tif")).read(grid)

    np.testing.assert_array_equal(ours.valid, file.valid)
    np.testing.assert_allclose(ours.pixels, file.pixels, atol=0.51)  # the file's are rounded to its integers
    coarse = crop(image.geobox, Window(0, 0, 6, 6))
    coarse = GeoBox((6, 6), coarse.affine @ Affine.scale(4), coarse.crs)
    means = (positions() * 2.0).reshape(6, 4, 6, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(image.read(coarse).pixels[0], means)
    with pytest.raises(GridError):
        image.read(GeoBox((4, 4), Affine.identity(), None))


def test_transforms_are_not_applied_and_sources_are_values(doubled):
    doubled.transforms = lambda sample: {**sample, "image": sample["image"] * 0}

    one, again = expand_scenes([{"torchgeo": doubled}])[0], expand_scenes([{"torchgeo": doubled}])[0]

    assert one["image"].read(one["image"].geobox).pixels.max() == 2 * SIDE * SIDE
    assert one["image"] == again["image"] == pickle.loads(pickle.dumps(one["image"]))  # noqa: S301
    assert one["image"] != one["labels"]["path"]


def test_a_dataset_of_elevation_and_one_with_its_own_reading_intersect(doubled, tmp_path):
    class Height(datasets.RasterDataset):
        filename_glob = "height*.tif"

    write(tmp_path / "height.tif", positions(plus=7))

    scenes = expand_scenes([{"torchgeo": doubled & Height(str(tmp_path))}])

    assert len(scenes) == 2  # the tile to the east has no height
    image = open_source(scenes[0]["image"])
    raster = image.read(image.geobox)
    np.testing.assert_array_equal(raster.pixels[0], positions() * 2)
    np.testing.assert_array_equal(raster.pixels[1], positions(plus=7))


def test_pixels_without_a_place_are_refused(doubled):
    class Cropped(Doubled):
        def __getitem__(self, query):
            return {
                key: value[..., :3, :3] if key == "image" else value
                for key, value in super().__getitem__(query).items()
            }

    with pytest.raises(ReadError, match=r"Cropped gives \(3, 3\) pixels \(row, col\) for \(8, 8\) asked for"):
        _ = torchgeo_source(Cropped(doubled.paths)).bands


def test_codes_beyond_the_table_are_no_class(tmp_path):
    write(tmp_path / "codes.tif", np.array([[0, 1, 2], [3, 9, 1]], np.uint8))

    raster = Recoded(open_source(str(tmp_path / "codes.tif")), (5, 6, 7, 8)).read(
        GeoBox((2, 3), Affine(RES, 0, LEFT, 0, -RES, TOP), "EPSG:32633")
    )

    np.testing.assert_array_equal(raster.pixels[0][raster.valid], [5, 6, 7, 8, 6])
    assert not raster.valid[1, 1]
