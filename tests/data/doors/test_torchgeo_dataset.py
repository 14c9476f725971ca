"""geoseg's sources as torchgeo's datasets, in torchgeo's own samplers, loaders and set operations."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from torch.utils.data import DataLoader

from geoseg.data.torchgeo_dataset import as_torchgeo
from geoseg.errors import GridError, InputError
from geoseg.io import open_labels, open_source

datasets = pytest.importorskip("torchgeo.datasets")
samplers = pytest.importorskip("torchgeo.samplers")

LEFT, TOP, RES, ROWS, COLS = 500_000.0, 4_500_000.0, 10.0, 48, 64
LEGEND = {1: "water", 2: "wood"}


def write(path, pixels, *, left=LEFT, res=RES, nodata=None, crs=32633):
    with rasterio.open(path, "w", driver="GTiff", width=pixels.shape[2], height=pixels.shape[1], count=len(pixels),
                       dtype=pixels.dtype, crs=crs, nodata=nodata,
                       transform=Affine(res, 0, left, 0, -res, TOP)) as file:  # fmt: skip
        file.write(pixels)
    return str(path)


def positions(*, rows=ROWS, cols=COLS):
    """Row in the first band, column in the second: a pixel says where it lies."""
    return np.stack(np.mgrid[:rows, :cols]).astype(np.uint16)


@pytest.fixture
def image(tmp_path):
    return write(tmp_path / "image.tif", positions())


@pytest.fixture
def labels(tmp_path):
    """Half the image, two classes and a row of 0, which is none."""
    codes = np.where(np.arange(COLS // 2) % 2, 1, 2).astype(np.uint8) * np.ones((1, ROWS, 1), np.uint8)
    codes[:, 5] = 0
    return {"path": write(tmp_path / "labels.tif", codes, nodata=0), "legend": LEGEND}


def box(row, col, rows, cols):
    left, top = LEFT + col * RES, TOP - row * RES
    return slice(left, left + cols * RES, RES), slice(top - rows * RES, top, RES)


def test_a_sample_is_the_pixels_asked_for_with_torchgeos_keys(image, labels):
    dataset = as_torchgeo(image, labels=labels)

    sample = dataset[box(3, 20, 6, 16)]

    assert isinstance(dataset, datasets.GeoDataset)
    assert set(sample) == {"crs", "bounds", "image", "mask"}
    assert sample["image"].dtype == torch.float32
    assert sample["mask"].dtype == torch.int64
    np.testing.assert_array_equal(sample["image"].numpy(), positions()[:, 3:9, 20:36])
    assert (sample["mask"][:, 12:] == 255).all()  # beyond the labels
    assert (sample["mask"][2] == 255).all()  # the row without a class
    assert sample["mask"][0, :4].tolist() == [2, 1, 2, 1]
    assert dataset.res == (10.0, 10.0)
    assert dataset.crs.to_epsg() == 32633
    assert dataset.bounds[0].stop - dataset.bounds[0].start == COLS * RES


def test_what_float32_cannot_hold_is_filled(tmp_path):
    pixels = positions().astype(np.float64)
    pixels[0, 1, 2] = -np.finfo(np.float64).max
    sample = as_torchgeo(write(tmp_path / "deep.tif", pixels), fill=-1)[box(0, 0, 4, 4)]["image"]

    assert sample[:, 1, 2].tolist() == [-1, -1]
    assert (sample == -1).sum() == 2


def test_outside_raises_what_torchgeo_raises_and_the_edge_is_filled(image):
    dataset = as_torchgeo(image, fill=-1)

    with pytest.raises(IndexError, match="not found in index with bounds"):
        dataset[box(0, 500, 8, 8)]
    sample = dataset[box(-2, -3, 8, 8)]
    assert (sample["image"][:, :2] == -1).all()
    assert (sample["image"][:, :, :3] == -1).all()
    np.testing.assert_array_equal(sample["image"][:, 2:, 3:], positions()[:, :6, :5])


def test_torchgeos_samplers_and_loader_feed_on_it(image, labels):
    dataset = as_torchgeo(image, labels=labels)
    grid = samplers.GridGeoSampler(dataset, size=16, stride=16)
    drawn = samplers.RandomGeoSampler(dataset, size=8, length=6, generator=torch.Generator().manual_seed(0))

    batches = list(DataLoader(dataset, batch_size=4, sampler=grid, collate_fn=datasets.stack_samples))
    random = list(DataLoader(dataset, batch_size=6, sampler=drawn, collate_fn=datasets.stack_samples, num_workers=1))

    whole = torch.cat([batch["image"] for batch in batches])
    assert whole.shape == (12, 2, 16, 16)
    assert sorted(map(tuple, whole[:, :, 0, 0].int().tolist())) == [
        (r, c) for r in (0, 16, 32) for c in (0, 16, 32, 48)
    ]
    assert random[0]["image"].shape == (6, 2, 8, 8)
    assert random[0]["mask"].shape == (6, 8, 8)
    for patch in random[0]["image"].numpy():  # nearest whole pixel or interpolated: rows grow by one
        np.testing.assert_allclose(np.diff(patch[0], axis=0), 1, atol=0.51)


def test_intersection_with_a_torchgeo_dataset_reads_onto_its_grid(image, tmp_path):
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "m_1.tif", positions(rows=24, cols=24)[:1] + 100, res=20.0)

    class Other(datasets.RasterDataset):
        filename_glob = "m_*.tif"

    other = Other(str(tmp_path / "other"))
    both = other & as_torchgeo(image)

    sample = both[slice(LEFT, LEFT + 160), slice(TOP - 160, TOP)]

    assert sample["image"].shape == (3, 8, 8)  # at 20 m, as the first one says
    np.testing.assert_array_equal(sample["image"][0], positions(rows=24, cols=24)[0, :8, :8] + 100)
    means = positions()[:, :16, :16].reshape(2, 8, 2, 8, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(sample["image"][1:], np.rint(means))


def test_image_and_label_sources_intersect_to_image_and_mask(image, labels):
    source = open_labels(labels)[0]

    both = as_torchgeo(image) & as_torchgeo(source)

    sample = both[box(3, 20, 6, 12)]
    whole = as_torchgeo(image, labels=labels)[box(3, 20, 6, 12)]
    np.testing.assert_array_equal(sample["mask"], whole["mask"])
    np.testing.assert_array_equal(sample["image"], whole["image"])
    x, _, _ = both.bounds
    assert x.stop - x.start == COLS // 2 * RES


def test_a_union_puts_pieces_side_by_side(image, tmp_path):
    east = write(tmp_path / "east.tif", positions() + 1000, left=LEFT + COLS * RES)

    union = as_torchgeo(image) | as_torchgeo(east)

    sample = union[box(0, COLS - 4, 8, 8)]
    np.testing.assert_array_equal(sample["image"][:, :, :4], positions()[:, :8, -4:])
    np.testing.assert_array_equal(sample["image"][:, :, 4:], positions()[:, :8, :4] + 1000)


def test_another_crs_set_by_torchgeo_is_that_of_the_samples(image, capsys):
    from pyproj import CRS

    dataset = as_torchgeo(image)
    dataset.crs, dataset.res = CRS.from_epsg(3857), 13.0
    x, y, _ = dataset.bounds

    sample = dataset[x, y]

    grid = GeoBox(sample["image"].shape[1:], Affine(13, 0, x.start, 0, -13, y.stop), "EPSG:3857")
    expected = open_source(image).read(grid)
    np.testing.assert_array_equal(sample["image"], np.where(expected.valid, expected.pixels, 0))
    assert "Converting" in capsys.readouterr().out  # torchgeo's own words


def test_it_survives_pickling_copying_and_torchgeos_splits(image, labels):
    dataset = as_torchgeo(image, labels=labels, dates=("2020-01-01", "2020-12-31"))

    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    west, east = datasets.random_bbox_splitting(dataset, [0.5, 0.5], torch.Generator().manual_seed(1))

    np.testing.assert_array_equal(again[box(3, 20, 6, 12)]["image"], dataset[box(3, 20, 6, 12)]["image"])
    assert again.index.equals(dataset.index)
    assert again.legend == dataset.legend
    parts = [copy.deepcopy(part).index.geometry.iloc[0] for part in (west, east)]
    assert parts[0].area == pytest.approx(parts[1].area)
    assert not parts[0].overlaps(parts[1])


def test_time_is_respected_where_it_is_given(image, labels):
    image_2020 = as_torchgeo(image, dates=("2020-01-01", "2020-12-31"))

    assert len(image_2020 & as_torchgeo(open_labels(labels)[0])) == 1
    with pytest.raises(RuntimeError, match="no temporal intersection"):
        image_2020 & as_torchgeo(open_labels(labels)[0], dates=("2021-01-01", "2021-12-31"))


def test_a_source_that_torchgeo_cannot_place_is_refused(tmp_path, labels):
    with pytest.raises(InputError, match="the source holds labels itself"):
        as_torchgeo(open_labels(labels)[0], labels=labels)
    turned = tmp_path / "turned.tif"
    with rasterio.open(turned, "w", driver="GTiff", width=4, height=4, count=1, dtype="uint8", crs=32633,
                       transform=Affine.translation(LEFT, TOP) @ Affine.rotation(20)) as file:  # fmt: skip
        file.write(np.ones((1, 4, 4), np.uint8))
    with pytest.raises(GridError, match="turned or upside down"):
        as_torchgeo(str(turned))


def test_without_torchgeo_one_line_says_what_to_install(image, monkeypatch):
    import geoseg.extras

    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(geoseg.extras, "import_module", refuse)
    from geoseg.data.doors import expand_scenes

    with pytest.raises(InputError, match=r"pip install geoseg\[torchgeo\]"):
        expand_scenes([{"torchgeo": {"dataset": "LoveDA", "root": "x"}}])
