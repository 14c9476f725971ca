"""Bands by name have the wavelengths of their sensors; what a name leaves open is unknown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import InputError
from geoseg.models.wavelengths import COMMON, SENSORS, band_wavelengths, bandwidth_um, unknown_bands

SENTINEL2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]


def test_all_bands_of_sentinel_2_are_those_of_its_handbook():
    wanted = (0.443, 0.49, 0.56, 0.665, 0.705, 0.74, 0.783, 0.842, 0.865, 0.945, 1.375, 1.61, 2.19)
    assert band_wavelengths(SENTINEL2) == wanted
    assert band_wavelengths([name.replace("B0", "B") for name in SENTINEL2]) == wanted  # B8A and B12 settle it
    assert band_wavelengths(SENTINEL2, sensor="Sentinel-2") == wanted


@pytest.mark.parametrize("sensor", SENSORS)
def test_each_sensors_names_are_known_with_the_sensor(sensor):
    found = band_wavelengths(list(SENSORS[sensor]), sensor=sensor)
    assert found == tuple(um for um, _ in SENSORS[sensor].values())


def test_numbers_that_two_sensors_read_differently_are_unknown():
    assert band_wavelengths(["B2", "B3", "B4", "B5"]) == (0.49, 0.56, 0.665, None)
    assert band_wavelengths(["B4", "B3", "B2", "B5"], sensor="landsat-7") == (0.835, 0.66, 0.56, 1.65)
    assert band_wavelengths(["SR_B4", "SR_B5"], sensor="landsat-9") == (0.655, 0.865)
    assert band_wavelengths(["B1", "B6_VCID_1"]) == (0.485, 11.45)


@pytest.mark.parametrize("name", ["rededge1", "RedEdge-1", "red edge 1", "Red_Edge_1"])
def test_common_names_are_known_in_any_spelling(name):
    assert band_wavelengths([name]) == (0.705,)


def test_what_is_no_optical_band_is_unknown():
    assert band_wavelengths(["elevation", "VV", "ndvi", ""]) == (None,) * 4


@given(st.lists(st.sampled_from([*COMMON, *SENTINEL2, "dem"]), max_size=8), st.floats(0.3, 14))
def test_what_is_said_wins_and_leaves_the_others(names, um):
    names = [*names, "odd"]
    found = band_wavelengths(names, given={"odd": um})
    assert found[-1] == um
    assert found[:-1] == band_wavelengths(names)[:-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sensor": "sentinel2"}, "sensor 'sentinel2' is unknown; known are sentinel-2"),
        ({"given": {"rad": 0.6}}, "names 'rad', which is no band; bands are red"),
        ({"given": {"red": 665}}, "needed are micrometres, such as 0.665"),
        ({"given": {"red": float("nan")}}, "needed are micrometres"),
    ],
)
def test_what_makes_no_sense_is_one_line(options, words):
    with pytest.raises(InputError, match=words):
        band_wavelengths(["red", "nir"], **options)


def test_unknown_bands_are_named_or_numbered():
    assert unknown_bands((0.6, None), ["red", "dem"], bands=2) == "dem"
    assert unknown_bands(None, None, bands=2) == "band 1, band 2"
    assert unknown_bands((0.6,), None, bands=1) == ""


def test_a_bandwidth_is_that_of_the_nearest_band():
    assert [bandwidth_um(um) for um in (0.5, 0.83, 1.6, 11.0)] == [0.065, 0.115, 0.09, 0.18]


@pytest.mark.parametrize(
    ("names", "sensor"),
    [
        (["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"], "landsat-7"),
        (["SR_B4", "SR_B3", "ST_B6"], "landsat-7"),
        (["SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7"], "landsat-8"),
        (["SR_B4", "ST_B10"], "landsat-8"),
    ],
)
def test_names_of_landsats_collection_2_are_no_other_sensors(names, sensor):
    assert band_wavelengths(names) == band_wavelengths(names, sensor=sensor)


def test_names_of_collection_2_that_could_be_either_are_unknown():
    assert band_wavelengths(["SR_B4", "SR_B3"]) == (None, None)
