"""The table of polygons: columns, options, grids, and a real map."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from geoseg.errors import GridError, InputError, LegendError
from geoseg.legend import Legend
from geoseg.raster import Raster
from geoseg.vector.kinds import KINDS
from geoseg.vector.options import PolygonOptions
from geoseg.vector.polygonize import polygon_layer, polygonize, to_frame, trace_map
from geoseg.vector.reading import GridReader, InMemory

LEGEND = Legend.from_dict({0: "bare soil", 1: "water", 7: "forest", 200: "road"})
UTM = Affine(10, 0, 500_000, 0, -10, 4_000_000)


TWO_BANDS = Raster(np.ones((2, 1, 1), int), np.ones((1, 1), bool), GeoBox((1, 1), UTM, "EPSG:32612"), ("a", "b"))


def class_map(values, *, transform=UTM, crs="EPSG:32612", valid=None, dtype=np.uint8):
    pixels = np.array(values, dtype)
    valid = np.ones(pixels.shape, bool) if valid is None else np.array(valid, bool)
    return Raster(pixels[None], valid, GeoBox(pixels.shape, transform, crs), ("class",))


def patchy(shape=(40, 50), seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 1, 7, 200], (shape[0] // 5, shape[1] // 5)).repeat(5, 0).repeat(5, 1)
    return np.where(rng.random(shape) < 0.1, rng.choice([0, 1, 7, 200], shape), coarse)


def test_columns_of_a_small_map():
    confidence = class_map([[90, 80, 60], [90, 10, 255]], valid=[[1, 1, 1], [1, 1, 0]])
    frame = polygonize(class_map([[7, 7, 1], [7, 0, 0]]), legend=LEGEND, confidence=confidence)
    assert list(frame.columns) == [
        "id", "class_id", "class_name", "area_m2", "perimeter_m", "pixels", "confidence", "confidence_min", "geometry"
    ]  # fmt: skip
    assert frame["id"].tolist() == [1, 3, 5]
    assert frame["class_id"].tolist() == [7, 1, 0]
    assert frame["class_name"].tolist() == ["forest", "water", "bare soil"]
    assert frame["pixels"].tolist() == [3, 1, 2]
    assert frame["confidence"].tolist() == pytest.approx([260 / 3, 60, 10])
    assert frame["confidence_min"].tolist() == [80, 60, 10]
    # On the central meridian of a UTM zone a metre of the map is 1 / 0.9996 m of ground.
    assert frame["area_m2"].tolist() == pytest.approx([300 / 0.9996**2, 100 / 0.9996**2, 200 / 0.9996**2], rel=1e-7)
    assert frame["perimeter_m"].tolist() == pytest.approx([80 / 0.9996, 40 / 0.9996, 60 / 0.9996], rel=1e-7)
    assert frame.crs == "EPSG:32612"
    assert frame.geometry.iloc[1].bounds == (500_020, 3_999_990, 500_030, 4_000_000)


def test_confidence_without_a_valid_pixel_is_nan():
    confidence = class_map([[50, 50]], valid=[[0, 1]])
    frame = polygonize(class_map([[1, 7]]), legend=LEGEND, confidence=confidence)
    assert np.isnan(frame["confidence"][0])
    assert frame["confidence"][1] == 50


def test_nodata_and_the_ignore_value_are_no_polygon():
    values = [[7, 255, 1], [7, 1, 1]]
    frame = polygonize(class_map(values, valid=[[1, 1, 1], [0, 1, 1]]), legend=LEGEND)
    assert frame["pixels"].tolist() == [1, 3]


def test_all_nodata_gives_the_same_columns_and_no_row():
    full = polygonize(class_map([[1]]), legend=LEGEND)
    empty = polygonize(
        class_map([[1]], valid=[[0]]), legend=LEGEND, options=PolygonOptions(min_area_m2=50, tolerance_m=5)
    )
    assert len(empty) == 0
    assert empty.dtypes.equals(full.dtypes)
    assert empty.crs == full.crs


@pytest.mark.parametrize(
    "transform",
    [UTM, Affine(10, 0, 5e5, 0, 10, 4e6), Affine(8, 6, 5e5, 6, -8, 4e6), Affine(-10, 0, 5e5, 0, -10, 4e6)],
    ids=["north up", "south up", "rotated", "mirrored"],
)  # fmt: skip
def test_any_grid_gives_the_map_back(transform):
    values = patchy()
    frame = polygonize(class_map(values, transform=transform), legend=LEGEND)
    burned = rasterize(
        zip(frame.geometry, frame["class_id"], strict=True), values.shape, fill=99, transform=transform, dtype="int32"
    )
    np.testing.assert_array_equal(burned, values)
    assert shapely.is_ccw(shapely.get_exterior_ring(frame.geometry.to_numpy())).all()
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())
    assert frame.geometry.is_valid.all()


@pytest.mark.parametrize(
    "options", [{"min_area_m2": 900.0}, {"tolerance_m": 10.0}, {"min_area_m2": 900.0, "tolerance_m": 25.0}]
)
def test_options_keep_the_coverage_and_the_area(options):
    valid = np.ones((40, 50), bool)
    valid[:7, :9] = valid[20:22, 30] = False
    frame = polygonize(class_map(patchy(seed=3), valid=valid), legend=LEGEND, options=PolygonOptions(**options))
    shapes = frame.geometry.to_numpy()
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    assert shapely.area(shapes).sum() == pytest.approx(valid.sum() * 100, rel=1e-9)
    assert frame["pixels"].sum() == valid.sum()
    assert frame["area_m2"].sum() == pytest.approx(
        polygonize(class_map(np.ones((40, 50)), valid=valid), legend=LEGEND)["area_m2"].sum(), rel=1e-9
    )


def test_small_regions_are_gone_in_true_square_metres():
    """Web Mercator at 60° N: a pixel of 10 m covers 25 m²."""
    values = np.full((6, 6), 7)
    values[1, 1:4] = 1  # 75 m²
    values[4, 1:5] = 200  # 100 m²
    transform = Affine(10, 0, 0, 0, -10, 8_399_738)
    frame = polygonize(
        class_map(values, transform=transform, crs="EPSG:3857"), legend=LEGEND, options=PolygonOptions(min_area_m2=90)
    )
    assert frame["class_name"].tolist() == ["forest", "road"]
    assert frame["pixels"].tolist() == [32, 4]


def test_merged_regions_bring_their_confidence():
    confidence = class_map([[100, 100, 25, 100, 100]])
    frame = polygonize(
        class_map([[7, 7, 1, 7, 7]]), legend=LEGEND, confidence=confidence, options=PolygonOptions(min_area_m2=150)
    )
    assert frame["confidence"].tolist() == [85]


def test_without_crs_in_pixels_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        frame = polygonize(class_map([[7, 7], [1, 7]], crs=None), legend=LEGEND)
    assert frame["area_px"].tolist() == pytest.approx([3, 1])
    assert frame["perimeter_px"].tolist() == pytest.approx([8, 4])
    assert "no CRS" in caplog.text


@pytest.mark.parametrize(
    ("raster", "options", "error", "words"),
    [
        (class_map([[1.5]], dtype=np.float32), {}, InputError, "float32"),
        (TWO_BANDS, {}, InputError, "one band"),
        (class_map([[1, 9]]), {}, LegendError, "9"),
        (class_map([[1]]), {"confidence": class_map([[1, 1]])}, GridError, "another grid"),
    ],
)  # fmt: skip
def test_bad_input(raster, options, error, words):
    with pytest.raises(error, match=words):
        polygonize(raster, legend=LEGEND, **options)


@pytest.mark.slow
def test_a_real_map_comes_back_pixel_for_pixel_from_blocks_of_any_size(shared_data):
    with rasterio.open(shared_data / "manaus" / "cls_1985_amazon_manaus.tif") as dataset:
        values, transform = dataset.read(1, window=((0, 2600), (0, 2600))), dataset.transform
        raster = class_map(values, transform=transform, crs=dataset.crs.to_wkt())
    reader = GridReader(InMemory(raster), {})
    arcs = [trace_map(reader, block_px=side)[0].arcs for side in (5000, 1024, 333)]
    for other in arcs[1:]:
        assert all(np.array_equal(one, two) for one, two in zip(arcs[0], other, strict=True))
    frame = to_frame(polygon_layer(reader, options=PolygonOptions(kind="values")))
    assert shapely.is_valid(frame.geometry.to_numpy()).all()
    burned = rasterize(
        zip(frame.geometry, frame["value"], strict=True), values.shape, transform=transform, dtype="int32"
    )
    np.testing.assert_array_equal(burned, values)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"min_area_m2": 5000, "tolerance_m": 30}, {"smooth": True}, {"tolerance_m": 30, "simplify": "douglas-peucker"}],
)
def test_a_real_map_stays_a_coverage(options, shared_data):
    with rasterio.open(shared_data / "manaus" / "cls_1985_amazon_manaus.tif") as dataset:
        window = rasterio.windows.Window(1000, 1500, 700, 600)
        values, transform = dataset.read(1, window=window), dataset.transform @ Affine.translation(1000, 1500)
        raster = class_map(values, transform=transform, crs=dataset.crs.to_wkt())
    legend = Legend.from_values(np.unique(values).tolist())
    shapes = polygonize(raster, legend=legend, options=PolygonOptions(**options)).geometry.to_numpy()
    assert shapely.is_valid(shapes).all()
    assert shapely.is_empty(shapely.coverage_invalid_edges(shapes)).all()
    assert shapely.area(shapes).sum() == pytest.approx(values.size * 900, rel=1e-9)


BLOCKS = st.integers(1, 60)


@settings(max_examples=40)
@given(
    BLOCKS,
    BLOCKS,
    st.sampled_from([{}, {"min_area_m2": 700}, {"tolerance_m": 15}, {"min_area_m2": 700, "smooth": True}]),
)
def test_features_do_not_depend_on_the_blocks(one, other, options):
    raster = class_map(patchy(seed=5))
    options = PolygonOptions(**options)
    reader = GridReader(InMemory(raster), {"confidence": InMemory(class_map(patchy(seed=6)))})
    frames = [
        to_frame(polygon_layer(reader, legend_of=lambda _: LEGEND, options=options, block_px=side))
        for side in (one, other)
    ]
    assert frames[0].drop(columns="geometry").equals(frames[1].drop(columns="geometry"))
    assert (
        shapely.to_wkb(frames[0].geometry.to_numpy()).tolist() == shapely.to_wkb(frames[1].geometry.to_numpy()).tolist()
    )


def test_eight_connected_regions_are_multi_polygons():
    values = [[1, 7, 7], [7, 1, 7], [7, 7, 1]]
    frame = polygonize(class_map(values), legend=LEGEND, options=PolygonOptions(connectivity=8))
    assert frame["class_name"].tolist() == ["water", "forest"]
    assert frame["pixels"].tolist() == [3, 6]
    assert frame.geometry.geom_type.tolist() == ["MultiPolygon"] * 2
    assert [len(shape.geoms) for shape in frame.geometry] == [3, 2]
    assert frame.geometry.is_valid.all()
    assert frame.geometry.union_all().area == pytest.approx(900)


def test_one_feature_a_class():
    frame = polygonize(class_map(patchy()), legend=LEGEND, options=PolygonOptions(dissolve=True, tolerance_m=15))
    assert sorted(frame["class_id"]) == [0, 1, 7, 200]
    assert frame["pixels"].sum() == 2000
    assert frame.geometry.is_valid.all()


def test_instances_are_features_without_names():
    values = [[5, 5, 0, 9], [0, 0, 0, 9], [5, 0, 300, 300]]
    raster = class_map(values, dtype=np.int32)
    reader = GridReader(InMemory(raster), {}, ignore=frozenset([0]))
    frame = to_frame(polygon_layer(reader, options=PolygonOptions(kind="instances")))
    assert frame["instance_id"].tolist() == [5, 9, 300]
    assert frame["pixels"].tolist() == [3, 2, 2]
    assert [len(shape.geoms) for shape in frame.geometry] == [2, 1, 1]
    assert "class_id" not in frame


def test_a_panoptic_map_has_things_by_instance_and_stuff_by_region():
    values = [[7000, 1001, 7000], [1001, 7000, 1002]]
    reader = GridReader(InMemory(class_map(values, dtype=np.int32)), {})
    frame = to_frame(polygon_layer(reader, legend_of=lambda _: LEGEND, options=PolygonOptions(kind="panoptic")))
    assert frame["class_name"].tolist() == ["forest", "water", "forest", "forest", "water"]
    assert frame["instance_id"].tolist() == [0, 1, 0, 0, 2]
    assert frame["pixels"].tolist() == [1, 2, 1, 1, 1]


def test_a_loose_part_of_a_large_instance_is_not_small():
    values = np.zeros((6, 12), np.int32)
    values[:, :4], values[2, 7], values[4, 9:11] = 5, 5, 8
    reader = GridReader(InMemory(class_map(values, dtype=np.int32)), {})
    options = PolygonOptions(kind="instances", min_area_m2=1000, merge_rule="nodata")
    frame = to_frame(polygon_layer(reader, options=options))
    assert dict(zip(frame["instance_id"], frame["pixels"], strict=True)) == {5: 25, 0: 45}


def test_similarity_of_a_class_that_is_not_there_is_refused():
    options = PolygonOptions(merge_rule="similar", similarity={(1, 9): 0.5})
    with pytest.raises(InputError, match="no class 9"):
        polygonize(class_map([[1, 7]]), legend=LEGEND, options=options)


def test_values_are_features_of_any_integer_raster():
    frame = polygonize(class_map([[-5, 2**40]], dtype=np.int64), options=PolygonOptions(kind="values"))
    assert frame["value"].tolist() == [-5, 2**40]
    assert "class_name" not in frame


def test_an_id_stays_where_another_region_is_new():
    values = np.full((4, 6), 7)
    values[2, 4] = 1
    before = polygonize(class_map(values), legend=LEGEND)
    values[0, 1] = 200
    after = polygonize(class_map(values), legend=LEGEND)
    assert before.loc[before["class_id"] == 1, "id"].item() == after.loc[after["class_id"] == 1, "id"].item() == 17


def test_minima_by_class():
    values = np.full((6, 6), 7)
    values[1, 1:3] = 1  # 200 m²
    values[4, 1:3] = 200
    options = PolygonOptions(min_area_m2={"default": 250, "Water": 100})
    frame = polygonize(class_map(values), legend=LEGEND, options=options)
    assert frame["class_name"].tolist() == ["forest", "water"]


def test_small_regions_dropped_to_nodata():
    frame = polygonize(
        class_map([[7, 7, 1], [7, 7, 7]]), legend=LEGEND, options=PolygonOptions(min_area_m2=150, merge_rule="nodata")
    )
    assert frame["pixels"].tolist() == [5]


def test_small_regions_go_to_the_most_similar_class():
    options = PolygonOptions(min_area_m2=150, merge_rule="similar", similarity={(1, 0): 0.9, (7, 1): 0.2})
    frame = polygonize(class_map([[7, 7, 7], [7, 1, 0], [7, 7, 0]]), legend=LEGEND, options=options)
    assert frame["class_id"].tolist() == [7, 0]
    assert frame["pixels"].tolist() == [6, 3]


def test_right_angles_for_a_class_of_things():
    rows, cols = np.mgrid[:60, :60]
    along, across = (cols - 30) * 0.9 + (rows - 30) * 0.436, (rows - 30) * 0.9 - (cols - 30) * 0.436
    values = np.where((abs(along) < 20) & (abs(across) < 10), 200, 7)
    options = PolygonOptions(right_angles=("road",), tolerance_m=10)
    frame = polygonize(class_map(values), legend=LEGEND, options=options)
    house = frame.loc[frame["class_id"] == 200, "geometry"].item()
    assert len(house.exterior.coords) == 5
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())
    with pytest.raises(LegendError, match="barn"):
        polygonize(class_map(values), legend=LEGEND, options=PolygonOptions(right_angles=("barn",)))


def test_a_tolerance_in_degrees_is_refused():
    raster = class_map(patchy(), transform=Affine(1e-4, 0, 10, 0, -1e-4, 50), crs="EPSG:4326")
    with pytest.raises(InputError, match="metres"):
        polygonize(raster, legend=LEGEND, options=PolygonOptions(tolerance_m=0.0001))


def test_a_class_unknown_to_the_minima_is_named():
    with pytest.raises(LegendError, match="'lake'.*water"):
        polygonize(class_map([[1]]), legend=LEGEND, options=PolygonOptions(min_area_m2={"lake": 5}))


@pytest.mark.parametrize("options", [{"min_area_m2": {"99": 5}}, {"right_angles": ("99",)}])
def test_a_number_of_no_class_is_refused(options):
    with pytest.raises(LegendError, match="99.*water"):
        polygonize(class_map([[1]]), legend=LEGEND, options=PolygonOptions(**options))


def test_a_number_that_is_not_in_a_map_without_names_is_told(caplog):
    polygonize(class_map([[1]]), options=PolygonOptions(kind="values", min_area_m2={"99": 5, "1": 0}))
    assert [record.getMessage() for record in caplog.records] == ["min_area_m2 names 99, and the map holds no 99"]


def test_a_map_without_a_pixel_takes_the_options_of_its_neighbours():
    raster = class_map([[1]], valid=np.zeros((1, 1), bool))
    assert len(polygonize(raster, options=PolygonOptions(min_area_m2={"99": 5}))) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_no_column_holds_are_refused(kind):
    raster = class_map([[1, 2**63]], dtype=np.uint64)
    with pytest.raises(InputError, match=str(2**63)):
        polygonize(raster, options=PolygonOptions(kind=kind))


@pytest.mark.parametrize("name", ["id", "area_m2", "Class_ID", "pixels", "geometry", "fid", " "])
def test_a_mean_takes_no_column_of_the_table(name):
    raster = class_map([[1]])
    reader = GridReader(InMemory(raster), {name: InMemory(raster)})
    with pytest.raises(InputError, match=f"'{name}'"):
        polygon_layer(reader)


def test_means_of_bands_take_no_column_of_another():
    raster = class_map([[1]])
    scene = replace(raster, pixels=np.zeros((2, 1, 1), np.uint8), bands=("m2", "b"))
    with pytest.raises(InputError, match="'area_m2'"):
        polygon_layer(GridReader(InMemory(raster), {"area": InMemory(scene)}))
    with pytest.raises(InputError, match="'A_b'"):
        polygon_layer(GridReader(InMemory(raster), {"a": InMemory(scene), "A_b": InMemory(raster)}))
