"""Patches of any size, and networks that take no image larger than they were made for."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg.errors import InputError
from geoseg.models.card import read_card
from geoseg.pipeline import predict
from geoseg.training.run import run_fit


def test_a_patch_may_have_any_side(config, unet):
    run_fit(config(data={"patch_px": 37, "epoch_patches": 8}, model=unet, trainer={"max_epochs": 1}))
    assert read_card(Path("runs/tiny/model.safetensors")).tile_px == 512


BEIT = {
    "decoder": "fpn", "encoder": "beit_base_patch16_224",
    "options": {"encoder_options": {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 64}},
}  # fmt: skip


def test_tiles_are_no_larger_than_a_network_of_one_size_takes(config):
    model = run_fit(config(data={"epoch_patches": 8}, model=BEIT, trainer={"max_epochs": 1})).model
    assert read_card(model).tile_px == 64
    predict("image.tif", model=model, out="map.tif")
    with rasterio.open("map.tif") as file:
        assert file.shape == (160, 128)
        assert set(np.unique(file.read(1))) <= {1, 2, 3}


def test_patches_that_such_a_network_cannot_take_are_refused(config):
    with pytest.raises(InputError, match=r"takes images of up to 64 px, given are 96 x 96"):
        run_fit(config(data={"patch_px": 96}, model=BEIT))
