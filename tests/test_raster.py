"""Pixels with a place: parts that do not fit are refused, bands are found by name."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, InputError
from geoseg.raster import Raster, match_bands

GEOBOX = GeoBox((2, 3), Affine(10, 0, 0, 0, -10, 0), "EPSG:32612")
PIXELS = np.arange(18, dtype="uint16").reshape(3, 2, 3)
VALID = np.array([[True, True, False], [True, False, True]])


def raster(**parts):
    given_parts = {"pixels": PIXELS, "valid": VALID, "geobox": GEOBOX, "bands": ("blue", "red", "NIR")} | parts
    return Raster(**given_parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"pixels": PIXELS[0]}, "must be (band, row, col), got 2 dimensions"),
        ({"valid": VALID.astype("uint8")}, "valid must be bool"),
        ({"valid": VALID[:1]}, "valid must be bool (2, 3), got bool (1, 3)"),
        ({"geobox": GeoBox((2, 2), GEOBOX.affine, GEOBOX.crs)}, "geobox is (2, 2), pixels are (2, 3)"),
        ({"bands": ("a",)}, "1 band names for 3 bands"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    with pytest.raises(InputError) as caught:
        raster(**parts)
    assert message in str(caught.value)


def test_select_by_name_in_any_order():
    chosen = raster().select(["nir", "Blue"])
    assert chosen.bands == ("NIR", "blue")
    assert (chosen.pixels == PIXELS[[2, 0]]).all()
    assert chosen.valid is VALID
    assert chosen.geobox == GEOBOX
    assert chosen.dtype == np.uint16


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        raster().bands = ("a", "b", "c")


def test_missing_bands_name_both_lists():
    with pytest.raises(BandError) as caught:
        raster().select(["red", "swir"])
    assert "needed bands are [red, swir], the scene has [blue, red, NIR]" in str(caught.value)


def test_a_name_that_is_there_twice_is_ambiguous():
    with pytest.raises(BandError, match="scene has"):
        match_bands(["red"], ["red", "RED"])


@given(st.permutations(["b1", "b2", "b3", "b4"]), st.lists(st.sampled_from(["B1", "b2", "B3"]), max_size=5))
def test_positions_point_at_the_names(offered, wanted):
    found = match_bands(wanted, offered)
    assert [offered[position] for position in found] == [name.lower() for name in wanted]
