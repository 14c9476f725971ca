"""Options of polygons: areas and lengths in words, and what is refused before any work."""

import numpy as np
import pytest

from geoseg.errors import InputError, LegendError
from geoseg.legend import Legend
from geoseg.vector.kinds import DIVISOR, KINDS, names_of
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
        ({"tolerance_m": 1e300}, "tolerance_m.*more than the Earth"),
        ({"min_area_m2": "1e15"}, "min_area_m2.*more than the Earth"),
        ({"merge_rule": "similar"}, "merge-rule similar needs a table"),
        ({"similarity": {(1, 2): 0.5}}, "similarity.*merge-rule similar"),
    ],
)
def test_bad_options_are_refused_at_once(options, words):
    with pytest.raises(InputError, match=words):
        PolygonOptions(**options)


def test_minima_of_a_number_and_of_a_mapping():
    assert PolygonOptions(min_area_m2="1ha").minima == {"default": 1e4}
    assert PolygonOptions(min_area_m2={"forest": 5, 7: "1ha"}).minima == {"default": 0, "forest": 5, "7": 1e4}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64])
def test_classes_and_instances_of_a_panoptic_map_of_any_type(dtype):
    values = np.array([0, 100, np.iinfo(dtype).max], dtype)
    expected = [divmod(int(value), DIVISOR) for value in values]
    kind = KINDS["panoptic"]
    assert kind.class_of(values).tolist() == [number for number, _ in expected]
    assert kind.instance(values).tolist() == [instance > 0 for _, instance in expected]


CODED = Legend.from_dict({1: {"name": "water", "codes": [11]}, 2: {"name": "forest", "codes": [1]}})


@pytest.mark.parametrize(
    ("values", "said", "names"),
    [
        ([1, 11], None, {11: "water", 1: "forest"}),
        ([1, 2], None, {1: "water", 2: "forest"}),
        ([1], "codes", {11: "water", 1: "forest"}),
        ([1], "ids", {1: "water", 2: "forest"}),
        ([5], None, {1: "water", 2: "forest"}),
        ([], None, {1: "water", 2: "forest"}),
    ],
)
def test_values_are_ids_or_codes_as_the_file_says_or_as_they_must_be(values, said, names):
    assert names_of(values, CODED, values_are=said) == names


def test_values_that_may_be_ids_as_well_as_codes_are_refused():
    with pytest.raises(LegendError, match=r"value 1.*id of water.*code of forest"):
        names_of([1], CODED)
    alike = Legend.from_dict({1: {"name": "water", "codes": [1, 11]}, 2: "forest"})
    assert names_of([1, 2], alike) == names_of([1, 2], alike, values_are="codes") == {1: "water", 2: "forest"}


def test_each_kind_is_named_as_in_the_table():
    assert all(kind.name == name for name, kind in KINDS.items())
