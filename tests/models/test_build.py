"""Every decoder with any number of bands; what is unknown is named with its neighbours."""

import json

import pytest
import torch
from torch import nn

from geoseg.errors import InputError
from geoseg.models.backbones import encoder_name, smp_encoders, weights_option
from geoseg.models.build import DECODERS, ENCODED, create_model
from geoseg.models.networks.decoders import NETWORKS
from geoseg.models.spec import ModelSpec

SMALL = {
    "segformer": {"encoder": "mit_b0"},
    "unet": {"encoder": "mobilenet_v2"},
    "dpt": {"encoder": "vit_tiny_patch16_224"},
}
LEARNING = [name for name in DECODERS if name != "random_forest"]  # which grows, and has tests of its own


def test_the_names_known_without_the_libraries_are_those_of_their_networks():
    assert tuple(NETWORKS) == ENCODED


@pytest.mark.parametrize(("decoder", "bands"), list(zip(LEARNING, [1, 3, 6, 13] * 4, strict=False)))
@pytest.mark.parametrize("size", [(128, 160), (130, 157)])  # PAN pools 1/16 of it three times
def test_every_decoder_gives_a_score_a_class_and_pixel(decoder, bands, size):
    spec = ModelSpec(decoder=decoder, bands=bands, classes=5, **SMALL.get(decoder, {}))
    network = create_model(spec).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, bands, *size))
    assert logits.shape == (1, 5, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("bands", [1, 3, 6, 13])
def test_a_unet_takes_any_number_of_bands_and_options(bands):
    options = {"encoder_depth": 3, "decoder_channels": [16, 8, 8], "decoder_interpolation": "bilinear", "dropout": 0.5}
    network = create_model(ModelSpec(bands=bands, classes=2, options=options))
    assert network(torch.randn(2, bands, 32, 32)).shape == (2, 2, 32, 32)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout2d)] == [0.5]


def test_a_timm_model_is_an_encoder():
    assert encoder_name("convnext_atto") == encoder_name("tu-convnext_atto") == "tu-convnext_atto"
    network = create_model(ModelSpec(encoder="mobilenetv3_small_050", bands=4, classes=2)).eval()
    assert network(torch.randn(1, 4, 64, 64)).shape == (1, 2, 64, 64)


def test_the_pixel_network_sees_no_neighbours():
    network = create_model(ModelSpec(decoder="pixel", bands=3, classes=4)).eval()
    image = torch.randn(1, 3, 32, 32)
    changed = image.clone()
    changed[..., 5, 6] += 9
    with torch.inference_mode():
        moved = (network(image) != network(changed)).any(1)[0]
    assert moved.nonzero().tolist() == [[5, 6]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder": "unett"}, "unknown; known are unet"),
        ({"encoder": "resnet19"}, "near it are resnet18|near it are resnet"),
        ({"encoder": "hf-hub:someone/else"}, "is unknown"),
        ({"options": {"depth": 3}}, "no option depth; it has .*encoder_depth"),
        ({"options": {"encoder_depth": 3, "decoder_channels": [8]}}, "cannot be built"),
        ({"decoder": "pixel", "options": {"layers": 3}}, "it has hidden"),
        ({"encoder": "dofa_bas_patch16"}, "near it are dofa_base_patch16_224"),
        ({"encoder": "swin_v2"}, "near it are .*swin_v2_[tsb]"),
        ({"decoder": "dpt"}, "dpt needs a vision transformer, e.g. vit_tiny_patch16_224"),
        ({"decoder": "dpt", "encoder": "convnext_atto"}, "dpt needs a vision transformer"),
        ({"options": {"encoder_options": {"depth": 3}}}, "no encoder_options; tu-resnet18 may"),
        ({"encoder": "vit_tiny_patch16_224", "options": {"encoder_options": {"dept": 3}}}, "cannot be built: .*dept"),
        ({"encoder": "crossvit_tiny_240"}, "features do not lie at strides 12, 17"),
    ],
)
def test_what_cannot_be_built_is_one_line(changes, words):
    with pytest.raises(InputError, match=words) as caught:
        create_model(ModelSpec(**{"bands": 3, "classes": 2, **changes}))
    assert "\n" not in str(caught.value)


def test_a_network_without_bands_is_no_network():
    with pytest.raises(InputError, match="0 bands"):
        ModelSpec(bands=0, classes=2)


@pytest.mark.parametrize(
    ("wavelengths", "words"),
    [((0.6,), "1 wavelengths for 2 bands"), ((0.6, -1.0), "positive micrometres"), ((0.6, float("nan")), "positive")],
)
def test_wavelengths_are_one_positive_number_a_band(wavelengths, words):
    with pytest.raises(InputError, match=words):
        ModelSpec(bands=2, classes=2, wavelengths_um=wavelengths)


def test_weights_that_do_not_exist_are_listed():
    assert weights_option("resnet18", "imagenet") == "imagenet"
    assert weights_option("tu-convnext_atto", "anything") is True
    with pytest.raises(InputError, match="imagenet"):
        weights_option("resnet18", "imagenet1k_v9")


@pytest.mark.parametrize("encoder", ["resnet18", "convnext_atto"])
def test_weights_that_cannot_be_downloaded_are_one_line(encoder, monkeypatch, tmp_path):
    def offline(*_, **__):
        raise ConnectionError("no network\nand a long story")

    for where in ("segmentation_models_pytorch.encoders.hf_hub_download", "timm.models._hub.hf_hub_download"):
        monkeypatch.setattr(where, offline)
    with pytest.raises(InputError, match=r"cannot be had .*no network.*leave model.weights out") as caught:
        create_model(ModelSpec(encoder=encoder, bands=3, classes=2), weights="imagenet")
    assert "\n" not in str(caught.value)


def test_a_spec_is_plain_values():
    spec = ModelSpec(bands=4, classes=2, options={"decoder_channels": [8, 8]})
    assert ModelSpec(**json.loads(json.dumps(spec.to_dict()))) == spec
    assert "resnet18" in smp_encoders()
    known = ModelSpec(bands=2, classes=2, wavelengths_um=(0.665, None))
    assert ModelSpec(**json.loads(json.dumps(known.to_dict()))) == known
    assert known.to_dict()["wavelengths_um"] == (0.665, None)


def test_a_spec_without_wavelengths_is_what_older_versions_wrote_and_read():
    spec = ModelSpec(bands=2, classes=2, wavelengths_um=(None, None))
    assert spec.to_dict() == {"decoder": "unet", "encoder": "resnet18", "bands": 2, "classes": 2, "options": {}}
    assert ModelSpec(decoder="unet", encoder="resnet18", bands=2, classes=2, options={}) == spec


def test_the_pixel_network_takes_no_weights():
    with pytest.raises(InputError, match="pixel has no encoder"):
        create_model(ModelSpec(decoder="pixel", bands=3, classes=2), weights="imagenet")


def test_band_names_are_one_a_band():
    with pytest.raises(InputError, match="1 band names for a network of 3 bands"):
        create_model(ModelSpec(bands=3, classes=2), band_names=["red"])
