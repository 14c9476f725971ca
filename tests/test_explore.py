"""Pictures of regions: what is drawn where, looked up in the drawing itself or in the picture that comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from geopandas import GeoDataFrame

from geoseg import explore
from geoseg.errors import BandError, GridError, InputError, LegendError, MissingInputError
from geoseg.inspecting.pictures import draw_scene
from geoseg.io.cog import LEGEND_TAG
from geoseg.io.sources import open_source
from geoseg.legend import Legend
from geoseg.raster import Raster

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_300_000)
GRIDS = {
    "north up": NORTH_UP,
    "south up": Affine(10, 0, 500_000, 0, 10, 5_299_600),
    "turned": NORTH_UP @ Affine.rotation(30),
    "sheared": Affine(10, 3, 500_000, 2, -10, 5_300_000),
}
LEGEND = Legend.from_dict({1: "water", 2: "forest", 3: "road"})


@pytest.fixture(autouse=True)
def _closed() -> Any:
    mpl.use("Agg")
    yield
    plt.close("all")


def written(path: Path, pixels: Any, *, affine: Affine = NORTH_UP, crs: str | None = "EPSG:32633", **more: Any) -> Path:
    """A GeoTIFF of `(band, row, col)` or `(row, col)`; `names` are those of its codes, `bands` of its bands."""
    names, bands, tags = (more.pop(key, ()) for key in ("names", "bands", "tags"))
    planes = pixels if pixels.ndim == 3 else pixels[None]
    profile = {"driver": "GTiff", "count": len(planes), "height": planes.shape[1], "width": planes.shape[2]}
    with rasterio.open(path, "w", dtype=planes.dtype, crs=crs, transform=affine, **profile, **more) as out:
        out.write(planes)
        out.update_tags(**dict(tags))
        for index, name in enumerate(bands, 1):
            out.set_band_description(index, name)
    if names:
        listed = "".join(f"<Category>{name}</Category>" for name in names)
        said = f'<PAMRasterBand band="1"><CategoryNames>{listed}</CategoryNames></PAMRasterBand>'
        Path(f"{path}.aux.xml").write_text(f"<PAMDataset>{said}</PAMDataset>")
    return path


def codes(dtype: str = "uint8") -> Any:
    """Rows of 1, of 2 and of 3."""
    return np.repeat(np.arange(1, 4, dtype=dtype), 20)[:, None].repeat(40, axis=1)


def rgb_of(axis: Any, x: float, y: float) -> list[int]:
    """The colour that the whole drawing has at a place, as it is saved."""
    axis.figure.set_dpi(100)
    axis.figure.canvas.draw()
    seen = np.asarray(axis.figure.canvas.buffer_rgba())
    col, row = axis.transData.transform((x, y))
    return [int(part) for part in seen[len(seen) - 1 - int(row), int(col)][:3]]


# -- maps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_codes_with_one_name_are_one_class_in_one_colour(tmp_path: Path, dtype: str) -> None:
    path = written(tmp_path / "map.tif", codes(dtype), nodata=0, names=["", "forest", "water", "forest"])
    shown = explore.show_map(path).images[0].get_array()
    assert (shown[..., 3] == 255).all()
    assert (shown[5] == shown[55]).all()
    assert (shown[5] != shown[25]).any()


def test_a_legend_with_codes_says_what_the_codes_of_a_raster_mean(tmp_path: Path) -> None:
    legend = Legend.from_dict({1: {"name": "water", "codes": [2]}, 2: {"name": "forest", "codes": [1]}, 3: "road"})
    shown = explore.show_map(written(tmp_path / "map.tif", codes()), legend=legend).images[0].get_array()
    assert [tuple(shown[row, 0, :3]) for row in (0, 20, 40)] == [legend.by_id(k).rgb for k in (2, 1, 3)]


def test_a_map_of_geoseg_holds_ids_whatever_codes_its_legend_has(tmp_path: Path) -> None:
    legend = Legend.from_dict({1: {"name": "water", "codes": [41]}, 2: {"name": "forest", "codes": [1]}, 3: "road"})
    path = written(tmp_path / "map.tif", codes(), tags={LEGEND_TAG: json.dumps(legend.to_dict())})
    for given in (None, legend, LEGEND):
        shown = explore.show_map(path, legend=given).images[0].get_array()
        assert [tuple(shown[row, 0, :3]) for row in (0, 20, 40)] == [item.rgb for item in legend.classes]


def test_maps_that_cannot_be_shown(tmp_path: Path) -> None:
    two = written(tmp_path / "two.tif", np.stack([codes(), codes()]), bands=["a", "b"])
    with pytest.raises(BandError, match="has 2 bands"):
        explore.show_map(two)
    assert explore.show_map(two, band="b").images
    with pytest.raises(LegendError, match="no class code"):
        explore.show_map(written(tmp_path / "half.tif", codes("float32") / 2))
    with pytest.raises(LegendError, match="3"):
        explore.show_map(written(tmp_path / "more.tif", codes()), legend=Legend.from_dict({1: "water", 2: "forest"}))


# -- scenes ------------------------------------------------------------------------------------------------------------


def test_blue_green_and_red_are_found_in_longer_names_everywhere(tmp_path: Path) -> None:
    steps = np.stack([np.roll(np.arange(1600), 400 * k).reshape(40, 40) for k in range(5)]).astype("uint16")
    names = ["B2_blue", "B3_green", "red_edge", "B4_red", "B8_nir"]
    path = written(tmp_path / "scene.tif", steps, bands=names)
    raster = explore.quicklook(path)
    found = explore.stretched(raster)
    np.testing.assert_array_equal(found, explore.stretched(raster, bands=["B4_red", "B3_green", "B2_blue"]))
    out = draw_scene(open_source(str(path)), tmp_path / "scene.png")
    np.testing.assert_array_equal((plt.imread(out) * 255).round().astype("uint8"), found)


def test_what_is_invalid_has_no_part_in_the_stretch() -> None:
    pixels = np.arange(100.0).reshape(1, 10, 10) * 1e300
    pixels[0, 0, :5] = np.nan
    valid = np.isfinite(pixels[0])
    box = explore.shrunk(open_box(10), longest_px=10)
    picture = explore.stretched(Raster(pixels, valid, box, ("a",)))
    assert picture[0, 5, 0] == 0
    assert picture[9, 9].tolist() == [255] * 4
    assert not picture[~valid].any()


def open_box(side: int) -> Any:
    from odc.geo.geobox import GeoBox

    return GeoBox((side, side), NORTH_UP, "EPSG:32633")


@pytest.mark.parametrize(("crs", "shape"), [("EPSG:32633", (474, 900)), (None, (250, 475))])
def test_a_large_scene_is_read_in_the_size_it_is_shown(tmp_path: Path, crs: str | None, shape: tuple[int, int]) -> None:
    path = written(tmp_path / "large.tif", np.ones((1, 1000, 1900), "uint8"), crs=crs)
    assert explore.quicklook(path).valid.shape == shape


def test_without_a_crs_the_first_row_is_above(tmp_path: Path) -> None:
    path = written(tmp_path / "plane.tif", codes() * 80, crs=None, affine=Affine.identity())
    axis = explore.show(path)
    assert axis.get_ylim() == (60, 0)
    assert rgb_of(axis, 20, 10)[0] < rgb_of(axis, 20, 50)[0]


# -- polygons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_polygons_and_pixels_lie_where_they_are_whichever_way_the_grid_is_turned(
    tmp_path: Path, affine: Affine
) -> None:
    rows, cols = 40, 60
    pixels = np.zeros((1, rows, cols), "uint8")
    pixels[0, 10:20, 30:50] = 200
    scene = written(tmp_path / "scene.tif", pixels, affine=affine)
    corners = [affine @ corner for corner in ((30, 10), (50, 10), (50, 20), (30, 20))]
    frame = GeoDataFrame({"class_id": [2]}, geometry=[shapely.Polygon(corners)], crs="EPSG:32633")
    frame.to_file(tmp_path / "found.gpkg")
    axis = explore.show_polygons(scene, tmp_path / "found.gpkg", legend=LEGEND)
    whole = shapely.MultiPoint([affine @ corner for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))])
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    assert (left, low, right, high) == pytest.approx(whole.bounds)
    assert rgb_of(axis, *(affine @ (40, 15))) == [255, 255, 255]
    assert rgb_of(axis, *(affine @ (20, 15))) == [0, 0, 0]
    drawn = np.concatenate([path.vertices for path in axis.collections[0].get_paths()])
    assert shapely.Polygon(drawn).equals_exact(shapely.Polygon(corners), 1e-6, normalize=True)
    assert axis.collections[0].get_colors()[0][:3] * 255 == pytest.approx(LEGEND.by_id(2).rgb)


def test_polygons_of_any_format_and_crs(tmp_path: Path) -> None:
    scene = written(tmp_path / "scene.tif", codes())
    frame = GeoDataFrame({"a": [1]}, geometry=[shapely.box(500_100, 5_299_700, 500_200, 5_299_800)], crs="EPSG:32633")
    frame.to_crs("EPSG:4326").to_parquet(tmp_path / "found.parquet")
    axis = explore.show_polygons(scene, tmp_path / "found.parquet")
    drawn = np.concatenate([path.vertices for path in axis.collections[0].get_paths()])
    assert [*drawn.min(0), *drawn.max(0)] == pytest.approx(frame.total_bounds, abs=0.01)


def test_polygons_that_cannot_be_shown(tmp_path: Path) -> None:
    scene = written(tmp_path / "scene.tif", codes())
    frame = GeoDataFrame({"a": [1]}, geometry=[shapely.box(500_100, 5_299_700, 500_200, 5_299_800)], crs="EPSG:32633")
    frame.to_file(tmp_path / "found.gpkg")
    frame.iloc[:0].to_file(tmp_path / "none.gpkg")
    with pytest.raises(MissingInputError, match="gone"):
        explore.show_polygons(scene, tmp_path / "gone.gpkg")
    with pytest.raises(InputError, match=r"no column class_id.*are a"):
        explore.show_polygons(scene, tmp_path / "found.gpkg", legend=LEGEND)
    with pytest.raises(InputError, match="none"):
        explore.show_polygons(scene, tmp_path / "none.gpkg")
    with pytest.raises(GridError, match="no CRS"):
        explore.show_polygons(written(tmp_path / "plane.tif", codes(), crs=None), tmp_path / "found.gpkg")
    assert not plt.get_fignums()
