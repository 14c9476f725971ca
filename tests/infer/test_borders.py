"""A trained network's map does not show where its tiles end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from geoseg.infer.options import PredictOptions
from geoseg.infer.predictor import TorchModel
from geoseg.infer.scene import predict_scene
from geoseg.infer.seams import SeamReport, check_seams
from geoseg.io.geotiff import write_raster
from geoseg.io.sources import open_source
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.spec import ModelSpec
from geoseg.synthetic import Landscape, landscape
from geoseg.tiling import Tiling

STEPS, CROP_PX, CROPS = 60, 128, 2
MOST_EXCESS = 0.1


class Context(nn.Module):
    """An encoder and decoder that see some thirty pixels far, and zeros beyond a tile's border."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(bands, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()
        )
        self.coarse = nn.Sequential(
            *(part for number in range(3)
              for part in (nn.Conv2d(12 if number == 0 else 24, 24, 3, stride=2, padding=1), nn.ReLU()))
        )  # fmt: skip
        self.head = nn.Conv2d(36, classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.fine(image)
        coarse = functional.interpolate(self.coarse(fine), size=image.shape[2:], mode="nearest")
        found: Tensor = self.head(torch.cat([fine, coarse], dim=1))
        return found


def trained(place: Landscape, *, steps: int = STEPS) -> TorchModel:
    """A network that has seen a landscape for a few seconds."""
    torch.manual_seed(0)
    pixels, ids = place.image.pixels.astype(np.float32), place.legend.ids
    mean, std = (part[:, None, None] for part in (pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))))
    image = torch.from_numpy((pixels - mean) / std)
    labels = torch.from_numpy(np.searchsorted(ids, place.labels.pixels[0]).astype(np.int64))
    network, rng = Context(len(pixels), len(ids)), np.random.default_rng(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(steps):
        corners = rng.integers(0, min(image.shape[1:]) - CROP_PX, (CROPS, 2))
        parts = [(slice(row, row + CROP_PX), slice(col, col + CROP_PX)) for row, col in corners]
        loss = functional.cross_entropy(
            network(torch.stack([image[:, *part] for part in parts])), torch.stack([labels[part] for part in parts])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    bands = tuple(
        BandInfo(name=name, mean=float(m), std=float(s))
        for name, m, s in zip(place.image.bands, mean.ravel(), std.ravel(), strict=True)
    )
    spec = ModelSpec(bands=len(pixels), classes=len(ids))
    return TorchModel(
        network, ModelCard(name="context", spec=spec, bands=bands, legend=place.legend, gsd_m=(10.0, 10.0))
    )


@pytest.mark.slow
def test_at_the_default_overlap_classes_change_no_more_often_at_tile_borders_than_elsewhere(tmp_path: Path) -> None:
    place = landscape(3, shape=(1200, 1300))
    model = trained(landscape(0, shape=(400, 500)))
    scene = open_source(write_raster(place.image, tmp_path / "scene.tif", nodata=0))

    def report(tile_px: int, overlap_px: int) -> SeamReport:
        """How often classes change along the same lines, the borders of tiles that overlap by the default."""
        out = tmp_path / f"{tile_px}-{overlap_px}.tif"
        options = PredictOptions(tile_px=tile_px, overlap_px=overlap_px)
        return check_seams(predict_scene(scene, models=[model], out=out, options=options).class_map, lines)

    default_px = model.card.overlap_px
    lines = Tiling.over((1200, 1300), largest_tile_px=256, overlap_px=default_px)
    whole, blended = report(1312, 0), report(256, default_px)
    # The landscape itself changes more often along some lines than along others: one large tile says how often.
    assert blended.border_rate <= (1 + MOST_EXCESS) * whole.border_rate
    assert blended.excess - whole.excess <= MOST_EXCESS
    assert blended.border_pairs > 20_000


def test_a_map_of_tiles_side_by_side_shows_them(tmp_path: Path) -> None:
    place = landscape(3, shape=(700, 600))
    scene = open_source(write_raster(place.image, tmp_path / "scene.tif", nodata=0))
    options = PredictOptions(tile_px=64, overlap_px=0, seams=True)
    found = predict_scene(scene, models=[trained(place, steps=20)], out=tmp_path / "map.tif", options=options).seams
    assert found is not None
    assert found.excess > 3 * MOST_EXCESS
    assert found.z_score > 5
