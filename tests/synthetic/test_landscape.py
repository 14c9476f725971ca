"""The synthetic landscape: true by construction, the same for a seed, hard for single pixels."""

import subprocess
import sys

import numpy as np
import pytest
from odc.geo import CRS
from scipy import ndimage
from scipy.stats import mannwhitneyu
from sklearn.ensemble import RandomForestClassifier

from geoseg.errors import GeosegError, InputError
from geoseg.synthetic.layout import BARE_SOIL, BUILDING, CROPLAND, FOREST, GRASSLAND, ROAD, WATER, fractal, lay_out
from geoseg.synthetic.light import NOISE_DN
from geoseg.synthetic.scene import LEGEND, landscape

SHAPE = (384, 384)
FOUR_CONNECTED = ndimage.generate_binary_structure(2, 1)


@pytest.fixture(scope="module")
def place():
    return landscape(3, shape=SHAPE)


@pytest.fixture(scope="module")
def labels(place):
    return place.labels.pixels[0]


# Determinism


def rasters(place):
    return place.image, place.labels, place.parcels, place.buildings


def test_a_seed_gives_the_same_bytes_twice(place):
    for first, again in zip(rasters(place), rasters(landscape(3, shape=SHAPE)), strict=True):
        assert first.pixels.tobytes() == again.pixels.tobytes()
        assert first.valid.tobytes() == again.valid.tobytes()
        assert first.geobox == again.geobox


def test_the_global_random_state_is_neither_read_nor_changed(place):
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    again = landscape(3, shape=SHAPE)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert np.array_equal(again.image.pixels, place.image.pixels)


def test_seeds_differ(place, labels):
    other = landscape(4, shape=SHAPE)
    assert np.mean(other.labels.pixels[0] != labels) > 0.4
    assert not np.array_equal(other.image.valid, place.image.valid)


# What the rasters hold


def test_rasters_have_the_dtypes_and_bands_that_are_promised(place):
    assert place.image.bands == ("blue", "green", "red", "nir", "swir1", "swir2")
    found = [(raster.dtype.name, raster.pixels.shape) for raster in rasters(place)]
    assert found == [("uint16", (6, *SHAPE)), ("uint8", (1, *SHAPE)), ("uint32", (1, *SHAPE)), ("uint32", (1, *SHAPE))]
    assert place.labels.bands == ("label",)


def test_all_rasters_lie_on_one_north_up_grid_in_metres(place):
    box = place.image.geobox
    assert all(raster.geobox == box for raster in rasters(place))
    assert box.crs == CRS("EPSG:32633")
    assert (box.affine.a, box.affine.b, box.affine.d, box.affine.e) == (10.0, 0.0, 0.0, -10.0)
    assert (box.affine.c % 10, box.affine.f % 10) == (0.0, 0.0)


def test_place_and_pixel_size_do_not_change_the_landscape(place):
    other = landscape(3, shape=SHAPE, gsd_m=2.5, crs=32719)
    assert other.image.geobox.crs == CRS("EPSG:32719")
    assert other.image.geobox.resolution.x == 2.5
    assert np.array_equal(other.labels.pixels, place.labels.pixels)
    assert np.array_equal(other.image.pixels, place.image.pixels)


def test_labels_are_known_everywhere_and_the_legend_reads_them(place, labels):
    assert place.labels.valid.all()
    assert place.parcels.valid.all()
    assert place.buildings.valid.all()
    assert np.array_equal(np.unique(labels), place.legend.ids)
    assert np.array_equal(place.legend.translate(labels), labels)
    assert place.legend.by_name("building").kind == "thing"


def test_true_areas_are_the_counted_ones(place, labels):
    assert place.areas_m2 == {class_id: float(np.sum(labels == class_id) * 100) for class_id in range(1, 8)}
    assert sum(place.areas_m2.values()) == labels.size * 100.0


def test_true_areas_follow_the_pixel_size():
    coarse, fine = (landscape(2, shape=(120, 160), gsd_m=gsd_m).areas_m2 for gsd_m in (20.0, 0.5))
    assert coarse == {class_id: 1600 * area for class_id, area in fine.items()}


@pytest.mark.parametrize("seed", range(8))
def test_every_class_has_its_share_on_every_seed(seed):
    shares = np.bincount(lay_out(np.random.default_rng(seed), SHAPE).labels.ravel(), minlength=8) / (384 * 384)
    assert shares[0] == 0
    assert shares[1:].min() >= 0.01
    assert shares.max() < 0.55


@pytest.mark.parametrize("shape", [(96, 96), (96, 301), (450, 97)])
def test_small_and_narrow_scenes_hold_every_class(shape):
    place = landscape(1, shape=shape)
    assert place.image.pixels.shape[1:] == shape
    assert all(area > 0 for area in place.areas_m2.values())
    assert 0.5 < place.image.valid.mean() < 1


def test_a_larger_scene_holds_more_parcels_and_villages_not_larger_ones(place):
    large = landscape(3, shape=(768, 768))
    for name in ("parcels", "buildings"):
        small_px, large_px = (np.bincount(getattr(at, name).pixels.ravel())[1:] for at in (place, large))
        assert len(large_px) > 2.5 * len(small_px)
        assert 0.6 < np.median(large_px) / np.median(small_px) < 1.6


# Instances


def is_one_piece(ids, number, window):
    return ndimage.label(ids[window] == number, FOUR_CONNECTED)[1] == 1


@pytest.mark.parametrize("name", ["parcels", "buildings"])
def test_every_instance_is_one_connected_piece_and_ids_have_no_gap(place, name):
    ids = getattr(place, name).pixels[0]
    windows = ndimage.find_objects(ids)
    assert len(windows) == ids.max() > 20
    assert all(is_one_piece(ids, number, window) for number, window in enumerate(windows, start=1))


def test_buildings_are_the_building_class_and_never_touch(place, labels):
    ids = place.buildings.pixels[0]
    assert np.array_equal(ids > 0, labels == BUILDING)
    assert ndimage.label(ids > 0, FOUR_CONNECTED)[1] == ids.max()
    assert np.bincount(ids.ravel())[1:].min() >= 9


def test_parcels_are_cropland_or_meadow_as_a_whole(place, labels):
    ids = place.parcels.pixels[0]
    assert np.array_equal(np.unique(labels[ids > 0]), [GRASSLAND, CROPLAND])
    assert (ids[labels == CROPLAND] > 0).all()
    crop = np.bincount(ids.ravel(), weights=(labels == CROPLAND).ravel())[1:] / np.bincount(ids.ravel())[1:]
    assert set(crop) == {0.0, 1.0}


@pytest.mark.parametrize("class_id", [WATER, FOREST, BARE_SOIL])
def test_no_crumbs_but_what_roads_cut_off(labels, class_id):
    pieces, n = ndimage.label(labels == class_id)
    sizes = np.bincount(pieces.ravel())[1:]
    crumbs = np.isin(pieces, 1 + np.flatnonzero(sizes < 40))
    near_road = ndimage.binary_dilation(labels == ROAD, iterations=40)
    assert n > 0
    assert not (crumbs & ~near_road).any()


def test_roads_reach_the_villages_and_every_edge(labels):
    road = labels == ROAD
    near_road = ndimage.binary_dilation(road, iterations=12)
    assert near_road[labels == BUILDING].mean() > 0.9
    assert all(edge.any() for edge in (road[0], road[-1], road[:, 0], road[:, -1]))


def test_a_river_crosses_from_west_to_east(labels):
    wet = ndimage.binary_dilation((labels == WATER) | (labels == ROAD), iterations=2)
    body, _ = ndimage.label(wet)
    assert set(body[:, 0][labels[:, 0] == WATER]) & set(body[:, -1][labels[:, -1] == WATER])


# Imagery


def test_valid_says_what_was_seen(place):
    seen = place.image.valid
    assert (place.image.pixels[:, ~seen] == 0).all()
    assert (place.image.pixels[:, seen] > 0).all()
    assert place.image.pixels.max() <= 12_000
    assert 0.8 < seen.mean() < 0.97


def test_the_swath_edge_is_slanted_and_clouds_are_holes_inside(place):
    seen = place.image.valid
    first_seen = np.argmax(seen[:250:50], axis=1)
    assert (np.diff(first_seen) < 0).all()
    holes, n = ndimage.label(~seen)
    sizes = np.bincount(holes.ravel())[1:]
    assert n >= 2
    assert holes[0, 0] == 1
    assert sizes[1:].max() > 50


def mean_spectrum(place, labels, class_id):
    return place.image.pixels[:, place.image.valid & (labels == class_id)].mean(axis=1)


def test_spectra_are_those_of_the_material(place, labels):
    spectra = {class_id: mean_spectrum(place, labels, class_id) for class_id in range(1, 8)}
    ndvi = {class_id: (nir - red) / (nir + red) for class_id, (_, _, red, nir, _, _) in spectra.items()}
    assert ndvi[FOREST] > ndvi[GRASSLAND] > ndvi[BARE_SOIL] > 0
    assert ndvi[FOREST] > 0.6
    assert spectra[WATER][4] < 500
    assert (np.diff(spectra[BARE_SOIL][:5]) > 0).all()


def test_roofs_and_soil_share_their_colours(place, labels):
    roofs, soil = (
        place.image.pixels[:, place.image.valid & (labels == class_id)].astype(float)
        for class_id in (BUILDING, BARE_SOIL)
    )
    apart = np.abs(roofs.mean(axis=1) - soil.mean(axis=1)) / np.sqrt((roofs.var(axis=1) + soil.var(axis=1)) / 2)
    assert apart.max() < 1.5


def test_borders_are_mixed_pixels(place, labels):
    nir = place.image.pixels[3].astype(float)
    lake = labels == WATER
    shore = lake & ndimage.binary_dilation(labels == FOREST)
    middle = ndimage.binary_erosion(lake, iterations=2)
    wood = labels == FOREST
    means = [nir[mask & place.image.valid].mean() for mask in (middle, shore, wood)]
    assert means[0] + 3 * NOISE_DN[3] < means[1] < means[2] - 3 * NOISE_DN[3]


def local_deviation(band, valid, window):
    mean, square, weight = (
        ndimage.uniform_filter(a, window) for a in (band * valid, band**2 * valid, valid.astype(float))
    )
    weight = np.maximum(weight, 1e-6)
    return np.sqrt(np.maximum(square / weight - (mean / weight) ** 2, 0)), mean / weight


def test_forest_is_rough_and_lakes_are_smooth(place, labels):
    deviation, mean = local_deviation(place.image.pixels[3].astype(float), place.image.valid, 5)
    inner = {c: ndimage.binary_erosion((labels == c) & place.image.valid, iterations=3) for c in (WATER, FOREST)}
    smooth, rough = (np.median(deviation[inner[c]]) for c in (WATER, FOREST))
    assert rough > 3 * smooth
    assert np.median(deviation[inner[FOREST]] / mean[inner[FOREST]]) > 0.08


def row_coherence(band):
    """How much one direction rules within some 6 px, 0 to 1 (structure tensor, Bigun and Granlund 1987)."""
    d_row, d_col = (ndimage.sobel(band, axis=axis) for axis in (0, 1))
    rr, rc, cc = (ndimage.gaussian_filter(product, 3) for product in (d_row**2, d_row * d_col, d_col**2))
    return np.hypot(rr - cc, 2 * rc) / (rr + cc + 1e-9)


def chance_above(first, second):
    """Probability that a value of `first` exceeds one of `second`: the area under the ROC curve."""
    return mannwhitneyu(first, second).statistic / (len(first) * len(second))


def test_ploughed_fields_have_the_colour_of_bare_soil_but_rows(place, labels):
    pixels = place.image.pixels.astype(float)
    bare_looking = (pixels[3] - pixels[2]) < 0.25 * (pixels[3] + pixels[2])
    ploughed, soil = (
        ndimage.binary_erosion((labels == c) & place.image.valid, iterations=4) & bare_looking
        for c in (CROPLAND, BARE_SOIL)
    )
    by_colour = [chance_above(band[ploughed], band[soil]) for band in pixels]
    coherence = row_coherence(pixels[2])
    assert max(np.abs(np.array(by_colour) - 0.5)) < 0.15
    assert chance_above(coherence[ploughed], coherence[soil]) > 0.75


def ious(found, truth):
    counts = np.bincount(truth.astype(int) * 8 + found, minlength=64).reshape(8, 8)
    right = np.diag(counts)
    return right / np.maximum(counts.sum(axis=0) + counts.sum(axis=1) - right, 1)


def test_a_forest_that_looks_at_single_pixels_is_held_back(place, labels):
    """Trained on the west and tested on the east, it finds water and woods, but neither roofs nor soil."""
    table, valid = place.image.pixels.transpose(1, 2, 0), place.image.valid
    in_west = np.arange(SHAPE[1]) < SHAPE[1] // 2
    west, east = valid & in_west, valid & ~in_west
    forest = RandomForestClassifier(20, min_samples_leaf=4, random_state=0)
    forest.fit(table[west][::13], labels[west][::13])
    iou = ious(forest.predict(table[east][::13]), labels[east][::13])
    assert iou[WATER] > 0.75
    assert iou[FOREST] > 0.7
    assert max(iou[BUILDING], iou[BARE_SOIL]) < 0.5
    assert 0.4 < iou[1:].mean() < 0.65


# The noise that everything is made of


@pytest.mark.parametrize("shape", [(64, 64), (97, 211)])
def test_fractal_fields_are_standardised(shape):
    field = fractal(np.random.default_rng(0), shape, scale_px=12)
    assert field.shape == shape
    assert field.dtype == np.float32
    assert abs(float(field.mean())) < 1e-3
    assert float(field.std()) == pytest.approx(1, abs=1e-3)


def test_fractal_fields_lose_memory_beyond_their_scale():
    field = fractal(np.random.default_rng(1), (512, 512), scale_px=20, slope=2.5)
    near, far = (float(np.mean(field[:, shift:] * field[:, :-shift])) for shift in (1, 120))
    assert near > 0.95
    assert abs(far) < 0.2


# Bad input and cost


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"shape": (95, 400)}, r"shape is \(95, 400\).*at least 96"),
        ({"gsd_m": 0.0}, "gsd_m is 0.0"),
        ({"gsd_m": float("nan")}, "gsd_m is nan"),
        ({"crs": "EPSG:4326"}, "not projected in metres"),
        ({"crs": "EPSG:2263"}, "not projected in metres"),
        ({"crs": "nowhere"}, "crs 'nowhere' is not known"),
    ],
)
def test_senseless_options_are_refused_in_one_line(options, words):
    with pytest.raises(InputError, match=words) as caught:
        landscape(**options)
    assert isinstance(caught.value, GeosegError)
    assert "\n" not in str(caught.value)


def test_importing_loads_nothing_heavy():
    heavy = ["torch", "geopandas", "matplotlib", "pandas", "sklearn", "numba"]
    code = f"import sys, geoseg.synthetic.scene; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_legend_is_the_landscapes_own(place):
    assert place.legend == LEGEND
    assert LEGEND.names == ("water", "forest", "grassland", "cropland", "bare soil", "building", "road")
    assert LEGEND.ignore == 255
