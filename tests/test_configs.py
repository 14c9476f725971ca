"""Each configuration in configs/ trains for a step through the command line, on data laid out as it expects them."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import scipy.ndimage
import shapely
import timm
import torch
import yaml
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image

from geoseg import cli, demo
from geoseg.data.datamodule import SceneDataModule
from geoseg.data.doors import expand_scenes
from geoseg.io.handles import unplaced_is_fine
from geoseg.io.labels import open_labels, read_legend
from geoseg.io.sources import open_source
from geoseg.models.build import create_model
from geoseg.models.card import read_card
from geoseg.models.file import load_model
from geoseg.models.pretrained.catalog import find_entry
from geoseg.models.spec import ModelSpec
from geoseg.models.task import SegmentationTask
from geoseg.models.wavelengths import band_wavelengths

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
TRAINED = [path for path in FILES if not path.stem.endswith("_predict")]
RGB, RGBN = ("red", "green", "blue"), ("red", "green", "blue", "nir")
SIX = ("blue", "green", "red", "nir", "swir1", "swir2")
BGRN = ("blue", "green", "red", "nir")
SENTINEL2 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
THREE = ("class 1", "class 2", "class 3")
LANDSAT = ("B2_blue", "B3_green", "B4_red", "B5_nir")
NLCD = ("water", "developed", "barren", "forest", "shrubland", "herbaceous", "cultivated", "wetlands")
STEP = (
    "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1",
    "--trainer.accelerator=cpu", "--trainer.devices=1", "--data.batch=2", "--data.epoch_patches=2",
    "--data.patch_px=64", "--data.workers=0", "--validation.places=0", "--logs=[csv]",
)  # fmt: skip
SMALL = (
    "--model.decoder=unet", "--model.encoder=resnet18",
    "--model.options={encoder_depth: 3, decoder_channels: [16, 16, 16]}",
)  # fmt: skip
TINY = (
    "--model.encoder=resnet10t", "--model.options={encoder_depth: 3, decoder_channels: [8, 8, 8]}",
)  # fmt: skip
VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2}
UTM = "EPSG:32633"


# -- data as they come -------------------------------------------------------------------------------------------------


def fields_of(classes: int, shape: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    """Squares of 8 x 8 pixels with numbers below `classes`, uint8."""
    rng = np.random.default_rng(seed)
    squares = rng.permutation(np.arange(-(-shape[0] // 8) * -(-shape[1] // 8)) % classes)
    grid = squares.reshape(-(-shape[0] // 8), -(-shape[1] // 8))
    return np.kron(grid, np.ones((8, 8)))[: shape[0], : shape[1]].astype(np.uint8)


def seen(labels: np.ndarray, bands: int, *, top: int = 250) -> np.ndarray:
    """An image `(band, row, col)` in which each class has its own colour, from 1 on."""
    rng = np.random.default_rng(bands)
    means = rng.integers(top // 5, top, (int(labels.max()) + 1, bands))
    noisy = means[labels].transpose(2, 0, 1) + rng.normal(0, top / 50, (bands, *labels.shape))
    return noisy.clip(1, top).astype(np.uint8 if top < 256 else np.uint16)


def tif(
    path: Path, pixels: np.ndarray, *, names: Sequence[str] = (), crs: Any = UTM, gsd_m: float = 10.0, col: int = 0
):
    """A GeoTIFF whose upper left corner lies `col` of its pixels to the east; without `gsd_m` it says no place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    profile = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    if gsd_m:
        profile["transform"] = Affine(gsd_m, 0, 500_000 + col * gsd_m, 0, -gsd_m, 600_000)
    with unplaced_is_fine(), rasterio.open(path, "w", driver="GTiff", crs=crs, **profile) as file:
        file.write(pixels)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)


def png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0)).save(path)


def scene(bands: Sequence[str], *, image: str = "scene.tif") -> Callable[[], None]:
    """Writes one scene with labels of the codes 1 to 3."""

    def write() -> None:
        labels = fields_of(3, (256, 256))
        tif(Path(image), seen(labels, len(bands), top=6000), names=bands)
        tif(Path("labels.tif"), labels + 1)

    return write


def loveda() -> None:
    for part in ("Train", "Val"):
        for where, number in (("Urban", 7), ("Rural", 7), ("Rural", 8)):
            labels = fields_of(8, (96, 96), seed=number)
            png(Path(f"LoveDA/{part}/{where}/images_png/{number}.png"), seen(labels, 3))
            png(Path(f"LoveDA/{part}/{where}/masks_png/{number}.png"), labels)


def potsdam() -> None:
    """Images with world files and without a CRS, labels without either, one of them a shade off."""
    colors = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0]], np.uint8)
    columns = {2: (10, 14), 3: (10, 14), 4: (10, 15), 5: (10, 15), 6: (7, 15), 7: (7, 13)}
    for row, (first, last) in columns.items():
        for col in range(first, last + 1):
            labels = fields_of(6, (64, 64), seed=row * 100 + col)
            image = Path(f"Potsdam/2_Ortho_RGB/top_potsdam_{row}_{col}_RGB.tif")
            tif(image, seen(labels, 3), crs=None, gsd_m=0)
            image.with_suffix(".tfw").write_text(f"0.05\n0\n0\n-0.05\n{366_000 + 300 * col}\n{5_807_000 - 300 * row}\n")
            drawn = colors[labels].transpose(2, 0, 1)
            drawn[0, :4, :4] -= drawn[0, :4, :4] // 80
            tif(Path(f"Potsdam/5_Labels_all/top_potsdam_{row}_{col}_label.tif"), drawn, crs=None, gsd_m=0)


def landcover_ai() -> None:
    for number, gsd_m in ((1, 0.25), (2, 0.5)):
        labels = fields_of(5, (256, 256), seed=number)
        tif(
            Path(f"landcover.ai.v1/images/N-33-{number}.tif"), seen(labels, 3), crs=2180, gsd_m=gsd_m, col=9000 * number
        )
        tif(Path(f"landcover.ai.v1/masks/N-33-{number}.tif"), labels, crs=2180, gsd_m=gsd_m, col=9000 * number)


def openearthmap() -> None:
    root = Path("OpenEarthMap_wo_xBD")
    for region, crs in (("aachen", 32631), ("tonga", 32701)):
        for number in range(3):
            labels = fields_of(9, (128, 128), seed=number)
            place = {"crs": crs, "gsd_m": 0.3, "col": 100 * number}  # they overlap
            tif(root / region / "images" / f"{region}_{number}.tif", seen(labels, 3), **place)
            if number < 2:
                tif(root / region / "labels" / f"{region}_{number}.tif", labels, **place)
    for number, part in enumerate(("train", "val", "test")):
        (root / f"{part}.txt").write_text(f"aachen_{number}.tif\ntonga_{number}.tif\njoplin_{number}.tif\n")


def chesapeake() -> None:
    codes = np.array([0, 1, 2, 3, 4, 5, 6, 15], np.uint8)
    for number, part in enumerate(("train", "val", "test")):
        folder = Path(f"chesapeake/md_1m_2013_extended-debuffered-{part}_tiles")
        labels = fields_of(8, (128, 128), seed=number)
        place = {"crs": 26918, "gsd_m": 1.0, "col": 128 * number}
        tif(folder / f"m_380760{number}_ne_18_1_naip-new.tif", seen(labels, 4), **place)
        tif(folder / f"m_380760{number}_ne_18_1_lc.tif", codes[labels], **place)
        tif(folder / f"m_380760{number}_ne_18_1_nlcd.tif", labels, **place)


def fields() -> None:
    """Twelve fields that share their edges, in the middle of two images; and the line of the config, run."""
    squares = [
        shapely.box(500_400 + 500 * col, 598_000 + 400 * row, 500_900 + 500 * col, 598_400 + 400 * row)
        for col in range(3)
        for row in range(4)
    ]
    geopandas.GeoDataFrame({"crop": range(12)}, geometry=squares, crs=UTM).to_file("fields.gpkg")
    for name in ("spring.tif", "autumn.tif"):
        tif(Path(name), seen(fields_of(3, (256, 256)), 4, top=6000), names=RGBN)
    told = re.search(r"python -c '(.*)'$", (CONFIGS / "fields.yaml").read_text(), re.MULTILINE)
    exec(told[1], {})  # noqa: S102 - what users are told to run


def aber() -> None:
    """Labels on the mosaic's grid, as its benchmark makes them."""
    grid: GeoBox = open_source("../shared/data/aber_tiles/*.tif").geobox
    Path("runs/aber").mkdir(parents=True)
    profile = {"count": 1, "dtype": "uint8", "crs": str(grid.crs), "transform": grid.affine}
    with rasterio.open("runs/aber/labels.tif", "w", height=grid.shape[0], width=grid.shape[1], **profile) as file:
        file.write(fields_of(4, grid.shape) + 1, 1)


def torchgeos_resnet50() -> None:
    scene(SENTINEL2, image="sentinel2.tif")()
    from torchgeo import models

    cached("ResNet50_Weights.SENTINEL2_ALL_MOCO", models.resnet50(in_chans=13))


def small_dofa() -> None:
    scene(SIX)()
    from torchgeo import models

    cached("DOFABase16_Weights.DOFA_MAE", models.DOFA(**VIT, img_size=64, num_classes=0))


def cached(name: str, network: torch.nn.Module) -> None:
    """Random weights where torch keeps those of this name."""
    folder = Path(torch.hub.get_dir(), "checkpoints")
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / find_entry(name).file)


# -- what is run, and what comes out -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What a config needs and gives: the data, classes and bands, and options that make it small."""

    write: Callable[[], object] | None
    classes: tuple[str, ...]
    bands: tuple[str, ...]
    options: tuple[str, ...] = ()
    real: str | None = None


CASES = {
    "landcover": Case(scene(RGBN), THREE, RGBN),
    "landcover_small": Case(scene(RGBN), THREE, RGBN),
    # Batch norms of several processes are for GPUs alone.
    "multi_gpu": Case(scene(RGBN), THREE, RGBN, (*SMALL, "--trainer.sync_batchnorm=false")),
    "finetune_sentinel2": Case(
        torchgeos_resnet50, THREE, SENTINEL2,
        ("--model.options={decoder_channels: [16, 16, 16, 16, 16]}", "--model.ema_decay=0"),
    ),
    "foundation": Case(
        small_dofa, THREE, SIX, (f"--model.options={json.dumps({'encoder_options': VIT, 'decoder_channels': 16})}",)
    ),
    "fields": Case(
        fields, ("background", "field", "boundary"), tuple(f"{band}@{date}" for date in (1, 2) for band in RGBN), SMALL
    ),
    "demo": Case(lambda: demo.write_landscape(Path("runs/demo"), shape=(160, 672)), (), SIX),
    "zion": Case(None, NLCD, BGRN, TINY, "zion"),
    "zion_forest": Case(
        None, NLCD, BGRN, ("--model.options={trees: 3, pixels: 2000}", "--data.epoch_patches=40"), "zion"
    ),
    "zion_elevation": Case(None, NLCD, (*LANDSAT, "elevation"), TINY, "zion"),
    "buildings": Case(None, ("background", "building"), RGB, TINY[1:], "buildings"),  # ImageNet's weights, of a package
    "aber": Case(aber, ("water", "bare or built", "grass", "wood"), (), TINY, "aber_tiles"),
    "beaufort": Case(
        None,
        ("emergent wetland", "forested wetland", "herbaceous", "sand", "subtidal haline", "wet sand"),
        (), TINY, "beaufort",
    ),
    "loveda": Case(
        loveda, ("background", "building", "road", "water", "barren", "forest", "agriculture"), RGB, SMALL
    ),
    "potsdam": Case(potsdam, ("impervious surfaces", "building", "low vegetation", "tree", "car"), RGB, SMALL),
    "landcover_ai": Case(
        landcover_ai, ("background", "building", "woodland", "water", "road"), RGB,
        (*SMALL, "--data.split.block_m=16", "--data.split.buffer_m=2"),
    ),
    "openearthmap": Case(
        openearthmap,
        ("bareland", "rangeland", "developed space", "road", "tree", "water", "agriculture land", "building"),
        RGB, SMALL,
    ),
    "chesapeake": Case(chesapeake, ("water", "forest", "field", "impervious or barren"), RGBN, SMALL),
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder as the current one, torch's cache in it, and ImageNet's weights made up, in their layout."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", lambda *_, **__: "weights")
    monkeypatch.setattr(
        "segmentation_models_pytorch.encoders.load_file",
        lambda *_, **__: timm.create_model("resnet18", num_classes=0).state_dict(),
    )
    for name in ("draw_curves", "draw_judgement", "draw_split"):  # half of the time; the process of its own draws them
        monkeypatch.setattr(f"geoseg.training.run.{name}", lambda *_, **__: None)
    return tmp_path / "here"


def prepared(name: str, place: Path, request: pytest.FixtureRequest) -> Case:
    """A config's data in place; the test is skipped where they are real and absent."""
    case = CASES[name]
    if case.real is not None:
        shared = request.getfixturevalue("shared_data")
        if not (shared / case.real).is_dir():
            pytest.skip(f"real imagery is absent: no ../shared/data/{case.real}")
        (place.parent / "shared").symlink_to(shared.parent, target_is_directory=True)
    if case.write is not None:
        case.write()
    return case


def check_run(name: str, case: Case) -> None:
    """The run took one step, and left a model of the classes and bands of the data."""
    folder = Path("runs", name)
    card = read_card(folder / "model.safetensors")
    figures = json.loads((folder / "metrics.json").read_text())
    assert [row["step"] for row in figures["history"]] == ([] if card.spec.decoder == "random_forest" else [1])
    assert card.name == name
    assert card.legend.names == (case.classes or card.legend.names)
    assert tuple(band.name for band in card.bands) == (case.bands or tuple(band.name for band in card.bands))
    assert all(figures["training_pixels"][each] > 0 for each in case.classes)
    assert any(figures["validation_pixels"].values())


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("path", [path for path in TRAINED if path.stem != "multi_gpu"], ids=lambda path: path.stem)
def test_a_config_trains_for_a_step(path, place, request):
    name = path.stem
    case = prepared(name, place, request)
    assert cli.main(["fit", "--config", str(path), *STEP, *case.options]) == 0
    check_run(name, case)
    AFTER.get(name, lambda: None)()


def test_the_config_for_several_gpus_trains_in_a_process_of_its_own(place, request):
    case = prepared("multi_gpu", place, request)
    command = [sys.executable, "-m", "geoseg.cli", "fit", "--config", str(CONFIGS / "multi_gpu.yaml")]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *STEP, *case.options], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("runs/multi_gpu/model.safetensors: validation accuracy")
    check_run("multi_gpu", case)
    assert Path("runs/multi_gpu/curves.png").is_file()


def weights_are_those_of_the_file() -> None:
    """The encoder is frozen at first, and its values are normalised as MoCo's were: divided by 10,000."""
    network, card = load_model(Path("runs/finetune_sentinel2/model.safetensors"))
    (file,) = Path(torch.hub.get_dir(), "checkpoints").iterdir()
    theirs = torch.load(file, weights_only=True)
    for key in ("conv1.weight", "layer3.2.conv2.weight"):
        torch.testing.assert_close(network.encoder.state_dict()[key], theirs[key])
    assert {(band.mean, band.std) for band in card.bands} == {(0.0, 10_000.0)}


def bands_have_wavelengths() -> None:
    card = read_card(Path("runs/foundation/model.safetensors"))
    assert card.spec.wavelengths_um == (0.49, 0.56, 0.665, 0.842, 1.61, 2.19)


def fields_lie_apart() -> None:
    """Twelve fields with common edges are twelve pieces of the class field, with a boundary about each."""
    data = yaml.safe_load((CONFIGS / "fields.yaml").read_text())["data"]
    labels, _ = open_labels(data["scenes"][0]["labels"], legend=read_legend(data["legend"]))
    ids = labels.read(open_source("spring.tif").geobox).pixels[0]
    assert scipy.ndimage.label(ids == 1)[1] == 12
    assert scipy.ndimage.label(ids > 0)[1] == 1
    assert (ids == 0).any()


def elevation_is_mapped() -> None:
    """The config for `predict` names the bands of the model that was just trained."""
    config, model = CONFIGS / "zion_elevation_predict.yaml", "runs/zion_elevation/model.safetensors"
    area = "--area={rows: [400, 500], cols: [400, 500]}"
    assert cli.main(["predict", "--config", str(config), "--model", model, "--out", "map.tif", area]) == 0
    with rasterio.open("map.tif") as mapped, rasterio.open("../shared/data/zion/landsat8_2345.tif") as image:
        assert mapped.transform == image.transform
        assert mapped.shape == image.shape


AFTER: dict[str, Callable[[], None]] = {
    "finetune_sentinel2": weights_are_those_of_the_file,
    "foundation": bands_have_wavelengths,
    "fields": fields_lie_apart,
    "zion_elevation": elevation_is_mapped,
}


# -- what is written in them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_option_has_a_comment_on_its_line(path):
    """A line that begins with an option; ids of classes are data, explained where the legend begins."""
    option, note = re.compile(r"\s*(?:- )*[A-Za-z_]\w*:(?:\s|$)"), re.compile(r"\s# +\S")
    lines = path.read_text().splitlines()
    assert [line for line in lines if option.match(line) and not note.search(line)] == []


@pytest.mark.parametrize(("part", "kind"), [("data", SceneDataModule), ("model", SegmentationTask)])
def test_the_recommended_config_explains_every_option(part, kind):
    known = set(inspect.signature(kind).parameters) - {"seed"}  # which follows seed_everything
    assert set(yaml.safe_load((CONFIGS / "landcover.yaml").read_text())[part]) == known


@pytest.mark.parametrize("path", [path for path in TRAINED if path.stem != "zion_forest"], ids=lambda path: path.stem)
def test_the_network_that_a_config_names_can_be_built(path):
    """As it is written, not small as above; on a device without memory."""
    model, case = yaml.safe_load(path.read_text())["model"], CASES[path.stem]
    bands = case.bands or RGBN
    spec = ModelSpec(
        decoder=model.get("decoder", "unet"), encoder=model["encoder"], options=model.get("options") or {},
        bands=len(bands), classes=max(2, len(case.classes)), wavelengths_um=band_wavelengths(bands),
    )  # fmt: skip
    with torch.device("meta"):
        network = create_model(spec).eval()
        assert network(torch.zeros(1, len(bands), 64, 64)).shape == (1, spec.classes, 64, 64)
    weights = model.get("weights")
    assert weights in (None, "imagenet") or find_entry(weights).encoder == spec.encoder


def test_the_demo_trains_as_its_config_says():
    written = yaml.safe_load((CONFIGS / "demo.yaml").read_text())
    out = Path("runs/demo")
    assert written == demo.config(out / "image.tif", out / "labels.tif", out=out, seed=0)


def test_the_tiles_of_landcover_ai_can_be_read_by_its_lists(place):
    """What the recipe shows for the paper's own split, on tiles as the download's script names them."""
    for number in range(3):
        png(Path(f"landcover.ai.v1/output/N-33-60_{number}.jpg"), seen(fields_of(5, (16, 16)), 3))
        png(Path(f"landcover.ai.v1/output/N-33-60_{number}_m.png"), fields_of(5, (16, 16)))
    Path("landcover.ai.v1/train.txt").write_text("N-33-60_0\nN-33-60_2\n")
    Path("landcover.ai.v1/val.txt").write_text("N-33-60_1\n")
    text = (CONFIGS / "recipes" / "landcover_ai.yaml").read_text()
    shown = re.findall(r"^# {3}((?:- chips| {2}).*)$", text, re.MULTILINE)
    scenes = expand_scenes(yaml.safe_load("\n".join(shown)))
    assert [(each["name"][-1], each["part"]) for each in scenes] == [
        ("0", "training"),
        ("2", "training"),
        ("1", "validation"),
    ]
