"""A model that is built from wavelengths sees the bands of another sensor; any other says that it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geoseg.errors import InputError
from geoseg.legend import Legend
from geoseg.models.build import create_model
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.file import save_model
from geoseg.models.rebanding import seen_by_wavelength
from geoseg.models.spec import ModelSpec
from geoseg.models.wavelengths import band_wavelengths, bandwidth_um
from geoseg.pipeline import predict

pytest.importorskip("torchgeo.models")

DOFA = {"encoder_options": {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 32}, "decoder_channels": 16}
RGB = {"red": 0.665, "green": 0.56, "blue": 0.49}


def card_of(spec: ModelSpec) -> ModelCard:
    bands = tuple(
        BandInfo(name=name, mean=100.0 * place, std=10.0 * place, wavelength_um=um)
        for place, (name, um) in enumerate(RGB.items(), 1)
    )
    legend = Legend.from_dict({1: "water", 2: "wood"})
    return ModelCard(name="sensor", spec=spec, bands=bands, legend=legend, gsd_m=(10.0, 10.0))


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    spec = ModelSpec(
        decoder="upernet", encoder="dofa_small_patch16_224", bands=3, classes=2, options=DOFA,
        wavelengths_um=tuple(RGB.values()),
    )  # fmt: skip
    return create_model(spec).eval(), card_of(spec)


def test_bands_of_the_same_wavelengths_are_the_same_bands(trained):
    """Sentinel-2's own numbers for red, green and blue, in another order."""
    network, card = trained
    image = torch.randn(1, 3, 64, 64)
    adapted, changed = seen_by_wavelength(network, card, band_names=["B2", "B3", "B4"], sensor="sentinel-2")
    with torch.inference_mode():
        torch.testing.assert_close(adapted(image.flip(1)), network(image), rtol=1e-2, atol=1e-3)
    assert changed.band_names == ("B2", "B3", "B4")
    assert [round(band.mean) for band in changed.bands] == [300, 200, 100]


def test_more_bands_are_seen_and_each_counts(trained):
    network, card = trained
    adapted, changed = seen_by_wavelength(network, card, band_names=["blue", "green", "red", "rededge1"])
    assert changed.spec.bands == 4
    assert changed.bands[1] == replace(card.bands[1], wavelength_um=changed.bands[1].wavelength_um)
    image = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        before = adapted(image)
        for band in range(4):
            other = image.clone()
            other[:, band] += 1
            assert not torch.equal(adapted(other), before)


def test_the_models_own_bands_change_nothing(trained):
    assert seen_by_wavelength(*trained, band_names=["blue", "Green", "red"]) == trained


def test_what_cannot_be_seen_is_one_line(trained):
    network, card = trained
    with pytest.raises(InputError, match=r"wavelengths of dem are unknown or far.*leave them out"):
        seen_by_wavelength(network, card, band_names=["red", "green", "blue", "dem"])
    with pytest.raises(InputError, match="lwir11|thermal"):
        seen_by_wavelength(network, card, band_names=["red", "lwir11"])
    spec = ModelSpec(decoder="unet", encoder="resnet18", bands=3, classes=2)
    with pytest.raises(InputError, match=r"encoder resnet18, which sees red, green, blue and nothing else.*dofa"):
        seen_by_wavelength(create_model(spec), card_of(spec), band_names=["red", "nir"])


def test_a_scene_of_another_sensor_is_mapped(trained, tmp_path):
    network, card = trained
    save_model(tmp_path / "m.safetensors", model=network, card=card)
    pixels = np.random.default_rng(0).integers(1, 600, (4, 64, 64)).astype(np.uint16)
    profile = {"count": 4, "height": 64, "width": 64, "dtype": "uint16", "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "s.tif", "w", transform=Affine(10, 0, 5e5, 0, -10, 5e6), **profile) as file:
        file.write(pixels)
    scene, names = str(tmp_path / "s.tif"), ["blue", "green", "red", "rededge1"]
    model, out = tmp_path / "m.safetensors", tmp_path / "map.tif"
    predict(scene, model=model, out=out, bands=names, by_wavelength=True, precision="fp32", device="cpu")
    adapted, changed = seen_by_wavelength(network, card, band_names=names)
    moments = torch.tensor([[band.mean, band.std] for band in changed.bands])[..., None, None]
    with torch.inference_mode():
        wanted = adapted((torch.from_numpy(pixels.astype(np.float32)) - moments[:, 0]).div(moments[:, 1])[None]).argmax(
            1
        )
    with rasterio.open(out) as file:
        assert (file.read(1) == wanted[0].numpy() + 1).mean() > 0.999


def test_bands_of_the_same_names_and_another_sensor_are_others(trained):
    network, card = trained
    names = ("B4", "B5", "B3")  # red, red edge and green of Sentinel-2; red, near infrared and green of Landsat 8
    seen = (0.665, 0.705, 0.56)
    bands = tuple(
        replace(band, name=name, wavelength_um=um) for band, name, um in zip(card.bands, names, seen, strict=True)
    )
    numbered = replace(card, bands=bands, spec=replace(card.spec, wavelengths_um=seen))
    assert seen_by_wavelength(network, numbered, band_names=names)[1] is numbered
    adapted, changed = seen_by_wavelength(network, numbered, band_names=names, sensor="landsat-8")
    assert adapted is not network
    assert [band.wavelength_um for band in changed.bands] == [0.655, 0.865, 0.56]


def of_given_widths(bands: dict[str, float]) -> tuple[torch.nn.Module, ModelCard]:
    """A network whose bands have the widths 0.2, 0.05 and 0.01, and its card."""
    small = {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 32, "bandwidths_um": [0.2, 0.05, 0.01]}
    torch.manual_seed(0)
    spec = ModelSpec(
        decoder="upernet", encoder="copernicusfm_base", bands=3, classes=2,
        options={"encoder_options": small, "decoder_channels": 16}, wavelengths_um=tuple(bands.values()),
    )  # fmt: skip
    card = card_of(spec)
    named = zip(card.bands, bands.items(), strict=True)
    infos = tuple(replace(band, name=name, wavelength_um=um) for band, (name, um) in named)
    return create_model(spec).eval(), replace(card, bands=infos)


def widths_of(card: ModelCard) -> list[float]:
    return card.spec.options["encoder_options"]["bandwidths_um"]


@pytest.mark.parametrize(
    ("names", "widths"),
    [
        (["blue", "green", "rededge1"], [0.01, 0.05, bandwidth_um(band_wavelengths(["rededge1"])[0])]),
        (["red", "green"], [0.2, 0.05]),
    ],
)
def test_bandwidths_go_with_the_names_of_the_bands(names, widths):
    _, changed = seen_by_wavelength(*of_given_widths(RGB), band_names=names)
    assert widths_of(changed) == pytest.approx(widths)


def test_bands_of_the_same_names_and_another_sensor_have_widths_of_their_own():
    seen = {"B4": 0.665, "B5": 0.705, "B3": 0.56}  # of Sentinel-2; B5 of Landsat 8 is near infrared
    _, changed = seen_by_wavelength(*of_given_widths(seen), band_names=list(seen), sensor="landsat-8")
    assert widths_of(changed) == pytest.approx([0.2, bandwidth_um(0.865), 0.01])
