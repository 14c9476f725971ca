"""Which assets of an item are bands, what they are called, and who says how they are scaled."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio

from geoseg.errors import InputError, ReadError
from geoseg.io.gdal import GdalSource
from geoseg.io.sources import open_source
from geoseg.io.stac_bands import Told, told_of

MAY = datetime(2021, 5, 27, tzinfo=UTC)


def asset(key, *, bands=None, kind="image/tiff; application=geotiff", roles=("data",), href=None, **more):
    fields = more if bands is None else {"bands": bands, **more}
    return pystac.Asset(href or f"./{key}.tif", media_type=kind, roles=list(roles), extra_fields=fields)


def saved(item, path):
    """The path of an item written as it is, its hrefs untouched."""
    Path(path).write_text(json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False)))
    return str(path)


def test_what_bands_say_wins_over_what_the_asset_says_of_all():
    found = pystac.Asset("x.tif", extra_fields={
        "nodata": 7, "raster:scale": 2.0, "eo:common_name": "pan",
        "bands": [
            {"name": "a", "nodata": "nan", "raster:scale": 3},
            {"name": "b", "eo:common_name": "red"},
            {"name": "Alpha"},
        ],
        "eo:bands": [{"name": "z"}],
    })  # fmt: skip
    whole, each = told_of(found, offset_applied=False)
    assert whole == Told(common="pan", nodata=7, scale=2)
    assert each == [Told("a", "pan", None, 3, None), Told("b", "red", 7, 2, None)]


def test_a_file_of_many_bands_is_one_source_and_its_bands_can_be_chosen(write_tif, tmp_path):
    pixels = np.arange(4 * 6 * 6, dtype="uint16").reshape(4, 6, 6) + 1
    colours = ["red", "green", "blue", "alpha"]
    path = write_tif("naip.tif", pixels, photometric="RGB", alpha="YES")
    item = pystac.Item("naip", None, None, MAY, {})
    told = [{"name": n, "eo:common_name": c} for n, c in (("R", "red"), ("G", "green"), ("B", "blue"), ("N", "nir"))]
    item.add_asset("image", asset("image", bands=told, href="./naip.tif"))
    json_path = saved(item, tmp_path / "naip.json")
    assert [c.name for c in rasterio.open(path).colorinterp] == colours
    whole = open_source(json_path)
    assert isinstance(whole, GdalSource)
    assert whole.bands == ("red", "green", "blue", "nir")
    assert np.array_equal(whole.read(whole.geobox).pixels, pixels)
    some = open_source({"stac": json_path, "assets": ["nir", "G"]})
    assert isinstance(some, GdalSource)
    assert some.bands == ("nir", "green")
    assert np.array_equal(some.read(some.geobox).pixels, pixels[[3, 1]])
    with pytest.raises(InputError, match="band R of item naip is asked for twice"):
        open_source({"stac": json_path, "assets": ["red", "image"]})


def test_bands_that_are_scaled_differently_are_scaled_each(write_tif, tmp_path):
    pixels = np.arange(3 * 4 * 4, dtype="uint16").reshape(3, 4, 4)
    write_tif("three.tif", pixels)
    item = pystac.Item("three", None, None, MAY, {})
    told = [{"name": n, "raster:scale": s, "nodata": 0} for n, s in (("a", 0.5), ("b", 0.5), ("c", 2.0))]
    item.add_asset("all", asset("three", bands=told))
    source = open_source(saved(item, tmp_path / "three.json"))
    assert source.bands == ("a", "b", "c")
    assert [member.chosen for member in source.members] == [(1, 2), (3,)]
    found = source.read(source.geobox)
    assert np.array_equal(found.pixels, (pixels * np.array([0.5, 0.5, 2])[:, None, None]).astype("float32"))
    assert not found.valid[0, 0]
    assert found.valid.sum() == 15


def test_names_are_common_names_else_keys_else_names_of_bands(write_tif, tmp_path):
    for name, count in (("a", 1), ("b", 1), ("c", 1), ("d", 2), ("e", 2), ("f", 2)):
        write_tif(f"{name}.tif", np.ones((count, 3, 3), "uint8"))
    item = pystac.Item("names", None, None, MAY, {})
    item.add_asset("A", asset("a", bands=[{"name": "B05", "eo:common_name": "rededge"}]))
    item.add_asset("B", asset("b", bands=[{"name": "B06", "eo:common_name": "rededge"}]))
    item.add_asset("C", asset("c"))
    item.add_asset("D", asset("d", bands=[{"name": "slope"}, {"name": "aspect", "eo:common_name": "asp"}]))
    item.add_asset("E", asset("e", bands=[{"name": "x"}]))  # one band said, two in the file
    item.add_asset("F", asset("f"))
    source = open_source(saved(item, tmp_path / "names.json"))
    assert source.bands == ("A", "B", "C", "slope", "asp", "E_band1", "E_band2", "F_band1", "F_band2")
    only = open_source({"stac": str(tmp_path / "names.json"), "assets": ["B06", "c"]})
    assert only.bands == ("B", "C")  # as beside the other of the two


def test_a_band_at_two_resolutions_keeps_its_common_name(write_tif, tmp_path):
    item = pystac.Item("sizes", None, None, MAY, {})
    for key in ("B02_10m", "B02_20m"):
        write_tif(f"{key}.tif", np.ones((3, 3), "uint8"))
        item.add_asset(key, asset(key, bands=[{"name": "B02", "eo:common_name": "blue"}]))
    path = saved(item, tmp_path / "sizes.json")
    assert open_source({"stac": path, "assets": ["B02_20m"]}).bands == ("blue",)
    assert open_source(path).bands == ("B02_10m", "B02_20m")


def test_of_one_band_in_two_formats_the_geotiff_is_taken(write_tif, tmp_path):
    write_tif("red.tif", np.ones((3, 3), "uint8"))
    item = pystac.Item("twice", None, None, MAY, {})
    told = [{"name": "B04", "eo:common_name": "red"}]
    item.add_asset("red-jp2", asset("red", bands=told, kind="image/jp2", href="./red.jp2"))
    item.add_asset("red", asset("red", bands=told))
    path = saved(item, tmp_path / "twice.json")
    for wanted in ({}, {"assets": ["B04"]}, {"assets": ["red"]}):
        assert open_source({"stac": path, **wanted}).path == str(tmp_path / "red.tif")


def test_the_file_wins_over_the_item_and_the_user_over_both(write_tif, tmp_path):
    pixels = np.array([[0, 5], [9, 10]], "int16")
    says = write_tif("says.tif", pixels, nodata=9)
    with rasterio.open(says, "r+") as file:
        file.scales, file.offsets = (3.0,), (1.0,)
    write_tif("silent.tif", pixels)
    item = pystac.Item("i", None, None, MAY, {})
    more = {"nodata": 0, "raster:scale": 0.5, "raster:offset": 2}
    for key in ("says", "silent"):
        item.add_asset(key, asset(key, **more))
    path = saved(item, tmp_path / "i.json")

    def read(key, **options):
        source = open_source({"stac": path, "assets": [key], **options})
        found = source.read(source.geobox)
        return np.where(found.valid, found.pixels[0], np.nan).ravel()

    nan = np.nan
    np.testing.assert_array_equal(read("says"), [1, 16, nan, 31])
    np.testing.assert_array_equal(read("silent"), [nan, 4.5, 6.5, 7])
    np.testing.assert_array_equal(read("silent", nodata=5, scale=1), [0, nan, 9, 10])
    np.testing.assert_array_equal(read("says", nodata=10, offset=-1), [-1, 14, 26, nan])


def test_an_offset_that_the_file_is_corrected_by_already_is_not_added_again(write_tif, tmp_path):
    write_tif("B04.tif", np.full((2, 2), 4, "uint16"))
    item = pystac.Item("i", None, None, MAY, {"earthsearch:boa_offset_applied": True})
    item.add_asset("B04", asset("B04", **{"raster:bands": [{"scale": 0.5, "offset": -1}]}))
    for applied, expected in ((True, 2), (False, 1)):
        item.properties["earthsearch:boa_offset_applied"] = applied
        source = open_source(saved(item, tmp_path / "i.json"))
        assert (source.read(source.geobox).pixels == expected).all()


def test_a_name_of_several_bands_is_told(write_tif, tmp_path):
    item = pystac.Item("red edges", None, None, MAY, {})
    for key in ("B05", "B06"):
        item.add_asset(key, asset(key, bands=[{"name": key, "eo:common_name": "rededge"}]))
    with pytest.raises(InputError, match=r"'rededge' is several bands of item red edges: B05 \(B05 \(rededge\)\), B06"):
        open_source({"stac": saved(item, tmp_path / "x.json"), "assets": ["rededge"]})


def test_a_file_with_fewer_bands_than_the_item_says_is_told(write_tif, tmp_path):
    write_tif("two.tif", np.ones((2, 3, 3), "uint8"))
    item = pystac.Item("i", None, None, MAY, {})
    item.add_asset("all", asset("two", bands=[{"name": n} for n in "abc"]))
    with pytest.raises(
        InputError, match=r"the item names 3 or more bands of .*two\.tif, the file has 2; name the asset"
    ):
        open_source({"stac": saved(item, tmp_path / "i.json"), "assets": ["c"]})


def test_a_band_in_another_format_beside_its_geotiff_is_left_out_though_it_has_no_bands(write_tif, tmp_path):
    for name in ("red", "scl"):
        write_tif(f"{name}.tif", np.ones((1, 6, 6), "uint16"))
    item = pystac.Item("s2", None, None, MAY, {})
    for name in ("red", "scl"):
        item.add_asset(name, asset(name))
        item.add_asset(f"{name}-jp2", asset(name, kind="image/jp2", href=f"s3://elsewhere/{name}.jp2"))
    assert open_source(saved(item, tmp_path / "s2.json")).bands == ("red", "scl")


@pytest.mark.parametrize(
    "told", [{"raster:bands": [{"nodata": ""}]}, {"raster:bands": [{"scale": "x"}]}, {"eo:bands": [1]}]
)
def test_malformed_bands_are_one_line(write_tif, tmp_path, told):
    write_tif("red.tif", np.ones((1, 6, 6), "uint16"))
    item = pystac.Item("odd", None, None, MAY, {})
    item.add_asset("red", asset("red", **told))
    with pytest.raises(ReadError, match="item odd holds malformed STAC, of its bands"):
        open_source(saved(item, tmp_path / "odd.json"))


def test_a_name_with_a_blank_is_found_however_it_is_written(write_tif, tmp_path):
    write_tif("red band.tif", np.ones((1, 6, 6), "uint16"))
    item = pystac.Item("blank", None, None, MAY, {})
    item.add_asset("red", asset("red", href="./red%20band.tif"))
    assert open_source(saved(item, tmp_path / "blank.json")).bands == ("red",)


def test_links_are_followed_without_the_root_and_without_what_leads_nowhere(write_tif, tmp_path):
    write_tif("red.tif", np.ones((1, 6, 6), "uint16"))
    item = pystac.Item("one", None, None, MAY, {})
    item.add_asset("red", asset("red"))
    path = Path(saved(item, tmp_path / "one.json"))
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "links": [{"rel": "self"}]}))
    links = [{"rel": "root", "href": "../absent.json"}, {"rel": "item", "href": str(path)}]
    catalogue = {"type": "Catalog", "id": "all", "stac_version": "1.0.0", "description": "all", "links": links}
    (tmp_path / "catalog.json").write_text(json.dumps(catalogue))
    assert open_source({"stac": str(tmp_path / "catalog.json")}).bands == ("red",)
