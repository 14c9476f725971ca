"""The door: what YAML and the command line may say, and what they are told when it makes no sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from odc.geo.geobox import GeoBox

import geoseg.io
from geoseg.errors import BandError, GridError, InputError, MissingInputError, ReadError
from geoseg.io.combine import BandStack, Mosaic
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import crop
from geoseg.io.sources import Source, open_source
from geoseg.raster import Raster
from geoseg.tiling import Window

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)


@pytest.fixture
def scene(write_tif):
    """Three bands with names."""
    return write_tif("scene.tif", np.arange(36, dtype="uint16").reshape(3, 3, 4), names=("blue", "red", "nir"))


def test_a_path_is_one_file(scene):
    for spec in (scene, Path(scene), {"path": scene}, {"path": Path(scene)}):
        source = open_source(spec)
        assert isinstance(source, GdalSource)
        assert isinstance(source, Source)
        assert source.bands == ("blue", "red", "nir")


def test_a_list_and_a_pattern_are_mosaics(write_tif, tmp_path):
    for i in range(3):
        write_tif(f"part_{i}.tif", np.full((2, 2), i + 1, "uint8"), affine=UTM @ Affine.translation(2 * i, 0))
    files = [str(tmp_path / f"part_{i}.tif") for i in range(3)]
    pattern = str(tmp_path / "part_*.tif")
    specs = (files, pattern, {"mosaic": files}, {"mosaic": pattern}, {"path": pattern}, {"path": files})
    sources = [open_source(spec) for spec in specs]
    assert all(isinstance(source, Mosaic) for source in sources)
    assert len({source.members for source in sources}) == 1
    assert sources[0].read(sources[0].geobox).pixels[0, 0].tolist() == [1, 1, 2, 2, 3, 3]


def test_one_file_in_a_list_is_that_file(scene):
    assert isinstance(open_source([scene]), GdalSource)


def test_a_source_passes_through(scene):
    source = open_source(scene)
    assert open_source(source) is source

    class Mine:
        geobox, bands, dtype = source.geobox, ("b",), np.dtype("uint8")

        def read(self, geobox: GeoBox) -> Raster:
            return Raster(np.zeros((1, *geobox.shape), "uint8"), np.ones(geobox.shape, bool), geobox, ("b",))

    mine = Mine()
    assert open_source(mine) is mine
    assert open_source({"stack": [mine, scene]}).bands == ("b", "blue", "red", "nir")
    assert open_source(mine, bands=["x"]).read(source.geobox).bands == ("x",)


def test_yaml_says_it_all(scene, write_tif):
    elevation = write_tif("dem.tif", np.full((3, 4), 50, "int16"), affine=UTM, nodata=-1)
    spec = yaml.safe_load(f"""
    stack:
      - path: {scene}
        select: [nir, 1]
        scale: 0.5
        offset: 1
        nodata: 0
      - path: {elevation}
        bands: [elevation]
        resampling: cubic
    bands: [near, blue, height]
    """)
    source = open_source(spec)
    found = source.read(source.geobox)
    assert found.bands == ("near", "blue", "height")
    assert found.pixels[:, 2, 3].tolist() == [18.5, 6.5, 50.0]
    assert not found.valid[0, 0]
    assert found.valid[2, 3]


def test_options_beside_a_list_hold_for_members_unless_they_say_otherwise(scene, write_tif):
    other = write_tif("other.tif", np.ones((3, 3, 4), "uint16"), names=("blue", "red", "nir"))
    source = open_source({"mosaic": [scene, {"path": other, "nodata": 7}], "nodata": 3, "resampling": "nearest"})
    assert [(m.nodata, m.resampling) for m in source.members] == [(3, "nearest"), (7, "nearest")]
    assert source.resampling == "nearest"


def test_given_names_rename(scene):
    assert open_source(scene, bands=["b", "r", "n"]).bands == ("b", "r", "n")
    assert open_source({"path": scene, "select": ["nir", "red"]}, bands=["n", "r"]).bands == ("n", "r")
    assert open_source({"path": scene, "bands": ["b", "r", "n"], "select": [3, "R"]}).bands == ("n", "r")
    assert open_source([scene, scene], bands=["b", "r", "n"]).bands == ("b", "r", "n")
    assert isinstance(open_source({"stack": [scene]}, bands=["b", "r", "n"]), BandStack)


@pytest.mark.parametrize("bands", [["b", "r"], ["b", "r", "n", "x"]])
@pytest.mark.parametrize("kind", ["path", "select", "mosaic", "stack"])
def test_a_wrong_number_of_names_is_told(scene, kind, bands):
    specs = {
        "path": scene,
        "select": {"path": scene, "select": [3, 2, 1]},
        "mosaic": [scene, scene],
        "stack": {"stack": [scene]},
    }
    with pytest.raises(BandError, match=f"{len(bands)} names"):
        open_source(specs[kind], bands=bands)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"path": "S", "resample": "nearest"},
            "no option resample; known are path, stack, mosaic, stac, dates, zarr, bands, select, mask, nodata",
        ),
        ({"path": "S", "stack": ["S"]}, "needs one of path, stack, mosaic, stac, dates, zarr, got path, stack"),
        ({"bands": ["a"]}, "got none of them"),
        ({"path": "S", "resampling": "closest"}, "'closest' is unknown; known are nearest, bilinear"),
        ({"path": "S", "nodata": "none"}, "nodata must be a number"),
        ({"path": "S", "scale": True}, "scale must be a number"),
        ({"path": "S", "bands": "blue"}, "bands must be a list"),
        ({"path": "S", "bands": ["a", "A", "b"]}, "names that differ"),
        ({"path": "S", "select": []}, "select: needed are band names or numbers"),
        ({"path": "S", "select": [1.5]}, "select: needed are band names or numbers"),
        ({"path": "S", "crs": "EPSG:banana"}, "crs 'EPSG:banana' is not known"),
        ({"stack": []}, "stack must be a list with at least one source"),
        ({"stack": "S"}, "stack must be a list"),
        ([], "without members"),
        ("", "path of a source is empty"),
        (7, "cannot be a int"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(scene, spec, message):
    def with_scene(value):
        if isinstance(value, dict):
            return {key: with_scene(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [with_scene(inner) for inner in value]
        return scene if value == "S" else value

    with pytest.raises(InputError) as error:
        open_source(with_scene(spec))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_told_before_anything_is_read(tmp_path, scene):
    for spec in (
        str(tmp_path / "none.tif"),
        str(tmp_path / "none_*.tif"),
        [scene, str(tmp_path / "none.tif")],
        {"stack": [scene, {"path": str(tmp_path / "none.tif")}]},
    ):
        with pytest.raises(MissingInputError, match="none"):
            open_source(spec)
    (tmp_path / "text.tif").write_text("text")
    with pytest.raises(ReadError, match=r"text\.tif cannot be opened"):
        open_source([scene, str(tmp_path / "text.tif")])


def test_a_crs_may_be_a_number(write_tif):
    path = write_tif("x.tif", np.zeros((2, 2), "uint8"), crs=None)
    assert open_source({"path": path, "crs": 32612}).geobox.crs.to_epsg() == 32612
    with pytest.raises(GridError):
        open_source(path).read(GeoBox((2, 2), UTM, "EPSG:32612"))


def test_home_is_where_the_tilde_is(scene, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(scene).parent))
    assert open_source("~/scene.tif").bands == ("blue", "red", "nir")


def test_the_room_offers_its_names():
    assert {"Source", "open_source", "open_labels", "read_legend", "region_mask", "write_cog"} <= set(geoseg.io.__all__)
    assert geoseg.io.open_source is open_source


# -- real imagery ------------------------------------------------------------------------------------------------------


def test_labels_of_another_grid_land_where_gdal_puts_them(shared_data):
    scene = open_source(shared_data / "zion" / "landsat8_2345.tif")
    labels = open_source({"path": shared_data / "zion" / "nlcd.tif", "resampling": "nearest"})
    found = labels.read(scene.geobox)
    with rasterio.open(shared_data / "zion" / "nlcd_on_landsat_grid.tif") as file:
        expected = file.read(1)
    assert (np.where(found.valid, found.pixels[0], 255) == expected).mean() > 0.9999


def test_the_files_of_a_scene_stack_to_the_scene(shared_data):
    folder = shared_data / "zion"
    whole = open_source(folder / "landsat8_2345.tif")
    elevation = {"path": str(folder / "srtm_4326.tif"), "bands": ["elevation"]}
    stack = open_source({"stack": [*(str(folder / f"landsat_b{i}.tif") for i in (2, 3, 4, 5)), elevation]})
    assert stack.geobox == whole.geobox
    assert stack.bands == ("band1", "band2", "band3", "band4", "elevation")
    place = crop(whole.geobox, Window(500, 300, 200, 300))
    found = stack.read(place)
    assert np.array_equal(found.pixels[:4], whole.read(place).pixels)
    assert found.valid.all()
    # Zion Canyon's floor lies at about 1200 m, its rims at 2000 m and above.
    assert 1000 < found.pixels[4].min() < found.pixels[4].max() < 3000


def test_elevation_is_interpolated_as_gdal_does(shared_data):
    scene = open_source(shared_data / "zion" / "landsat8_2345.tif")
    place = crop(scene.geobox, Window(400, 400, 200, 200))
    found = open_source(shared_data / "zion" / "srtm_4326.tif").read(place)
    with (
        rasterio.open(shared_data / "zion" / "srtm_4326.tif") as file,
        rasterio.vrt.WarpedVRT(
            file,
            crs="EPSG:32612",
            transform=place.affine,
            width=200,
            height=200,
            resampling=rasterio.enums.Resampling.bilinear,
        ) as warped,
    ):
        expected = warped.read()
    difference = np.abs(found.pixels.astype(int) - expected.astype(int))
    # GDAL places pixels to an eighth of one; slopes here reach 60 m a pixel.
    assert difference.max() <= 10
    assert (difference <= 1).mean() > 0.97
