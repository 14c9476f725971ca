"""torchgeo's datasets of placed files, made of small files in their own layouts, read through geoseg pixel by pixel."""

from __future__ import annotations

import json
import pickle

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_geom

from geoseg.data.doors import expand_scenes
from geoseg.data.doors.torchgeo import torchgeo_labels, torchgeo_source, with_torchgeo
from geoseg.data.grids import ground_gsd_m
from geoseg.errors import InputError, MissingInputError
from geoseg.io import open_labels, open_source
from geoseg.io.regions import region_mask
from geoseg.io.stamps import paths_in

datasets = pytest.importorskip("torchgeo.datasets")

SIDE = 32
LANDSAT = "LC08_L2SP_{path}_20200518_20200820_02_T1_{band}.TIF"


def positions(shape=(SIDE, SIDE), *, plus=0):
    """Every pixel another number."""
    return (np.arange(shape[0] * shape[1]).reshape(shape) + 1 + plus).astype(np.uint16)


def codes(shape=(SIDE, SIDE), *, values):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(values, np.uint8)[(rows // 4 + cols // 3) % len(values)]


def write(path, pixels, *, left=500_000.0, top=4_500_000.0, res=30.0, crs=32633, nodata=None):
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(path, "w", driver="GTiff", width=width, height=height, count=count, dtype=pixels.dtype, crs=crs,
                       nodata=nodata, transform=Affine(res, 0, left, 0, -res, top)) as file:  # fmt: skip
        file.write(pixels)
    return pixels


def landsat(root, *, path="190031", plus=0, **place):
    """A Landsat 8 scene, one file a band."""
    for number, band in enumerate(("SR_B2", "SR_B3", "SR_B4")):
        write(root / LANDSAT.format(path=path, band=band), positions(plus=plus + 2000 * number), nodata=0, **place)


def read(scene):
    image = open_source(scene["image"])
    labels, legend = open_labels(scene["labels"])
    return image, image.read(image.geobox), labels.read(image.geobox), legend


def test_landsat_scenes_of_two_zones_stay_in_their_own(tmp_path):
    landsat(tmp_path / "images", path="190031")
    landsat(tmp_path / "images", path="192031", plus=9000, crs=32632, left=400_000.0)
    write(tmp_path / "labels.tif", codes(values=[1, 2]))

    scenes = expand_scenes([{
        "torchgeo": {"class_path": "torchgeo.datasets.Landsat8",
                     "init_args": {"paths": str(tmp_path / "images"), "bands": ["SR_B4", "SR_B2"]}},
        "labels": {"path": str(tmp_path / "labels.tif"), "legend": {1: "water", 2: "land"}},
    }])  # fmt: skip

    assert [scene["image"].geobox.crs.to_epsg() for scene in scenes] == [32633, 32632]
    assert set(scenes[0]) == {"name", "image", "labels"}
    for scene, plus in zip(scenes, (0, 9000), strict=True):
        image = open_source(scene["image"])
        raster = image.read(image.geobox)
        assert image.bands == ("SR_B4", "SR_B2")
        assert raster.dtype == np.uint16
        np.testing.assert_array_equal(raster.pixels[0], positions(plus=plus + 4000))
        np.testing.assert_array_equal(raster.pixels[1], positions(plus=plus))
        assert ground_gsd_m(image.geobox) == pytest.approx((30, 30), rel=0.01)
    assert len(paths_in(scenes[0]["image"])) == 2  # the store sees the files behind it


def test_what_a_files_nodata_says_is_invalid(tmp_path):
    pixels = positions()
    pixels[3:9, :] = 0
    write(tmp_path / LANDSAT.format(path="190031", band="SR_B2"), pixels, nodata=0)

    image = torchgeo_source(datasets.Landsat8(str(tmp_path), bands=["SR_B2"]))

    np.testing.assert_array_equal(image.read(image.geobox).valid, pixels != 0)


def test_sentinel_2_bands_of_three_resolutions_are_stacked_on_the_finest(tmp_path):
    folder = tmp_path / "IMG_DATA"
    for band, res, side in (("B02", 10, 36), ("B05", 20, 18), ("B01", 60, 6)):
        name = f"T33UUP_20200518T100031_{band}_{res}m.jp2"
        write(folder / f"R{res}m" / name.replace(".jp2", ".tif"), positions((side, side), plus=res), res=float(res))

    scenes = expand_scenes([{
        "torchgeo": {"dataset": "Sentinel2", "paths": str(tmp_path), "bands": ["B02", "B05", "B01"]},
        "labels": {"path": str(folder / "R10m" / "T33UUP_20200518T100031_B02_10m.tif"), "legend": {1: "a"}},
    }])  # fmt: skip

    image = open_source(scenes[0]["image"])
    assert image.geobox.shape == (36, 36)
    assert image.bands == ("B02", "B05", "B01")
    raster = image.read(image.geobox)
    np.testing.assert_array_equal(raster.pixels[0], positions((36, 36), plus=10))
    own = image.read(GeoBox((6, 6), Affine(60, 0, 500_000, 0, -60, 4_500_000), "EPSG:32633"))
    np.testing.assert_array_equal(own.pixels[2], positions((6, 6), plus=60))


def naip_and_chesapeake(root):
    """Two NAIP quarter quads of 1 m, in two zones, and Delaware's land use in another CRS."""
    write(root / "naip" / "m_3807511_ne_18_1_20170611.tif", np.stack([positions(plus=k * 2000) for k in range(4)]),
          crs=26918, left=450_000.0, top=4_290_000.0, res=1.0)  # fmt: skip
    write(root / "naip" / "m_3907601_sw_17_1_20170611.tif", np.stack([positions(plus=k * 3000) for k in range(4)]),
          crs=26917, left=450_000.0, top=4_290_000.0, res=1.0)  # fmt: skip
    x, y = transform_geom(26918, 5070, {"type": "Point", "coordinates": [450_016.0, 4_289_984.0]})["coordinates"]
    return write(root / "lulc" / "de_lulc_2018_2022-Edition.tif", codes((80, 80), values=[11, 41, 127]),
                 crs=5070, left=round(x) - 40.0, top=round(y) + 40.0, res=1.0)  # fmt: skip


def test_image_and_mask_give_one_scene_an_image_that_has_masks(tmp_path):
    naip_and_chesapeake(tmp_path)
    pair = [{"dataset": "NAIP", "paths": str(tmp_path / "naip")},
            {"dataset": "ChesapeakeDE", "paths": str(tmp_path / "lulc")}]  # fmt: skip

    with pytest.raises(InputError, match="no temporal intersection"):
        expand_scenes([{"torchgeo": {"and": pair}}])  # 2017 and 2018, as torchgeo sees it
    (scene,) = expand_scenes([{"torchgeo": {"and": pair, "spatial_only": True}}])

    image, raster, ids, legend = read(scene)
    assert scene["name"] == "m_3807511_ne_18_1_20170611"
    assert image.geobox.crs.to_epsg() == 26918
    assert image.bands == ("R", "G", "B", "NIR")
    assert "region" not in scene  # the labels cover the image
    np.testing.assert_array_equal(raster.pixels[3], positions(plus=6000))
    # The oracle: the mask file's own pixel under each image pixel's centre.
    with rasterio.open(tmp_path / "lulc" / "de_lulc_2018_2022-Edition.tif") as file:
        for row, col in ((0, 0), (5, 17), (31, 31)):
            at = {"type": "Point", "coordinates": image.geobox.affine @ (col + 0.5, row + 0.5)}
            x, y = transform_geom(26918, 5070, at, precision=-1)["coordinates"]
            assert ids.pixels[0, row, col] == next(file.sample([(x, y)]))[0]
    assert ids.valid.all()
    assert {11, 41, 127} <= set(legend.ids.tolist())
    assert legend.by_id(41).color == "#267300"


def test_the_same_in_python_with_torchgeos_operators(tmp_path):
    naip_and_chesapeake(tmp_path)
    (tmp_path / "lulc" / "de_lulc_2018_2022-Edition.tif").rename(tmp_path / "lulc" / "de_lulc_2017_2022-Edition.tif")
    naip, lulc = datasets.NAIP(str(tmp_path / "naip")), datasets.ChesapeakeDE(str(tmp_path / "lulc"))

    (scene,) = expand_scenes([{"torchgeo": naip & lulc, "part": "test"}])
    given = expand_scenes([{"image": naip, "labels": lulc}])

    assert scene["part"] == "test"
    np.testing.assert_array_equal(read(scene)[2].pixels, read(given[0])[2].pixels)
    assert len(given) == 2  # where labels are named, every image is a scene; it may lie beside them
    assert torchgeo_labels(lulc).geobox.crs.to_epsg() == 5070


def test_a_union_gives_all_images_and_a_mosaic(tmp_path):
    landsat(tmp_path / "west", path="190031")
    landsat(tmp_path / "east", path="190032", plus=9000, left=500_000.0 + 30 * SIDE)
    sets = [{"dataset": "Landsat8", "paths": str(tmp_path / side), "bands": ["SR_B3"]} for side in ("west", "east")]
    labels = {"path": str(tmp_path / "west" / LANDSAT.format(path="190031", band="SR_B2")), "legend": {1: "a"}}

    scenes = expand_scenes([{"torchgeo": {"or": sets}, "labels": labels}])
    mosaic = torchgeo_source({"or": sets})

    assert len(scenes) == 2
    raster = mosaic.read(mosaic.geobox)
    expected = np.concatenate([positions(plus=2000), positions(plus=11_000)], axis=1)
    np.testing.assert_array_equal(raster.pixels[0], expected)
    assert raster.valid.all()


def test_two_image_datasets_are_stacked_and_keep_apart_bands_of_one_name(tmp_path):
    landsat(tmp_path / "a", path="190031")
    landsat(tmp_path / "b", path="190031", plus=5000)
    mask = tmp_path / "Annual_NLCD_LndCov_2020_CU_C1V1.tif"
    write(mask, codes(values=[0, 11, 41]), nodata=None)
    sets = [datasets.Landsat8(str(tmp_path / side), bands=["SR_B2"]) for side in ("a", "b")]

    (scene,) = expand_scenes([{"torchgeo": sets[0] & sets[1] & datasets.NLCD(str(tmp_path), years=[2020])}])

    image, raster, ids, legend = read(scene)
    assert image.bands == ("SR_B2", "SR_B2_2")
    np.testing.assert_array_equal(raster.pixels[1], positions(plus=5000))
    ordinals = list(datasets.NLCD.cmap)
    truth = codes(values=[0, ordinals.index(11), ordinals.index(41)])
    np.testing.assert_array_equal(ids.valid, truth != 0)
    np.testing.assert_array_equal(ids.pixels[0][ids.valid], truth[truth != 0])
    assert legend.by_id(ordinals.index(41)).name == "class 41"


def irish(root):
    """L7Irish: images of several bands, masks of the same path and row, fill 0."""
    for number in range(5):
        path, crs, left = f"07101{number}", 32633 - number, 500_000.0
        bands = [positions(plus=band * 1000 + number) for band in range(9)]
        write(root / "subtropical" / f"L71{path}_{path[3:]}2001{number + 1:02}17.TIF",
              np.stack(bands), crs=crs, left=left)  # fmt: skip
        write(root / "subtropical" / f"L7_p{int(path[:3])}_r{int(path[3:])}_newmask2015.TIF",
              codes(values=[0, 64, 128, 192, 255]), crs=crs, left=left)  # fmt: skip
    return root


def test_l7irish_is_read_in_its_own_zones_with_ordinal_classes(tmp_path):
    irish(tmp_path)

    scenes = expand_scenes([{"torchgeo": {"dataset": "L7Irish", "paths": str(tmp_path), "bands": ["B30", "B10"]}}])

    assert len(scenes) == 5
    assert [scene["image"].geobox.crs.to_epsg() for scene in scenes] == [
        32633 - n for n in range(5)
    ]  # torchgeo: all in 3857
    for number, scene in enumerate(scenes):
        image, raster, ids, legend = read(scene)
        assert image.bands == ("B30", "B10")
        np.testing.assert_array_equal(raster.pixels[0], positions(plus=2000 + number))
        truth = codes(values=[0, 1, 2, 3, 4])
        np.testing.assert_array_equal(ids.valid, truth != 0)
        np.testing.assert_array_equal(ids.pixels[0][ids.valid], truth[truth != 0])
        assert legend.names == ("Cloud Shadow", "Clear", "Thin Cloud", "Cloud")


def test_a_geo_data_module_gives_each_file_to_one_part(tmp_path):
    irish(tmp_path)

    scenes = expand_scenes([{"torchgeo": {"datamodule": "L7IrishDataModule", "paths": str(tmp_path), "patch_size": 8}}])

    assert sorted(scene["part"] for scene in scenes) == ["test", *["training"] * 3, "validation"]
    assert len({scene["name"] for scene in scenes}) == 5
    assert not any("region" in scene for scene in scenes)


def test_a_data_module_that_splits_by_grid_cells_gives_regions_that_do_not_meet(tmp_path):
    write(tmp_path / "s2" / "R10m" / "T33UUP_20200518T100031_B02_10m.tif", positions((64, 64)), res=10.0)
    cdl = tmp_path / "cdl" / "2020_30m_cdls.tif"
    write(cdl, codes((24, 24), values=[0, 1, 5]), left=499_980.0, top=4_500_060.0)

    scenes = expand_scenes([{
        "torchgeo": {"datamodule": "Sentinel2CDLDataModule", "sentinel2_paths": str(tmp_path / "s2"),
                     "sentinel2_bands": ["B02"], "cdl_paths": str(tmp_path / "cdl"), "cdl_years": [2020],
                     "patch_size": 4},
    }])  # fmt: skip

    assert [scene["part"] for scene in scenes] == ["training", "validation", "test"]
    grid = open_source(scenes[0]["image"]).geobox
    masks = [region_mask(scene["region"], grid) for scene in scenes]
    assert sum(masks).max() == 1
    assert sum(masks).min() == 1  # and together they are the whole scene
    # 64 cells of 8 by 8 pixels: 0.8, 0.1 and 0.1 of them, as torchgeo deals them out.
    assert [int(mask.sum()) // 64 for mask in masks] == [52, 6, 6]
    for mask in masks:
        cells = mask.reshape(8, 8, 8, 8)
        assert (cells.all(axis=(1, 3)) == cells.any(axis=(1, 3))).all()


def test_a_mask_of_a_part_of_the_image_limits_the_scene(tmp_path):
    landsat(tmp_path, path="190031")
    write(tmp_path / "Annual_NLCD_LndCov_2020_CU_C1V1.tif", codes((8, 12), values=[11]), left=500_000.0 + 30 * 4)
    both = datasets.Landsat8(str(tmp_path), bands=["SR_B2"]) & datasets.NLCD(str(tmp_path), years=[2020])

    (scene,) = expand_scenes([{"torchgeo": both}])

    inside = region_mask(scene["region"], scene["image"].geobox)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[:8, 4:16] = True
    np.testing.assert_array_equal(inside, expected)
    assert json.dumps(scene["region"])


def test_a_region_beside_a_dataset_takes_what_both_hold(tmp_path):
    landsat(tmp_path, path="190031")
    write(tmp_path / "Annual_NLCD_LndCov_2020_CU_C1V1.tif", codes((8, 12), values=[11]), left=500_000.0 + 30 * 4)
    both = datasets.Landsat8(str(tmp_path), bands=["SR_B2"]) & datasets.NLCD(str(tmp_path), years=[2020])

    (scene,) = expand_scenes([{"torchgeo": both, "region": {"cols": [0, 10]}}])

    inside = region_mask(scene["region"], scene["image"].geobox)
    assert inside[:8, 4:10].all()
    assert inside.sum() == 48
    with pytest.raises(InputError, match="holds nothing of LC08"):
        expand_scenes([{"torchgeo": both, "region": {"rows": [20, 30]}}])


def test_a_union_of_masks_lies_under_a_union_of_images(tmp_path):
    for side, path, year, col in (("a", "190031", 2019, 0), ("b", "190032", 2021, SIDE)):
        landsat(tmp_path / side, path=path, left=500_000.0 + 30 * col)
        write(tmp_path / side / f"Annual_NLCD_LndCov_{year}_CU_C1V1.tif", codes(values=[11 if side == "a" else 41]),
              left=500_000.0 + 30 * col)  # fmt: skip
    images = [{"dataset": "Landsat8", "paths": str(tmp_path / side), "bands": ["SR_B2"]} for side in "ab"]
    masks = [
        {"dataset": "NLCD", "paths": str(tmp_path / side), "years": [year]} for side, year in (("a", 2019), ("b", 2021))
    ]
    ordinals = list(datasets.NLCD.cmap)

    scenes = expand_scenes([{"torchgeo": {"and": [{"or": images}, {"or": masks}], "spatial_only": True}}])

    assert [scene["name"][10:16] for scene in scenes] == ["190031", "190032"]
    for scene, code in zip(scenes, (11, 41), strict=True):
        _, _, ids, _ = read(scene)
        assert (ids.pixels == ordinals.index(code)).all()


def test_of_two_masks_of_a_place_the_one_of_the_images_time_is_taken(tmp_path):
    landsat(tmp_path, path="190031")  # of 2020
    for year, code in ((2019, 11), (2020, 41), (2021, 52)):
        write(tmp_path / f"Annual_NLCD_LndCov_{year}_CU_C1V1.tif", codes(values=[code]))
    nlcd = datasets.NLCD(str(tmp_path), years=[2019, 2020, 2021])

    (scene,) = expand_scenes([{"torchgeo": datasets.Landsat8(str(tmp_path), bands=["SR_B2"]) & nlcd}])

    assert (read(scene)[2].pixels == list(datasets.NLCD.cmap).index(41)).all()


def test_a_union_of_pairs_keeps_each_pair_together(tmp_path):
    pairs = []
    for side, code in (("a", 11), ("b", 41)):  # of one place and time
        landsat(tmp_path / side, path="190031", plus=5000 * (side == "b"))
        write(tmp_path / side / "Annual_NLCD_LndCov_2020_CU_C1V1.tif", codes(values=[code]))
        folder = str(tmp_path / side)
        pairs.append({"and": [{"dataset": "Landsat8", "paths": folder, "bands": ["SR_B2"]},
                              {"dataset": "NLCD", "paths": folder, "years": [2020]}]})  # fmt: skip

    scenes = expand_scenes([{"torchgeo": {"or": pairs}}])

    assert len({scene["name"] for scene in scenes}) == 2  # files of one name in two folders
    for scene, code, plus in zip(scenes, (11, 41), (0, 5000), strict=True):
        _, raster, ids, _ = read(scene)
        np.testing.assert_array_equal(raster.pixels[0], positions(plus=plus))
        assert (ids.pixels == list(datasets.NLCD.cmap).index(code)).all()


def test_a_data_module_whose_samplers_have_areas_gives_these_as_regions(tmp_path):
    from torchgeo.datamodules import GeoDataModule
    from torchgeo.samplers import GridGeoSampler

    landsat(tmp_path, path="190031")
    write(tmp_path / "Annual_NLCD_LndCov_2020_CU_C1V1.tif", codes(values=[11, 41]))

    class Halves(GeoDataModule):
        def setup(self, stage):  # noqa: ARG002 - torchgeo's signature
            self.dataset = datasets.Landsat8(str(tmp_path), bands=["SR_B2"]) & datasets.NLCD(
                str(tmp_path), years=[2020]
            )
            x, y, _ = self.dataset.bounds
            middle = (x.start + x.stop) / 2
            for name, west, east in (("train", x.start, middle), ("val", middle, x.stop)):
                setattr(
                    self,
                    f"{name}_sampler",
                    GridGeoSampler(self.dataset, 8, 8, shapely.box(west, y.start, east, y.stop)),
                )

    scenes = expand_scenes([{"torchgeo": Halves(datasets.Landsat8)}])

    assert [scene["part"] for scene in scenes] == ["training", "validation"]
    masks = [region_mask(scene["region"], scene["image"].geobox) for scene in scenes]
    assert masks[0][:, :16].all()
    assert masks[1][:, 16:].all()
    assert masks[0].sum() == masks[1].sum() == SIDE * 16


def test_landcover_ai_in_files_keeps_each_pairs_own_grid(tmp_path):
    for number, res in enumerate((0.25, 0.5)):
        place = {"crs": 2180, "left": 400_000.0 + 100 * number, "top": 500_000.0, "res": res}
        rgb = np.stack([positions(plus=number) % 251] * 3).astype(np.uint8)
        write(tmp_path / "images" / f"M-{number}.tif", rgb, **place)
        write(tmp_path / "masks" / f"M-{number}.tif", codes(values=[0, 1, 2, 3, 4]), **place)

    scenes = expand_scenes([{"torchgeo": {"dataset": "LandCoverAIGeo", "root": str(tmp_path)}}])

    for number, (scene, res) in enumerate(zip(scenes, (0.25, 0.5), strict=True)):
        image, raster, ids, legend = read(scene)
        assert image.geobox.resolution.x == res
        assert image.bands == ("red", "green", "blue")
        np.testing.assert_array_equal(raster.pixels[0], positions(plus=number) % 251)
        np.testing.assert_array_equal(ids.pixels[0], codes(values=[0, 1, 2, 3, 4]))
        assert legend.names[0] == "Background"


def chesapeake_cvpr(root):
    """Tiles of two states in two zones, a file a layer, and the index in Web Mercator."""
    rows = []
    for state, crs, split in (("de", 26918, "train"), ("wv", 26917, "train"), ("de", 26918, "val")):
        folder = f"{state}_1m_2013_extended-debuffered-{split}_tiles"
        name = f"{folder}/m_{len(rows)}"
        place = {"crs": crs, "left": 450_000.0 + 200 * len(rows), "top": 4_290_000.0, "res": 1.0}
        layers = {layer: f"{name}_{layer}.tif" for layer in ("naip-new", "naip-old", "lc", "buildings")}
        for plus, layer in enumerate(("naip-new", "naip-old")):
            naip = np.stack([positions(plus=k * 1000 + plus + len(rows)) for k in range(4)]) % 256
            write(root / layers[layer], naip.astype(np.uint8), **place)
        write(root / layers["lc"], codes(values=[0, 1, 2, 3, 4, 5, 6, 15]), **place)
        outline = shapely.geometry.mapping(
            shapely.box(place["left"], place["top"] - SIDE, place["left"] + SIDE, place["top"])
        )
        rows.append({**layers, "split": f"{state}-{split}",
                     "geometry": shapely.geometry.shape(transform_geom(crs, 3857, outline))})  # fmt: skip
    for name in datasets.ChesapeakeCVPR._files:
        path = root / name
        path.mkdir(parents=True, exist_ok=True) if not path.suffix else path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".tif":
            path.touch()
    gpd.GeoDataFrame(rows, crs=3857).to_file(root / "spatial_index.geojson", driver="GeoJSON")


def test_chesapeake_cvpr_tiles_are_read_in_their_own_zone(tmp_path):
    chesapeake_cvpr(tmp_path)

    scenes = expand_scenes([{
        "torchgeo": {"datamodule": "ChesapeakeCVPRDataModule", "root": str(tmp_path), "patch_size": 8,
                     "train_splits": ["de-train", "wv-train"], "val_splits": ["de-val"], "test_splits": []},
    }])  # fmt: skip

    assert [scene["part"] for scene in scenes] == ["training", "training", "validation"]
    assert [scene["image"].geobox.crs.to_epsg() for scene in scenes] == [26918, 26917, 26918]
    for number, scene in enumerate(scenes):
        image, raster, ids, legend = read(scene)
        assert image.bands == ("red", "green", "blue", "nir")
        np.testing.assert_array_equal(raster.pixels[0], positions(plus=number) % 256)
        truth = codes(values=[0, 1, 2, 3, 4, 5, 6, 15])
        np.testing.assert_array_equal(ids.valid, ~np.isin(truth, [0, 15]))
        np.testing.assert_array_equal(ids.pixels[0][ids.valid], truth[ids.valid])
        assert legend.names[1] == "tree canopy"


def test_chesapeake_cvpr_layers_are_stacked_and_one_holds_the_labels(tmp_path):
    chesapeake_cvpr(tmp_path)
    spec = {"dataset": "ChesapeakeCVPR", "root": str(tmp_path), "splits": ["de-val"]}

    (scene,) = expand_scenes([{"torchgeo": {**spec, "layers": ["naip-new", "naip-old", "lc"]}}])

    image, raster, _, _ = read(scene)
    assert scene["part"] == "validation"
    assert image.bands[:5] == ("naip-new red", "naip-new green", "naip-new blue", "naip-new nir", "naip-old red")
    np.testing.assert_array_equal(raster.pixels[4], positions(plus=3) % 256)
    with pytest.raises(InputError, match="only one can be the labels"):
        expand_scenes([{"torchgeo": {**spec, "layers": ["naip-new", "lc", "nlcd"]}}])


def test_polygons_of_a_vector_dataset_are_labels(tmp_path):
    landsat(tmp_path / "images", path="190031")
    shapes = [shapely.box(500_000, 4_499_700, 500_300, 4_500_000), shapely.box(500_300, 4_499_400, 500_600, 4_499_700)]
    fields = tmp_path / "fields"
    fields.mkdir()
    gpd.GeoDataFrame({"crop": [3, 7]}, geometry=shapes, crs=32633).to_file(fields / "fields.gpkg")

    class Fields(datasets.VectorDataset):
        filename_glob = "*.gpkg"

    image = datasets.Landsat8(str(tmp_path / "images"), bands=["SR_B2"])
    (named,) = expand_scenes([{"torchgeo": image & Fields(str(fields), res=30, label_name="crop")}])
    (plain,) = expand_scenes([{"torchgeo": image & Fields(str(fields), res=30)}])

    _, _, ids, legend = read(named)
    assert legend.ids.tolist() == [3, 7]
    assert (ids.pixels[0, :10, :10] == 3).all()
    assert (ids.pixels[0, 10:20, 10:20] == 7).all()
    assert ids.valid.sum() == 200
    _, _, ids, legend = read(plain)
    assert legend.names == ("background", "Fields")
    assert ids.pixels[0, :20, :20].sum() == 200
    assert ids.valid.sum() == 400  # nothing is said beyond the file's bounds


def test_labels_of_torchgeo_go_with_any_image(tmp_path):
    write(tmp_path / "scene.tif", positions())
    write(tmp_path / "Annual_NLCD_LndCov_2020_CU_C1V1.tif", codes(values=[11, 41]), nodata=None)
    spec = {"torchgeo": {"dataset": "NLCD", "paths": str(tmp_path), "years": [2020]}}

    (scene,) = expand_scenes([{"image": str(tmp_path / "scene.tif"), "labels": spec}])

    _, raster, ids, _ = read(scene)
    ordinals = list(datasets.NLCD.cmap)
    np.testing.assert_array_equal(raster.pixels[0], positions())
    np.testing.assert_array_equal(ids.pixels[0], codes(values=[ordinals.index(11), ordinals.index(41)]))


def test_files_are_values_that_can_be_pickled(tmp_path):
    irish(tmp_path)
    spec = {"torchgeo": {"dataset": "L7Irish", "paths": str(tmp_path)}}

    one, again = expand_scenes([spec])[0], expand_scenes([spec])[0]

    assert one["image"] == again["image"] == pickle.loads(pickle.dumps(one["image"]))  # noqa: S301
    assert one["labels"]["path"] == again["labels"]["path"]


def test_missing_files_and_missing_masks_are_said(tmp_path):
    with pytest.raises(MissingInputError, match="files of Landsat8 are not there .* get them yourself"):
        expand_scenes([{"torchgeo": {"dataset": "Landsat8", "paths": str(tmp_path)}, "labels": "x.tif"}])
    landsat(tmp_path, path="190031")
    with pytest.raises(InputError, match="Landsat8 has no image with a mask; give labels"):
        expand_scenes([{"torchgeo": {"dataset": "Landsat8", "paths": str(tmp_path), "bands": ["SR_B2"]}}])
    with pytest.raises(InputError, match="Landsat8 has no masks"):
        torchgeo_labels(datasets.Landsat8(str(tmp_path), bands=["SR_B2"]))


def test_a_scene_that_is_no_mapping_is_one_line():
    with pytest.raises(InputError, match=r"data.scenes holds 'a.tif'; needed is a mapping"):
        with_torchgeo("a.tif")
