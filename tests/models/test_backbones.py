"""Backbones without a pyramid give one; foundation models give what torchgeo's give, at any size, for any sensor."""

import dataclasses
import sys

import pytest
import torch
from torch import nn

from geoseg.errors import InputError
from geoseg.models.backbones import OWN_TRUNKS, own_trunk
from geoseg.models.build import create_model
from geoseg.models.networks.foundation import CopernicusFM, Croma, Dofa, Panopticon, ScaleMae, positions
from geoseg.models.networks.pyramid import Pyramid, grid_of, spread
from geoseg.models.networks.timm_facts import sides_of
from geoseg.models.networks.trunks import timm_trunk
from geoseg.models.spec import ModelSpec

models = pytest.importorskip("torchgeo.models")

BANDS_UM = (0.49, 0.56, 0.665, 0.842)
VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2}
SMALL = {
    "dofa_small_patch16_224": {**VIT, "img_size": 32},
    "copernicusfm_base": {**VIT, "img_size": 32, "hyper_dim": 32},
    "panopticon_vitb14": {**VIT, "img_size": 28, "attn_dim": 48},
    "scalemae_large_patch16": VIT,
    "croma_base": {"encoder_dim": 32, "encoder_depth": 4},
    "swin_t": {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]},
    "swin_v2_t": {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]},
}


def spec_of(encoder, *, decoder="fpn", wavelengths=BANDS_UM, **options):
    given = {"encoder_options": SMALL[encoder], **options} if encoder in SMALL else options
    return ModelSpec(decoder=decoder, encoder=encoder, bands=len(wavelengths), classes=3, options=given,
                     wavelengths_um=wavelengths)  # fmt: skip


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    return module.eval()


def taking(trunk, reference):
    """The trunk with the weights of torchgeo's model of that name."""
    weights = reference.state_dict()
    trunk.load_state_dict({name: weights[name] for name in trunk.state_dict()})
    return trunk.eval()


@pytest.mark.parametrize("decoder", ["upernet", "fpn", "fcn", "unet", "segformer"])
@pytest.mark.parametrize("encoder", SMALL)
def test_every_backbone_carries_a_decoder_at_any_size(encoder, decoder):
    torch.manual_seed(0)
    network = create_model(spec_of(encoder, decoder=decoder)).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 4, 50, 70))
    assert logits.shape == (1, 3, 50, 70)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("encoder", SMALL)
def test_every_weight_of_a_backbone_learns(encoder):
    """A weight without a gradient would stop training on many devices, which waits for all of them."""
    network = create_model(spec_of(encoder)).train()
    network(torch.randn(2, 4, 64, 64)).square().mean().backward()
    dead = [name for name, weight in network.named_parameters() if weight.requires_grad and weight.grad is None]
    assert dead == []


def test_dofa_gives_what_torchgeos_gives():
    reference = randomised(models.DOFA(**SMALL["dofa_small_patch16_224"], num_classes=0))
    trunk = taking(Dofa(wavelengths_um=BANDS_UM, options=SMALL["dofa_small_patch16_224"]), reference)
    image = torch.randn(2, 4, 32, 32)
    with torch.inference_mode():
        pooled = reference.fc_norm(trunk(image)[-1].mean((2, 3)))
        torch.testing.assert_close(pooled, reference.forward_features(image, list(BANDS_UM)))


def test_copernicus_fm_gives_what_torchgeos_gives_without_metadata():
    reference = randomised(models.CopernicusFM(**SMALL["copernicusfm_base"]))
    trunk = taking(CopernicusFM(wavelengths_um=BANDS_UM, options=SMALL["copernicusfm_base"]), reference)
    image, unknown = torch.randn(2, 4, 32, 32), torch.full((2, 4), torch.nan)
    spectrum = {"wavelengths": [490, 560, 665, 842], "bandwidths": [65, 35, 30, 115]}  # those of Sentinel-2
    with torch.inference_mode():
        wanted = reference.forward_features(image, unknown, **spectrum, kernel_size=16)
        torch.testing.assert_close(reference.fc_norm(trunk(image)[-1].mean((2, 3))), wanted)


def test_panopticon_gives_what_torchgeos_gives():
    options = SMALL["panopticon_vitb14"]
    reference = models.Panopticon(attn_dim=48, img_size=28)
    trunk = randomised(Panopticon(wavelengths_um=BANDS_UM, options=options))
    embedding = models.panopticon.PanopticonPE(
        attn_dim=48, embed_dim=32, patch_size=14, img_size=28, chnfus_cfg={"attn_cfg": {"num_heads": 16}}
    )
    embedding.load_state_dict(trunk.patch_embed.state_dict())
    image = torch.randn(2, 4, 28, 28)
    nanometres = torch.tensor([[490.0, 560.0, 665.0, 842.0]]).expand(2, -1).clone()
    with torch.inference_mode():
        tokens = trunk.tokens(image, 2, 2)
        patches = embedding({"imgs": image, "chn_ids": nanometres}) + trunk.pos_embed[:, 1:]
    torch.testing.assert_close(tokens[:, 1:], patches)
    published = {name for name in reference.model.state_dict() if not name.startswith(("norm.", "blocks"))}
    assert {name for name in trunk.state_dict() if not name.startswith("blocks")} == published


def test_scale_mae_gives_what_torchgeos_gives_in_metres():
    reference = randomised(models.ScaleMAE(res=2.5, img_size=48, patch_size=16, in_chans=3, num_classes=0, **VIT))
    trunk = ScaleMae(bands=3, options={**VIT, "patch_size": 16, "gsd_m": 2.5})
    trunk.load_state_dict({name: reference.state_dict()[name] for name in trunk.state_dict()})
    image = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        tokens = trunk.eval()(image)[-1].flatten(2).transpose(1, 2)
        torch.testing.assert_close(reference.norm(tokens), reference.forward_features(image)[:, 1:])


def test_croma_gives_what_torchgeos_gives():
    reference = randomised(models.CROMA(modalities=["optical"], encoder_dim=32, encoder_depth=4, image_size=40))
    trunk = Croma(bands=12, options={"encoder_dim": 32, "encoder_depth": 4})
    trunk.load_state_dict({name: reference.s2_encoder.state_dict()[name] for name in trunk.state_dict()})
    image = torch.randn(2, 12, 40, 40)
    with torch.inference_mode():
        tokens = trunk.eval()(image)[-1].flatten(2).transpose(1, 2)
        wanted = reference(x_optical=image)["optical_encodings"]
        torch.testing.assert_close(reference.s2_encoder.transformer.norm_out(tokens), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("encoder", [name for name in SMALL if OWN_TRUNKS[name].by_wavelength])
def test_one_models_weights_take_the_bands_of_another_sensor(encoder):
    """The weights know no band: order and choice of bands are in the wavelengths alone."""
    spec = spec_of(encoder)
    network = create_model(spec).eval()
    image = torch.randn(1, 4, 64, 64)
    order = [2, 0, 3, 1]
    swapped = create_model(dataclasses.replace(spec, wavelengths_um=tuple(BANDS_UM[place] for place in order))).eval()
    swapped.load_state_dict(network.state_dict())
    other = create_model(dataclasses.replace(spec, bands=2, wavelengths_um=(0.48, 1.61))).eval()
    other.load_state_dict(network.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(swapped(image[:, order]), network(image), atol=1e-4, rtol=1e-4)
        assert other(image[:, :2]).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(("wavelengths", "named"), [((0.665, None), "dem"), (None, "red, dem")])
def test_bands_without_a_wavelength_are_named_and_how_to_say_them(wavelengths, named):
    spec = ModelSpec(encoder="dofa_base_patch16_224", bands=2, classes=2, wavelengths_um=wavelengths)
    with pytest.raises(InputError, match=f"those of {named} are unknown.*model.wavelengths_um: {{") as caught:
        create_model(spec, band_names=["red", "dem"])
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="band 2"):
        create_model(spec)


def test_without_torchgeo_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchgeo", None)
    with pytest.raises(InputError, match=r"pip install geoseg\[torchgeo\]"):
        create_model(spec_of("dofa_small_patch16_224"))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"heads": 3}, "croma has no option heads"), ({"encoder_dim": 30}, "cannot be built")],
)
def test_options_of_a_foundation_model_that_do_not_fit_are_one_line(options, words):
    with pytest.raises(InputError, match=words):
        create_model(ModelSpec(encoder="croma_base", bands=2, classes=2, options={"encoder_options": options}))


def test_a_pyramid_has_the_strides_that_it_says():
    trunk = own_trunk(spec_of("croma_base"))  # patches of 8
    pyramid = Pyramid(trunk, bands=4)
    features = pyramid(torch.randn(1, 4, 64, 96))
    assert [tuple(part.shape[2:]) for part in features] == [(64 >> level, 96 >> level) for level in range(6)]
    assert [part.shape[1] for part in features] == pyramid.out_channels
    dilated = Pyramid(trunk, bands=4, output_stride=8)
    assert [part.shape[2] for part in dilated(torch.randn(1, 4, 64, 64))] == [64, 32, 16, 8, 8, 8]
    assert Pyramid(trunk, bands=4, depth=3).chosen == (2, 3)  # the deepest blocks
    with pytest.raises(ValueError, match="encoder_depth is 1"):
        Pyramid(trunk, bands=4, depth=1)


def test_blocks_are_spread_evenly_up_to_the_last():
    assert spread(4, 24) == (5, 11, 17, 23)
    assert spread(4, 3) == (0, 1, 2, 2)
    assert spread(4, 1) == (0, 0, 0, 0)


def test_positions_are_kept_on_their_own_grid_and_interpolated_on_others():
    ramp = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), -1).reshape(1, 64, 2)
    assert torch.equal(positions(ramp, 8, 8), ramp)
    wide = positions(ramp, 16, 8).reshape(16, 8, 2)
    assert wide[4:12:2, 3, 0].diff().tolist() == pytest.approx([1.0] * 3)  # a ramp stays one
    assert wide[4, :, 1].tolist() == pytest.approx(list(range(8)), abs=1e-5)


def test_patches_of_14_pixels_stand_for_16():
    image = torch.arange(64.0).repeat(1, 1, 32, 1)
    inner = grid_of(image, patch=14, stride=16)
    assert inner.shape == (1, 1, 28, 56)
    assert inner[0, 0, 0].reshape(4, 14).mean(1).tolist() == pytest.approx([7.5, 23.5, 39.5, 55.5])
    assert grid_of(image, patch=16, stride=16) is image


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"embed_dim": 24, "depth": 3, "num_heads": 2}),
        ("vit_small_patch14_reg4_dinov2", {"embed_dim": 24, "depth": 4, "num_heads": 2}),  # registers beside the class
        ("vit_base_patch32_224", {"embed_dim": 24, "depth": 4, "num_heads": 2}),
        ("xcit_nano_12_p16_224", {}),  # no class token in its maps
        ("efficientvit_m0", {}),  # strides 16, 32, 64
        ("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}),
    ],
)
def test_transformers_of_timm_are_encoders_for_images_of_any_size(name, options):
    spec = ModelSpec(decoder="unet", encoder=name, bands=2, classes=3, options={"encoder_options": options})
    network = create_model(spec).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 2, 70, 90)).shape == (1, 3, 70, 90)


def test_a_transformer_of_one_size_is_padded_to_it_and_says_where_that_ends():
    options = {"encoder_options": {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 64}}
    spec = ModelSpec(decoder="fpn", encoder="beit_base_patch16_224", bands=2, classes=3, options=options)
    network = create_model(spec).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 2, 40, 64)).shape == (1, 3, 40, 64)
        with pytest.raises(InputError, match="up to 64 px, given are 40 x 80.*img_size: 80"):
            network(torch.randn(1, 2, 40, 80))


def test_a_model_of_windows_takes_multiples_of_them():
    sides = sides_of("maxvit_nano_rw_256", {}, bands=4)
    assert (sides.multiple, sides.largest) == (256, None)
    assert sides_of("resnet10t", {}, bands=4).multiple == 32


@pytest.mark.parametrize(
    ("name", "bands", "said"), [("levit_128", 3, "must match the size"), ("csatv2", 4, "takes no images of 4 bands")]
)
def test_a_model_that_takes_no_such_images_is_refused_when_it_is_built(name, bands, said):
    before = torch.get_rng_state()
    with pytest.raises(InputError, match=f"{name} .* cannot be built: .*{said}"):
        create_model(ModelSpec(encoder=name, bands=bands, classes=3))
    assert torch.equal(before, torch.get_rng_state())  # trying it out moves no other network's weights


def test_features_that_are_of_no_use_are_refused():
    with pytest.raises(ValueError, match="gives no features"):
        timm_trunk("no_such_model", bands=3)
