"""Labels drawn in colours, in several files: each has its own nodata and its own colour table."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, LegendError
from geoseg.io.labels import open_labels

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)
PATCH = GeoBox((1, 6), UTM, "EPSG:32612")
TABLE = {"#ff0000": "roof", "other": "rest"}


def colored(write_tif, name, colors, *, col=0, **profile):
    pixels = np.array(colors, "uint8").T[:, None]
    return write_tif(name, pixels, affine=UTM @ Affine.translation(col, 0), **profile)


def test_files_of_a_mosaic_have_their_own_colour_of_nodata(write_tif):
    black, white, red, grey = [0, 0, 0], [255, 255, 255], [255, 0, 0], [9, 9, 9]
    first = colored(write_tif, "a.tif", [red, black, grey, black], nodata=0)
    second = colored(write_tif, "b.tif", [red, red, white, black], col=2, nodata=255)
    labels, legend = open_labels({"mosaic": [first, second], "colors": TABLE})
    found, (roof, rest) = labels.read(PATCH), (legend.by_name(name).id for name in TABLE.values())
    assert found.valid[0].tolist() == [True, False, True, True, False, True]
    assert found.pixels[0][found.valid].tolist() == [roof, rest, roof, rest]
    named, _ = open_labels({"mosaic": [first, second], "colors": {**TABLE, "#000000": "rest"}})
    assert named.read(PATCH).valid[0].tolist() == [True, True, True, True, False, True]


def test_files_of_a_mosaic_have_their_own_colour_table(write_tif):
    paths = []
    for name, col, red in (("a.tif", 0, 1), ("b.tif", 2, 2)):
        paths.append(write_tif(name, np.array([[1, 2]], "uint8"), affine=UTM @ Affine.translation(col, 0)))
        with rasterio.open(paths[-1], "r+") as file:
            file.write_colormap(1, {1: (0, 0, 9), 2: (0, 0, 9), red: (255, 0, 0)})
    labels, _ = open_labels({"mosaic": paths, "colors": {"#ff0000": "roof", "#000009": "rest"}})
    assert labels.read(labels.geobox).pixels[0].tolist() == [[1, 2, 2, 1]]


@pytest.mark.parametrize("first", ["palette", "channels"])
def test_a_mosaic_has_files_with_a_colour_table_and_files_with_channels(write_tif, first):
    col = {"palette": 0, "channels": 2} if first == "palette" else {"palette": 2, "channels": 0}
    palette = write_tif("p.tif", np.array([[1, 2]], "uint8"), affine=UTM @ Affine.translation(col["palette"], 0))
    with rasterio.open(palette, "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0), 2: (255, 255, 255)})
    channels = colored(write_tif, "c.tif", [[255, 255, 255], [255, 0, 0]], col=col["channels"])
    paths = [palette, channels] if first == "palette" else [channels, palette]
    labels, _ = open_labels({"mosaic": paths, "colors": {"#ff0000": "roof", "#ffffff": "road"}})
    assert labels.read(labels.geobox).pixels[0].tolist() == [[1, 2, 2, 1] if first == "palette" else [2, 1, 1, 2]]


def test_a_file_of_more_bands_beside_one_with_a_colour_table_is_refused(write_tif):
    paths = [write_tif("p.tif", np.array([[1, 2]], "uint8")), write_tif("c.tif", np.full((5, 1, 2), 255, "uint8"))]
    labels, _ = open_labels({"mosaic": paths[::-1], "colors": TABLE})
    with pytest.raises(BandError, match=r"c\.tif is to be read by its colours and has 5 bands"):
        labels.read(labels.geobox)


def test_an_unknown_colour_in_a_mosaic_is_told_with_its_file(write_tif):
    first = colored(write_tif, "a.tif", [[255, 0, 0]] * 2)
    second = colored(write_tif, "b.tif", [[1, 2, 3]] * 2, col=2)
    labels, _ = open_labels({"mosaic": [first, second], "colors": {"#ff0000": "roof"}})
    with pytest.raises(LegendError, match=r"b\.tif has colours that are no class: #010203 \(2 pixels\)"):
        labels.read(labels.geobox)


def test_three_files_of_a_band_each_have_a_colour_of_nodata(write_tif):
    colors = np.array([[255, 0, 0], [0, 0, 0], [9, 0, 0]], "uint8").T
    paths = [write_tif(f"{band}.tif", colors[band][None], nodata=0) for band in range(3)]
    labels, _ = open_labels({"stack": paths, "bands": ["red", "green", "blue"], "colors": TABLE})
    assert labels.read(labels.geobox).valid[0].tolist() == [True, False, True]


@pytest.mark.parametrize(("bits", "most"), [(1, 1), (2, 3), (4, 15), (8, 255)])
@pytest.mark.parametrize("driver", ["PNG", "GTiff"])
def test_the_largest_grey_of_a_picture_is_white_whatever_its_bits(write_tif, tmp_path, driver, bits, most):
    path = write_tif("a.tif", np.array([[0, most, most, 0]], "uint8"), **({"nbits": bits} if driver == "GTiff" else {}))
    if driver == "PNG":
        rasterio.shutil.copy(path, tmp_path / "a.png", driver="PNG", nbits=bits, worldfile="YES")
        path = str(tmp_path / "a.png")
    table = {"#ffffff": "building", "other": "ground"}
    labels, legend = open_labels({"path": path, "colors": table, "crs": "EPSG:32612"})
    names = {item.id: item.name for item in legend.classes}
    found = labels.read(labels.geobox).pixels[0][0].tolist()
    assert [names[value] for value in found] == ["ground", "building", "building", "ground"]


def test_greys_between_lie_between(write_tif):
    path = write_tif("a.tif", np.array([[0, 5, 10, 15]], "uint8"), nbits=4)
    labels, _ = open_labels({"path": path, "colors": {"#000000": "a", "#555555": "b", "#aaaaaa": "c", "#ffffff": "d"}})
    assert labels.read(labels.geobox).pixels[0].tolist() == [[1, 2, 3, 4]]


def test_a_file_that_says_it_has_a_colour_table_and_has_none_is_grey(write_tif, tmp_path):
    path = write_tif("a.tif", np.array([[0, 255, 255, 0]], "uint8"))
    virtual = tmp_path / "a.vrt"
    rasterio.shutil.copy(path, virtual, driver="VRT")
    virtual.write_text(virtual.read_text().replace(">Gray<", ">Palette<"))
    labels, _ = open_labels({"path": str(virtual), "colors": {"#000000": "ground", "#ffffff": "building"}})
    assert labels.read(labels.geobox).pixels[0].tolist() == [[1, 2, 2, 1]]
