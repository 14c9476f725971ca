"""Options of polygons: areas and lengths in words, and what is refused before any work."""

import pytest

from geoseg.errors import InputError
from geoseg.vector.kinds import KINDS
from geoseg.vector.options import PolygonOptions, metres, square_metres


@pytest.mark.parametrize(
    ("area", "expected"),
    [(5000, 5000), ("5000", 5000), ("0.5ha", 5000), ("0.5 HA", 5000), ("2 km2", 2e6), ("2km²", 2e6), ("1e4 m2", 1e4),
     ("1 ac", 4046.8564224), (0, 0)],
)  # fmt: skip
def test_areas_with_units(area, expected):
    assert square_metres(area) == pytest.approx(expected)


@pytest.mark.parametrize("area", ["5 acres", "5 m", "ha", "5,000", -1, "nan", "inf", float("nan"), "1 px", ""])
def test_an_area_that_makes_no_sense_is_refused(area):
    with pytest.raises(InputError, match="min_area_m2.*0.5ha"):
        square_metres(area)


@pytest.mark.parametrize(("length", "expected"), [(15, 15), ("15m", 15), ("0.1 km", 100), ("3 ft", 0.9144)])
def test_lengths_with_units(length, expected):
    assert metres(length) == pytest.approx(expected)


@pytest.mark.parametrize("length", ["0.001deg", "0.001°", "5 degrees", -3, "nan"])
def test_a_tolerance_in_degrees_is_no_length(length):
    with pytest.raises(InputError, match="tolerance_m.*degrees are no length"):
        metres(length)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "cats"}, "cats.*classes, instances, panoptic, values"),
        ({"connectivity": 6}, "4 or 8"),
        ({"merge_rule": "best"}, "border, similar, nodata"),
        ({"simplify": "wavelets"}, "visvalingam, douglas-peucker"),
        ({"min_area_m2": {"forest": "big"}}, "big"),
        ({"tolerance_m": "x"}, "tolerance_m"),
    ],
)
def test_bad_options_are_refused_at_once(options, words):
    with pytest.raises(InputError, match=words):
        PolygonOptions(**options)


def test_minima_of_a_number_and_of_a_mapping():
    assert PolygonOptions(min_area_m2="1ha").minima == {"default": 1e4}
    assert PolygonOptions(min_area_m2={"forest": 5, 7: "1ha"}).minima == {"default": 0, "forest": 5, "7": 1e4}


def test_each_kind_is_named_as_in_the_table():
    assert all(kind.name == name for name, kind in KINDS.items())
