"""Metres on the ground in any CRS, and the lattice that follows."""

from __future__ import annotations

import logging
from math import ceil
from types import SimpleNamespace

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, GridError, InputError
from geoseg.infer.scale import LARGEST_SCALED_PX, ground_sampling_distance, lattice_for, match_scene, scale_for


def grid(crs: str | None, *, x: float, y: float, dx: float, dy: float, side: int = 100) -> GeoBox:
    """A grid of `side` pixels around the point `(x, y)`."""
    return GeoBox((side, side), Affine(dx, 0, x - dx * side / 2, 0, -dy, y + dy * side / 2), crs)


def test_bands_are_matched_by_name_whatever_the_case() -> None:
    assert match_scene(SimpleNamespace(bands=("green", "red", "NIR")), ["nir", "RED"]) == (2, 1)


def test_lacking_bands_are_refused_with_both_lists() -> None:
    with pytest.raises(BandError, match=r"\[red, nir\], the scene has \[band1, band2\]"):
        match_scene(SimpleNamespace(bands=("band1", "band2")), ["red", "nir"])


def test_metres_of_a_utm_grid() -> None:
    found = ground_sampling_distance(grid("EPSG:32633", x=500_000, y=5_000_000, dx=10, dy=20))
    assert found == pytest.approx((20, 10), rel=5e-4)  # UTM's scale on its central meridian is 0.9996


@pytest.mark.parametrize("degrees", [0.0001, 0.001])
def test_metres_of_degrees(degrees: float) -> None:
    # Lengths of a degree on WGS 84 at 45 degrees north: 111 132 m of latitude, 78 847 m of longitude (NGA TR8350.2).
    found = ground_sampling_distance(grid("EPSG:4326", x=15, y=45, dx=degrees, dy=degrees))
    assert found == pytest.approx((111_132 * degrees, 78_847 * degrees), rel=1e-4)


def test_web_mercator_at_60_degrees_has_half_the_metres() -> None:
    found = ground_sampling_distance(grid("EPSG:3857", x=1_000_000, y=8_399_737.89, dx=10, dy=10))
    assert found == pytest.approx((5, 5), rel=5e-3)


def test_feet_are_converted() -> None:
    found = ground_sampling_distance(grid("EPSG:2263", x=984_000, y=200_000, dx=1, dy=1))
    assert found == pytest.approx((0.3048, 0.3048), rel=1e-3)


def test_a_rotated_grid_has_the_same_metres() -> None:
    turned = Affine(8, 6, 500_000, 6, -8, 5_000_000)
    found = ground_sampling_distance(GeoBox((50, 50), turned, "EPSG:32633"))
    assert found == pytest.approx((10, 10), rel=5e-4)


def test_a_grid_off_the_earth_is_measured_in_its_own_unit() -> None:
    found = ground_sampling_distance(grid("EPSG:32633", x=5e9, y=5e9, dx=10, dy=10))
    assert found == pytest.approx((10, 10))


def test_without_a_crs_nothing_is_known_and_nothing_resampled(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert scale_for(grid(None, x=0, y=0, dx=1, dy=1), (10.0, 10.0)) == (1.0, 1.0)
    assert "unknown" in caplog.text


def test_five_percent_is_the_same_resolution() -> None:
    scene = grid("EPSG:32633", x=500_000, y=5_000_000, dx=10, dy=10)
    assert scale_for(scene, (9.6, 10.4)) == (1.0, 1.0)
    assert scale_for(scene, (9.0, 10.0)) == pytest.approx((1.111, 1.0), rel=1e-3)


def test_factors_are_the_models_pixels_for_one_of_the_scene() -> None:
    scene = grid("EPSG:32633", x=500_000, y=5_000_000, dx=10, dy=30)
    assert scale_for(scene, (10.0, 10.0)) == pytest.approx((3, 1), rel=1e-3)
    assert scale_for(scene, (30.0, 30.0)) == pytest.approx((1, 1 / 3), rel=1e-3)


def test_pixels_far_apart_are_refused() -> None:
    scene = grid("EPSG:32633", x=500_000, y=5_000_000, dx=0.25, dy=0.25)
    with pytest.raises(GridError, match=r"0\.2\d* x 0\.2\d* m.* 10 x 10 m.*--native"):
        scale_for(scene, (10.0, 10.0))


@given(
    shape=st.tuples(st.integers(1, 6000), st.integers(1, 6000)), tile=st.sampled_from([64, 256, 512]),
    overlap=st.integers(0, 32), scale=st.tuples(st.floats(1 / 16, 16), st.floats(1 / 16, 16)),
)  # fmt: skip
def test_a_resampled_tile_is_whole_pixels_here_and_multiples_of_32_there(
    shape: tuple[int, int], tile: int, overlap: int, scale: tuple[float, float]
) -> None:
    found = lattice_for(shape, tile_px=tile, overlap_px=overlap, scale=scale)
    axes = zip((found.tiling.rows, found.tiling.cols), found.model_shape, scale, strict=True)
    for axis, model_px, factor in axes:
        assert model_px % 32 == 0
        assert model_px <= tile
        assert axis.tile <= LARGEST_SCALED_PX
        off = 0.55 * factor / min(tile, 32 * ceil(factor))  # half a pixel of the scene in a unit of the model
        assert model_px / axis.tile == pytest.approx(factor, rel=off)
        assert axis.stride > 0
        assert (axis.count - 1) * axis.stride + axis.tile >= axis.size
        assert axis.overlap >= min(overlap / factor, axis.tile // 2) or axis.count == 1


def test_usual_factors_are_met_exactly() -> None:
    third = lattice_for((2880, 5000), tile_px=512, overlap_px=64, scale=(1 / 3, 3.0))
    assert (third.tiling.tile_shape, third.model_shape) == ((1536, 160), (512, 480))
    assert (third.tiling.rows.overlap, third.tiling.cols.overlap) == (192, 22)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (20, 33), (32, 32)])
def test_a_scene_smaller_than_the_overlap_has_tiles(shape: tuple[int, int]) -> None:
    tiling = lattice_for(shape, tile_px=512, overlap_px=64, scale=(1.0, 1.0)).tiling
    assert min(tiling.count) >= 1
    assert len(list(tiling.touching(tiling.scene))) == tiling.count[0] * tiling.count[1]


@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 2.0)])
@pytest.mark.parametrize(("tile", "overlap"), [(100, 10), (0, 0), (64, 33), (64, -1)])
def test_numbers_that_do_not_fit_are_refused(scale: tuple[float, float], tile: int, overlap: int) -> None:
    with pytest.raises(InputError, match="needed"):
        lattice_for((500, 500), tile_px=tile, overlap_px=overlap, scale=scale)
