"""What pretrained weights expect, in the units of a scene: published numbers, and units turned into each other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import InputError
from geoseg.models.pretrained.catalog import find_entry
from geoseg.models.pretrained.scaling import (
    UNITS,
    InputScaling,
    expected_input,
    guess_unit,
    pretrained_input,
    unit_scale,
)

models = pytest.importorskip("torchgeo.models")

SENTINEL2 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8a", "B9", "B10", "B11", "B12")
MOCO = "ResNet18_Weights.SENTINEL2_ALL_MOCO"


@pytest.mark.parametrize(
    "name",
    ["ResNet18_Weights.SENTINEL2_ALL_MOCO", "ResNet50_Weights.SENTINEL2_ALL_SOFTCON",
     "ResNet18_Weights.SENTINEL2_RGB_SECO", "ResNet50_Weights.SENTINEL1_GRD_MOCO",
     "Swin_V2_B_Weights.NAIP_RGB_SI_SATLAS"],
)  # fmt: skip
def test_in_the_weights_own_unit_an_image_is_normalised_as_by_torchgeo(name):
    """torchgeo's own transforms, without those that crop and resize, are the oracle."""
    encoder = find_entry(name).encoder
    member = models.get_model_weights(encoder)[name.split(".")[1]]
    bands = find_entry(name).bands
    unit = {"SECO": "byte", "NAIP": "byte", "SENTINEL1": "decibel"}
    unit = next((value for part, value in unit.items() if part in name), "reflectance*10000")
    image = torch.rand(len(bands), 8, 8) * 200
    wanted = image.clone()
    for step in member.transforms:
        if type(step).__name__ == "Normalize":
            wanted = step(wanted)
    scaling = pretrained_input(name, bands, unit=unit)
    mean, std = (torch.tensor(values)[:, None, None] for values in (scaling.mean, scaling.std))
    torch.testing.assert_close((image - mean) / std, wanted)


def test_softcons_means_are_those_of_its_bands_in_any_order():
    scaling = pretrained_input(
        "ResNet50_Weights.SENTINEL2_ALL_SOFTCON", ["nir", "red", "dem"], unit="reflectance*10000"
    )
    assert scaling.mean == pytest.approx((2318.7, 1373.1, None))
    assert scaling.std == pytest.approx((1249.5, 1144.9, None))


def test_a_band_between_two_has_what_lies_between():
    name = "ResNet50_Weights.SENTINEL2_ALL_SOFTCON"
    options = {"unit": "reflectance*10000", "wavelengths_um": [0.525]}  # half-way from blue to green
    assert pretrained_input(name, ["x"], **options).mean[0] == pytest.approx((1397.6 + 1322.3) / 2)


@given(st.floats(0, 1), st.sampled_from([unit for unit in UNITS if unit.startswith("reflectance")]))
def test_a_reflectance_is_normalised_to_one_number_in_any_unit(reflectance, unit):
    factor, offset = unit_scale(unit)
    scaling = pretrained_input("ResNet50_Weights.SENTINEL2_ALL_SOFTCON", ["B4"], unit=unit)
    normalised = (reflectance * factor + offset - scaling.mean[0]) / scaling.std[0]
    assert normalised == pytest.approx((reflectance * 10000 - 1373.1) / 1144.9, abs=1e-6)


def test_satlas_has_its_true_colours_in_bytes_of_a_reflectance_and_the_rest_in_numbers():
    scaling = pretrained_input("Swin_V2_B_Weights.SENTINEL2_SI_MS_SATLAS", ["B04", "B08"], unit="reflectance*10000")
    assert scaling.mean == (0, 0)
    assert scaling.std == pytest.approx((3558, 8160))  # 1 is where the picture is white


def test_ssl4eo_l_is_bytes_of_a_range_of_reflectance_and_temperatures_are_left_to_the_data():
    name = "ResNet18_Weights.LANDSAT_ETM_TOA_MOCO"
    scaling = pretrained_input(name, ["red", "lwir"], unit="reflectance")
    assert scaling.std[0] == pytest.approx(0.4 * 255 / 256)
    assert scaling.std[1] is None
    surface = pretrained_input("ResNet18_Weights.LANDSAT_OLI_SR_MOCO", ["red"], unit="reflectance*36363.6+7272.7")
    low, high = (np.array([7272.7, 7272.7 + 0.3 * 36363.6]) - surface.mean[0]) / surface.std[0]
    assert (low, high) == pytest.approx((0, 256 / 255))


@pytest.mark.parametrize(
    ("weights", "unit"),
    [(None, "reflectance"), ("imagenet", "reflectance"), (MOCO, None), ("DOFABase16_Weights.DOFA_MAE", "reflectance"),
     ("CROMABase_Weights.CROMA_VIT", "reflectance"), ("some/file.pth", "reflectance")],
)  # fmt: skip
def test_where_nothing_is_known_the_datas_own_statistics_will_do(weights, unit):
    assert pretrained_input(weights, ["red"], unit=unit) is None


def test_a_file_of_a_published_name_says_as_much_as_the_name():
    file = f"/somewhere/{find_entry(MOCO).file}"
    assert pretrained_input(file, SENTINEL2, unit="reflectance") == pretrained_input(
        MOCO, SENTINEL2, unit="reflectance"
    )


def test_the_datas_own_statistics_fill_what_is_missing():
    mean, std = InputScaling((1.0, None), (2.0, None)).over([7, 8], np.array([9.0, 10.0]))
    assert mean.tolist() == [1, 8]
    assert std.tolist() == [2, 10]
    assert mean.dtype == std.dtype == np.float64


@pytest.mark.parametrize("unit", ["reflektance", "dn", "reflectance*0", "reflectance*a", "", "reflectance*10000*2"])
def test_a_unit_that_is_none_is_one_line(unit):
    with pytest.raises(InputError, match=r"is unknown; needed is one such as .*reflectance\*A\+B"):
        pretrained_input(MOCO, ["red"], unit=unit)


def test_a_unit_that_cannot_be_turned_into_the_weights_is_one_line():
    with pytest.raises(InputError, match=r"trained on reflectance\*10000, and the scene's unit is byte: give"):
        pretrained_input(MOCO, ["red"], unit="byte")
    with pytest.raises(InputError, match="trained on decibel, and the scene's unit is reflectance"):
        pretrained_input("ResNet50_Weights.SENTINEL1_GRD_MOCO", ["VV"], unit="reflectance")


def test_a_unit_may_have_spaces_and_negative_offsets():
    assert unit_scale("Reflectance * 50000 + 5000") == (50000, 5000)
    assert unit_scale("reflectance*1e4-1000") == (10000, -1000)
    assert unit_scale("reflectance") == (1, 0)


def test_numbers_that_tell_nothing_have_no_unit():
    assert guess_unit([0], [65000]) is None
    assert guess_unit([0], [400]) is None
    assert guess_unit([1000], [12000]) == "reflectance*10000"


RGB = ["B4", "B3", "B2"]
LIMITS = ([0.0, 0.0, 0.0], [9000.0, 9000.0, 9000.0])


def test_a_scene_is_normalised_as_its_weights_expect_and_a_guess_is_told(caplog):
    caplog.set_level("INFO")
    mean, std = expected_input(MOCO, RGB, mean=[900, 900, 900], std=[500, 500, 500], limits=LIMITS)
    wanted = pretrained_input(MOCO, RGB, unit="reflectance*10000")
    assert mean.tolist() == pytest.approx(wanted.mean)
    assert std.tolist() == pytest.approx(wanted.std)
    assert "their numbers being reflectance*10000; model.unit says so if" in caplog.text


def test_a_guess_that_does_not_fit_leaves_the_data_its_own(caplog):
    far = {"mean": [26000.0] * 3, "std": [10.0] * 3, "limits": ([100] * 3, [26100] * 3)}
    weights = "ResNet50_Weights.SENTINEL2_ALL_SOFTCON"
    assert expected_input(weights, RGB, **far)[0].tolist() == far["mean"]
    assert "the means of B4, B3, B2 are not what" in caplog.text
    given, _ = expected_input(weights, RGB, **far, unit="reflectance*10000")
    assert given.tolist() == pytest.approx(pretrained_input(weights, RGB, unit="reflectance*10000").mean)


def test_a_guess_that_the_weights_do_not_know_leaves_the_data_its_own(caplog):
    mean, _ = expected_input(MOCO, RGB, mean=[90] * 3, std=[50] * 3, limits=([0] * 3, [255] * 3))
    assert mean.tolist() == [90] * 3
    assert "were trained on reflectance*10000, and the scene's unit is byte" in caplog.text
    with pytest.raises(InputError, match="the scene's unit is byte"):
        expected_input(MOCO, RGB, mean=[90] * 3, std=[50] * 3, unit="byte")
    assert expected_input(MOCO, RGB, mean=[90] * 3, std=[50] * 3, unit="none")[0].tolist() == [90] * 3
