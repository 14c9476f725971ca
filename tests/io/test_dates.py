"""When pixels were taken: what the user says, what the file says, what its name says, and the order of sources."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
import rasterio
import yaml
from hypothesis import given
from hypothesis import strategies as st

import geoseg.io
from geoseg.errors import InputError, MissingInputError
from geoseg.io.combine import BandStack, Mosaic, Picked, pick
from geoseg.io.dates import acquired, date_in_name, newest_first, said_span
from geoseg.io.gdal import GdalSource, instant
from geoseg.io.sources import open_source

NOON = datetime(2021, 5, 27, 12, 0, 0, tzinfo=UTC)


def day(year, month, number):
    return datetime(year, month, number, tzinfo=UTC)


@pytest.fixture
def scene(write_tif):
    """Writes one tile of two bands under a name."""

    def write(name="scene.tif", **tags):
        path = write_tif(name, np.ones((2, 3, 3), "uint8"), names=("red", "nir"))
        with rasterio.open(path, "r+") as file:
            for domain, values in tags.items():
                file.update_tags(ns=None if domain == "plain" else domain, **values)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Product names as their producers document them.
        ("S2A_MSIL2A_20210527T112111_N0300_R037_T29SNC_20210527T142857.jp2", "2021-05-27T11:21:11"),
        ("T29SNC_20210527T112111_B02_10m.jp2", "2021-05-27T11:21:11"),
        ("LC08_L2SP_037034_20150818_20200908_02_T1_SR_B4.TIF", "2015-08-18"),
        ("LE07_L1TP_022033_19990712_20161003_01_T1_B1.TIF", "1999-07-12"),
        ("S2B_32TQM_20220401_0_L2A.tif", "2022-04-01"),
        ("field-2021-05-27.tif", "2021-05-27"),
        ("2021-05-27.tif", "2021-05-27"),
        ("20210527.tif", "2021-05-27"),
        ("a_20210527T256199_b.tif", "2021-05-27"),  # no such time of day
        ("20211301_20210527.tif", "2021-05-27"),  # no such month
        ("20210229_1.tif", None),  # no leap year
        ("120210527.tif", None),  # a longer number
        ("202105271.tif", None),
        ("19691231.tif", None),
        ("21010101.tif", None),
        ("2021-0527.tif", None),
        ("2021.tif", None),
        ("scene.tif", None),
    ],
)
def test_names_say_when(name, expected):
    expected = expected and datetime.fromisoformat(expected).replace(tzinfo=UTC)
    assert date_in_name(name) == expected
    assert date_in_name(f"/vsizip/deliveries/20240101/{name}") == expected
    assert date_in_name(f"https://host/2024-01-01/{name}?se=2026-01-01&sig=20300101") == expected


@given(st.dates(date(1970, 1, 1), date(2100, 12, 31)), st.sampled_from(["%Y%m%d", "%Y-%m-%d"]))
def test_every_plausible_date_is_found_between_other_characters(when, form):
    found = date_in_name(f"tile_12_{when.strftime(form)}_v3.tif")
    assert found == datetime(when.year, when.month, when.day, tzinfo=UTC)


@given(st.integers(0, 4 * 10**9), st.integers(-14, 14))
def test_moments_are_utc_and_the_same_moment(seconds, hours):
    moment = datetime.fromtimestamp(seconds, timezone(timedelta(hours=hours)))
    found = instant(moment.isoformat())
    assert found == moment
    assert found.tzinfo is UTC


def test_the_user_wins_over_the_file_over_its_name_over_its_time_stamp(scene):
    tags = {"plain": {"TIFFTAG_DATETIME": "2023:01:02 03:04:05"}}
    assert acquired(open_source(scene("a.tif"))) is None
    assert acquired(open_source(scene("b.tif", **tags))) == datetime(2023, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert acquired(open_source(scene("c_20210527.tif", **tags))) == day(2021, 5, 27)
    tags["IMAGERY"] = {"ACQUISITIONDATETIME": "2020-06-07 08:09:10"}
    path = scene("d_20210527.tif", **tags)
    assert acquired(open_source(path)) == datetime(2020, 6, 7, 8, 9, 10, tzinfo=UTC)
    assert acquired(open_source({"path": path, "date": "2019-01-01"})) == day(2019, 1, 1)


@pytest.mark.parametrize("text", ["", "0000:00:00 00:00:00", "yesterday", "2023:13:02 03:04:05"])
def test_a_stamp_that_is_no_date_says_nothing(scene, text):
    assert acquired(open_source(scene(plain={"TIFFTAG_DATETIME": text}))) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("2021-05-27", day(2021, 5, 27)),
        ("20210527", day(2021, 5, 27)),
        ("'2021-05-27T12:00:00'", NOON),
        ("2021-05-27T12:00:00Z", NOON),
        ("2021-05-27T14:00:00+02:00", NOON),
    ],
)
def test_yaml_may_say_the_date_in_any_of_its_ways(scene, said, expected):
    source = open_source(yaml.safe_load(f"{{path: {scene()}, date: {said}}}"))
    assert acquired(source) == expected
    assert isinstance(source.date, str)


@pytest.mark.parametrize("said", ["May 2021", "2021-02-30", "2021", True, 3.5, ["2021-05-27"]])
def test_a_date_that_is_none_is_told(scene, said):
    with pytest.raises(InputError, match=r"is not understood; needed is ISO 8601, such as 2021-05-27") as error:
        open_source({"path": scene(), "date": said})
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="is not understood"):
        GdalSource("a.tif", date=said)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_told():
    with pytest.raises(MissingInputError, match="none_20210527"):
        acquired(GdalSource("none_20210527.tif"))


def test_of_many_files_it_is_the_latest_date(scene):
    old, new, undated = scene("a_20200101.tif"), scene("b_20210101.tif"), scene("c.tif")
    for spec in ([old, new, undated], {"mosaic": [undated, new, old]}):
        assert acquired(open_source(spec)) == day(2021, 1, 1)
    stack = open_source({"stack": [new, {"path": old, "bands": ["a", "b"]}, {"path": undated, "bands": ["c", "d"]}]})
    assert acquired(stack) == day(2021, 1, 1)
    assert acquired(open_source({"stack": [undated]})) is None
    assert acquired(open_source({"mosaic": [old, {"path": new, "date": "2001-01-01"}], "date": "2002-02-02"})) == day(
        2002, 2, 2
    )


def test_dates_survive_picking_renaming_and_pickling(scene):
    one = open_source({"path": scene(), "date": "2021-05-27"})
    two = open_source({"path": scene("two.tif"), "date": "2021-05-27", "bands": ["a", "b"]})
    for source in (one, BandStack((one, two)), Mosaic((one, one)), Picked(one, (1, 0), ("x", "y"))):
        for derived in (
            source,
            pick(source, [1], ["only"]),
            pick(pick(source, [1, 0], ["p", "q"]), [0], ["r"]),
            open_source(source, bands=[f"n{i}" for i in range(len(source.bands))]),
        ):
            again = pickle.loads(pickle.dumps(derived))  # noqa: S301 (our own bytes)
            assert acquired(derived) == acquired(again) == day(2021, 5, 27)
            assert again == derived
            assert repr(again) == repr(derived)


def test_the_date_is_part_of_what_a_source_is(scene):
    path = scene()
    dated, plain = open_source({"path": path, "date": "2021-05-27"}), open_source(path)
    assert dated != plain
    assert "2021-05-27" in repr(dated)


def test_sources_of_others_have_no_date(scene):
    class Mine:
        geobox, bands, dtype = open_source(scene()).geobox, ("b",), np.dtype("uint8")

        def read(self, geobox):
            raise NotImplementedError

    assert acquired(Mine()) is None
    with pytest.raises(InputError, match="no date is known of a Mine"):
        newest_first([Mine()])


@given(st.lists(st.integers(1, 9), max_size=12))
def test_newest_first_sorts_and_keeps_the_order_of_equals(days):
    members = [GdalSource(f"{i}.tif", date=f"2021-05-0{number}") for i, number in enumerate(days)]
    found = newest_first(members)
    # The oracle: positions by day descending, then by where they stood.
    expected = sorted(range(len(days)), key=lambda i: (-days[i], i))
    assert [int(source.path[:-4]) for source in found] == expected


def test_newest_first_names_all_that_have_no_date_and_what_would_work(scene):
    dated = open_source(scene("d_20210527.tif"))
    undated = [open_source(scene(f"u{i}.tif")) for i in range(7)]
    with pytest.raises(InputError) as error:
        newest_first([undated[0], dated, BandStack((undated[1], undated[2]))])
    message = str(error.value)
    assert "u0.tif" in message
    assert "u1.tif (and 1 beside it)" in message
    assert "d_2021" not in message
    assert "say it with date: beside path:, such as {path: scene.tif, date: 2021-05-27}" in message
    assert "\n" not in message
    with pytest.raises(InputError, match=r"u4\.tif and 2 more; needed"):
        newest_first([Picked(source, (0,), ("x",)) for source in undated])


def test_the_room_offers_dates():
    assert geoseg.io.acquired is acquired
    assert geoseg.io.newest_first is newest_first


def test_the_span_of_a_map_is_that_of_all_it_shows(scene):
    first, last = (GdalSource(scene(f"s_{name}.tif")) for name in ("20210527T120000", "20210603"))
    dated = GdalSource(scene("a.tif"), date="2021-06-09")
    whole = Mosaic((first, Picked(last, (1, 0), ("nir", "red")), dated))
    assert said_span([whole]) == (NOON, day(2021, 6, 9))
    assert said_span([first]) == (NOON, NOON)
    assert said_span([last, dated]) == (day(2021, 6, 3), day(2021, 6, 9))


def test_a_span_that_is_not_known_of_all_is_not_told(scene):
    known = GdalSource(scene("s_20210527.tif"))
    stamped = GdalSource(scene("b.tif", plain={"TIFFTAG_DATETIME": "2021:05:27 12:00:00"}))  # perhaps when it was made
    assert said_span([known, stamped]) is None
    assert said_span([]) is None
