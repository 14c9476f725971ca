"""Scenes from every door are decoded for training as what their files hold."""

from __future__ import annotations

import json

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from PIL import Image

from geoseg.data.datamodule import SceneDataModule
from geoseg.data.splits import SplitOptions
from geoseg.data.store import StoreOptions

GRID = GeoBox((64, 96), Affine(10, 0, 500_000, 0, -10, 5_200_000), "EPSG:32633")
LEGEND = {1: "water", 2: "forest", 3: "road"}
rng = np.random.default_rng(5)
PIXELS = rng.integers(1, 255, (3, 64, 96), np.uint8)
CODES = rng.integers(1, 4, (64, 96), np.uint8)


def tif(path, pixels, grid=GRID, **tags):
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    profile = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    with rasterio.open(path, "w", crs=str(grid.crs), transform=grid.affine, **profile) as file:
        file.write(pixels)
    return str(path)


@pytest.fixture
def trained():
    """Sets up what is trained on, gives it, and closes it."""
    modules = []

    def make(*scenes, **options):
        modules.append(SceneDataModule(scenes=list(scenes), patch_px=32, batch=2, epoch_patches=4, **options))
        modules[-1].setup()
        return modules[-1]

    yield make
    for module in modules:
        module.close()


def check(module, *, scene=0, pixels=PIXELS, codes=CODES):
    found = module.scenes[scene]
    whole = slice(0, found.shape[0]), slice(0, found.shape[1])
    assert (found.pixels[slice(0, len(pixels)), *whole] == pixels).all()
    ids = np.array([*module.legend.ids.tolist(), 0])
    index = np.where(found.labels[whole] == found.no_label, len(module.legend), found.labels[whole])
    assert (ids[index] == codes).all()


def item(tmp_path):
    """A STAC item of three bands at 10 m and one at 20 m, beside its files."""
    for number, name in enumerate(("B02", "B03", "B04")):
        tif(tmp_path / f"{name}.tif", PIXELS[number])
    tif(tmp_path / "B8A.tif", PIXELS[0, ::2, ::2], GRID.zoom_out(2))
    found = pystac.Item(
        "scene", None, None, None, {"start_datetime": "2021-05-27T00:00:00Z", "end_datetime": "2021-05-27T00:00:00Z"}
    )
    common = {"B02": "blue", "B03": "green", "B04": "red", "B8A": "nir08"}
    for name, called in common.items():
        told = {"bands": [{"name": name, "eo:common_name": called}]}
        found.add_asset(
            name, pystac.Asset(f"./{name}.tif", media_type=pystac.MediaType.GEOTIFF, roles=["data"], extra_fields=told)
        )
    path = tmp_path / "item.json"
    path.write_text(json.dumps(found.to_dict(include_self_link=False)))
    return str(path)


@pytest.mark.parametrize("form", ["path", "stac", "assets"])
def test_a_stac_item_is_the_image_of_a_training_scene(trained, tmp_path, form):
    path = item(tmp_path)
    image = {"path": path, "stac": {"stac": path}, "assets": {"stac": path, "assets": ["blue", "green", "red"]}}[form]
    labels = tif(tmp_path / "labels.tif", CODES)
    bands = None if form == "assets" else ["blue", "green", "red"]
    module = trained({"image": image, "labels": labels}, legend=LEGEND, bands=bands)
    assert module.bands == ("blue", "green", "red")
    check(module)
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (2, 3, 32, 32)


def test_all_bands_of_a_stac_item_are_read_on_its_finest_grid(trained, tmp_path):
    path, labels = item(tmp_path), tif(tmp_path / "labels.tif", CODES)
    module = trained({"image": path, "labels": labels}, legend=LEGEND)
    assert module.bands == ("blue", "green", "red", "nir08")
    check(module)


def test_placed_chips_and_pictures_without_a_place_are_trained_on_and_kept(trained, tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        Image.fromarray(np.roll(PIXELS, number).transpose(1, 2, 0)).save(tmp_path / f"images/{number}.png")
        Image.fromarray(np.roll(CODES, number)).save(tmp_path / f"masks/{number}.png")
    chips = {"images": f"{tmp_path}/images", "labels": f"{tmp_path}/masks"}
    parts = [
        {"chips": chips | {"list": [str(k)], "part": part}}
        for k, part in enumerate(("training", "training", "validation"))
    ]
    store = StoreOptions(folder=str(tmp_path / "store"))
    for _ in range(2):
        module = trained(*parts, legend=LEGEND, gsd_m=0.5, store=store)
        for number in range(3):
            check(module, scene=number, pixels=np.roll(PIXELS, number), codes=np.roll(CODES, number))
        assert module.validation_pixels.sum() == CODES.size


def test_chips_in_colours_are_split_by_scene(trained, tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    colors = np.array([[0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 255, 255]], np.uint8)
    for number in range(4):
        tif(tmp_path / f"images/{number}.tif", PIXELS, GRID.translate_pix(500 * number, 0))
        Image.fromarray(colors[CODES]).save(tmp_path / f"masks/{number}.png")
    table = {"#0000ff": "water", "#00ff00": "forest", "#ffffff": "road"}
    chips = {"images": f"{tmp_path}/images", "labels": f"{tmp_path}/masks", "colors": table}
    module = trained({"chips": chips}, split=SplitOptions(unit="scene", validation_share=0.25))
    assert module.legend.names == ("water", "forest", "road")
    check(module)


def test_a_panoptic_set_is_trained_on(trained, tmp_path):
    segments = np.where(CODES == 3, 70_000 + np.arange(96) // 32, CODES)
    for part in ("training", "validation"):
        Image.fromarray(PIXELS.transpose(1, 2, 0)).save(tmp_path / f"{part}.png")
    drawn = np.stack([segments % 256, segments // 256 % 256, segments // 65536], -1).astype(np.uint8)
    Image.fromarray(drawn).save(tmp_path / "a_segments.png")
    told = [{"id": int(k), "category_id": min(int(k), 3)} for k in np.unique(segments)]
    document = {
        "images": [{"id": 1, "file_name": "NAME.png"}],
        "annotations": [{"image_id": 1, "file_name": "a_segments.png", "segments_info": told}],
        "categories": [{"id": k, "name": name, "isthing": int(k == 3)} for k, name in LEGEND.items()],
    }
    scenes = []
    for part in ("training", "validation"):
        (tmp_path / f"{part}.json").write_text(json.dumps(document).replace("NAME", part))
        coco = {"json": f"{tmp_path}/{part}.json", "images": str(tmp_path), "segments": str(tmp_path)}
        scenes.append({"coco": coco, "part": part})
    module = trained(*scenes, gsd_m=1.0)
    assert [item.kind for item in module.legend.classes] == ["stuff", "stuff", "thing"]
    check(module)


@pytest.mark.parametrize("kept", ["memory", "zarr"])
def test_a_cube_is_trained_on(trained, tmp_path, kept):
    data = xr.Dataset(
        {name: (("y", "x"), PIXELS[k]) for k, name in enumerate("bgr")} | {"cover": (("y", "x"), CODES)},
        coords=xr_coords(GRID),
    )
    if kept == "zarr":
        data.isel(y=slice(None, None, -1)).to_zarr(tmp_path / "cube.zarr", consolidated=False)
    place = {"zarr": data} if kept == "memory" else {"zarr": str(tmp_path / "cube.zarr")}
    scene = {"image": place | {"variables": ["b", "g", "r"]}, "labels": place | {"variables": ["cover"]}}
    module = trained(scene, legend=LEGEND)
    assert module.bands == ("b", "g", "r")
    check(module)
