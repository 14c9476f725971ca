"""The demo, the notebook and the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from affine import Affine
from nbclient import NotebookClient
from odc.geo.geobox import GeoBox

from geoseg import demo, explore
from geoseg.errors import BandError, InputError, OutputExistsError
from geoseg.legend import Legend
from geoseg.raster import Raster

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture
def ramp() -> Raster:
    """Three bands that rise to the right, one pixel invalid."""
    pixels = np.stack([np.tile(np.arange(100), (80, 1)) * k for k in (1, 2, 3)]).astype(np.uint16)
    valid = np.ones((80, 100), bool)
    valid[3, 4] = False
    return Raster(
        pixels,
        valid,
        GeoBox((80, 100), Affine(10, 0, 500_000, 0, -10, 5_300_000), "EPSG:32633"),
        ("red", "green", "blue"),
    )


@pytest.mark.slow
def test_the_demo_goes_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = demo.config

    def brief(*args, **kwargs):
        config = original(*args, **kwargs)
        config["data"] |= {"epoch_patches": 16, "patch_px": 64}
        config["trainer"] |= {"max_epochs": 1}
        return config

    monkeypatch.setattr(demo, "config", brief)
    result = demo.run_demo(out=tmp_path / "demo")
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    wanted = {"image.tif", "labels.tif", "model.safetensors", "map.tif", "map.confidence.tif", "map.gpkg", "demo.png"}
    assert wanted <= names
    assert 0 < result.baseline_mean_iou < 1
    assert "mean IoU on the held-out east" in str(result)
    assert json.loads((tmp_path / "demo" / "demo.json").read_text())["mean_iou"] == result.mean_iou
    with pytest.raises(OutputExistsError, match="--overwrite"):
        demo.run_demo(out=tmp_path / "demo")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel draws inline, as in a browser
    notebook = nbformat.read(path, as_version=4)
    (fit,) = [cell for cell in notebook.cells if '"epoch_patches": 160' in cell.source]
    fit.source = fit.source.replace('"epoch_patches": 160', '"epoch_patches": 16')  # it learns less than a reader's
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    pictures = [out for cell in code for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(pictures) >= 3
    assert (tmp_path / "region" / "polygons.shp").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


def test_a_stretch_puts_the_percentiles_at_black_and_white(ramp: Raster) -> None:
    picture = explore.stretched(ramp, percent=10)
    assert picture[40, 0, 0] == 0
    assert picture[40, 99, 0] == 255
    assert abs(int(picture[40, 50, 0]) - 128) < 5
    assert picture[3, 4, 3] == 0
    assert (np.delete(picture[..., 3].ravel(), 304) == 255).all()


def test_pictures_choose_bands_by_name(ramp: Raster) -> None:
    swapped = explore.stretched(ramp, bands=["blue", "green", "red"])
    np.testing.assert_array_equal(swapped[..., 0], explore.stretched(ramp)[..., 2])
    with pytest.raises(BandError, match="nir"):
        explore.stretched(ramp, bands=["nir", "red", "green"])
    with pytest.raises(InputError, match="three"):
        explore.stretched(ramp, bands=["red"])


def test_an_all_nodata_scene_is_a_clear_picture(ramp: Raster) -> None:
    empty = Raster(ramp.pixels, np.zeros_like(ramp.valid), ramp.geobox, ramp.bands)
    assert not explore.stretched(empty).any()


def test_class_ids_take_the_legends_colours() -> None:
    legend = Legend.from_dict({3: {"name": "a", "color": "#ff0000"}, 300: {"name": "b", "color": "#0000ff"}})
    picture = explore.colored(np.array([[3, 300, 3]], np.uint16), np.array([[True, True, False]]), legend)
    assert picture.tolist() == [[[255, 0, 0, 255], [0, 0, 255, 255], [0, 0, 0, 0]]]


def test_a_quicklook_keeps_the_place_and_is_small(ramp: Raster) -> None:
    small = explore.shrunk(ramp.geobox, longest_px=50)
    assert tuple(small.shape) == (40, 50)
    assert small.extent.boundingbox.bbox == pytest.approx(ramp.geobox.extent.boundingbox.bbox)
    assert explore.shrunk(ramp.geobox, longest_px=500) == ramp.geobox


def test_show_draws_in_map_coordinates(ramp: Raster) -> None:
    axis = explore.show(ramp)
    assert axis.images[0].get_extent() == pytest.approx([500_000, 501_000, 5_299_200, 5_300_000])
    plt.close("all")
