"""The limits of a shapefile: names, numbers, texts and sizes."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import InputError, OutputError, OutputExistsError
from geoseg.legend import Legend
from geoseg.vector import write_layer, write_polygons
from geoseg.vector.formats import places, shapefile
from geoseg.vector.formats.frames import layer_of_frame
from geoseg.vector.formats.shapefile import short_names

LEGEND = Legend.from_dict({1: {"name": "forêt", "color": "#1f6b35"}, 2: "water & ice"})


def frame_of(**columns):
    count = len(next(iter(columns.values())))
    boxes = shapely.box(np.arange(count), 0, np.arange(count) + 1, 1)
    return geopandas.GeoDataFrame(columns, geometry=boxes, crs="EPSG:32630")


def test_it_has_its_sidecars_and_names(tmp_path):
    frame = frame_of(class_id=[1, 2], class_name=["forêt", "water & ice"], perimeter_m=[4.0, 4.0])
    write_polygons(frame, tmp_path / "map.shp", legend=LEGEND)
    assert {path.suffix for path in tmp_path.iterdir()} == {".shp", ".shx", ".dbf", ".prj", ".cpg", ".json", ".qml"}
    assert (tmp_path / "map.cpg").read_text() == "UTF-8"
    assert json.loads((tmp_path / "map.fields.json").read_text()) == {"perimeter_m": "perimeter_"}
    assert (tmp_path / "map.prj").read_text().startswith('PROJCS["WGS_1984_UTM_Zone_30N"')  # as ESRI names it
    assert geopandas.read_file(tmp_path / "map.shp")["class_name"].tolist() == ["forêt", "water & ice"]


def test_names_of_classes_take_no_more_room_than_they_need(tmp_path):
    frame = frame_of(class_id=[1, 2], class_name=["forêt", "water & ice"])
    table = write_polygons(frame, tmp_path / "map.shp", legend=LEGEND).with_suffix(".dbf").read_bytes()
    descriptor = table[32 + 32 : 32 + 64]  # of the second field: a head of 32 bytes, then 32 bytes a field
    assert descriptor.startswith(b"class_name\0C")
    assert descriptor[16] == len("water & ice")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=14), max_size=40))
def test_short_names_are_unique_in_any_case_and_fit(names):
    unique = list({name.lower(): name for name in names}.values())
    short = short_names(unique)
    assert list(short) == unique
    assert len({name.lower() for name in short.values()}) == len(unique)
    assert all(1 <= len(name.encode()) <= 10 for name in short.values())


def test_short_names_count_on_where_they_are_many():
    names = [f"band_mean_{number}" for number in range(12)] + ["BAND_MEAN_x"]
    short = list(short_names(names).values())
    assert short[:3] == ["band_mean_", "band_mea_2", "band_mea_3"]
    assert len({name.lower() for name in short}) == len(names)


NUMBERS = {
    "of 18 digits": [10**18 - 1, -(10**17) + 1, 0],
    "of 19 digits": [10**18, 7, 0],
    "with a minus": [-(10**17), 7, 0],
    "at the ends": [2**63 - 1, -(2**63), 0],
}


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
def test_whole_numbers_keep_all_their_digits(tmp_path, numbers):
    frame = frame_of(id=np.array(numbers), other_numbers=np.array([1, 2, 3]))
    back = geopandas.read_file(write_polygons(frame, tmp_path / "map.shp", legend=None))
    assert [int(value) for value in back["id"]] == numbers  # a float would have lost some
    assert back["id"].dtype.kind == ("i" if numbers[0] < 10**18 and numbers[0] > -(10**17) else "O")
    assert back["other_numb"].tolist() == [1, 2, 3]


def test_a_long_number_in_a_late_batch_starts_anew(tmp_path):
    late = frame_of(id=np.array([5, 2**62, 9]))
    layer = layer_of_frame(late)
    parts = [layer_of_frame(late.iloc[[row]]) for row in range(3)]
    layer = replace(layer, batches=lambda: (batch for part in parts for batch in part.batches()))
    back = geopandas.read_file(write_layer(layer, tmp_path / "map.shp"))
    assert back["id"].tolist() == ["5", str(2**62), "9"]


def test_two_gigabytes_are_refused_before_anything_is_written(tmp_path):
    layer = layer_of_frame(frame_of(class_id=[1, 2]))
    for large in (replace(layer, vertices=200_000_000), replace(layer, count=50_000_000)):
        with pytest.raises(InputError, match=r"2 GB.*\.gpkg.*--per-class"):
            write_layer(large, tmp_path / "map.shp")
    assert list(tmp_path.iterdir()) == []


def test_the_size_is_foreseen_and_not_too_low(tmp_path, monkeypatch):
    """With holes, which cost a part of their own; the limit is set to what the files then really are."""
    cells = [shapely.box(3 * k, 0, 3 * k + 3, 3) - shapely.box(3 * k + 1, 1, 3 * k + 2, 2) for k in range(50)]
    frame = geopandas.GeoDataFrame({"id": np.arange(50), "text": "a"}, geometry=cells, crs="EPSG:32630")
    out = write_polygons(frame, tmp_path / "map.shp", legend=None)
    for suffix in (".shp", ".dbf"):
        monkeypatch.setattr(shapefile, "_MOST_BYTES", out.with_suffix(suffix).stat().st_size - 1)
        with pytest.raises(InputError, match="2 GB"):
            write_polygons(frame, tmp_path / "other.shp", legend=None)


def test_a_crs_that_no_prj_can_hold_is_refused(tmp_path):
    rotated = pyproj.CRS.from_proj4(
        "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 +ellps=WGS84 +datum=WGS84"
    )
    with pytest.raises(InputError, match=r"\.prj.*\.gpkg"):
        write_polygons(frame_of(id=[1]).set_crs(rotated, allow_override=True), tmp_path / "map.shp", legend=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".dbf", ".prj", ".cpg", ".qix", ".fields.json"])
def test_files_that_would_be_its_own_are_output_that_exists(tmp_path, suffix):
    own = tmp_path / f"map{suffix}"
    own.write_text("precious")
    with pytest.raises(OutputExistsError, match=rf"map\{suffix} exists; add --overwrite"):
        write_polygons(frame_of(id=[1]), tmp_path / "map.shp", legend=None)
    assert own.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [own]
    out = write_polygons(frame_of(id=[1]), tmp_path / "map.shp", legend=None, overwrite=True)
    assert len(geopandas.read_file(out)) == 1
    assert not own.exists() or own.read_bytes() != b"precious"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("failing", range(12))
def test_a_move_that_fails_leaves_what_was_there(tmp_path, monkeypatch, failing):
    """Any of the moves: five members aside, then five and the style to their places."""
    out = write_polygons(frame_of(id=[1, 2]), tmp_path / "map.shp", legend=None)
    (tmp_path / "map.qix").write_text("an index")
    before, real, moves = contents(tmp_path), os.replace, iter(range(100))

    def replaced(source, target):
        if next(moves) == failing:
            raise PermissionError("in use")
        real(source, target)

    monkeypatch.setattr(places.os, "replace", replaced)
    with pytest.raises(OutputError, match="in use"):
        write_polygons(frame_of(id=[1, 2, 3], perimeter_m=[1.0, 2.0, 3.0]), out, legend=None, overwrite=True)
    after = contents(tmp_path)
    assert {name: after[name] for name in before if name != "map.qml"} == {
        name: before[name] for name in before if name != "map.qml"
    }
    assert set(after) == set(before)


def test_a_text_that_is_cut_is_told(tmp_path, caplog):
    names = ["é" * 127, "é" * 128]
    legend = Legend.from_dict(dict(enumerate(names, 1)))
    write_polygons(frame_of(class_id=[1], class_name=names[:1]), tmp_path / "fits.shp", legend=legend)
    assert "cut" not in caplog.text
    write_polygons(frame_of(class_id=[1, 2], class_name=names), tmp_path / "map.shp", legend=legend)
    assert "texts have 254 bytes: longer ones of class_name are cut" in caplog.text
