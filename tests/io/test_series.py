"""Several dates of one place: as a dimension, or as one image, on any grid and in any window."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime

import numpy as np
import pystac
import pytest
import rasterio
import yaml
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geoseg.errors import BandError, GridError, InputError
from geoseg.io import composites, series
from geoseg.io.clouds import Masked, pick_bands
from geoseg.io.composites import Composite, median_of
from geoseg.io.grids import crop
from geoseg.io.series import DateStack, date_of
from geoseg.io.sources import open_source
from geoseg.io.stamps import paths_in
from geoseg.tiling import Window

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)
DAYS = ("2021-05-01", "2021-05-11", "2021-06-20")


@pytest.fixture
def dated(write_tif):
    """Writes one row of red, and of nir 100 larger, 0 being nodata, under a name with the date."""

    def write(date, red, *, name="scene", bands=("red", "nir"), **profile):
        red = np.atleast_2d(np.asarray(red, "uint16"))
        planes = np.stack([red, np.where(red, red + 100, 0)])
        return write_tif(f"{name}_{date}.tif", planes.astype("uint16"), names=bands, nodata=0, **profile)

    return write


@pytest.fixture
def three(dated):
    """Three dates of one row, listed in no order."""
    rows = {"2021-05-01": [1, 0, 3, 0, 0], "2021-05-11": [11, 0, 0, 14, 0], "2021-06-20": [21, 22, 0, 24, 0]}
    paths = {date: dated(date, row) for date, row in rows.items()}
    return [paths[DAYS[i]] for i in (1, 2, 0)]


def read(source):
    return source.read(source.geobox)


# -- dates as a dimension ----------------------------------------------------------------------------------------------


def test_a_stack_has_the_bands_of_all_dates_the_oldest_first(three):
    for spec in ({"dates": three}, {"dates": three, "combine": "stack"}):
        found = open_source(spec)
        assert isinstance(found, DateStack)
        assert found.dates == DAYS
        assert found.bands == ("red@1", "nir@1", "red@2", "nir@2", "red@3", "nir@3")
        raster = read(found)
        assert raster.valid[0].tolist() == [True, False, False, False, False]
        assert raster.pixels[:, 0, 0].tolist() == [1, 101, 11, 111, 21, 121]


def test_gaps_take_the_value_of_the_nearest_date(three):
    raster = read(open_source({"dates": three, "fill": "nearest"}))
    assert raster.valid[0].tolist() == [True, True, True, True, False]
    assert raster.pixels[::2, 0, :4].T.tolist() == [[1, 11, 21], [22, 22, 22], [3, 3, 3], [14, 14, 24]]
    assert raster.pixels[1::2, 0, 3].tolist() == [114, 114, 124]


def test_of_two_dates_as_near_the_earlier_is_taken_and_a_filled_one_is_not_handed_on(dated):
    rows = {"2021-05-01": [1, 0], "2021-05-11": [0, 0], "2021-05-21": [3, 3], "2021-05-25": [4, 4]}
    raster = read(open_source({"dates": [dated(*pair) for pair in rows.items()], "fill": "nearest"}))
    assert raster.pixels[::2, 0].T.tolist() == [[1, 1, 3, 4], [3, 3, 3, 4]]


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_filling_is_what_a_search_for_each_pixel_finds(seed, count):
    rng = np.random.default_rng(seed)
    days = np.sort(rng.integers(0, 40, count))
    stack = DateStack((None,) * count, tuple(datetime.fromordinal(738_000 + int(day)).isoformat() for day in days))
    pixels, valid = rng.integers(1, 99, (count, 2, 3, 4)), rng.random((count, 3, 4)) < 0.5
    expected = pixels.copy()
    for date, row, col in np.argwhere(~valid):
        seen = [(abs(days[other] - days[date]), other) for other in range(count) if valid[other, row, col]]
        if seen:
            expected[date, :, row, col] = pixels[min(seen)[1], :, row, col]
    stack._fill(pixels, valid)
    assert np.array_equal(pixels, expected)


def test_dates_come_from_options_files_and_names_and_through_masks(dated, write_tif):
    path = dated("2021-05-11", [[5, 6]])
    scl = write_tif("scl.tif", np.array([[4, 9]], "uint8"))
    masked = open_source({"path": path, "mask": scl})
    assert isinstance(masked, Masked)
    assert date_of(masked) == date_of(pick_bands(masked, [0], ["r"])) == datetime(2021, 5, 11, tzinfo=UTC)
    found = open_source({"dates": [masked, {"path": path, "date": "2020-02-02T10:00:00Z"}]})
    assert found.dates == ("2020-02-02T10:00:00Z", "2021-05-11")
    assert read(found).valid[0].tolist() == [True, False]


def test_without_any_date_they_stay_as_listed(dated):
    paths = [dated(name, [[value]]) for name, value in (("b", 2), ("a", 1), ("c", 3))]
    found = open_source({"dates": paths})
    assert found.dates == ()
    assert read(found).pixels[::2, 0, 0].tolist() == [2, 1, 3]
    gaps = [paths[0], dated("d", [[0]]), paths[2]]
    assert read(open_source({"dates": gaps, "fill": "nearest"})).pixels[::2, 0, 0].tolist() == [2, 2, 3]


def test_bands_are_matched_by_name_and_options_are_of_each_date(dated, tmp_path):
    one, two = dated("2021-05-01", [[1]]), dated("2021-06-01", [[7]], bands=("NIR", "red"))
    found = open_source({"dates": [one, two]})
    assert found.bands == ("red@1", "nir@1", "red@2", "nir@2")
    assert read(found).pixels[:, 0, 0].tolist() == [1, 101, 107, 7]
    found = open_source({"dates": str(tmp_path / "scene_*.tif"), "select": ["nir"], "scale": 0.5})
    assert found.bands == ("nir@1", "nir@2")
    assert read(found).pixels[:, 0, 0].tolist() == [50.5, 3.5]
    found = open_source({"dates": [one, one], "bands": ["r", "n"], "select": [2]})
    assert found.bands == ("n@1", "n@2")
    assert open_source({"dates": [one, two]}, bands=["r", "n"]).bands == ("r@1", "n@1", "r@2", "n@2")
    assert open_source({"dates": [one, two]}, bands=["a", "b", "c", "d"]).bands == ("a", "b", "c", "d")


def test_a_date_may_be_a_mosaic_or_a_stack(dated):
    west, east = dated("2021-05-01", [[1]]), dated("2021-05-01", [[2]], name="e", affine=UTM @ Affine.translation(1, 0))
    late = dated("2021-07-01", [[7, 8]])
    halves = {"stack": [{"path": late, "select": ["red"]}, {"path": late, "select": ["nir"]}]}
    found = open_source({"dates": [halves, [west, east]], "combine": "stack"})
    assert found.dates == ("2021-05-01", "2021-07-01")
    assert found.read(GeoBox((1, 2), UTM, "EPSG:32612")).pixels[:, 0].tolist() == [
        [1, 2],
        [101, 102],
        [7, 8],
        [107, 108],
    ]


# -- one image of many dates -------------------------------------------------------------------------------------------


def test_the_newest_is_taken_where_it_is_seen(three):
    raster = read(open_source({"dates": three, "combine": "newest"}))
    assert raster.bands == ("red", "nir")
    assert raster.valid[0].tolist() == [True, True, True, True, False]
    assert raster.pixels[:, 0, :4].tolist() == [[21, 22, 3, 24], [121, 122, 103, 124]]


def test_the_median_is_of_the_dates_that_see_the_pixel(three):
    raster = read(open_source({"dates": three, "combine": "median"}))
    assert raster.valid[0].tolist() == [True, True, True, True, False]
    assert raster.pixels[:, 0, :4].tolist() == [[11, 22, 3, 19], [111, 122, 103, 119]]


@given(
    st.integers(0, 2**32 - 1), st.sampled_from(["uint8", "int16", "uint32", "float32", "float64"]), st.integers(1, 6)
)
def test_medians_are_those_of_numpy(seed, dtype, dates):
    rng = np.random.default_rng(seed)
    values, valid = rng.integers(0, 120, (dates, 5, 6)).astype(dtype), rng.random((dates, 5, 6)) < 0.6
    if dtype == "float32":
        values[~valid] = np.nan
    expected = np.ma.median(np.ma.masked_array(values.astype("float64"), ~valid), axis=0).filled(0)
    found = median_of(values, valid, valid.sum(axis=0))
    assert found.dtype == values.dtype
    assert np.array_equal(found, np.rint(expected) if np.issubdtype(dtype, np.integer) else expected)


def test_the_largest_integers_keep_their_last_bit():
    values = np.full((3, 1, 1), 2**63 - 1, "int64")
    assert median_of(values, np.ones((3, 1, 1), bool), np.full((1, 1), 3)) == 2**63 - 1


def test_the_clearest_date_is_measured_over_all_of_the_grid_and_wins_whole_pixels(dated):
    rows = {"2021-05-01": [1, 2, 0, 0], "2021-05-11": [11, 0, 13, 14], "2021-06-20": [21, 22, 0, 0]}
    paths = [dated(*pair) for pair in rows.items()]
    found = open_source({"dates": paths, "combine": "least_cloud"})
    assert found.clearest_first == (1, 2, 0)
    assert read(found).pixels[0, 0].tolist() == [11, 22, 13, 14]
    # Where the clearest of all shows nothing, the next one is taken, although another date is clearest there.
    assert found.read(crop(found.geobox, Window(0, 1, 1, 1))).pixels[0, 0].tolist() == [22]


def test_clouds_that_are_said_are_not_measured(dated, monkeypatch):
    paths = [dated("2021-05-01", [1, 2]), dated("2021-05-11", [11, 0])]
    monkeypatch.setattr(composites, "_unusable", None)
    spec = {"dates": [{"path": paths[0], "cloud_percent": 60}, {"path": paths[1], "cloud_percent": 5.5}]}
    found = open_source({**spec, "combine": "least_cloud"})
    assert read(found).pixels[0, 0].tolist() == [11, 2]
    assert open_source(spec).bands == ("red@1", "nir@1", "red@2", "nir@2")


def test_clouds_are_measured_by_the_mask_once_and_kept_with_the_value(dated, write_tif, monkeypatch):
    codes = {"2021-05-01": [9, 4, 4, 4], "2021-05-11": [4, 9, 9, 9]}
    spec = {
        "dates": [
            {"path": dated(date, [int(date[-2:])] * 4), "mask": {"path": write_tif(f"scl_{date}.tif",
             np.array([row], "uint8")), "grow_px": 1}} for date, row in codes.items()
        ],
        "combine": "least_cloud",
    }  # fmt: skip
    found = open_source(spec)
    assert found.clearest_first == (0, 1)
    raster = read(found)
    assert raster.valid[0].tolist() == [False, False, True, True]  # what is hidden has grown by one
    assert raster.pixels[0, 0, 2:].tolist() == [1, 1]
    monkeypatch.setattr(composites, "_unusable", None)
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert again.clearest_first == pick_bands(found, [1], ["n"]).clearest_first == (0, 1)


def test_dates_of_a_large_scene_are_measured_by_few_pixels(dated, monkeypatch):
    monkeypatch.setattr(composites, "MEASURED_PX", 7)
    rng = np.random.default_rng(0)
    dates = [dated(day, np.where(rng.random((60, 80)) < clear, 9, 0)) for day, clear in zip(DAYS, (0.2, 0.9, 0.6),
                                                                                            strict=True)]  # fmt: skip
    assert open_source({"dates": dates, "combine": "least_cloud"}).clearest_first == (1, 2, 0)


def test_an_image_of_dates_covers_all_of_them_and_a_stack_the_finest(dated):
    one = dated("2021-05-01", np.full((4, 4), 1))
    two = dated("2021-05-11", np.full((8, 6), 2), affine=UTM @ Affine.translation(2, 0) @ Affine.scale(0.5))
    image, stack = (open_source({"dates": [one, two], "combine": way}) for way in ("median", "stack"))
    assert image.geobox == GeoBox((8, 10), UTM @ Affine.scale(0.5), "EPSG:32612")
    assert read(image).valid.all()
    assert stack.geobox == open_source(two).geobox


def test_dates_without_a_crs_are_combined_on_their_one_grid(dated):
    paths = [dated("2021-05-01", [1, 0], crs=None), dated("2021-05-11", [11, 12], crs=None)]
    for way, expected in (("median", [6, 12]), ("newest", [11, 12]), ("least_cloud", [11, 12])):
        assert read(open_source({"dates": paths, "combine": way})).pixels[0, 0].tolist() == expected
    other = dated("2021-07-01", [1, 2, 3], crs=None)
    with pytest.raises(GridError, match="no CRS"):
        open_source({"dates": [*paths, other], "combine": "median"})


def test_bands_are_picked_on_every_date(three):
    found = pick_bands(open_source({"dates": three, "combine": "median"}), [1], ["near"])
    assert isinstance(found, Composite)
    assert [member.chosen for member in (member.source for member in found.members)] == [(2,)] * 3
    assert found.bands == ("near",)
    assert read(found).pixels[0, 0, :4].tolist() == [111, 122, 103, 119]


# -- on any grid, in any window ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Four noisy dates, one at 20 m, one in another zone, with masks at 20 m that grow."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(11)
    x, y = Transformer.from_crs("EPSG:32612", "EPSG:32613", always_xy=True).transform(499_950, 4_200_050)
    zone_13 = Affine(10, 0, round(x, -1), 0, -10, round(y, -1))
    places = [(UTM, "EPSG:32612"), (UTM @ Affine.scale(2), "EPSG:32612"), (zone_13, "EPSG:32613"), (UTM, "EPSG:32612")]
    specs = []
    for number, (affine, crs) in enumerate(places):
        for kind, count, place in (("image", 2, affine), ("scl", 1, affine @ Affine.scale(2))):
            shape = (80, 90) if kind == "image" else (40, 45)
            pixels = (
                rng.integers(1, 200, (count, *shape)) if count == 2 else rng.choice([4, 9], (1, *shape), p=[0.9, 0.1])
            )
            with rasterio.open(
                folder / f"{kind}_2021050{number + 1}.tif", "w", driver="GTiff", height=shape[0], width=shape[1],
                count=count, dtype="uint8", transform=place, crs=crs,
            ) as file:  # fmt: skip
                file.write(pixels.astype("uint8"))
        mask = {"path": str(folder / f"scl_2021050{number + 1}.tif"), "grow_px": 1}
        specs.append({"path": str(folder / f"image_2021050{number + 1}.tif"), "mask": mask})
    return {
        "stack": open_source({"dates": specs}),
        "filled": open_source({"dates": specs, "fill": "nearest"}),
        **{way: open_source({"dates": specs, "combine": way}) for way in composites.COMPOSITES},
    }


BOXES = {
    "own": GeoBox((80, 90), UTM, "EPSG:32612"),
    "coarse": GeoBox((40, 40), UTM @ Affine.translation(-3, 1) @ Affine.scale(2.1), "EPSG:32612"),
    "degrees": GeoBox((70, 70), Affine(0.0001, 0, -110.9995, 0, -0.0001, 37.947), "EPSG:4326"),
}


@pytest.mark.parametrize("way", ["stack", "filled", *composites.COMPOSITES])
@given(box=st.sampled_from(list(BOXES)), data=st.data())
def test_a_window_of_a_read_is_the_read_of_that_window(many, way, box, data):
    grid = BOXES[box]
    whole = many[way].read(grid)
    row, col = (data.draw(st.integers(0, size - 1)) for size in grid.shape)
    rows, cols = (data.draw(st.integers(1, size - at)) for size, at in zip(grid.shape, (row, col), strict=True))
    found = many[way].read(crop(grid, Window(row, col, rows, cols)))
    valid = whole.valid[row : row + rows, col : col + cols]
    assert np.array_equal(found.valid, valid)
    assert np.array_equal(found.pixels[:, valid], whole.pixels[:, row : row + rows, col : col + cols][:, valid])


@pytest.mark.parametrize("way", composites.COMPOSITES)
def test_what_is_read_in_strips_is_what_is_read_at_once(many, way, monkeypatch):
    whole = many[way].read(BOXES["own"])
    monkeypatch.setattr(composites, "STRIP_ROWS", 7)
    monkeypatch.setattr(composites, "STRIP_SAMPLES", 1)
    found = many[way].read(BOXES["own"])
    assert np.array_equal(found.valid, whole.valid)
    assert np.array_equal(found.pixels, whole.pixels)
    assert 0.5 < whole.valid.mean() < 1


def test_series_are_values(many):
    for found in many.values():
        again = pickle.loads(pickle.dumps(found))  # noqa: S301
        assert again == found
        assert hash(again) == hash(found)
        assert len(paths_in(again)) == 8
        assert np.array_equal(again.read(BOXES["own"]).pixels, found.read(BOXES["own"]).pixels)


# -- STAC --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def catalogue(write_tif, tmp_path):
    """Items of two days, the first in two pieces, each with red and its scene classification at 20 m."""
    items = []
    for name, day, col, red, scl in (
        ("late", 11, 0, [[9, 9, 9, 9]], [[4, 4]]),
        ("west", 1, 0, [[1, 1]], [[9]]),
        ("east", 1, 2, [[3, 3]], [[4]]),
    ):
        affine = UTM @ Affine.translation(col, 0)
        write_tif(f"{name}_B04.tif", np.array(red, "uint16"), affine=affine)
        write_tif(f"{name}_SCL.tif", np.array(scl, "uint8"), affine=affine @ Affine.scale(2))
        item = pystac.Item(name, None, None, datetime(2021, 5, day, 11, len(items), tzinfo=UTC), {})
        for key, roles in (("red", ["data"]), ("scl", ["data"])):
            href = f"./{name}_{'B04' if key == 'red' else 'SCL'}.tif"
            item.add_asset(key, pystac.Asset(href, media_type="image/tiff; application=geotiff", roles=roles))
        items.append(item.to_dict(include_self_link=False, transform_hrefs=False))
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(path)


@pytest.mark.parametrize("assets", [{}, {"assets": ["red"]}, {"assets": ["red", "scl"]}])
def test_days_of_stac_items_are_dates_and_the_pieces_of_a_day_a_mosaic(catalogue, assets):
    spec = {"stac": catalogue, "mask": {"band": "SCL"}, **assets}
    box = GeoBox((1, 4), UTM, "EPSG:32612")
    stack = open_source({**spec, "combine": "stack"})
    assert stack.dates == ("2021-05-01T11:02:00Z", "2021-05-11T11:00:00Z")
    assert stack.bands == ("red@1", "red@2")
    assert stack.read(box).valid[0].tolist() == [False, False, True, True]
    median = open_source({**spec, "combine": "median"}).read(box)
    assert median.pixels[0, 0].tolist() == [9, 9, 6, 6]
    clear = open_source({**spec, "combine": "least_cloud"}).read(box)
    assert clear.pixels[0, 0].tolist() == [9, 9, 9, 9]
    mosaic = open_source(spec).read(box)
    assert mosaic.pixels[0, 0].tolist() == [9, 9, 9, 9]
    assert mosaic.valid.all()


def test_days_may_be_chosen_as_ever(catalogue):
    spec = {"stac": catalogue, "assets": ["red"], "dates": ["2021-05-01", "2021-05-02"], "combine": "median"}
    found = open_source(spec).read(GeoBox((1, 4), UTM, "EPSG:32612"))
    assert found.pixels[0, 0].tolist() == [1, 1, 3, 3]


# -- what makes no sense -----------------------------------------------------------------------------------------------


def test_yaml_says_it_all(three):
    spec = yaml.safe_load(f"""
    dates:
      - {{path: {three[0]}, date: 2021-05-11, cloud_percent: 10}}
      - {{path: {three[1]}, date: 2021-06-20, cloud_percent: 3}}
    combine: least_cloud
    bands: [r, n]
    """)
    found = open_source(spec)
    assert (found.bands, found.dates, found.clouds) == (("r", "n"), DAYS[1:], (10, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"combine": "mean"}, "combine 'mean' is unknown; known are stack, median, least_cloud, newest"),
        ({"fill": "linear"}, "fill 'linear' is unknown; known are none, nearest"),
        ({"combine": "median", "fill": "nearest"}, "fill is for combine: stack"),
        ({"dates": []}, "dates must be a list with at least one source"),
        ({"dates": "one.tif"}, "dates must be a list"),
        ({"path": "x.tif"}, "needs one of path, stack, mosaic, stac, dates.*, got path, dates"),
        ({"dates": [{"path": "S", "cloud_percent": 101}]}, "cloud_percent must be a number from 0 to 100"),
        ({"assets": ["red"]}, "assets chooses among STAC items and goes with stac:, not with dates:"),
    ],
)
def test_series_that_make_no_sense_are_told(three, options, message):
    if isinstance(options.get("dates"), list):
        options["dates"] = [{**date, "path": three[0]} for date in options["dates"]]
    with pytest.raises(InputError, match=message):
        open_source({"dates": three, **options})


def test_options_of_series_elsewhere_are_told(three, catalogue):
    for spec in ({"path": three[0], "combine": "median"}, {"mosaic": three, "fill": "nearest"},
                 {"stac": catalogue, "fill": "nearest"}):  # fmt: skip
        with pytest.raises(InputError, match="is for several dates: dates: .*, or stac: with combine:"):
            open_source(spec)


def test_dates_that_are_missing_are_told(dated):
    known, unknown = dated("2021-05-01", [[1]]), dated("x", [[2]])
    with pytest.raises(InputError, match=r"no date is known of .*scene_x.tif, but of others; say it with date:"):
        open_source({"dates": [known, unknown]})
    with pytest.raises(InputError, match="no date is known, so none is the newest"):
        open_source({"dates": [unknown, unknown], "combine": "newest"})


def test_a_date_that_lacks_a_band_is_told(dated, write_tif):
    one, two = dated("2021-05-01", [[1]]), write_tif("20210701.tif", np.ones((1, 1, 1), "uint16"), names=("red",))
    for way in series.COMBINES:
        with pytest.raises(BandError, match=r"date 2021-07-01 has bands \[red\], the first has \[red, nir\]"):
            open_source({"dates": [one, two], "combine": way})
