"""Every decoder takes images of any size and number of bands, with the weights' names of smp, and can be exported."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim

from geoseg.errors import InputError
from geoseg.models.build import DECODERS, create_model
from geoseg.models.networks.any_size import padded_image
from geoseg.models.networks.decoders import NETWORKS as TABLE
from geoseg.models.onnx_card import LEAST_PX
from geoseg.models.spec import ModelSpec

VIT = {"encoder": "vit_tiny_patch16_224", "options": {"encoder_options": {"embed_dim": 24, "depth": 4, "num_heads": 2}}}
NETWORKS = [name for name in DECODERS if name != "random_forest"]


def small(decoder, bands):
    given = {"decoder": decoder, "bands": bands, "encoder": "mobilenetv3_small_050", "classes": 5}
    return ModelSpec(**{**given, **(VIT if decoder == "dpt" else {})})


def seeded(spec):
    torch.manual_seed(0)
    return create_model(spec).eval()


@pytest.mark.parametrize("bands", [1, 3, 6, 13])
@pytest.mark.parametrize("decoder", NETWORKS)
def test_every_decoder_takes_any_bands_and_any_size(decoder, bands):
    network = seeded(small(decoder, bands))
    with torch.inference_mode():
        for rows, cols in ((64, 96), (37, 70)):
            logits = network(torch.randn(1, bands, rows, cols))
            assert logits.shape == (1, 5, rows, cols)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize("decoder", ["unet", "pspnet", "dpt", "fcn"])
def test_an_image_is_mirrored_below_and_to_the_right_and_cropped(decoder):
    network = seeded(small(decoder, 2))
    image = torch.randn(1, 2, 50, 64)
    rows = -(-50 // network.multiple) * network.multiple
    mirrored = np.pad(image.numpy(), ((0, 0), (0, 0), (0, rows - 50), (0, 0)), mode="reflect")
    with torch.inference_mode():
        assert torch.equal(network(image), network(torch.from_numpy(mirrored))[..., :50, :])


def test_a_shallow_network_is_padded_to_its_own_multiple_and_pan_to_what_it_pools():
    shallow = create_model(ModelSpec(bands=1, classes=2, options={"encoder_depth": 3, "decoder_channels": [8, 8, 8]}))
    assert (shallow.multiple, shallow.least, shallow.largest) == (8, 1, None)
    pan = create_model(small("pan", 1))
    assert (pan.multiple, pan.least) == (16, 128)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 70), st.integers(0, 70))
@settings(max_examples=60, deadline=None)
def test_padding_keeps_the_image_and_makes_up_no_value(rows, cols, below, right):
    image = torch.arange(rows * cols, dtype=torch.float32).reshape(1, 1, rows, cols)
    padded = padded_image(image, below=below, right=right)
    assert padded.shape[2:] == (rows + below, cols + right)
    assert torch.equal(padded[..., :rows, :cols], image)
    assert set(padded.unique().tolist()) <= set(image.unique().tolist())


@pytest.mark.parametrize(
    ("decoder", "architecture"),
    [("unet", smp.Unet), ("manet", smp.MAnet), ("linknet", smp.Linknet), ("fpn", smp.FPN), ("pspnet", smp.PSPNet),
     ("deeplabv3plus", smp.DeepLabV3Plus), ("upernet", smp.UPerNet), ("segformer", smp.Segformer)],
)  # fmt: skip
@pytest.mark.parametrize("encoder", ["resnet18", "tu-mobilenetv3_small_050"])
def test_weights_have_the_names_and_do_what_they_do_in_smp(decoder, architecture, encoder):
    torch.manual_seed(0)
    theirs = architecture(encoder, encoder_weights=None, in_channels=4, classes=5)
    ours = seeded(ModelSpec(decoder=decoder, encoder=encoder, bands=4, classes=5))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(image), theirs.eval()(image))


def test_a_network_can_be_copied_and_pickled():
    network = seeded(small("fpn", 2))
    image = torch.randn(1, 2, 40, 40)
    with torch.inference_mode():
        for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):  # noqa: S301
            assert torch.equal(twin(image), network(image))


ONNX = ("unet", "deeplabv3plus", "segformer", "pspnet")  # exported in test_onnx.py, by the same program
SHALLOW = ("unetplusplus", "manet")  # of as many levels as one likes, and each is like the others
EXPORTED = [name for name in NETWORKS if name not in ONNX]


@pytest.mark.parametrize("decoder", EXPORTED)
def test_every_decoder_can_be_exported_for_any_batch_and_size_that_needs_no_padding(decoder):
    spec = small(decoder, 2)
    if decoder not in ("dpt", "manet"):
        spec = replace(spec, encoder="test_resnet")  # timm's smallest: it is the decoders that are looked at
    if decoder in SHALLOW:
        spec = replace(spec, options={"encoder_depth": 3, "decoder_channels": [16, 8, 8]})
    network = seeded(spec)
    free = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    # PAN pools less than 256 px to one pixel, for which torch makes another graph.
    rows, cols = (256, 384) if decoder == "pan" else (64, 96)
    program = torch.export.export(network, (torch.randn(2, 2, rows, cols),), dynamic_shapes=free).module()
    for shape in ((1, rows + 32, rows), (3, rows, cols - 32)):
        image = torch.randn(shape[0], 2, *shape[1:])
        with torch.inference_mode():
            torch.testing.assert_close(program(image), network(image))


def test_fcn_adds_up_the_scores_of_three_levels():
    """By hand: each level's scores, upsampled to 1/8 and added, then to the image."""
    network = seeded(ModelSpec(decoder="fcn", bands=3, classes=4))
    image = torch.randn(1, 3, 64, 64)
    up = nn.Upsample(scale_factor=2, mode="bilinear")
    with torch.inference_mode():
        features = network.encoder(image)
        coarse = network.decoder.last(features[5])
        middle, fine = (skip(part) for skip, part in zip(network.decoder.skips, features[4:2:-1], strict=True))
        wanted = nn.functional.interpolate(fine + up(middle + up(coarse)), size=(64, 64), mode="bilinear",
                                           align_corners=True)  # fmt: skip
        assert torch.allclose(network(image), wanted, atol=1e-6)


def test_fcn_drops_channels_where_it_is_told_and_takes_no_shallow_encoder():
    network = create_model(ModelSpec(decoder="fcn", bands=3, classes=4, options={"dropout": 0.4, "encoder_depth": 3}))
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout2d)] == [0.4]
    with pytest.raises(InputError, match="encoder_depth is 2; needed is 3 to 5"):
        create_model(ModelSpec(decoder="fcn", bands=3, classes=4, options={"encoder_depth": 2}))


def test_the_least_sides_that_an_exported_graph_takes_are_known():
    assert {name: network.least for name, network in TABLE.items() if network.least > 1} == LEAST_PX
