"""Legends from every place that people keep them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.errors import LegendError, MissingInputError, ReadError
from geoseg.io.cog import write_cog, write_part
from geoseg.io.combine import Mosaic
from geoseg.io.legends import legend_of_codes, raster_legend, read_legend, values_of
from geoseg.io.pam import pam_xml
from geoseg.io.sources import open_source
from geoseg.legend import Legend

LEGEND = Legend.from_dict({1: "water", 4: {"name": "forest", "codes": [41, 42], "kind": "thing"}, 9: "urban"})
UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)
PIXELS = np.repeat(np.array([1, 4, 9, 0], "uint8"), 8)[None, :].repeat(20, 0)


@pytest.mark.parametrize("name", ["l.yaml", "l.yml", "l.json"])
@pytest.mark.parametrize("wrap", [False, True])
def test_text_files(tmp_path, name, wrap):
    values = LEGEND.to_dict()
    path = tmp_path / name
    path.write_text(json.dumps({"legend": values} if wrap else values))
    assert read_legend(path) == LEGEND
    assert read_legend(str(path)) == LEGEND


def test_plain_yaml(tmp_path):
    path = tmp_path / "l.yaml"
    path.write_text("1: water\n7: {name: forêt, codes: [41, 42], color: '#123456'}\n", encoding="utf-8")
    legend = read_legend(path)
    assert legend.names == ("water", "forêt")
    assert legend.by_id(7).codes == (41, 42)


def test_what_is_a_legend_already():
    assert read_legend(LEGEND) is LEGEND
    assert read_legend({1: "water"}).names == ("water",)


def test_qgis_style(tmp_path):
    path = tmp_path / "l.qml"
    path.write_text(LEGEND.to_qml())
    assert read_legend(path).names == LEGEND.names


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("l.yaml", b"a: [", LegendError, "is no YAML"),
        ("l.yaml", b"- water", LegendError, "holds no legend"),
        ("l.yaml", b"\xff\xfe\x00", LegendError, "no text in UTF-8"),
        ("l.qml", b"<qgis/>", LegendError, "no paletted"),
        ("l.tif", b"no raster", ReadError, "cannot be opened as a raster"),
    ],
)
def test_files_that_hold_none(tmp_path, name, content, error, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        read_legend(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["l.yaml", "l.qml", "l.tif"])
def test_missing_files(tmp_path, name):
    with pytest.raises(MissingInputError, match="is not there"):
        read_legend(tmp_path / name)


def test_values_found(write_tif):
    legend = read_legend(write_tif("l.tif", PIXELS, nodata=0))
    assert legend.ids.tolist() == [1, 4, 9]
    assert legend.names == ("class 1", "class 4", "class 9")
    assert legend.ignore == 0


def test_values_are_found_in_strips(write_tif, monkeypatch):
    monkeypatch.setattr("geoseg.io.legends.STRIP_PX", 3 * 32)
    pixels = np.zeros((20, 32), "int16")
    pixels[np.arange(20), np.arange(20)] = np.arange(20) * 50 - 100
    assert values_of(open_source(write_tif("l.tif", pixels))) == sorted({0, *(np.arange(20) * 50 - 100).tolist()})


def test_values_of_files_far_apart_are_found_in_the_files_alone(write_tif, monkeypatch):
    far = [write_tif(f"{col}.tif", PIXELS + col, affine=UTM @ Affine.translation(10_000 * col, 30 * col))
           for col in (0, 1, 1, 3)]  # fmt: skip
    over = write_tif("over.tif", np.full((20, 32), 99, "uint8"), affine=UTM @ Affine.translation(-8, 5), nodata=0)
    mosaic = open_source([over, *far])
    read, asked = Mosaic.read, []
    monkeypatch.setattr(Mosaic, "read", lambda self, box: asked.append(box) or read(self, box))
    found, px = values_of(mosaic), sum(box.shape[0] * box.shape[1] for box in asked)
    assert px <= 6 * PIXELS.size < mosaic.geobox.shape[0] * mosaic.geobox.shape[1] / 100
    whole = read(mosaic, mosaic.geobox)
    assert found == np.unique(whole.pixels[0][whole.valid]).tolist()
    part = mosaic.geobox[10:60, :10_020]
    piece = read(mosaic, part)
    assert values_of(mosaic, on=part) == np.unique(piece.pixels[0][piece.valid]).tolist()


def test_colour_table_names_no_class_but_colours_those_found(write_tif):
    path = write_tif("l.tif", PIXELS, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {value: (value, 2, 3, 255) for value in range(256)})
    legend = read_legend(path)
    assert legend.ids.tolist() == [1, 4, 9]
    assert [item.color for item in legend.classes] == ["#010203", "#040203", "#090203"]


def test_category_names_and_table(write_tif, tmp_path):
    path = write_tif("l.tif", PIXELS)
    (tmp_path / "l.tif.aux.xml").write_text(pam_xml([("label", LEGEND)]), encoding="utf-8")
    legend = read_legend(path)
    assert [(c.id, c.name, c.color) for c in legend.classes] == [(c.id, c.name, c.color) for c in LEGEND.classes]


def table(rows, fields):
    heads = "".join(
        f'<FieldDefn index="{k}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for k, (name, kind, usage) in enumerate(fields)
    )
    cells = "".join(
        f'<Row index="{k}">' + "".join(f"<F>{cell}</F>" for cell in row) + "</Row>" for k, row in enumerate(rows)
    )
    return (
        '<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable tableType="thematic">'
        f"{heads}{cells}</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"
    )


def test_attribute_table_of_another_program(write_tif, tmp_path):
    """Value and name without declared uses, and counts that say which classes there are."""
    path = write_tif("l.tif", PIXELS)
    rows = [(0, "Unclassified", 160, 0, 0, 0), (1, "Open Water", 160, 0, 128, 255), (4, "Ice", 0, 1, 1, 1),
            (9, "Town", 160, 255, 0, 0)]  # fmt: skip
    fields = [("VALUE", 0, 0), ("Class_Name", 2, 0), ("Count", 0, 1), ("R", 0, 6), ("G", 0, 7), ("B", 0, 8)]
    (tmp_path / "l.tif.aux.xml").write_text(table(rows, fields))
    legend = read_legend(path)
    assert legend.names == ("Open Water", "Town")
    assert [item.color for item in legend.classes] == ["#0080ff", "#ff0000"]


def test_unclassified_is_no_class_and_stays_unlabelled(write_tif, tmp_path):
    from geoseg.io.labels import open_labels

    path = write_tif("l.tif", PIXELS)
    rows = [(0, "Unclassified"), (1, "water"), (4, "forest"), (9, "urban")]
    (tmp_path / "l.tif.aux.xml").write_text(table(rows, [("Value", 0, 5), ("Name", 2, 2)]))
    labels, legend = open_labels(path)
    assert legend.names == ("water", "forest", "urban")
    assert labels.read(labels.geobox).valid[0, ::8].tolist() == [True, True, True, False]


def test_a_map_of_ours_gives_its_legend_back(tmp_path, write_tif):
    geobox = open_source(write_tif("grid.tif", PIXELS)).geobox
    ids = np.where(PIXELS == 0, 255, PIXELS).astype("uint8")
    part = write_part(tmp_path / "part.tif", ids, geobox=geobox, nodata=255)
    path = write_cog(
        [part], tmp_path / "map.tif", geobox=geobox, dtype="uint8", nodata=255, legend=LEGEND, resampling="mode"
    )
    assert read_legend(path) == LEGEND
    (tmp_path / "map.tif.aux.xml").unlink()
    assert read_legend(path) == LEGEND


def test_a_broken_tag_is_passed_over(write_tif, caplog):
    path = write_tif("l.tif", PIXELS, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.update_tags(GEOSEG_LEGEND="{")
    assert read_legend(path).ids.tolist() == [1, 4, 9]
    assert "is no legend" in caplog.text


def test_ignored_codes_are_left_out(write_tif):
    source = open_source(write_tif("l.tif", PIXELS, nodata=0))
    assert raster_legend(source, ignore=[4]).ids.tolist() == [1, 9]


@pytest.mark.parametrize(
    ("codes", "ids", "ignore"),
    [([7, 2], [2, 7], 255), ([255, 3], [3, 255], 65535), ([-1, 5], [1, 2], 255), ([5, 70_000, 255], [1, 2, 3], 65535)],
)
def test_codes_become_ids_that_a_map_can_hold(codes, ids, ignore):
    legend = legend_of_codes(codes, {})
    assert legend.ids.tolist() == ids
    assert legend.ignore == ignore
    assert legend.translate(np.array(sorted(codes))).tolist() == ids


def test_manaus_keeps_codes_and_colours(shared_data):
    legend = read_legend(shared_data / "manaus" / "cls_1985_amazon_manaus.tif")
    assert legend.ids.tolist() == [10, 20, 30, 41, 42, 43, 50]
    assert legend.ignore == 0
    assert legend.by_id(41).color == "#109b30"
