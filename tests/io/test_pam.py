"""Which value each row of an attribute table is about, and in what colour, whichever program wrote it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from geoseg.io.pam import band_notes

INTEGER, REAL, TEXT = 0, 1, 2
GENERIC, COUNT, NAME, MIN_MAX, RED, GREEN, BLUE = 0, 1, 2, 5, 6, 7, 8
ID, CLASS = ("ID", INTEGER, GENERIC), ("class", TEXT, GENERIC)
WATER, FOREST = "water", "forest"


def notes_of(columns, rows, attributes=""):
    heads = "".join(
        f"<FieldDefn><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>"
        for name, kind, usage in columns
    )
    cells = "".join("<Row>" + "".join(f"<F>{cell}</F>" for cell in row) + "</Row>" for row in rows)
    table = f"<GDALRasterAttributeTable {attributes}>{heads}{cells}</GDALRasterAttributeTable>"
    band = ET.fromstring(f"<PAMRasterBand>{table}</PAMRasterBand>")  # noqa: S314 - written above
    return band_notes(band, where="a.tif")


@pytest.mark.parametrize(
    "head", ["ID", "id", "Code", "GRIDCODE", "grid_code", "class_id", "Class ID", "Value", "something"]
)
def test_a_column_of_whole_numbers_of_their_own_holds_the_values(head):
    columns = [CLASS, (head, INTEGER, GENERIC), ("group", TEXT, GENERIC)]
    assert notes_of(columns, [(WATER, 1, "a"), (FOREST, 4, "b")]).names == {1: WATER, 4: FOREST}


def test_values_may_be_written_as_other_numbers_under_a_name_that_says_so():
    assert notes_of([("code", REAL, GENERIC), CLASS], [("1.0", WATER), ("4.0", FOREST)]).names == {1: WATER, 4: FOREST}


def test_a_column_of_that_name_is_the_value_before_others():
    columns = [("height", INTEGER, GENERIC), ID, CLASS, ("rank", INTEGER, GENERIC)]
    assert notes_of(columns, [(30, 1, WATER, 9), (20, 4, FOREST, 8)]).names == {1: WATER, 4: FOREST}


@pytest.mark.parametrize(("attributes", "values"), [("1", [1, 2]), ("0", [0, 1]), ("-0.5", [0, 1])])
def test_rows_at_equal_steps_have_the_values_that_the_table_says(attributes, values):
    found = notes_of([("Class", TEXT, NAME)], [(WATER,), (FOREST,)], f'Row0Min="{attributes}" BinSize="1"')
    assert found.names == dict(zip(values, [WATER, FOREST], strict=True))
    wide = notes_of([("Class", TEXT, NAME)], [(WATER,), (FOREST,)], 'Row0Min="10" BinSize="10"')
    assert wide.names == {10: WATER, 20: FOREST}


@pytest.mark.parametrize(
    "columns",
    [
        [CLASS, ("Histogram", INTEGER, COUNT), ("R", INTEGER, RED), ("G", INTEGER, GREEN), ("B", INTEGER, BLUE)],
        [CLASS, ("Count", INTEGER, GENERIC), ("Red", INTEGER, GENERIC), ("OBJECTID", INTEGER, GENERIC), CLASS],
        [CLASS, ("height", REAL, GENERIC), ("size", REAL, GENERIC), ("x", REAL, GENERIC), ("y", REAL, GENERIC)],
    ],
)
def test_rows_are_numbered_where_no_column_can_be_the_value(columns):
    assert notes_of(columns, [(WATER, 10, 11, 12, 13), (FOREST, 5, 6, 7, 8)]).names == {0: WATER, 1: FOREST}


def test_values_that_rows_share_are_none():
    assert notes_of([("group", INTEGER, GENERIC), CLASS], [(7, WATER), (7, FOREST)]).names == {0: WATER, 1: FOREST}


@pytest.mark.parametrize("heads", [("ID", "Code"), ("rank", "height")])
def test_columns_that_differ_give_no_names_and_one_warning(caplog, heads):
    columns = [*((head, INTEGER, GENERIC) for head in heads), CLASS]
    assert notes_of(columns, [(1, 11, WATER), (2, 12, FOREST)]).names == {}
    assert len(caplog.records) == 1
    assert "a.tif: columns of its attribute table differ" in caplog.text
    assert notes_of(columns, [(1, 1, WATER), (2, 2, FOREST)]).names == {1: WATER, 2: FOREST}


def test_a_column_of_numbers_called_class_is_the_value_and_no_name():
    columns = [("Class", INTEGER, GENERIC), ("Description", TEXT, GENERIC)]
    assert notes_of(columns, [(1, WATER), (4, FOREST)]).names == {1: WATER, 4: FOREST}
    columns = [("Value", INTEGER, MIN_MAX), *columns]
    assert notes_of(columns, [(1, 11, WATER), (4, 12, FOREST)]).names == {1: WATER, 4: FOREST}


def test_colours_of_16_bits_are_told_in_8():
    columns = [("Value", INTEGER, MIN_MAX), *((part, INTEGER, use) for part, use in (("R", 6), ("G", 7), ("B", 8)))]
    assert notes_of(columns, [(1, 0, 0, 65535), (2, 32768, 257, 0)]).colors == {
        1: (0, 0, 255, 255),
        2: (127, 1, 0, 255),
    }
    assert notes_of(columns, [(1, 0, 0, 255), (2, 3, 4, 5)]).colors == {1: (0, 0, 255, 255), 2: (3, 4, 5, 255)}
