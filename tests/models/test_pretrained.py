"""Weights of other makers: taken over by name, adapted to other bands by wavelength, refused where they do not fit."""

import pytest
import timm
import torch
from torch import nn

from geoseg.errors import InputError, MissingInputError, ReadError
from geoseg.models.build import create_model
from geoseg.models.pretrained.first_layer import adapt_encoder, adapt_first_layer
from geoseg.models.spec import ModelSpec
from geoseg.models.wavelengths import band_wavelengths

TOKENS = {
    "dofa_small_patch16_224": {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32},
    "panopticon_vitb14": {"attn_dim": 48, "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 28},
    "copernicusfm_base": {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "hyper_dim": 32},
    "scalemae_large_patch16": {"embed_dim": 32, "depth": 2, "num_heads": 2},
}


def spec(encoder: str = "resnet18", *, bands: int = 3, decoder: str = "unet", **more) -> ModelSpec:
    return ModelSpec(decoder=decoder, encoder=encoder, bands=bands, classes=2, **more)


def test_the_same_bands_keep_their_kernels():
    weight = torch.randn(4, 3, 3, 3)
    torch.testing.assert_close(adapt_first_layer(weight, [0.49, 0.56, 0.66], [0.49, 0.56, 0.66]), weight)
    swapped = adapt_first_layer(weight, [0.49, 0.56, 0.66], [0.66, 0.56, 0.49])
    torch.testing.assert_close(swapped, weight.flip(1))


def test_a_band_between_two_has_of_both_and_an_unknown_one_of_all():
    weight = torch.randn(4, 2, 3, 3)
    found = adapt_first_layer(weight, [0.4, 0.6], [0.45, None])
    torch.testing.assert_close(found[:, 0], 0.75 * weight[:, 0] + 0.25 * weight[:, 1])
    torch.testing.assert_close(found[:, 1], weight.mean(1))


@pytest.mark.parametrize("bands", [1, 4, 7])
def test_an_image_whose_bands_are_alike_gives_what_it_gave(bands):
    weight, image = torch.randn(1, 3, 3, 3).mean(1, keepdim=True).expand(4, 3, 3, 3), torch.randn(1, 1, 8, 8)
    before = nn.functional.conv2d(image.expand(1, 3, 8, 8), weight)
    adapted = adapt_first_layer(weight, [0.49, 0.56, 0.66], torch.linspace(0.45, 0.9, bands).tolist())
    torch.testing.assert_close(nn.functional.conv2d(image.expand(1, bands, 8, 8), adapted), before)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_of_weights_fills_the_encoder(tmp_path, ending):
    donor = timm.create_model("resnet18", in_chans=5, num_classes=7)
    path = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save({"state_dict": donor.state_dict()}, path)
    else:
        from safetensors.torch import save_file

        save_file(donor.state_dict(), path)
    network = create_model(spec(bands=5), weights=str(path))
    found, expected = network.encoder.state_dict(), donor.state_dict()
    assert torch.equal(found["conv1.weight"], expected["conv1.weight"])
    assert all(torch.equal(found[name], expected[name]) for name in found if name in expected)


@pytest.mark.parametrize("options", [{"encoder_depth": 3, "decoder_channels": [16, 16, 16]}, {}])
def test_weights_of_a_deeper_network_are_refused_whatever_part_of_it_is_built(tmp_path, options):
    for name in ("resnet18", "resnet34"):
        torch.save(timm.create_model(name).state_dict(), tmp_path / f"{name}.pth")
    with pytest.raises(InputError, match=r"resnet34.pth is no weights of resnet18: it has \d+ tensors more"):
        create_model(spec(options=options), weights=str(tmp_path / "resnet34.pth"))
    found = create_model(spec(options=options), weights=str(tmp_path / "resnet18.pth"))
    held = torch.load(tmp_path / "resnet18.pth", weights_only=True)
    assert torch.equal(found.encoder.conv1.weight, held["conv1.weight"])


def test_patches_that_are_seen_pixel_by_pixel_are_mixed_band_by_band(tmp_path):
    """Each band of a patch has its own weight at each pixel, and the bands of a pixel stand side by side."""
    small = {"embed_dim": 24, "depth": 2, "num_heads": 2}
    donor = timm.create_model("naflexvit_base_patch16_gap", num_classes=0, **small)
    torch.save(donor.state_dict(), tmp_path / "naflex.pth")
    network = create_model(
        spec("naflexvit_base_patch16_gap", bands=4, options={"encoder_options": small},
             wavelengths_um=band_wavelengths(["blue", "green", "red", "nir"])),
        weights=str(tmp_path / "naflex.pth"), band_names=["blue", "green", "red", "nir"],
    )  # fmt: skip
    old = donor.embeds.proj.weight.unflatten(1, (-1, 3))
    new = network.encoder.trunk.core.embeds.proj.weight.unflatten(1, (-1, 4))
    torch.testing.assert_close(new[..., :3], 0.75 * old.flip(2))  # the weights are of red, green and blue
    torch.testing.assert_close(new[..., 3], 0.75 * old[..., 0])  # near infrared lies beside red


@pytest.mark.parametrize(("encoder", "side"), [("resnet18", 1), ("tu-naflexvit_base_patch16_gap", 4), ("tresnet_m", 4)])
def test_bands_in_another_order_give_the_same_whatever_order_an_encoder_has_their_pixels_in(encoder, side):
    """By the definition of each: a layer over squares of pixels, which stand one after the other in its channels."""
    order, generator = [2, 0, 1], torch.Generator().manual_seed(0)
    weight = torch.randn(5, side * side * 3, 3, 3, generator=generator)
    image = torch.randn(2, 3, 8 * side, 8 * side, generator=generator)
    um = torch.tensor([0.66, 0.56, 0.49])

    def layer(weight, image):
        squares = image.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (n, band, row, i, col, j)
        return torch.conv2d(squares.permute(0, 3, 5, 1, 2, 4).flatten(1, 3), weight)

    adapted = adapt_encoder(weight, um.tolist(), um[order].tolist(), encoder=encoder)
    torch.testing.assert_close(layer(adapted, image[:, order]), layer(weight, image), rtol=1e-4, atol=1e-4)


def test_tresnets_squares_are_those_of_timm():
    from timm.layers import SpaceToDepth

    image = torch.arange(2 * 3 * 64.0).reshape(2, 3, 8, 8)
    squares = image.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    assert torch.equal(SpaceToDepth()(image), squares)


@pytest.mark.parametrize("bands", [2, 4])
def test_weights_of_an_encoder_over_squares_of_pixels_take_other_bands(tmp_path, bands):
    torch.save(timm.create_model("tresnet_m", num_classes=0).state_dict(), tmp_path / "a.pth")
    names = ["blue", "green", "red", "nir"][:bands]
    made = spec("tresnet_m", bands=bands, wavelengths_um=band_wavelengths(names))
    network = create_model(made, weights=str(tmp_path / "a.pth"), band_names=names)
    assert network(torch.zeros(1, bands, 64, 64)).shape == (1, 2, 64, 64)


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), path)
    with pytest.raises(InputError, match="other.pth"):
        create_model(spec(), weights=str(path))
    with pytest.raises(MissingInputError, match="nowhere.pth"):
        create_model(spec(), weights=str(tmp_path / "nowhere.pth"))


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("trapped",))

    path = tmp_path / "trap.pth"
    torch.save(Trap(), path)
    with pytest.raises(ReadError, match=r"trap\.pth holds more than tensors"):
        create_model(spec(), weights=str(path))


@pytest.mark.parametrize("encoder", TOKENS)
def test_foundation_models_are_backbones(encoder):
    options = {"encoder_options": TOKENS[encoder]}
    network = create_model(spec(encoder, decoder="upernet", options=options, wavelengths_um=(0.49, 0.56, 0.66))).eval()
    with torch.inference_mode():
        logits = network(torch.randn(2, 3, 64, 96))
    assert logits.shape == (2, 2, 64, 96)
    assert torch.isfinite(logits).all()


def test_one_model_takes_the_bands_of_other_sensors():
    options = {"encoder_options": TOKENS["dofa_small_patch16_224"]}
    shared = {"encoder": "dofa_small_patch16_224", "decoder": "upernet", "options": options}
    one = create_model(spec(bands=2, wavelengths_um=(0.49, 0.56), **shared)).eval()
    other = create_model(spec(bands=4, wavelengths_um=(0.49, 0.56, 0.66, 0.85), **shared)).eval()
    other.load_state_dict(one.state_dict())
    assert other(torch.randn(1, 4, 64, 64)).shape == (1, 2, 64, 64)


def test_a_model_that_needs_wavelengths_says_which_are_missing():
    with pytest.raises(InputError, match="wavelengths_um"):
        create_model(spec("dofa_small_patch16_224", decoder="upernet"), band_names=["red", "green", "dem"])


def test_wavelengths_follow_from_the_names_of_bands():
    found = band_wavelengths(["Blue", "B08", "elevation"])
    assert found[0] == pytest.approx(0.49, abs=0.02)
    assert found[1] == pytest.approx(0.84, abs=0.02)
    assert found[2] is None
