"""From a file and a model to a map, with nothing faked but the training."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from torch import Tensor, nn

from geoseg.errors import BandError, GridError, InputError
from geoseg.infer import devices, plan
from geoseg.infer.executors import Crew
from geoseg.infer.fast.winograd import FastConv
from geoseg.infer.options import PredictOptions
from geoseg.infer.predictor import TorchModel
from geoseg.infer.scene import predict_scene
from geoseg.io.regions import region_mask
from geoseg.io.sources import open_source
from geoseg.legend import Legend
from geoseg.models.build import create_model
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.spec import ModelSpec

LEGEND = Legend.from_dict({3: "water", 7: "forest", 12: "field"})
SMALL = {"tile_px": 64, "overlap_px": 16}


def card_of(*bands: str, gsd_m: float = 10.0, std: float = 1.0, **options: Any) -> ModelCard:
    infos = tuple(BandInfo(name=name, mean=0.0, std=std) for name in bands)
    spec = ModelSpec(bands=len(bands), classes=3)
    return ModelCard(name="test", spec=spec, bands=infos, legend=LEGEND, gsd_m=(gsd_m, gsd_m), **{**SMALL, **options})


class Position(nn.Module):
    """Class `(7 row + 3 col) % 3` of a pixel, read from its first two bands; all else is far off."""

    def forward(self, image: Tensor) -> Tensor:
        wanted = (7 * image[:, 0] + 3 * image[:, 1]).round().long() % 3
        return nn.functional.one_hot(wanted, 3).permute(0, 3, 1, 2).float() * 50


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a scene of bands `aux`, `col` and `row`; nodata 65535 in a corner."""

    def make(rows: int, cols: int, *, pixel_m: float = 10.0, name: str = "scene.tif") -> Path:
        row, col = np.indices((rows, cols)).astype(np.uint16)
        pixels = np.stack([row * 0 + 9, col, row])
        pixels[:, : rows // 4, : cols // 5] = 65535
        profile = {"driver": "GTiff", "count": 3, "height": rows, "width": cols, "dtype": "uint16", "nodata": 65535,
                   "crs": "EPSG:32633", "transform": Affine(pixel_m, 0, 500_000.123, 0, -pixel_m, 5_000_000.7),
                   "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}  # fmt: skip
        with rasterio.open(tmp_path / name, "w", **profile) as file:
            file.write(pixels)
            file.descriptions = ("aux", "col", "row")
        return tmp_path / name

    return make


def read(path: Path) -> Any:
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.mark.parametrize("options", [
    {}, {"tile_px": 128, "overlap_px": 0}, {"tile_px": 32, "overlap_px": 16, "batch": 5}, {"tile_px": 512, "batch": 1},
    {"blend": "triangle", "memory_bytes": 3 * 10**9}, {"blend": "flat", "tile_px": 96, "overlap_px": 48},
])  # fmt: skip
def test_bands_are_found_by_name_and_every_pixel_is_in_its_place(
    write: Callable[..., Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    scene = write(150, 210)
    result = predict_scene(
        open_source(scene), models=[TorchModel(Position(), card_of("ROW", "col"))], out=tmp_path / "map.tif",
        options=PredictOptions(**options),
    )  # fmt: skip
    row, col = np.indices((150, 210))
    wanted = np.array([3, 7, 12])[(7 * row + 3 * col) % 3]
    wanted[:37, :42] = LEGEND.ignore
    np.testing.assert_array_equal(read(result.class_map), wanted)
    assert (read(result.confidence)[wanted != LEGEND.ignore] == 100).all()
    with rasterio.open(scene) as before, rasterio.open(result.class_map) as after:
        assert (before.transform, before.crs, before.shape) == (after.transform, after.crs, after.shape)


@pytest.mark.parametrize("kind", ["convolutions", "unet"])
def test_a_network_maps_alike_for_any_blocks_and_batch(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    torch.manual_seed(3)
    if kind == "unet":
        network: nn.Module = create_model(ModelSpec(bands=2, classes=3))
        # With the moments of no image its classes are nearly tied wherever one looks, as those of no real network are.
        with torch.no_grad():
            for _ in range(20):
                network(2 * torch.rand(4, 2, 1, 1) + torch.rand(4, 2, 64, 64))
    else:
        network = nn.Sequential(
            nn.Conv2d(2, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 3, 5, padding=2)
        )
    maps = []
    source = open_source(write(300, 420))
    for strip, batch in ((130, 1), (300, 3), (5000, 4)):
        monkeypatch.setattr(plan, "STRIP_PX", strip)
        monkeypatch.setattr(plan, "BLOCK_PX", strip * 70)
        result = predict_scene(
            source, models=[TorchModel(network, card_of("row", "col", std=300.0))], out=tmp_path / f"{strip}.tif",
            options=PredictOptions(batch=batch),
        )  # fmt: skip
        maps.append(read(result.class_map))
    assert all((found != maps[0]).mean() <= 1e-5 for found in maps)
    assert len(np.unique(maps[0])) > 1


def test_networks_do_not_stay_in_memory_until_garbage_is_looked_for(write: Callable[..., Path], tmp_path: Path) -> None:
    source, network = open_source(write(80, 90)), create_model(ModelSpec(bands=2, classes=3))
    kept = weakref.ref(network)
    gc.collect()
    gc.disable()
    try:
        predict_scene(source, models=[TorchModel(network, card_of("row", "col"))], out=tmp_path / "map.tif")
        del network
        assert kept() is None
        assert not [found for found in gc.get_objects() if type(found) is FastConv]
    finally:
        gc.enable()


@pytest.mark.parametrize("overlap", [None, "auto"])
def test_the_log_says_which_overlap_was_taken_and_what_it_costs(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, overlap: Any
) -> None:
    caplog.set_level("INFO", "geoseg")
    network = nn.Sequential(nn.Conv2d(2, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 3, 5, padding=2))
    result = predict_scene(
        open_source(write(150, 200)), models=[TorchModel(network, card_of("row", "col", std=100.0))],
        out=tmp_path / "map.tif", options=PredictOptions(overlap_px=overlap, seams=True),
    )  # fmt: skip
    wanted = 16 if overlap is None else 8  # twice the radius of two 5 x 5 convolutions
    assert f"overlap by {wanted} x {wanted}, which costs" in caplog.text
    assert ("from the measured receptive field" in caplog.text) == (overlap == "auto")
    assert result.overlap_px == (wanted, wanted)
    assert result.seams is not None
    assert str(result.seams) in str(result)


def write_pieces(folder: Path, *, shift: int = 60) -> list[Path]:
    """Two scenes of one band that overlap by 40 columns; the second is older and has other values."""
    paths = []
    for number, date in enumerate(("20210801", "20210527")):
        path = folder / f"piece{number}_{date}.tif"
        profile = {"driver": "GTiff", "count": 1, "height": 80, "width": 100, "dtype": "uint8", "crs": "EPSG:32633",
                   "transform": Affine(10, 0, 500_000 + number * shift * 10, 0, -10, 5_000_000)}  # fmt: skip
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.full((1, 80, 100), (40, 160)[number], np.uint8))
            file.descriptions = ("row",)
        paths.append(path)
    return paths


class Shares(nn.Module):
    """Two classes: the first by the value over 200."""

    def forward(self, image: Tensor) -> Tensor:
        share = image / 200
        return torch.cat([share.log(), (1 - share).log(), share * 0 - 99], dim=1)


@pytest.mark.parametrize(
    ("rule", "order", "classes", "percent"),
    [("first", 1, 7, 80), ("first", -1, 3, 80), ("newest", 1, 7, 80), ("newest", -1, 7, 80), ("mean", 1, 3, 50),
     ("confidence", 1, 7, 80), ("confidence", -1, 3, 80)],
)  # fmt: skip
def test_overlapping_scenes_follow_the_rule(
    tmp_path: Path, *, rule: str, order: int, classes: int, percent: int
) -> None:
    source = open_source([str(path) for path in write_pieces(tmp_path)[::order]])
    result = predict_scene(
        source, models=[TorchModel(Shares(), card_of("row"))], out=tmp_path / "map.tif",
        options=PredictOptions(rule=rule),
    )  # fmt: skip
    found, confidence = read(result.class_map), read(result.confidence)
    assert found.shape == (80, 160)
    assert (found[:, :60] == 7).all()
    assert (found[:, 100:] == 3).all()
    assert (found[:, 60:100] == classes).all()
    assert (confidence[:, 60:100] == percent).all()
    with rasterio.open(result.class_map) as file:
        assert file.tags()["GEOSEG_RULE"] == rule
    assert json.loads(result.item.read_text())["properties"]["geoseg:rule"] == rule


@pytest.mark.parametrize("rule", ["first", "newest", "mean"])
def test_scenes_whose_bands_stand_in_another_order_are_seen_by_name(tmp_path: Path, rule: str) -> None:
    rng, where = np.random.default_rng(0), Affine(10, 0, 500_000, 0, -10, 5_000_000)
    values = {"row": rng.integers(0, 90, (40, 40)), "col": rng.integers(100, 190, (40, 40))}
    for name, bands in (("old_20200101.tif", ("row", "col")), ("new_20210101.tif", ("col", "row"))):
        profile = {"count": 2, "height": 40, "width": 40, "dtype": "uint8", "crs": "EPSG:32633", "transform": where}
        with rasterio.open(tmp_path / name, "w", driver="GTiff", **profile) as file:
            file.write(np.stack([values[band] for band in bands]).astype(np.uint8))
            file.descriptions = bands
    card, maps = card_of("row", "col"), []
    for name in (["new_20210101.tif"], ["old_20200101.tif", "new_20210101.tif"]):
        source = open_source([str(tmp_path / each) for each in name])
        options = PredictOptions(rule=rule if len(name) > 1 else "first", overwrite=True)
        models = [TorchModel(Position(), card)]
        maps.append(read(predict_scene(source, models=models, out=tmp_path / "map.tif", options=options).class_map))
    np.testing.assert_array_equal(*maps)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rule": "best"}, "known are first, newest, confidence, mean"),
        ({"layers": ("margins",)}, "known are entropy, margin, second, probabilities"),
        ({"crew": Crew("magic")}, "known are auto, serial"),
        ({"crew": Crew("auto", 0)}, "devices of 0"),
        ({"crew": Crew("serial", 1, "tcp://x:1")}, "a scheduler is for --engine dask"),
        ({"area": {"rows": [900, 950]}}, "outside the scene"),
        ({"tta": "twice"}, "known are none"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    write: Callable[..., Path], tmp_path: Path, *, options: dict[str, Any], said: str
) -> None:
    source, models = open_source(write(150, 150)), [TorchModel(Position(), card_of("row", "col"))]
    with pytest.raises(InputError, match=said):
        predict_scene(source, models=models, out=tmp_path / "map.tif", options=PredictOptions(**options))
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_an_area_and_more_layers(write: Callable[..., Path], tmp_path: Path) -> None:
    source, models = open_source(write(150, 150)), [TorchModel(Position(), card_of("row", "col"))]
    options = PredictOptions(area={"rows": [60, 90], "cols": [70, 100]}, layers=("second",))
    result = predict_scene(source, models=models, out=tmp_path / "map.tif", options=options)
    assert result.valid_px == 900
    assert sorted(result.layers) == ["class", "confidence", "second"]
    assert (read(result.layers["second"])[60:90, 70:100] != read(result.class_map)[60:90, 70:100]).all()


def square(left: float, side: float) -> list[list[float]]:
    """With its lower side at 4,999,000 m north."""
    south, right = 4_999_000, left + side
    return [[left, south], [right, south], [right, south + side], [left, south + side], [left, south]]


ZIGZAG = [[500_200 + 40 * (step % 2), 4_999_500 + step / 10] for step in range(5000)]


@pytest.mark.parametrize("area", [
    {"rows": [60, 90], "cols": [70, None]}, {"bbox": [500_100, 4_999_100, 500_933.3, 4_999_800]},
    {"type": "Polygon", "coordinates": [[[15.001, 45.142], [15.015, 45.152], [15.016, 45.14], [15.001, 45.142]]]},
    {"type": "MultiPolygon", "coordinates": [[square(500_100, 800)], [square(500_300, 300)], [square(500_700, 500)]],
     "crs": "EPSG:32633"},  # in and over each other
    {"type": "Polygon", "coordinates": [[*ZIGZAG, [500_200, 5_000_000], ZIGZAG[0]]], "crs": "EPSG:32633"},
])  # fmt: skip
def test_a_map_says_its_area_as_the_option_takes_it(
    write: Callable[..., Path], tmp_path: Path, area: dict[str, Any]
) -> None:
    source, models = open_source(write(150, 150)), [TorchModel(Position(), card_of("row", "col"))]
    result = predict_scene(source, models=models, out=tmp_path / "map.tif", options=PredictOptions(area=area))
    with rasterio.open(result.class_map) as file:
        said = file.tags()["GEOSEG_AREA"]
        assert "GEOSEG_RULE" not in file.tags()
    assert json.loads(result.item.read_text())["properties"]["geoseg:area"] == said
    assert len(said) < 1000
    again = region_mask(json.loads(said), source.geobox)
    mapped = read(result.class_map) != LEGEND.ignore
    if "bbox" in said:  # the box around many points
        assert not (mapped & ~again).any()
    else:
        np.testing.assert_array_equal(again[40:], mapped[40:])  # below the nodata


class Seen(nn.Module):
    """The first band as the score of class 1, and the sizes that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[tuple[int, int]] = set()

    def forward(self, image: Tensor) -> Tensor:
        self.sizes.add((image.shape[2], image.shape[3]))
        return torch.cat([image[:, :1] * 0, image[:, :1], image[:, :1] * 0 - 99], dim=1)


def test_a_finer_scene_is_shown_at_the_models_resolution_and_mapped_at_its_own(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    source, network = open_source(write(400, 400, pixel_m=5.0)), Seen()
    card = card_of("row", gsd_m=10.0, std=100.0)
    result = predict_scene(source, models=[TorchModel(network, card)], out=tmp_path / "map.tif")
    assert max(size for sizes in network.sizes for size in sizes) <= 64
    assert result.geobox == source.geobox
    assert result.excess < 2.1
    # Score of class 7 passes 0 with the first row.
    assert (read(result.class_map)[120:] == 7).all()


def test_native_keeps_the_scenes_pixels(write: Callable[..., Path], tmp_path: Path) -> None:
    source, card = open_source(write(64, 64, pixel_m=0.1)), card_of("row", "col")
    with pytest.raises(GridError, match="--native"):
        predict_scene(source, models=[TorchModel(Position(), card)], out=tmp_path / "map.tif")
    options = PredictOptions(native=True)
    result = predict_scene(source, models=[TorchModel(Position(), card)], out=tmp_path / "map.tif", options=options)
    assert read(result.class_map)[40, 50] == [3, 7, 12][(7 * 40 + 3 * 50) % 3]


@pytest.mark.parametrize(
    ("card", "options", "error", "said"),
    [
        (card_of("red", "row"), {}, BandError, r"\[red, row\], the scene has \[aux, col, row\]"),
        (card_of("row", "col"), {"tile_px": 100}, InputError, "tile of 100 px"),
        (card_of("row", "col"), {"overlap_px": 60}, InputError, "overlap of 60 px"),
        (card_of("row", "col"), {"device": "warp"}, InputError, "device 'warp'"),
        (card_of("row", "col"), {"memory_bytes": 1000}, InputError, r"needs \d+ MB"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_left(
    write: Callable[..., Path], tmp_path: Path, *, card: ModelCard, options: dict[str, Any], error: Any, said: str
) -> None:
    source = open_source(write(150, 150))
    with pytest.raises(error, match=said):
        predict_scene(
            source, models=[TorchModel(Position(), card)], out=tmp_path / "map.tif", options=PredictOptions(**options)
        )
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_damaged_scene_fails_in_one_line_and_leaves_nothing(write: Callable[..., Path], tmp_path: Path) -> None:
    scene = write(600, 600)
    content = bytearray(scene.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    scene.write_bytes(content)
    with pytest.raises(OSError, match=r"scene\.tif cannot be read at rows"):
        predict_scene(
            open_source(scene), models=[TorchModel(Position(), card_of("row", "col"))], out=tmp_path / "map.tif"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_real_scene_is_mapped_whole(shared_data: Path, tmp_path: Path) -> None:
    source = open_source(shared_data / "zion" / "landsat8_2345.tif")
    torch.manual_seed(0)
    card = card_of(*source.bands, gsd_m=30.0, std=5000.0, tile_px=512, overlap_px=64)
    network = nn.Conv2d(4, 3, 1)
    result = predict_scene(source, models=[TorchModel(network, card)], out=tmp_path / "map.tif")
    valid = source.read(source.geobox).valid
    assert ((read(result.class_map) != LEGEND.ignore) == valid).all()
    assert result.valid_px == valid.sum()


def test_a_job_that_goes_on_keeps_to_the_memory_of_today(write: Callable[..., Path], tmp_path: Path) -> None:
    source, models = open_source(write(400, 300)), [TorchModel(Position(), card_of("row", "col"))]
    out = tmp_path / "map.tif"

    def stopped(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "BLOCK_PX", 10_000)
        with pytest.raises(KeyboardInterrupt):
            predict_scene(source, models=models, out=out, options=PredictOptions(batch=4), progress=stopped)
    with pytest.raises(InputError, match=r"the blocks that an earlier run began with need \d+ MB; try --memory \d+MB"):
        predict_scene(source, models=models, out=out, options=PredictOptions(memory_bytes=10**8))
    result = predict_scene(source, models=models, out=out)
    assert result.resumed > 0


class Area(nn.Module):
    """Two bands as the scores of two classes; says how many tiles it saw before the job."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image, image[:, :1] - 99], dim=1)


def test_arithmetic_is_checked_where_a_map_is_wanted(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "geoseg")
    monkeypatch.setattr(devices, "has_bf16", lambda _: True)
    seen: list[tuple[int, int]] = []
    scene = open_source(write(700, 200))
    read = type(scene).read

    def noted(self: Any, geobox: Any) -> Any:
        seen.append((round((scene.geobox.affine.f - geobox.affine.f) / 10), geobox.shape[0]))
        return read(self, geobox)

    monkeypatch.setattr(type(scene), "read", noted)
    options = PredictOptions(area={"rows": [600, 650]})
    predict_scene(scene, models=[TorchModel(Area(), card_of("row", "col"))], out=tmp_path / "map.tif", options=options)
    assert "of fp32 at" in caplog.text
    assert min(row for row, _ in seen) >= 600 - 2 * 64
