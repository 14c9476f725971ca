"""Cloud masks: what each product's codes hide, wherever the mask lies, and in windows as in the whole."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geoseg.errors import BandError, InputError
from geoseg.io.clouds import Masked, grown, pick_bands
from geoseg.io.combine import Mosaic
from geoseg.io.grids import crop
from geoseg.io.mask_rules import MASKS, MaskRule
from geoseg.io.sources import open_source
from geoseg.io.stamps import paths_in
from geoseg.tiling import Window

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)
RNG = np.random.default_rng(7)


@pytest.fixture
def scene(write_tif, encoded):
    """A scene of 24 x 30 pixels at 10 m that say where they lie, in two bands."""
    pixels = encoded(24, 30)
    return write_tif("scene.tif", np.concatenate([pixels, -pixels]), names=("red", "nir"))


def mask_of(write_tif, codes, name="mask.tif", **place):
    return write_tif(name, np.asarray(codes), **place)


# -- what the codes mean -----------------------------------------------------------------------------------------------

LANDSAT = {
    # Values and meanings of the Landsat 8-9 Collection 2 Level 2 Science Product Guide's table of QA_PIXEL.
    1: "fill", 21824: "", 21826: "dilated_cloud", 21888: "water", 21890: "dilated_cloud water", 22080: "",
    22144: "water", 22280: "cloud", 23888: "shadow", 23952: "shadow water", 24088: "cloud shadow", 24216:
    "cloud shadow water", 24344: "cloud shadow", 24472: "cloud shadow water", 30048: "snow", 54596: "cirrus",
    54852: "cirrus", 55052: "cirrus cloud",
}  # fmt: skip


def test_landsats_published_values_are_hidden_by_their_meaning():
    codes = np.array(list(LANDSAT), "uint16")
    bad = {"dilated_cloud", "cirrus", "cloud", "shadow"}
    usual = MaskRule("landsat_qa", tuple(b for name in bad for b in MASKS["landsat_qa"].flags[name]))
    # 24088 and 24216 have a middling confidence of cloud and the shadow's bit alone.
    assert [bool(h) for h in usual.hidden(codes)] == [bool(bad & set(text.split())) for text in LANDSAT.values()]
    assert codes[usual.is_fill(codes)].tolist() == [1]
    for name in ("snow", "cirrus"):
        rule = MaskRule("landsat_qa", tuple(MASKS["landsat_qa"].flags[name]))
        assert [bool(h) for h in rule.hidden(codes)] == [name in text.split() for text in LANDSAT.values()]


USUAL = {
    "scl": (range(12), [2, 4, 5, 6, 7, 11]),
    "fmask": ([0, 1, 2, 3, 4, 255], [0, 1, 3]),
    "python_fmask": (range(6), [1, 4, 5]),
    # Bits 4 snow, 5 water, 6 and 7 aerosol do not hide; 0 cirrus, 1 cloud, 2 beside it, 3 shadow do.
    "hls_fmask": (range(256), [code for code in range(255) if not code & 0b1111]),
    "probability": (range(101), range(51)),
}


@pytest.mark.parametrize("kind", USUAL)
def test_each_kind_keeps_what_its_guide_calls_clear(write_tif, kind):
    codes, clear = USUAL[kind]
    row = np.array([list(codes)], "uint8")
    image = write_tif("image.tif", np.ones((1, row.size), "uint8"))
    found = open_source({"path": image, "mask": {"path": mask_of(write_tif, row), "kind": kind}})
    valid = found.read(found.geobox).valid[0]
    assert row[0][valid].tolist() == list(clear)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"kind": "scl", "drop": ["cloud"]}, [1, 2, 3, 4, 5, 6, 7, 10, 11]),
        ({"kind": "scl", "drop": ["Cloud high", "SNOW", 3]}, [1, 2, 4, 5, 6, 7, 8, 10]),
        ({"kind": "scl", "drop": 6}, [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]),
        ({"kind": "scl", "keep": ["vegetation", "bare", "water", "no_data"]}, [4, 5, 6]),
        ({"kind": "values", "drop": [0, 3, 11]}, [1, 2, 4, 5, 6, 7, 8, 9, 10]),
        ({"kind": "values", "keep": [4]}, [4]),
        ({"kind": "landsat_qa", "drop": [3]}, [2, 4, 6]),  # odd values have the bit of fill, 8 and more that of cloud
        ({"above": 4}, [0, 1, 2, 3, 4]),
    ],
)
def test_names_and_numbers_say_otherwise(write_tif, options, kept):
    row = np.arange(12, dtype="uint8")[None]
    image = write_tif("image.tif", np.ones((1, 12), "uint8"))
    found = open_source({"path": image, "mask": {"path": mask_of(write_tif, row), **options}})
    assert np.flatnonzero(found.read(found.geobox).valid[0]).tolist() == kept


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("T29SNC_20210527T112111_SCL_20m.tif", "scl"),
        ("LC08_L2SP_037034_20150818_20200908_02_T1_QA_PIXEL.TIF", "landsat_qa"),
        ("LC80370342015230LGN00_MTLFmask.tif", "fmask"),
        ("HLS.S30.T17SLU.2020209T155956.v2.0.Fmask.tif", "hls_fmask"),
        ("ga_ls8c_oa_3-2-1_091086_2020-03-04_final_fmask.tif", "python_fmask"),
        ("MSK_CLDPRB_20m.tif", "probability"),
        ("muscle.tif", None),
        ("clouds.tif", None),
    ],
)
def test_file_names_of_the_products_say_the_kind(write_tif, scene, name, kind):
    path = mask_of(write_tif, np.full((24, 30), 4, "uint8"), name)
    if kind is None:
        with pytest.raises(InputError, match=f"nothing says what the values of {name} mean; give kind: one of scl"):
            open_source({"path": scene, "mask": path})
    else:
        assert open_source({"path": scene, "mask": path}).rule.kind == kind


# -- where the mask lies -----------------------------------------------------------------------------------------------


def hidden_by_hand(codes, grid, image, crs):
    """Where pixels of `image` are clear by the SCL pixel under their centre, one by one."""
    clear = np.zeros(image.shape, bool)
    move = Transformer.from_crs("EPSG:32612", crs, always_xy=True).transform
    for row, col in np.ndindex(*image.shape):
        x, y = move(*(image.affine @ (col + 0.5, row + 0.5)))
        at_col, at_row = (int(np.floor(v)) for v in ~grid @ (x, y))
        inside = 0 <= at_row < codes.shape[0] and 0 <= at_col < codes.shape[1]
        clear[row, col] = inside and codes[at_row, at_col] in (2, 4, 5, 6, 7, 11)
    return clear


@pytest.mark.parametrize(
    ("grid", "crs"),
    [
        (UTM @ Affine.scale(2), "EPSG:32612"),
        (UTM @ Affine.translation(3.3, 4.6) @ Affine.scale(2), "EPSG:32612"),  # leaves the west and north uncovered
        (UTM @ Affine.translation(-3, -2) @ Affine.rotation(4) @ Affine.scale(1.7), "EPSG:32612"),
        (Affine(0.0002, 0, -111.001, 0, -0.00017, 37.9485), "EPSG:4326"),
    ],
    ids=["20 m", "shifted", "rotated", "degrees"],
)
def test_a_mask_on_any_grid_hides_what_lies_under_its_pixels(write_tif, scene, grid, crs):
    codes = RNG.integers(0, 12, (13, 19)).astype("uint8")
    found = open_source({"path": scene, "mask": mask_of(write_tif, codes, "scl.tif", affine=grid, crs=crs)})
    raster, plain = found.read(found.geobox), open_source(scene).read(found.geobox)
    expected = hidden_by_hand(codes, grid, found.geobox, crs)
    assert 0.1 < expected.mean() < 0.9
    assert np.array_equal(raster.valid, expected)
    assert np.array_equal(raster.pixels, plain.pixels)
    assert found.geobox == open_source(scene).geobox
    assert found.bands == ("red", "nir")


def test_nodata_of_image_and_mask_is_invalid_and_so_is_what_the_mask_does_not_cover(write_tif):
    image = write_tif("image.tif", np.array([[0, 7, 7, 7, 7]], "uint8"), nodata=0)
    mask = mask_of(write_tif, np.array([[1, 1, 9, 2]], "uint8"), nodata=9)
    found = open_source({"path": image, "mask": {"path": mask, "kind": "values", "drop": [2]}})
    assert found.read(found.geobox).valid[0].tolist() == [False, True, False, False, False]


def test_clear_land_that_a_file_calls_nodata_is_clear_land_unless_the_user_says_so(write_tif):
    image = write_tif("image.tif", np.ones((1, 4), "uint8"))
    mask = mask_of(write_tif, np.array([[0, 1, 4, 255]], "uint8"), "fmask.tif", nodata=0)
    found = open_source({"path": image, "mask": mask})
    assert found.read(found.geobox).valid[0].tolist() == [True, True, False, False]
    found = open_source({"path": image, "mask": {"path": mask, "nodata": 0}})
    assert found.read(found.geobox).valid[0].tolist() == [False, True, False, False]


@pytest.mark.parametrize("above", [0.5, 50])
def test_probabilities_are_held_against_the_threshold_as_their_file_scales_them(write_tif, above):
    image = write_tif("image.tif", np.ones((1, 4), "uint8"))
    mask = mask_of(write_tif, np.array([[0, 5, 60, 100]], "uint8"), "cldprb.tif")
    if above < 1:
        with rasterio.open(mask, "r+") as file:
            file.scales = (0.01,)
    found = open_source({"path": image, "mask": {"path": mask, "above": above}})
    assert found.read(found.geobox).valid[0].tolist() == [True, True, False, False]


def test_the_nodata_of_a_masks_files_counts_whichever_comes_first(write_tif):
    image = write_tif("image.tif", np.ones((1, 8), "uint8"))
    left = mask_of(write_tif, np.array([[1, 0, 1, 0]], "uint8"), "left.tif")
    right = write_tif("right.tif", np.array([[1, 0, 1, 0]], "uint8"), nodata=1, affine=UTM @ Affine.translation(4, 0))
    for order in ([left, right], [right, left]):
        mask = {"mosaic": order, "kind": "values", "keep": [1]}
        found = open_source({"path": image, "mask": mask})
        assert found.read(found.geobox).valid[0].tolist() == [True, False] * 4


# -- a band of the image -----------------------------------------------------------------------------------------------


@pytest.fixture
def with_scl(write_tif):
    """Writes a file of red, SCL and nir."""

    def write(name, codes, value=10, **profile):
        codes = np.asarray(codes, "uint16")
        planes = [np.full_like(codes, value), codes, np.full_like(codes, value + 1)]
        return write_tif(name, np.stack(planes), names=("red", "SCL", "nir"), **profile)

    return write


def test_a_band_of_the_image_is_a_mask_and_no_image_band_any_more(with_scl):
    path = with_scl("image.tif", [[4, 9, 3, 0, 6]])
    found = open_source({"path": path, "mask": {"band": "scl"}})
    raster = found.read(found.geobox)
    assert found.bands == raster.bands == ("red", "nir")
    assert raster.valid[0].tolist() == [True, False, False, False, True]
    assert raster.pixels[:, 0, 0].tolist() == [10, 11]


@pytest.mark.parametrize(("select", "bands"), [([3], ("nir",)), (["nir", "SCL", 1], ("nir", "red"))])
def test_numbers_count_the_bands_of_the_file_the_mask_among_them(with_scl, select, bands):
    path = with_scl("image.tif", [[4, 9]])
    found = open_source({"path": path, "select": select, "mask": {"band": "SCL"}})
    assert found.bands == bands
    assert found.read(found.geobox).valid[0].tolist() == [True, False]
    renamed = open_source({"path": path, "bands": ["r", "scene class", "n"], "mask": {"band": "n", "kind": "values",
                                                                                       "drop": [11]}})  # fmt: skip
    assert renamed.bands == ("r", "scene class")
    assert not renamed.read(renamed.geobox).valid.any()


def test_scaling_and_nodata_of_the_image_do_not_reach_the_codes(with_scl):
    path = with_scl("image.tif", [[4, 9, 4], [11, 8, 2]], nodata=10)
    spec = {"path": path, "scale": 0.5, "offset": 3, "nodata": 4, "resampling": "cubic", "mask": {"band": "SCL"}}
    found = open_source(spec)
    assert found.read(found.geobox).valid.tolist() == [[True, False, True], [True, False, True]]
    assert found.read(found.geobox).pixels[0, 0, 0] == 8
    finer = GeoBox((20, 30), UTM @ Affine.scale(0.1), "EPSG:32612")
    assert np.array_equal(found.read(finer).valid, np.kron(found.read(found.geobox).valid, np.ones((10, 10), bool)))


def test_in_a_stack_the_mask_may_have_coarser_pixels(write_tif, encoded):
    fine, coarse = write_tif("B04.tif", encoded(8, 8), names=("red",)), RNG.integers(0, 12, (4, 4)).astype("uint8")
    scl = write_tif("SCL_20m.tif", coarse, affine=UTM @ Affine.scale(2))
    found = open_source({"stack": [fine, {"path": scl, "bands": ["SCL"]}], "mask": {"band": "SCL"}})
    raster = found.read(found.geobox)
    assert found.bands == ("red",)
    assert np.array_equal(raster.valid, np.isin(np.kron(coarse, np.ones((2, 2))), (2, 4, 5, 6, 7, 11)))
    assert np.array_equal(raster.pixels, encoded(8, 8))


@pytest.mark.parametrize("kind", ["list", "mosaic", "pattern", "objects"])
def test_in_a_mosaic_each_piece_has_its_own_mask_so_that_another_shows_what_one_hides(with_scl, tmp_path, kind):
    paths = [with_scl("a.tif", [[4, 9, 9]], 10), with_scl("b.tif", [[4, 4, 3]], 20)]
    mask = {"band": "SCL"}
    found = open_source(
        {
            "list": {"path": paths, "mask": mask},
            "mosaic": {"mosaic": [paths[0], {"path": paths[1], "mask": {"band": "SCL", "drop": ["shadow"]}}],
                       "mask": mask},
            "pattern": {"path": str(tmp_path / "?*.tif"), "mask": mask},
            "objects": {"mosaic": [open_source(path) for path in paths], "mask": mask},
        }[kind]
    )  # fmt: skip
    raster = found.read(found.geobox)
    assert raster.valid[0].tolist() == [True, True, False]
    assert raster.pixels[0, 0, :2].tolist() == [10, 20]
    assert found.bands == ("red", "nir")


def test_a_mask_that_is_a_file_hides_the_whole_mosaic_and_false_takes_one_away(write_tif, with_scl, tmp_path):
    paths = [with_scl("a.tif", [[4, 9]], 10), with_scl("b.tif", [[4, 4]], 20)]
    mask = mask_of(write_tif, np.array([[9, 4]], "uint8"), "whole_scl.tif")
    for spec in ({"path": paths, "mask": mask}, {"path": str(tmp_path / "[ab]*.tif"), "mask": mask}):
        found = open_source(spec)
        assert isinstance(found, Masked)
        assert isinstance(found.source, Mosaic)
        assert found.read(found.geobox).valid[0].tolist() == [False, True]
    bare = open_source(
        {"mosaic": [{"path": paths[0], "mask": False, "select": ["red", "nir"]}], "mask": {"band": "SCL"}}
    )
    assert bare.read(bare.geobox).valid.all()


# -- growing -----------------------------------------------------------------------------------------------------------


def grown_by_hand(hidden, high, wide):
    found = np.zeros(hidden.shape, bool)
    for row, col in np.argwhere(hidden):
        rows, cols = np.indices(hidden.shape)
        found |= ((rows - row) / high) ** 2 + ((cols - col) / wide) ** 2 <= 1 + 1e-9
    return found


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_growing_takes_all_within_the_ellipse(seed, high, wide):
    hidden = np.random.default_rng(seed).random((15, 17)) < 0.02
    assert np.array_equal(grown(hidden, (high, wide)), grown_by_hand(hidden, high, wide))


@pytest.fixture(scope="module")
def cloudy(tmp_path_factory):
    """A scene with a mask at 20 m in another zone, that grows by three pixels, and its codes."""
    import rasterio

    folder = tmp_path_factory.mktemp("cloudy")
    x, y = Transformer.from_crs("EPSG:32612", "EPSG:32613", always_xy=True).transform(499_900, 4_200_100)
    files = {
        "scene.tif": (np.arange(1, 90 * 110 + 1, dtype="int32").reshape(90, 110), UTM, "EPSG:32612"),
        "scl.tif": (
            np.random.default_rng(3).choice([4, 9, 0], (70, 80), p=[0.985, 0.01, 0.005]).astype("uint8"),
            Affine(20, 0, round(x, -1), 0, -20, round(y, -1)),
            "EPSG:32613",
        ),
    }
    for name, (pixels, affine, crs) in files.items():
        shape = dict(zip(("height", "width"), pixels.shape, strict=True))
        with rasterio.open(
            folder / name, "w", driver="GTiff", count=1, dtype=pixels.dtype, transform=affine, crs=crs, **shape
        ) as file:
            file.write(pixels, 1)
    spec = {"path": str(folder / "scene.tif"), "mask": {"path": str(folder / "scl.tif"), "grow_px": 3}}
    return open_source(spec), open_source({**spec, "mask": {"path": str(folder / "scl.tif")}})


def test_what_is_hidden_grows_and_what_is_unknown_does_not(cloudy):
    wide, narrow = cloudy
    box = wide.geobox.pad(3)
    codes = narrow.mask.read(box)
    expected = codes.valid & (codes.pixels[0] != 0) & ~grown_by_hand(codes.valid & (codes.pixels[0] == 9), 3, 3)
    assert np.array_equal(wide.read(wide.geobox).valid, expected[3:-3, 3:-3])
    assert 0.02 < (narrow.read(wide.geobox).valid & ~wide.read(wide.geobox).valid).mean() < 0.5


GRIDS = {
    "own": GeoBox((90, 110), UTM, "EPSG:32612"),
    "coarse": GeoBox((40, 50), UTM @ Affine.translation(-7, 2) @ Affine.scale(2.3), "EPSG:32612"),
    "fine": GeoBox((120, 120), UTM @ Affine.translation(20, 20) @ Affine.scale(0.4), "EPSG:32612"),
    "degrees": GeoBox((90, 90), Affine(0.0001, 0, -111.0005, 0, -0.0001, 37.9475), "EPSG:4326"),
}


@given(st.sampled_from(list(GRIDS)), st.data())
def test_a_window_of_a_read_is_the_read_of_that_window(cloudy, grid, data):
    box = GRIDS[grid]
    whole = cloudy[0].read(box)
    row, col = (data.draw(st.integers(0, size - 1)) for size in box.shape)
    rows, cols = (data.draw(st.integers(1, size - at)) for size, at in zip(box.shape, (row, col), strict=True))
    found = cloudy[0].read(crop(box, Window(row, col, rows, cols)))
    assert np.array_equal(found.valid, whole.valid[row : row + rows, col : col + cols])


def test_growth_is_a_distance_on_the_ground_whatever_the_grid(write_tif, scene):
    codes = np.full((24, 30), 4, "uint8")
    codes[13, 15] = 9
    found = open_source({"path": scene, "mask": {"path": mask_of(write_tif, codes, "scl.tif"), "grow_px": 4}})
    native = ~found.read(found.geobox).valid
    assert native.any(axis=0).sum() == 9
    fine = ~found.read(GeoBox((48, 60), UTM @ Affine.scale(0.5), "EPSG:32612")).valid
    assert np.array_equal(fine, np.kron(native, np.ones((2, 2), bool)))
    # Of a coarser pixel all has to be hidden, as all has to be nodata.
    coarse = ~found.read(GeoBox((12, 15), UTM @ Affine.scale(2), "EPSG:32612")).valid
    assert np.array_equal(coarse, native.reshape(12, 2, 15, 2).all(axis=(1, 3)))


# -- a value, as every source ------------------------------------------------------------------------------------------


def test_a_masked_source_is_a_value(cloudy):
    again = pickle.loads(pickle.dumps(cloudy[0]))  # noqa: S301
    assert again == cloudy[0]
    assert hash(again) == hash(cloudy[0])
    assert [path.rsplit("/", 1)[-1] for path in paths_in(again)] == ["scene.tif", "scl.tif"]
    assert np.array_equal(again.read(again.geobox).valid, cloudy[0].read(again.geobox).valid)


def test_bands_are_picked_below_the_mask(with_scl):
    found = open_source({"path": with_scl("image.tif", [[4, 9]]), "mask": {"band": "SCL"}})
    one = pick_bands(found, [1], ["near"])
    assert isinstance(one, Masked)
    assert one.source.source.chosen == (3,)
    assert one.bands == ("near",)
    assert one.read(one.geobox).valid[0].tolist() == [True, False]
    assert pick_bands(found, [0, 1], ["red", "nir"]) is found


def test_yaml_says_it_all(write_tif, scene):
    mask = mask_of(write_tif, np.full((24, 30), 3, "uint8"), "x.tif")
    spec = yaml.safe_load(f"""
    path: {scene}
    mask:
      path: {mask}
      kind: scl
      drop: [cloud, cirrus]
      grow_px: 2
    """)
    found = open_source(spec)
    assert found.rule == MaskRule("scl", (8, 9, 10), grow_px=2)
    assert found.read(found.geobox).valid.all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"band": "SCL"}, r"band SCL is not one of the bands \[red, nir\]; name one of them, or a file"),
        ({"path": "M", "kind": "sentinel"}, "mask kind 'sentinel' is unknown; known are scl, landsat_qa, fmask"),
        ({"path": "M", "kind": "scl", "drop": ["haze"]}, "drop of a scl mask has 'haze'; needed is one of no_data"),
        ({"path": "M", "kind": "scl", "drop": []}, "drop of a mask must be a list of names or numbers"),
        ({"path": "M", "kind": "landsat_qa", "drop": [16]}, "has 16; needed is .* a bit number from 0 to 15"),
        ({"path": "M", "kind": "landsat_qa", "keep": ["clear"]}, "kind landsat_qa takes drop, got keep"),
        ({"path": "M", "kind": "values"}, "kind values takes drop or keep, got none of them"),
        ({"path": "M", "kind": "values", "drop": ["cloud"]}, "has 'cloud'; needed is a number"),
        ({"path": "M", "kind": "probability", "drop": [1]}, "kind probability takes above, got drop"),
        ({"path": "M", "kind": "scl", "above": 40}, "kind scl takes drop or keep, got above"),
        ({"path": "M", "drop": [1], "keep": [2]}, "both drop and keep"),
        ({"path": "M", "above": "most"}, "above of a mask must be a number"),
        ({"path": "M", "kind": "scl", "grow_px": 1.5}, "grow_px of a mask must be a whole number of pixels"),
        ({"path": "M", "kind": "scl", "grow": 1}, "a source has no option grow"),
        ({"band": "SCL", "path": "M"}, "named by band: NAME alone"),
        ({"band": 2}, "named by band: NAME alone"),
        ({"kind": "scl"}, "mask names no file and no band; needed is"),
        ({"path": "S", "kind": "scl"}, r"a mask needs one band, this has \[red, nir\]"),
        ("M", "nothing says what the values of m.tif mean; give kind: one of"),
        (3, "mask must name a file"),
        ({"path": "F", "kind": "probability"}, "say from where on a pixel is dropped, with above: 50 or above: 0.5"),
    ],
)
def test_masks_that_make_no_sense_are_told_in_one_line(write_tif, scene, mask, message):
    files = {"S": scene, "M": mask_of(write_tif, np.zeros((24, 30), "uint8"), "m.tif"),
             "F": mask_of(write_tif, np.zeros((24, 30), "float32"), "f.tif")}  # fmt: skip
    mask = (
        {key: files.get(v, v) if isinstance(v, str) else v for key, v in mask.items()}
        if isinstance(mask, dict)
        else mask
    )
    with pytest.raises((InputError, BandError), match=message) as error:
        open_source({"path": scene, "mask": files.get(mask, mask) if isinstance(mask, str) else mask})
    assert "\n" not in str(error.value)


def test_a_mask_is_all_that_a_file_may_not_be(with_scl):
    with pytest.raises(BandError, match="beside band SCL no image band is left"):
        open_source({"path": with_scl("image.tif", [[4]]), "select": ["SCL"], "mask": {"band": "SCL"}})
