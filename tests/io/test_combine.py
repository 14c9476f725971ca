"""Stacks and mosaics: every band and every pixel where it belongs, no seam, first valid wins."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geoseg.errors import BandError, GridError, InputError
from geoseg.io import combine
from geoseg.io.combine import BandStack, Mosaic, Picked, pick
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import crop, grids_meet, rectangles
from geoseg.io.resample import RESAMPLINGS
from geoseg.io.sources import open_source
from geoseg.tiling import Window

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)
SCENE = np.random.default_rng(5).integers(1, 5000, (2, 90, 120)).astype("uint16")


@pytest.fixture
def tiles(write_tif):
    """The scene in nine tiles of uneven size, and whole."""
    whole = write_tif("whole.tif", SCENE)
    paths = []
    for row, rows in ((0, 31), (31, 29), (60, 30)):
        for col, cols in ((0, 50), (50, 33), (83, 37)):
            part = SCENE[:, row : row + rows, col : col + cols]
            paths.append(write_tif(f"{row}_{col}.tif", part, affine=UTM @ Affine.translation(col, row)))
    return GdalSource(whole), Mosaic(tuple(GdalSource(path) for path in paths))


@pytest.mark.parametrize(
    "target",
    [
        GeoBox((90, 120), UTM, "EPSG:32612"),
        GeoBox((130, 140), UTM @ Affine.translation(-9, -20), "EPSG:32612"),
        GeoBox((80, 100), UTM @ Affine.translation(5.5, 3.25) @ Affine.scale(0.9), "EPSG:32612"),
        GeoBox((60, 80), UTM @ Affine.translation(3, 2) @ Affine.rotation(9) @ Affine.scale(1.3), "EPSG:32612"),
        GeoBox((90, 100), Affine(0.0001, 0, -110.999, 0, -0.00008, 37.9465), "EPSG:4326"),
    ],
    ids=["own", "beyond", "shifted", "rotated", "degrees"],
)
@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "nearest"])
def test_a_mosaic_of_pieces_is_the_whole_on_any_grid(tiles, target, resampling):
    whole, mosaic = tiles
    expected = GdalSource(whole.path, resampling=resampling).read(target)
    found = Mosaic(mosaic.members, resampling=resampling).read(target)
    assert expected.valid.any()
    assert np.array_equal(found.valid, expected.valid)
    assert np.array_equal(found.pixels[:, found.valid], expected.pixels[:, found.valid])


MEANS = ["bilinear", "cubic", "average"]


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "target",
    [
        GeoBox((45, 60), UTM @ Affine.scale(2), "EPSG:32612"),
        GeoBox((23, 30), UTM @ Affine.scale(4), "EPSG:32612"),
        GeoBox((14, 19), UTM @ Affine.translation(-5, 3) @ Affine.scale(7), "EPSG:32612"),
        GeoBox((30, 40), UTM @ Affine.translation(-9.7, 3.2) @ Affine.scale(3.3), "EPSG:32612"),
        GeoBox((30, 40), UTM @ Affine.translation(6, 2) @ Affine.rotation(9) @ Affine.scale(5.5), "EPSG:32612"),
        GeoBox((30, 30), Affine(0.0004, 0, -110.999, 0, -0.0003, 37.9465), "EPSG:4326"),
    ],
    ids=["twice", "four times", "seven times", "shifted", "rotated", "degrees"],
)
def test_a_mosaic_shrinks_as_the_whole_does(tiles, target, resampling, order):
    whole, mosaic = tiles
    expected = GdalSource(whole.path, resampling=resampling).read(target)
    found = Mosaic(mosaic.members[::order], resampling=resampling).read(target)
    assert expected.valid.any()
    assert np.array_equal(found.valid, expected.valid)
    assert np.array_equal(found.pixels[:, found.valid], expected.pixels[:, found.valid])


@pytest.mark.parametrize("resampling", [*MEANS, "mode"])
@pytest.mark.parametrize("factor", [2, 3, 8])
def test_pieces_that_overlap_and_have_holes_shrink_as_their_composite_does(write_tif, resampling, factor):
    rng = np.random.default_rng(factor)
    pieces, composite = [], np.zeros((70, 90), "uint8")
    for number in range(6):
        row, col = rng.integers(0, 40), rng.integers(0, 50)
        pixels = rng.integers(1, 5, (30, 40)).astype("uint8")
        pixels[rng.random(pixels.shape) < 0.4] = 0
        pieces.append(write_tif(f"{number}.tif", pixels, nodata=0, affine=UTM @ Affine.translation(col, row)))
        under = composite[row : row + 30, col : col + 40]
        under[:] = np.where(under > 0, under, pixels)
    whole = GdalSource(write_tif("w.tif", composite, nodata=0), resampling=resampling)
    mosaic = Mosaic(tuple(GdalSource(path, resampling=resampling) for path in pieces), resampling=resampling)
    target = GeoBox((70 // factor, 90 // factor), UTM @ Affine.scale(factor), "EPSG:32612")
    found, expected = mosaic.read(target), whole.read(target)
    assert np.array_equal(found.valid, expected.valid)
    assert np.array_equal(found.pixels[:, found.valid], expected.pixels[:, found.valid])


@pytest.mark.parametrize("factor", [12, 16, 30, 64])
def test_where_pieces_meet_the_first_has_an_eighth_of_a_wide_pixel_too_much_at_most(write_tif, factor):
    steps = np.repeat(np.array([[0, 4000]], "uint16"), [factor + factor // 3, 2 * factor - factor // 3], axis=1)
    scene = np.repeat(steps, 2 * factor, axis=0)
    cut = factor + factor // 3
    left = write_tif("l.tif", scene[:, :cut])
    right = write_tif("r.tif", scene[:, cut:], affine=UTM @ Affine.translation(cut, 0))
    target = GeoBox((2, 3), UTM @ Affine.scale(factor), "EPSG:32612")
    expected = np.array([0, 4000 * (1 - factor // 3 / factor), 4000])
    for paths in ((left, right), (right, left)):
        found = Mosaic(tuple(GdalSource(path) for path in paths)).read(target)
        assert found.valid.all()
        assert np.abs(found.pixels[0] - expected).max() <= 4000 / 8
    modes = Mosaic(tuple(GdalSource(path, resampling="mode") for path in (left, right)), resampling="mode").read(target)
    assert modes.pixels[0].tolist() == [[0, 4000, 4000]] * 2


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("scale", [3, 3.3, 9.3, 16])
def test_a_window_of_a_shrunk_mosaic_is_the_read_of_the_window(tiles, resampling, scale):
    mosaic = Mosaic(tiles[1].members, resampling=resampling)
    affine = UTM @ Affine.translation(-9, -9) @ Affine.scale(scale)
    target = GeoBox((int(110 / scale), int(140 / scale)), affine, "EPSG:32612")
    whole = mosaic.read(target)
    for row in range(0, target.shape[0] - 2, 2):
        for col in range(0, target.shape[1] - 3, 3):
            window = Window(row, col, 2, 3)
            part = mosaic.read(crop(target, window))
            assert np.array_equal(part.valid, whole.valid[window.slices])
            assert np.array_equal(part.pixels[:, part.valid], whole.pixels[:, *window.slices][:, part.valid])


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_beyond_its_edge_a_piece_takes_no_pixel_from_its_neighbour(write_tif, resampling):
    one = write_tif("a.tif", np.full((40, 37), 1, "uint8"))
    two = write_tif("b.tif", np.full((40, 40), 2, "uint8"), affine=UTM @ Affine.translation(37, 0.5))
    pieces = tuple(GdalSource(path, resampling=resampling) for path in (one, two))
    target = GeoBox((9, 18), UTM @ Affine.translation(2.75, 1) @ Affine.scale(4), "EPSG:32612")
    found = Mosaic(pieces, resampling=resampling).read(target)
    column = 2.75 + 4 * (np.arange(18) + 0.5)
    assert found.valid.all()
    assert np.array_equal(found.pixels[0], np.broadcast_to(np.where(column < 37, 1, 2), (9, 18)))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_rectangles_hold_each_pixel_of_a_mask_once(share):
    mask = np.random.default_rng(9).random((17, 23)) < share
    held = np.zeros(mask.shape, int)
    for window in rectangles(mask):
        held[window.slices] += 1
    assert np.array_equal(held, mask)
    banded = np.zeros((50, 60), bool)
    banded[10:12], banded[:, 20:23] = True, True
    assert list(rectangles(banded)) == [Window(0, 20, 10, 3), Window(10, 0, 2, 60), Window(12, 20, 38, 3)]


def test_a_mosaic_is_put_together_in_pieces_that_fit(tiles, monkeypatch):
    _, mosaic = tiles
    target = GeoBox((30, 40), UTM @ Affine.scale(3), "EPSG:32612")
    at_once, largest = mosaic.read(target), []
    read = GdalSource.read
    monkeypatch.setattr(combine, "COMPOSED_SAMPLES", 200)
    monkeypatch.setattr(
        GdalSource,
        "read",
        lambda self, box: (largest.append((box.resolution.x, np.prod(box.shape))), read(self, box))[1],
    )
    in_pieces = mosaic.read(target)
    assert np.array_equal(at_once.pixels, in_pieces.pixels)
    assert max(size for step, size in largest if step == 10) <= 100


def test_a_mosaic_that_shrinks_takes_the_overviews_of_its_pieces(write_tif, monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 255, (512, 512), "uint8")
    paths = []
    for col in (0, 512):
        paths.append(write_tif(f"{col}.tif", pixels, affine=UTM @ Affine.translation(col, 0), tiled=True))
        with rasterio.open(paths[-1], "r+") as file:
            file.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    seen, decode = [], GdalSource._decode_inside
    monkeypatch.setattr(
        GdalSource,
        "_decode_inside",
        lambda self, level, window: (seen.append((window.rows, window.cols)), decode(self, level, window))[1],
    )
    mosaic = Mosaic(tuple(GdalSource(path) for path in paths))
    for factor in (4, 32):
        seen.clear()
        mosaic.read(GeoBox((512 // factor, 1024 // factor), UTM @ Affine.scale(factor), "EPSG:32612"))
        assert sum(rows * cols for rows, cols in seen) < 2 * 512 * 512 / min(factor, 8) ** 2 * 1.2


@pytest.mark.parametrize("way", ["nearest", "mode", "cubic"])
def test_pieces_keep_the_resampling_that_they_say_themselves(tiles, way):
    whole, mosaic = tiles
    target = GeoBox((30, 40), UTM @ Affine.translation(0.4, 0.3) @ Affine.scale(1.4), "EPSG:32612")
    found = open_source([{"path": member.path, "resampling": way} for member in mosaic.members])
    expected = GdalSource(whole.path, resampling=way).read(target)
    assert np.array_equal(found.read(target).pixels, expected.pixels)


def test_one_piece_may_say_another_resampling_than_the_rest(write_tif):
    stripes = np.tile(np.array([[10, 90]], "uint8"), (8, 4))
    paths = [write_tif(f"{col}.tif", stripes, affine=UTM @ Affine.translation(col, 0)) for col in (0, 8)]
    target = GeoBox((6, 14), UTM @ Affine.translation(0.5, 0.4), "EPSG:32612")
    for options in ({}, {"resampling": "cubic"}):
        spec = {"mosaic": [{"path": paths[0], "resampling": "nearest"}, paths[1]], **options}
        found = open_source(spec).read(target).pixels[0]
        assert set(found[:, :7].ravel().tolist()) == {10, 90}
        assert set(found[:, 9:13].ravel().tolist()) == {50}
    opened = open_source({"mosaic": [open_source(path) for path in paths], "resampling": "nearest"})
    assert set(opened.read(target).pixels[0].ravel().tolist()) == {10, 90}


def test_a_mosaics_resampling_is_that_of_its_pieces_too(tiles):
    whole, mosaic = tiles
    target = GeoBox((30, 40), UTM @ Affine.scale(3), "EPSG:32612")
    for resampling in ("nearest", "mode"):
        named = Mosaic(tuple(Picked(member, (0, 1), ("a", "b")) for member in mosaic.members), resampling=resampling)
        expected = GdalSource(whole.path, resampling=resampling).read(target)
        assert np.array_equal(named.read(target).pixels, expected.pixels)


def test_the_mosaics_grid_is_that_of_the_whole(tiles):
    whole, mosaic = tiles
    assert mosaic.geobox == whole.geobox
    assert Mosaic(mosaic.members[::-1]).geobox == whole.geobox
    assert Mosaic(mosaic.members[4:]).geobox.shape == (59, 120)


def test_the_first_valid_pixel_wins(write_tif):
    one = np.array([[1, 0, 1, 0]], dtype="uint8")
    two = np.array([[2, 2, 0, 0]], dtype="uint8")
    mosaic = open_source([write_tif("1.tif", one, nodata=0), write_tif("2.tif", two, nodata=0)])
    found = mosaic.read(mosaic.geobox)
    assert found.valid.tolist() == [[True, True, True, False]]
    assert found.pixels[0, 0, :3].tolist() == [1, 2, 1]


def test_members_match_by_name_whatever_their_order(write_tif):
    one = write_tif("1.tif", np.array([[[1]], [[2]]], "uint8"), names=("red", "nir"))
    two = write_tif(
        "2.tif", np.array([[[20]], [[10]]], "uint8"), names=("NIR", "Red"), affine=UTM @ Affine.translation(1, 0)
    )
    mosaic = open_source([one, two])
    assert mosaic.bands == ("red", "nir")
    assert mosaic.read(mosaic.geobox).pixels[:, 0].tolist() == [[1, 10], [2, 20]]
    assert mosaic.read(mosaic.geobox).valid.all()


def test_members_without_a_band_are_told(write_tif):
    one = write_tif("1.tif", np.zeros((2, 2, 2), "uint8"), names=("red", "nir"))
    two = write_tif("2.tif", np.zeros((1, 2, 2), "uint8"), names=("red",))
    mosaic = open_source([one, two])
    with pytest.raises(BandError, match="nir"):
        mosaic.read(mosaic.geobox)


def test_a_mosaic_of_two_zones_covers_both(write_tif):
    rng = np.random.default_rng(2)
    one = GdalSource(
        write_tif("12.tif", rng.integers(1, 99, (60, 60), "uint8"), affine=Affine(30, 0, 200_000, 0, -30, 4_100_000))
    )
    # The same place lies about 3 degrees east of zone 11's middle at 732 km.
    other_affine = Affine(20, 0, 733_500, 0, -20, 4_102_000)
    two = GdalSource(
        write_tif("11.tif", rng.integers(1, 99, (200, 200), "uint8"), affine=other_affine, crs="EPSG:32611")
    )
    mosaic = Mosaic((one, two))
    found = mosaic.read(mosaic.geobox)
    assert abs(mosaic.geobox.resolution.x - 20) < 0.2
    assert mosaic.geobox.crs == one.geobox.crs
    separate = [member.read(mosaic.geobox) for member in (one, two)]
    assert np.array_equal(found.valid, separate[0].valid | separate[1].valid)
    assert np.array_equal(found.pixels[0][separate[0].valid], separate[0].pixels[0][separate[0].valid])
    only_two = separate[1].valid & ~separate[0].valid
    assert only_two.any()
    assert np.array_equal(found.pixels[0][only_two], separate[1].pixels[0][only_two])


def test_members_off_the_grid_leave_no_hole_where_they_abut(write_tif):
    plane = (np.arange(40)[:, None] + np.arange(90)[None, :]).astype("float64")
    left = write_tif("l.tif", plane[:, :41])
    # The same plane, sampled half a pixel on, beginning where the first ends.
    right = write_tif("r.tif", plane[:, 41:80], affine=UTM @ Affine.translation(41, 0.5))
    mosaic = open_source([left, right])
    found = mosaic.read(GeoBox((36, 70), UTM @ Affine.translation(3.3, 2.2), "EPSG:32612"))
    assert found.valid.all()


def test_only_members_that_meet_the_grid_are_opened(tiles, monkeypatch):
    _, mosaic = tiles
    read = []
    original = GdalSource.read
    _ = mosaic.geobox, mosaic.read(mosaic.geobox)
    monkeypatch.setattr(GdalSource, "read", lambda self, geobox: (read.append(self.path), original(self, geobox))[1])
    mosaic.read(crop(mosaic.geobox, Window(5, 5, 10, 10)))
    assert len(read) == 1
    mosaic.read(crop(mosaic.geobox, Window(-900, 5, 10, 10)))
    assert len(read) == 1


def test_a_mosaic_needs_to_know_where_its_members_lie(write_tif):
    paths = [write_tif(f"{i}.tif", np.zeros((2, 2), "uint8"), crs=None) for i in range(2)]
    with pytest.raises(GridError, match=r"no CRS.*crs: EPSG"):
        open_source(paths)
    assert open_source({"mosaic": paths, "crs": "EPSG:32612"}).geobox.shape == (2, 2)


def test_the_mosaic_of_a_coast_has_its_missing_row_and_no_other(shared_data):
    mosaic = open_source(str(shared_data / "aber_tiles" / "*.tif"))
    found = mosaic.read(mosaic.geobox)
    members = [member.geobox for member in mosaic.members]
    covered = np.zeros(mosaic.geobox.shape, dtype=bool)
    for geobox in members:
        col, row = ~mosaic.geobox.affine @ (geobox.affine.c, geobox.affine.f)
        row, col = round(row), round(col)
        covered[row : row + geobox.shape[0], col : col + geobox.shape[1]] = True
    assert np.array_equal(found.valid, covered)
    holes = np.flatnonzero(~covered.any(axis=1))
    assert holes.size == 1
    for member in mosaic.members[::5]:
        with rasterio.open(member.path) as file:
            assert np.array_equal(mosaic.read(member.geobox).pixels, file.read())


# -- stacks ------------------------------------------------------------------------------------------------------------


def test_a_stack_lies_on_its_finest_member_and_reads_each_onto_it(write_tif):
    fine = np.arange(48, dtype="uint16").reshape(1, 6, 8)
    coarse = np.array([[[100, 200, 300, 400], [500, 600, 700, 800], [900, 1000, 1100, 1200]]], dtype="uint16")
    paths = [write_tif("20m.tif", coarse, affine=UTM @ Affine.scale(2)), write_tif("10m.tif", fine)]
    stack = open_source({"stack": paths, "resampling": "nearest"})
    found = stack.read(stack.geobox)
    assert stack.geobox == GeoBox((6, 8), UTM, "EPSG:32612")
    assert found.bands == ("band1", "band2")
    assert np.array_equal(found.pixels[1], fine[0])
    assert np.array_equal(found.pixels[0], np.kron(coarse[0], np.ones((2, 2), "uint16")))


def test_the_first_member_wins_a_tie(write_tif):
    one = write_tif("1.tif", np.zeros((3, 3), "uint8"), affine=UTM @ Affine.translation(1, 1))
    two = write_tif("2.tif", np.zeros((9, 9), "uint8"))
    assert open_source({"stack": [one, two]}).geobox.shape == (3, 3)


def test_resolution_is_compared_on_the_ground(write_tif):
    degrees = write_tif(
        "d.tif", np.zeros((9, 9), "uint8"), affine=Affine(0.001, 0, -111, 0, -0.001, 37.9), crs="EPSG:4326"
    )
    metres = write_tif("m.tif", np.zeros((9, 9), "uint8"))
    assert open_source({"stack": [degrees, metres]}).geobox.crs.to_epsg() == 32612


def test_a_stack_is_valid_where_all_members_are(write_tif):
    one = write_tif("1.tif", np.array([[0, 5, 5]], "uint8"), nodata=0)
    two = write_tif("2.tif", np.array([[7.5, np.nan, 7.5]], "float32"))
    stack = open_source({"stack": [one, two]})
    found = stack.read(stack.geobox)
    assert found.dtype == stack.dtype == np.float32
    assert found.valid.tolist() == [[False, False, True]]


def test_names_of_stacked_bands(write_tif):
    one = write_tif("1.tif", np.zeros((2, 2, 2), "uint8"), names=("blue", "red"))
    two = write_tif("2.tif", np.zeros((2, 2), "uint8"))
    assert open_source({"stack": [two, one, two]}).bands == ("band1", "blue", "red", "band4")
    assert open_source({"stack": [one, two], "bands": ["a", "b", "c"]}).bands == ("a", "b", "c")
    with pytest.raises(BandError, match="share a name"):
        open_source({"stack": [one, one]})
    with pytest.raises(BandError, match="3 bands, 2 names"):
        open_source({"stack": [one, two], "bands": ["a", "b"]})


def test_select_reads_only_the_members_it_needs(write_tif, tmp_path):
    one = GdalSource(write_tif("1.tif", np.ones((2, 3, 3), "uint8"), names=("blue", "red")))
    cloudy = GdalSource(write_tif("2.tif", np.zeros((3, 3), "uint8"), nodata=0), names=("nir",))
    whole = BandStack((one, cloudy))
    chosen = open_source({"stack": [one, cloudy], "select": ["RED"]})
    assert not whole.read(whole.geobox).valid.any()
    assert chosen.bands == ("red",)
    assert chosen.read(whole.geobox).valid.all()
    swapped = open_source({"stack": [one, cloudy], "select": [3, "blue", "red"]})
    assert swapped.read(whole.geobox).pixels[:, 0, 0].tolist() == [0, 1, 1]
    assert [len(member.bands) for member in swapped.members] == [1, 2]


def test_selected_bands_keep_the_grid_of_the_whole(write_tif):
    fine = write_tif("f.tif", np.zeros((8, 8), "uint8"))
    coarse = write_tif("c.tif", np.zeros((4, 4), "uint8"), affine=UTM @ Affine.scale(2))
    assert open_source({"stack": [fine, coarse], "select": [2]}).geobox.shape == (8, 8)


def test_a_stack_of_mosaics_of_files_is_one_source(write_tif):
    halves = [
        write_tif(f"r{i}.tif", np.full((2, 2), i + 1, "uint8"), affine=UTM @ Affine.translation(2 * i, 0))
        for i in (0, 1)
    ]
    nir = write_tif("n.tif", np.full((2, 4), 9, "uint8"))
    source = open_source({"stack": [{"mosaic": halves, "bands": ["red"]}, {"path": nir, "bands": ["nir"]}]})
    found = source.read(source.geobox)
    assert found.bands == ("red", "nir")
    assert found.pixels[:, 0].tolist() == [[1, 1, 2, 2], [9, 9, 9, 9]]


def test_picking_all_bands_by_their_names_changes_nothing(tiles):
    whole, mosaic = tiles
    for source in (whole, mosaic, BandStack((whole,))):
        assert pick(source, [0, 1], source.bands) is source


def test_bands_of_foreign_sources_can_be_picked(tiles):
    whole, _ = tiles

    class Foreign:
        geobox, bands, dtype, read = whole.geobox, whole.bands, whole.dtype, whole.read

    found = pick(pick(Foreign(), [1, 0], ["b", "a"]), [0], ["x"])
    assert isinstance(found, Picked)
    assert (found.bands, found.dtype, found.geobox) == (("x",), whole.dtype, whole.geobox)
    assert np.array_equal(found.read(whole.geobox).pixels, SCENE[1:])


def test_combined_sources_are_values(tiles):
    _, mosaic = tiles
    stack = BandStack((mosaic, mosaic), names=("a", "b", "c", "d"))
    asked = [Window(row, 3, 7, 90) for row in range(0, 80, 9)]
    serial = [stack.read(crop(stack.geobox, window)).pixels for window in asked]
    other = pickle.loads(pickle.dumps(stack))  # noqa: S301 (our own bytes)
    assert other == stack
    with ThreadPoolExecutor(3) as pool:
        parallel = list(pool.map(lambda window: other.read(crop(other.geobox, window)).pixels, asked))
    assert all(np.array_equal(a, b) for a, b in zip(serial, parallel, strict=True))


def test_unknown_resampling_of_a_mosaic_lists_the_names(tiles):
    with pytest.raises(InputError, match="known are nearest"):
        Mosaic(tiles[1].members, resampling="best")


def test_names_in_their_order_reach_pieces_that_call_their_bands_otherwise(write_tif):
    plain = write_tif("plain.tif", SCENE)
    named = write_tif("named.tif", SCENE, names=("r", "n"), affine=UTM @ Affine.translation(120, 0))
    found = open_source([str(plain), str(named)], bands=["red", "nir"])
    assert found.bands == ("red", "nir")
    whole = found.read(found.geobox)
    assert np.array_equal(whole.pixels, np.concatenate([SCENE, SCENE], axis=2))
    # Pieces of the same names in another order are matched by them first.
    turned = write_tif("turned.tif", SCENE[::-1], names=("n", "r"), affine=UTM @ Affine.translation(240, 0))
    found = open_source([str(named), str(turned)], bands=["red", "nir"])
    assert np.array_equal(found.read(found.geobox).pixels, np.concatenate([SCENE, SCENE], axis=2))


def test_names_for_all_bands_of_pieces_make_an_alpha_band_an_image_band(write_tif):
    paths = []
    for number in (0, 1):
        path = write_tif(
            f"{number}.tif", np.concatenate([SCENE, SCENE]), affine=UTM @ Affine.translation(120 * number, 0)
        )
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [*file.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
        paths.append(str(path))
    assert open_source(paths, bands=["blue", "green", "red", "nir"]).bands == ("blue", "green", "red", "nir")


def globe(west: float, east: float, *, step: float = 0.5) -> GeoBox:
    return GeoBox((round(40 / step), round((east - west) / step)), Affine(step, 0, west, 0, -step, 40), "EPSG:4326")


@pytest.mark.parametrize(
    ("pieces", "west", "cols"),
    [
        ([(11, 12), (10, 11)], 10.0, 4),
        ([(10, 11), (11, 12)], 10.0, 4),
        ([(179, 180), (-180, -179)], 179.0, 4),
        ([(-180, -179), (179, 180)], -181.0, 4),
        ([(-180, 180), (-180, 180)], -180.0, 720),
        ([(-180, 0), (0, 180)], -180.0, 720),
        ([(0, 180), (-180, 0)], -180.0, 720),
        ([(0, 360), (-180, 180)], -180.0, 720),
        ([(100, 120), (60, 140)], 60.0, 160),
    ],
)
def test_pieces_in_degrees_lie_side_by_side_in_any_order(write_tif, pieces, west, cols):
    paths = []
    for number, (left, right) in enumerate(pieces, start=1):
        grid = globe(left, right)
        paths.append(
            write_tif(f"{number}.tif", np.full((1, *grid.shape), number, "uint8"), affine=grid.affine, crs="EPSG:4326")
        )
    mosaic = Mosaic(tuple(GdalSource(path) for path in paths))
    assert (mosaic.geobox.shape[1], mosaic.geobox.affine.c % 360) == (cols, west % 360)
    found = mosaic.read(mosaic.geobox)
    assert found.valid.all()
    assert set(np.unique(found.pixels)) <= {1, 2}
    lon = mosaic.geobox.affine.c + 0.25 + 0.5 * np.arange(cols)
    inside = [((lon - left) % 360 < right - left) for left, right in pieces]
    assert np.array_equal(found.pixels[0, 0], np.where(inside[0], 1, 2))


def test_a_piece_in_metres_west_of_one_in_degrees_opens_no_grid_around_the_globe(write_tif):
    degrees = write_tif(
        "d.tif", np.ones((1, 50, 50), "uint8"), affine=Affine(0.001, 0, 15, 0, -0.001, 45), crs="EPSG:4326"
    )
    metres = write_tif(
        "m.tif", np.ones((1, 50, 50), "uint8"), affine=Affine(100, 0, 490_000, 0, -100, 4_983_000), crs="EPSG:32633"
    )
    rows, cols = Mosaic((GdalSource(degrees), GdalSource(metres))).geobox.shape
    assert 150 < cols < 260
    assert rows < 200


@pytest.mark.parametrize("west", [-180.0, -179.9, -60.0, 12.3, 100.0, 178.5])
@pytest.mark.parametrize("small_first", [True, False])
def test_a_small_raster_in_degrees_meets_what_it_lies_on(west, small_first):
    small = GeoBox((10, 10), Affine(0.1, 0, west, 0, -0.1, 5), "EPSG:4326")
    world = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    apart = GeoBox((10, 10), Affine(0.1, 0, west, 0, -0.1, 60), "EPSG:4326")
    for other, meets in ((world, True), (apart, False)):
        pair = (small, other) if small_first else (other, small)
        assert grids_meet(*pair) == meets


def test_labels_in_degrees_meet_a_scene_in_metres_wherever_they_lie():
    scene = GeoBox((1000, 1000), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")
    corner = scene.extent.to_crs("EPSG:4326").boundingbox
    for share in np.linspace(0.02, 0.9, 12):
        west, north = (
            corner.left + share * (corner.right - corner.left),
            corner.top - share * (corner.top - corner.bottom),
        )
        labels = GeoBox((20, 30), Affine(0.0001, 0, west, 0, -0.0001, north), "EPSG:4326")
        assert grids_meet(labels, scene)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:6933", "EPSG:4326"])
@pytest.mark.parametrize("side", [1, -1])
def test_pieces_on_either_side_of_the_antimeridian_meet_on_grids_that_count_on_beyond_it(write_tif, crs, side):
    paths = []
    for zone, lon in (("EPSG:32760", 178.9), ("EPSG:32701", -179.95)):
        x, y = Transformer.from_crs("EPSG:4326", zone, always_xy=True).transform(lon, -17)
        affine = Affine(2000, 0, round(x), 0, -2000, round(y))
        paths.append(write_tif(f"{zone[5:]}.tif", np.full((50, 50), 7, "uint8"), affine=affine, crs=zone))
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(180 * side, -17)
    step = 0.02 if crs == "EPSG:4326" else 2000
    target = GeoBox((60, 160), Affine(step, 0, x - 80 * step, 0, -step, y + 10 * step), crs)
    single = [open_source(path).read(target).valid for path in paths]
    assert min(part.sum() for part in single) > 1000
    assert np.array_equal(open_source(paths).read(target).valid, single[0] | single[1])
