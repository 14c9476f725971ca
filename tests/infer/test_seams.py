"""Seams are counted pair by pair, found where they were planted and not where there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import isnan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from geoseg.errors import InputError, MissingInputError, ReadError
from geoseg.infer import seams
from geoseg.infer.seams import Crossings, SeamReport, border_lines, check_seams
from geoseg.tiling import Axis, Tiling

NODATA = 255


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a class map of given pixels."""
    folder, count = tmp_path_factory.mktemp("maps"), iter(range(10**6))

    def make(pixels: NDArray[Any], *, nodata: int | None = NODATA) -> Path:
        path = folder / f"{next(count)}.tif"
        profile = {"driver": "GTiff", "count": 1, "height": pixels.shape[0], "width": pixels.shape[1], "dtype": "uint8",
                   "nodata": nodata, "crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5e6),
                   "compress": "deflate"}  # fmt: skip
        with rasterio.open(path, "w", **profile) as file:
            file.write(pixels.astype(np.uint8), 1)
        return path

    return make


def blobs(shape: tuple[int, int], *, seed: int, sigma: float = 6.0) -> NDArray[np.uint8]:
    """Four classes in blobs of a few `sigma`, with no grid in them."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return np.digitize(noise, np.quantile(noise, [0.25, 0.5, 0.75])).astype(np.uint8)


def by_hand(pixels: NDArray[Any], tiling: Tiling, nodata: int | None) -> list[int]:
    """Pairs and changes at borders, then elsewhere: two loops over all pairs."""
    edges = []
    for axis in (tiling.rows, tiling.cols):
        spans = [(index * axis.stride, index * axis.stride + axis.tile) for index in range(axis.count)]
        edges.append({edge for span in spans for edge in span})
    found = [0, 0, 0, 0]
    for row in range(pixels.shape[0]):
        for col in range(pixels.shape[1]):
            for side, at, other in ((0, row, (row - 1, col)), (1, col, (row, col - 1))):
                if at == 0 or nodata in (pixels[row, col], pixels[other]):
                    continue
                place = 0 if at in edges[side] else 2
                found[place] += 1
                found[place + 1] += int(pixels[row, col] != pixels[other])
    return found


def sums(report: SeamReport) -> list[int]:
    return [report.border_pairs, report.border_changes, report.interior_pairs, report.interior_changes]


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    largest = draw(st.integers(1, 9))
    overlap = draw(st.integers(0, largest // 2))
    return Axis.fit(draw(st.integers(1, 24)), largest_tile=largest, overlap=overlap, multiple=1)


@given(axes(), axes(), st.sampled_from([None, 0, NODATA]), st.integers(0, 10**6), st.integers(1, 24))
def test_counts_are_those_of_all_pairs_one_by_one_for_any_band(
    rows: Axis, cols: Axis, nodata: int | None, seed: int, step: int
) -> None:
    rng, tiling = np.random.default_rng(seed), Tiling(rows, cols)
    pixels = rng.integers(0, rng.integers(1, 5), (rows.size, cols.size))
    pixels[rng.random(pixels.shape) < 0.2] = NODATA
    bands = [pixels[row : row + step] for row in range(0, rows.size, step)]
    across, down = seams._count(iter(bands), pixels.shape, nodata)
    report = SeamReport(Crossings.count(*across, border_lines(cols)), Crossings.count(*down, border_lines(rows)))
    assert sums(report) == by_hand(pixels, tiling, nodata)


@pytest.mark.parametrize("shape", [(1, 70), (70, 1), (1, 1), (90, 130)])
@pytest.mark.parametrize("nodata", [None, 2, NODATA])
def test_the_file_is_counted_as_the_array_is(
    write: Callable[..., Path], shape: tuple[int, int], nodata: int | None
) -> None:
    pixels = blobs(shape, seed=4)
    tiling = Tiling.over(shape, largest_tile_px=32, overlap_px=6, multiple=2)
    report = check_seams(write(pixels, nodata=nodata), tiling)
    assert sums(report) == by_hand(pixels, tiling, nodata)
    assert all(type(number) is int for number in sums(report))


def test_any_size_of_band_gives_the_same_report(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = blobs((150, 90), seed=5)
    pixels[40:60, 20:50] = NODATA
    path, tiling = write(pixels), Tiling.over((150, 90), largest_tile_px=64, overlap_px=16)
    reports = [check_seams(path, tiling)]
    for band_rows, band_px in ((1, 10**6), (7, 10**6), (64, 10**6), (512, 1), (512, 90 * 33)):
        monkeypatch.setattr(seams, "BAND_ROWS", band_rows)
        monkeypatch.setattr(seams, "BAND_PX", band_px)
        reports.append(check_seams(path, tiling))
    assert reports == reports[:1] * 6


def test_never_more_than_a_band_is_read(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(blobs((1100, 40), seed=6))
    with rasterio.open(path) as opened:
        assert [band.shape for band in seams._bands(opened, str(path))] == [(512, 40), (512, 40), (76, 40)]
        monkeypatch.setattr(seams, "BAND_PX", 40 * 100)
        assert {band.shape[0] for band in seams._bands(opened, str(path))} == {100}


def test_a_scene_of_one_tile_has_no_borders(write: Callable[..., Path]) -> None:
    report = check_seams(write(blobs((60, 60), seed=7)), Tiling.over((60, 60)))
    assert (report.border_pairs, report.excess) == (0, 0.0)
    assert report.interior_rate == report.interior_changes / (2 * 60 * 59)
    assert isnan(report.z_score)
    assert isnan(report.z_score_of_pairs)
    assert str(report).startswith("seams: no tile borders; classes change across ")


@pytest.mark.parametrize("value", [1, NODATA])
def test_a_map_of_one_class_or_of_none_has_no_excess(write: Callable[..., Path], value: int) -> None:
    report = check_seams(write(np.full((100, 100), value)), Tiling.over((100, 100), largest_tile_px=32, overlap_px=0))
    assert (report.border_changes, report.interior_changes, report.excess) == (0, 0, 0.0)
    assert report.border_pairs == (0 if value == NODATA else 6 * 100)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["z_score"] is None


def test_borders_are_where_tiles_start_and_end_inside_the_scene() -> None:
    tiling = Tiling.over((1000, 300), largest_tile_px=384, overlap_px=64)
    assert (tiling.rows.stride, tiling.rows.count, tiling.cols.count) == (320, 3, 1)
    # Tiles cover 0 to 384, 320 to 704 and 640 to 1024.
    assert (np.flatnonzero(border_lines(tiling.rows)) + 1).tolist() == [320, 384, 640, 704]
    assert not border_lines(tiling.cols).any()


def planted(tiling: Tiling, *, seed: int, share: float) -> NDArray[np.uint8]:
    """Blobs in which `share` of the pixels right of and below tile borders hold another class than before."""
    pixels = blobs((tiling.rows.size, tiling.cols.size), seed=seed)
    struck = np.random.default_rng(seed).random(pixels.shape) < share
    at = np.zeros(pixels.shape, np.bool_)
    at[1:][border_lines(tiling.rows)] = True
    at[:, 1:][:, border_lines(tiling.cols)] = True
    return np.where(at & struck, (pixels + 1) % 4, pixels).astype(np.uint8)


def test_a_planted_seam_is_found(write: Callable[..., Path]) -> None:
    tiling = Tiling.over((600, 800), largest_tile_px=128, overlap_px=32)
    report = check_seams(write(planted(tiling, seed=8, share=0.5)), tiling)
    assert report.excess > 2
    assert report.z_score > 5


def test_a_seam_off_the_lattice_is_none_of_the_lattices(write: Callable[..., Path]) -> None:
    tiling = Tiling.over((600, 800), largest_tile_px=128, overlap_px=32)
    shifted = np.roll(planted(tiling, seed=8, share=0.5), (11, 13), axis=(0, 1))
    assert check_seams(write(shifted), tiling).z_score < 2


def reports_without_seams(write: Callable[..., Path], count: int = 30) -> list[SeamReport]:
    tiling = Tiling.over((500, 500), largest_tile_px=128, overlap_px=32)
    return [check_seams(write(blobs((500, 500), seed=seed)), tiling) for seed in range(100, 100 + count)]


def test_blobs_without_a_seam_have_no_excess_and_lines_are_the_honest_observations(write: Callable[..., Path]) -> None:
    reports = reports_without_seams(write)
    excess = np.array([report.excess for report in reports])
    by_line = np.array([report.z_score for report in reports])
    by_pair = np.array([report.z_score_of_pairs for report in reports])
    assert abs(excess.mean()) < 0.03
    assert np.abs(excess).max() < 0.2
    # Were the scores of a standard normal, 5 % of them would lie beyond 2.
    assert (np.abs(by_line) > 2).mean() <= 0.1
    assert 0.5 < np.sqrt((by_line**2).mean()) < 1.4
    assert np.sqrt((by_pair**2).mean()) > 1.4


def test_a_landscape_of_stripes_is_no_seam(write: Callable[..., Path]) -> None:
    """Classes change ten times as often from row to row as from column to column; eleven tiles lie across, two down."""
    rng = np.random.default_rng(9)
    rows, cols = (np.cumsum(rng.random(size) < rate) for size, rate in ((240, 0.2), (1200, 0.02)))
    pixels = (rows[:, None] + cols) % 5
    tiling = Tiling.over((240, 1200), largest_tile_px=128, overlap_px=16)
    assert tiling.count == (2, 11)
    report = check_seams(write(pixels), tiling)
    plain = report.interior_changes / report.interior_pairs
    assert report.border_rate / plain - 1 < -0.4
    assert abs(report.z_score) < 2
    share = report.rows.border_pairs / report.border_pairs
    mixed = share * report.rows.interior_rate + (1 - share) * report.cols.interior_rate
    assert report.interior_rate == pytest.approx(mixed)


def test_the_scores_are_the_textbooks() -> None:
    """Fleiss' two-proportion test, and the sample variance of lines of one length, worked out otherwise."""
    changes = np.array([3, 9, 4, 6, 5, 1, 30])
    border = np.array([False, True, False, False, True, False, False])
    pairs = np.full(7, 50)
    none = Crossings.count(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    report = SeamReport(Crossings.count(pairs, changes, border), none)
    rates = changes / 50
    error = rates[~border].std(ddof=1) * sqrt(1 / 2 + 1 / 5)
    assert report.standard_error == pytest.approx(error)
    assert report.z_score == pytest.approx((rates[border].mean() - rates[~border].mean()) / error)
    # The square of the score is the chi-square of the two-by-two table: n (ad - bc)^2 / (products of the margins).
    a, b, c, d = 14, 86, 44, 206
    chi_square = 350 * (a * d - b * c) ** 2 / ((a + b) * (c + d) * (a + c) * (b + d))
    assert report.z_score_of_pairs**2 == pytest.approx(chi_square)


def test_a_report_is_one_line_and_plain_values(write: Callable[..., Path]) -> None:
    interior = Crossings(2, 10_000, 123, 98, 490_000, 5_880, variance=1e-6)
    report = SeamReport(interior, Crossings(0, 0, 0, 9, 900, 0, variance=0.0))
    assert str(report) == (
        "seams: classes change across 1.23 % of neighbouring pixels at tile borders and 1.20 % elsewhere (+2.5 %)"
    )
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["excess"] == pytest.approx(0.025)
    assert found["z_score"] == pytest.approx(0.3)
    assert found["cols"]["border_lines"] == 2
    assert found["interior_pairs"] == 490_900


def test_changes_at_borders_only_are_an_infinite_excess(write: Callable[..., Path]) -> None:
    pixels = np.repeat([[0, 1, 2]], 32, axis=1).repeat(40, axis=0)
    report = check_seams(write(pixels), Tiling.over((40, 96), largest_tile_px=32, overlap_px=0))
    assert report.excess == np.inf
    assert report.to_dict()["excess"] is None
    assert "(none elsewhere)" in str(report)


def test_another_scenes_tiles_are_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="is 20 x 30 px, the tiles cover 30 x 20; needed are the tiles"):
        check_seams(write(np.zeros((20, 30))), Tiling.over((30, 20)))


def test_a_map_that_is_not_there_or_damaged_is_one_line(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="is not there"):
        check_seams(tmp_path / "none.tif", Tiling.over((30, 20)))
    path = write(np.random.default_rng(0).integers(0, 9, (700, 700)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"cannot be (read at rows|opened)"):
        check_seams(path, Tiling.over((700, 700)))
