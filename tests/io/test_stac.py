"""STAC on disk and behind an address reads as the plain stack and mosaic of its files."""

from __future__ import annotations

import json
import pickle
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import yaml
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geoseg.errors import InputError, MissingInputError, ReadError
from geoseg.io.combine import BandStack, Mosaic
from geoseg.io.dates import acquired, newest_first
from geoseg.io.sources import open_source

ZONE_12 = Affine(10, 0, 762_000, 0, -10, 4_210_000)
EMPTY = {"type": "Catalog", "stac_version": "1.0.0", "id": "empty", "description": "", "links": []}
ODD = {"stac_version": "1.1.0", "id": "odd"}
MAY, JUNE = datetime(2021, 5, 27, 11, 21, 11, tzinfo=UTC), datetime(2021, 6, 30, 11, tzinfo=UTC)


def zone_13(x: float, y: float) -> Affine:
    """Pixels of 10 m in the next UTM zone whose first lies at x, y of zone 12."""
    x, y = Transformer.from_crs("EPSG:32612", "EPSG:32613", always_xy=True).transform(x, y)
    return Affine(10, 0, round(x, -1), 0, -10, round(y, -1))


def asset(key, *, bands=None, kind="image/tiff; application=geotiff", roles=("data",), href=None, **more):
    fields = more if bands is None else {"bands": bands, **more}
    return pystac.Asset(href or f"./{key}.tif", media_type=kind, roles=list(roles), extra_fields=fields)


@pytest.fixture
def scene(write_tif, encoded, tmp_path):
    """Writes an item's files into a folder of its own: red at 10 m, near infrared at 20 m; and gives the item."""

    def write(name, *, affine=ZONE_12, crs="EPSG:32612", when=MAY, cloud=10.0, base=0, **profile):
        (tmp_path / "catalogue" / name).mkdir(parents=True, exist_ok=True)
        place = {"crs": crs, **profile}
        write_tif(f"catalogue/{name}/B04.tif", encoded(24, 24) + base, affine=affine, **place)
        coarse = affine @ Affine.scale(2)
        write_tif(f"catalogue/{name}/B8A.tif", encoded(12, 12) + base + 100_000, affine=coarse, **place)
        properties = {} if cloud is None else {"eo:cloud_cover": cloud}
        item = pystac.Item(name, None, None, when, properties)
        item.add_asset("B04", asset("B04", bands=[{"name": "B04", "eo:common_name": "red"}]))
        item.add_asset("B8A", asset("B8A", bands=[{"name": "B8A", "eo:common_name": "nir"}]))
        item.add_asset("thumbnail", asset("thumbnail", kind="image/png", roles=["thumbnail"]))
        item.add_asset("visual", asset("visual"))
        item.add_asset("notes", asset("notes", kind="application/json", href="./notes.json"))
        return item

    return write


@pytest.fixture
def items(scene):
    """Two overlapping items of two UTM zones."""
    return [
        scene("first"),
        scene("second", affine=zone_13(762_120, 4_209_950), crs="EPSG:32613", when=JUNE, cloud=30.0, base=50_000),
    ]


@pytest.fixture
def catalogue(items, tmp_path):
    """A catalogue on disk, its second item in a collection below it."""
    root = pystac.Catalog("root", "two scenes")
    extent = pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[MAY, JUNE]]))
    child = pystac.Collection("below", "the second of them", extent)
    root.add_item(items[0])
    root.add_child(child)
    child.add_item(items[1])
    folder = tmp_path / "catalogue"
    places = {id(items[0]): "first/item.json", id(items[1]): "second/item.json", id(child): "below/collection.json"}
    root.set_self_href(str(folder / "catalog.json"))
    child.set_self_href(str(folder / places[id(child)]))
    for item in items:
        item.set_self_href(str(folder / places[id(item)]))
    root.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return folder


def plain(folder, *names):
    """The same files said one by one."""
    files = (("B04", "red"), ("B8A", "nir"))
    return open_source(
        [{"stack": [{"path": f"{folder}/{n}/{key}.tif", "bands": [b]} for key, b in files]} for n in names]
    )


def same(found, expected):
    """Whether two sources read alike: whole, a window beyond the edge, and coarser."""
    assert found.geobox == expected.geobox
    assert found.bands == expected.bands
    assert found.dtype == expected.dtype
    whole = expected.geobox
    coarse = GeoBox((9, 9), whole.affine @ Affine.translation(-3, 2) @ Affine.scale(4), whole.crs)
    for place in (whole, whole[3:20, 5:22].pad(4), coarse):
        ours, theirs = found.read(place), expected.read(place)
        assert np.array_equal(ours.valid, theirs.valid)
        assert np.array_equal(ours.pixels[:, ours.valid], theirs.pixels[:, theirs.valid])
        assert ours.valid.any()
    return True


def saved(item, path):
    """The path of an item written as it is, its hrefs untouched."""
    Path(path).write_text(json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False)))
    return str(path)


# -- what may be named -------------------------------------------------------------------------------------------------


def test_a_catalogue_is_the_mosaic_of_its_items_and_of_those_below(catalogue):
    source = open_source({"stac": str(catalogue / "catalog.json")})
    assert isinstance(source, Mosaic)
    assert same(source, plain(catalogue, "first", "second"))
    assert [len(member.members) for member in source.members] == [2, 2]


@pytest.mark.parametrize("spec", ["text", "path", "Path", "stac", "pattern", "list"])
def test_an_item_is_the_stack_of_its_assets_however_it_is_named(catalogue, spec):
    path = str(catalogue / "first" / "item.json")
    specs = {
        "text": path, "path": {"path": path}, "Path": Path(path), "stac": {"stac": Path(path)},
        "pattern": str(catalogue / "f*" / "item.json"), "list": [path],
    }  # fmt: skip
    source = open_source(specs[spec])
    assert isinstance(source, BandStack)
    assert same(source, plain(catalogue, "first"))


def test_a_collection_a_pattern_and_an_item_collection_read_alike(catalogue, items, tmp_path):
    assert same(open_source(str(catalogue / "below" / "collection.json")), plain(catalogue, "second"))
    both = plain(catalogue, "first", "second")
    for pattern in (str(catalogue / "*" / "item.json"), {"stac": str(catalogue / "*" / "item.json")}):
        assert same(open_source(pattern), both)
    # Saved elsewhere by pystac, the items keep relative hrefs and say where they themselves lie.
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "found.geojson"
    pystac.ItemCollection(items).save_object(str(path))
    assert "./B04.tif" in path.read_text()
    assert same(open_source(str(path)), both)


def test_hrefs_may_be_relative_to_the_collection_s_file_absolute_or_addresses_of_files(items, tmp_path):
    folder = tmp_path / "catalogue"
    for item, form in zip(items, ("../catalogue/{}", f"file://{folder}/{{}}"), strict=True):
        for key in ("B04", "B8A"):
            item.assets[key].href = form.format(f"{item.id}/{key}.tif")
    search = {
        "type": "FeatureCollection",
        "features": [item.to_dict(include_self_link=False, transform_hrefs=False) for item in items],
    }
    (tmp_path / "beside").mkdir()
    path = tmp_path / "beside" / "search.json"
    path.write_text(json.dumps(search))
    assert same(open_source(str(path)), plain(folder, "first", "second"))


def test_a_copied_item_finds_its_files_where_it_says_it_lay_and_a_copied_folder_its_own(catalogue, tmp_path):
    told = json.loads((catalogue / "first" / "item.json").read_text())
    told["links"].append({"rel": "self", "href": str(catalogue / "first" / "item.json")})
    (tmp_path / "copied").mkdir()
    path = tmp_path / "copied" / "item.json"
    path.write_text(json.dumps(told))
    assert same(open_source(str(path)), plain(catalogue, "first"))
    for key in ("B04", "B8A"):
        (path.parent / f"{key}.tif").write_bytes((catalogue / "first" / f"{key}.tif").read_bytes())
    assert {Path(member.path).parent for member in open_source(str(path)).members} == {path.parent}


def test_links_that_lead_round_in_a_circle_are_followed_once(catalogue):
    path = catalogue / "below" / "collection.json"
    told = json.loads(path.read_text())
    told["links"] += [
        {"rel": "child", "href": "../below/../catalog.json"},
        {"rel": "item", "href": "../first/item.json"},
    ]
    path.write_text(json.dumps(told))
    assert len(open_source(str(catalogue / "catalog.json")).members) == 2


def test_other_json_is_left_to_gdal(tmp_path):
    path = tmp_path / "fields.geojson"
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [0, 0]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(ReadError, match="cannot be opened as a raster"):
        open_source(str(path))


# -- the forms of STAC -------------------------------------------------------------------------------------------------


def test_stac_1_0_reads_as_1_1_does(catalogue):
    path = catalogue / "first" / "item.json"
    told = json.loads(path.read_text())
    for key, name in (("B04", "red"), ("B8A", "nir")):
        del told["assets"][key]["bands"]
        told["assets"][key]["eo:bands"] = [{"name": key, "common_name": name}]
        told["assets"][key]["raster:bands"] = [{"nodata": 1, "scale": 0.5, "offset": -1}]
    told["stac_version"] = "1.0.0"
    older = catalogue / "first" / "older.json"
    older.write_text(json.dumps(told))
    newer = json.loads(path.read_text())
    for key in ("B04", "B8A"):
        newer["assets"][key].update({"nodata": 1, "raster:scale": 0.5})
        newer["assets"][key]["bands"][0]["raster:offset"] = -1
    path.write_text(json.dumps(newer))
    options = {"nodata": 1, "scale": 0.5, "offset": -1}
    names = (("B04", "red"), ("B8A", "nir"))
    files = [{"path": str(catalogue / "first" / f"{key}.tif"), "bands": [name], **options} for key, name in names]
    expected = open_source({"stack": files})
    assert not expected.read(expected.geobox).valid[0, 0]
    assert same(open_source(str(older)), expected)
    assert same(open_source(str(path)), expected)


# -- assets and bands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "bands"),
    [
        (["B8A", "B04"], ("nir", "red")),
        (["b04"], ("red",)),
        (["NIR"], ("nir",)),
        ("red", ("red",)),
        (["nir", "B04"], ("nir", "red")),
    ],
)
def test_assets_are_chosen_by_key_by_band_and_by_common_name(catalogue, wanted, bands):
    source = open_source({"stac": str(catalogue / "catalog.json"), "assets": wanted})
    assert source.bands == bands
    expected = plain(catalogue, "first", "second")
    found, theirs = source.read(expected.geobox), expected.read(expected.geobox)
    assert np.array_equal(found.pixels[:, theirs.valid], theirs.select(bands).pixels[:, theirs.valid])


def test_bands_and_select_hold_for_the_whole(catalogue):
    path = str(catalogue / "catalog.json")
    source = open_source({"stac": path, "bands": ["r", "n"], "select": ["n"]})
    assert source.bands == ("n",)
    assert source.read(source.geobox).pixels.max() > 100_000
    assert open_source({"path": path, "select": [2, 1]}).bands == ("nir", "red")
    assert open_source(path, bands=["r", "n"]).bands == ("r", "n")


# -- dates and clouds --------------------------------------------------------------------------------------------------


def test_the_date_of_an_item_stands_on_its_sources(catalogue):
    source = open_source(str(catalogue / "catalog.json"))
    assert [acquired(member) for member in source.members] == [MAY, JUNE]
    assert acquired(source) == JUNE
    assert newest_first(source.members) == list(source.members[::-1])
    said = open_source({"stac": str(catalogue / "catalog.json"), "date": date(2000, 1, 1)})
    assert acquired(said) == datetime(2000, 1, 1, tzinfo=UTC)
    picked = open_source({"stac": str(catalogue / "catalog.json"), "bands": ["a", "b"], "select": ["b"]})
    assert [acquired(member) for member in picked.members] == [MAY, JUNE]


def test_a_span_is_dated_by_its_end(scene, tmp_path):
    item = scene("first")
    item.datetime = None
    item.properties.update(
        datetime=None, start_datetime="2021-04-01T00:00:00Z", end_datetime="2021-05-01T02:00:00+02:00"
    )
    path = saved(item, tmp_path / "catalogue" / "first" / "item.json")
    assert acquired(open_source(path)) == datetime(2021, 5, 1, tzinfo=UTC)
    assert open_source({"stac": path, "dates": ["2021-04-10", "2021-04-11"]}).bands == ("red", "nir")
    with pytest.raises(InputError, match="none of the 1 items"):
        open_source({"stac": path, "dates": ["2021-05-02", "2021-05-03"]})


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("dates: [2021-05-01, 2021-06-30]", ["first", "second"]),  # the last day counts whole
        ("dates: [2021-05-27, 2021-05-27]", ["first"]),
        ("dates: ['2021-05-27T11:21:11Z', '2021-06-30T10:59:59Z']", ["first"]),
        ("dates: [2021-05-28, 2021-12-31]", ["second"]),
        ("max_cloud_percent: 10", ["first"]),
        ("max_cloud_percent: 100", ["first", "second"]),
        ("dates: [2021-06-01, 2021-06-30], max_cloud_percent: 30.0", ["second"]),
    ],
)
def test_items_are_chosen_by_date_and_cloud(catalogue, options, names):
    source = open_source(yaml.safe_load(f"{{stac: {catalogue}/catalog.json, {options}}}"))
    assert same(source, plain(catalogue, *names))


def test_where_nothing_is_wanted_the_message_says_what_there_is(catalogue):
    spec = {"stac": str(catalogue / "catalog.json"), "dates": ["2021-06-01", "2021-06-30"], "max_cloud_percent": 20}
    with pytest.raises(InputError) as error:
        open_source(spec)
    assert str(error.value).endswith(
        "catalog.json is from 2021-06-01 to before 2021-07-01 with at most 20 % cloud; "
        "they are of 2021-05-27T11:21:11Z to 2021-06-30T11:00:00Z, cloud in percent: 10 to 30"
    )


def test_an_item_that_does_not_say_its_cloud_is_left_out_aloud(scene, tmp_path, caplog):
    path = saved(scene("first", cloud=None), tmp_path / "catalogue" / "first" / "item.json")
    with pytest.raises(InputError, match="cloud in percent: not said"):
        open_source({"stac": path, "max_cloud_percent": 99})
    assert "item first does not say how cloudy it is" in caplog.text


# -- behind an address -------------------------------------------------------------------------------------------------


def test_a_catalogue_behind_an_address_reads_as_on_disk(catalogue, serve):
    served = serve(catalogue)
    expected = plain(catalogue, "first", "second")
    for spec in (f"{served.url}/catalog.json", {"stac": f"{served.url}/catalog.json?token=a%2Fb"}):
        source = open_source(spec)
        assert all(file.path.startswith(served.url) for member in source.members for file in member.members)
        assert same(source, expected)
    asked = {path.split()[1] for path in served.paths}
    assert not {path for path in asked if "thumbnail" in path or "visual" in path}


def test_signed_hrefs_are_asked_with_their_signature(catalogue, items, serve, tmp_path):
    served = serve(catalogue)
    for item in items:
        for key, found in item.assets.items():
            found.href = f"{served.url}/{item.id}/{key}.tif?sv=2021&sig=a%2Bb%3D&se=2030-01-01"
    path = tmp_path / "signed.json"
    pystac.ItemCollection(items).save_object(str(path))
    source = open_source(str(path))
    assert same(source, plain(catalogue, "first", "second"))
    assert acquired(source) == JUNE
    assert served.paths
    assert all("?sv=2021&sig=a%2Bb%3D&se=2030-01-01" in asked for asked in served.paths)


def test_a_search_is_followed_to_its_last_page(catalogue, items, serve):
    served = serve(catalogue)
    pages = [{"type": "FeatureCollection", "features": [item.to_dict(transform_hrefs=False)]} for item in items]
    for page, item in zip(pages, items, strict=True):
        page["features"][0]["links"] = [{"rel": "self", "href": f"{served.url}/{item.id}/item.json"}]
    pages[0]["links"] = [{"rel": "next", "href": f"{served.url}/page2?token=x"}]
    (catalogue / "search").write_text(json.dumps(pages[0]))
    (catalogue / "page2").write_text(json.dumps(pages[1]))
    assert same(open_source({"stac": f"{served.url}/search?limit=1"}), plain(catalogue, "first", "second"))
    pages[0]["links"][0]["method"] = "POST"
    (catalogue / "search").write_text(json.dumps(pages[0]))
    with pytest.raises(InputError, match="page 1 of a search that goes on; narrow it"):
        open_source({"stac": f"{served.url}/search?limit=1"})


def test_links_of_a_catalogue_that_has_moved_are_relative_to_where_it_is(catalogue, serve, answering):
    there = serve(catalogue)
    here = answering((301, {"Location": f"{there.url}/catalog.json"}, b""))
    assert same(open_source(f"{here}/deep/old.json"), open_source(f"{there.url}/catalog.json"))


def test_a_search_without_end_is_refused(catalogue, items, serve, monkeypatch):
    monkeypatch.setattr("geoseg.io.stac.MOST_PAGES", 3)
    for i in range(5):
        page = {"type": "FeatureCollection", "features": [], "links": [{"rel": "next", "href": f"page{i + 1}"}]}
        (catalogue / f"page{i}").write_text(json.dumps(page))
    with pytest.raises(InputError, match="page 3 of a search that goes on"):
        open_source({"stac": str(catalogue / "page0")})


def test_an_address_that_fails_says_so(catalogue, serve):
    url = serve(catalogue).url
    with pytest.raises(MissingInputError, match=r"none\.json is not there: the server answers 404"):
        open_source(f"{url}/none.json")
    with pytest.raises(ReadError, match=r"broken\.json cannot be read: the server answers 403"):
        open_source({"stac": f"{url}/broken.json"})
    with pytest.raises(ReadError, match="Connection refused"):
        open_source({"stac": "http://127.0.0.1:9/catalog.json"})
    with pytest.raises(ReadError, match="from a file or over http and https, got s3://"):
        open_source({"stac": "s3://bucket/catalog.json"})


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_told(catalogue):
    with pytest.raises(MissingInputError, match=r"none\.json is not there; needed is a file of STAC JSON"):
        open_source({"stac": str(catalogue / "none.json")})
    with pytest.raises(MissingInputError, match=r"no file matches .*none_\*\.json"):
        open_source({"stac": str(catalogue / "none_*.json")})
    (catalogue / "second" / "B8A.tif").unlink()
    with pytest.raises(MissingInputError, match=r"second/B8A\.tif is not there"):
        open_source(str(catalogue / "catalog.json"))
    (catalogue / "second" / "item.json").unlink()
    with pytest.raises(MissingInputError, match=r"second/item\.json is not there"):
        open_source(str(catalogue / "catalog.json"))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", ReadError, r"x\.json is no JSON: Expecting"),
        ("\xff\xfe", ReadError, r"x\.json is no JSON"),
        ("[1, 2]", InputError, r"x\.json is no STAC; needed is an Item"),
        ({"type": "Feature"}, InputError, r"x\.json is no STAC"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature"}]}, InputError, r"x\.json is no STAC"),
        ({"type": "FeatureCollection", "features": []}, InputError, r"x\.json holds no item; needed is at least one"),
        (EMPTY, InputError, "holds no item"),
        ({"type": "FeatureCollection", "features": [EMPTY]}, InputError, "a feature that is no STAC Item: empty"),
        ({"type": "Collection", **ODD}, ReadError, "malformed STAC .odd.: it lacks '"),
        ({"type": "Feature", **ODD}, ReadError, "malformed STAC .odd.: .*datetime"),
        ({"type": "Feature", "properties": {"datetime": "soon"}, **ODD}, ReadError, "malformed STAC .odd.: "),
        ({"type": "Banana", **ODD}, ReadError, "malformed STAC .odd.: .*Banana"),
    ],
)
def test_what_is_no_stac_is_told_in_one_line(tmp_path, text, error, message):
    text = text if isinstance(text, str) else json.dumps(text)
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    with pytest.raises(error, match=message) as caught:
        open_source({"stac": str(tmp_path / "x.json")})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["B99"], r"item first has no asset or band 'B99'; it has B04 \[B04 \(red\)\], B8A \[B8A \(nir\)\], thumbnail"),
        ([], "assets must be a list of asset keys or band names"),
        ([4], "assets must be a list of asset keys or band names"),
        (["red", "B04"], "band B04 of item first is asked for twice"),
    ],
)
def test_an_asset_that_is_not_there_is_told_with_those_that_are(catalogue, wanted, message):
    with pytest.raises(InputError, match=message):
        open_source({"stac": str(catalogue / "catalog.json"), "assets": wanted})


def test_items_without_imagery_or_with_other_bands_are_told(catalogue, scene, tmp_path):
    bare = pystac.Item("bare", None, None, MAY, {})
    bare.add_asset("thumbnail", asset("thumbnail", roles=["thumbnail"]))
    with pytest.raises(InputError, match=r"item bare has no imagery, .*; it has thumbnail; name what is wanted with"):
        open_source(saved(bare, tmp_path / "bare.json"))
    other = scene("third")
    del other.assets["B8A"]
    saved(other, tmp_path / "catalogue" / "third" / "item.json")
    with pytest.raises(
        InputError, match=r"item third has bands \[red\], item first has \[red, nir\]; choose bands that"
    ):
        open_source({"stac": str(catalogue / "*" / "item.json"), "dates": [date(2021, 5, 1), date(2021, 5, 31)]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dates": "2021-05-01"}, "dates must be the first and the last, such as"),
        ({"dates": ["2021-05-01"]}, "dates must be the first and the last, such as"),
        (
            {"dates": ["2021-06-01", "2021-05-01"]},
            "dates must be the first and the last, got 2021-06-01 after 2021-05-01",
        ),
        ({"dates": ["2021-06-01", "soon"]}, "date 'soon' is not understood"),
        ({"max_cloud_percent": 101}, "max_cloud_percent must be a number from 0 to 100"),
        ({"max_cloud_percent": True}, "max_cloud_percent must be a number from 0 to 100"),
        ({"max_cloud_percent": "20"}, "max_cloud_percent must be a number from 0 to 100"),
        ({"cloud": 3}, "a source has no option cloud; known are"),
        ({"path": "x.tif"}, "needs one of path, stack, mosaic, stac, dates, zarr, got path, stac"),
    ],
)
def test_options_that_make_no_sense_are_told(catalogue, options, message):
    with pytest.raises(InputError, match=message):
        open_source({"stac": str(catalogue / "catalog.json"), **options})


def test_options_of_stac_beside_another_kind_and_stac_that_is_no_path_are_told(catalogue):
    with pytest.raises(InputError, match="assets chooses among STAC items and goes with stac:, not with path:"):
        open_source({"path": str(catalogue / "first" / "B04.tif"), "assets": ["B04"]})
    for value in (["a.json"], "", 3):
        with pytest.raises(InputError, match="stac must be a path or an address of STAC JSON"):
            open_source({"stac": value})


def test_without_pystac_one_line_says_what_to_install(catalogue, monkeypatch):
    monkeypatch.setitem(sys.modules, "pystac", None)
    for spec in (str(catalogue / "catalog.json"), {"stac": str(catalogue / "first" / "item.json")}):
        with pytest.raises(InputError, match=r"^a STAC source needs pystac, .*; pip install geoseg\[stac\]$"):
            open_source(spec)
    assert open_source(str(catalogue / "first" / "B04.tif")).bands == ("band1",)


# -- sources are values ------------------------------------------------------------------------------------------------


def test_sources_are_values_that_can_be_pickled(catalogue):
    source, again = (open_source(str(catalogue / "catalog.json")) for _ in range(2))
    assert source == again
    assert repr(source) == repr(again)
    sent = pickle.loads(pickle.dumps(source))  # noqa: S301 (our own bytes)
    assert sent == source
    assert repr(sent) == repr(source)
    assert acquired(sent) == JUNE
    assert same(sent, plain(catalogue, "first", "second"))


def test_what_the_tests_write_is_valid_stac(catalogue, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the schemas come with pystac")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    root = pystac.Catalog.from_file(str(catalogue / "catalog.json"))
    assert [item.id for item in root.get_items(recursive=True)] == ["first", "second"]
    assert root.validate_all() == 2
