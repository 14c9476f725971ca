"""The job's folder: whose it is, what is finished in it, and which files a source reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from geoseg.errors import OutputError
from geoseg.infer.job import check_outputs
from geoseg.infer.parts import JobFolder, Outputs, Plan, folder_of, is_complete
from geoseg.io.combine import BandStack, Mosaic
from geoseg.io.gdal import GdalSource
from geoseg.io.stamps import file_stamps, files_in, paths_in
from geoseg.tiling import Block, Window

BLOCK = Block(7, Window(0, 0, 5, 5), 0)


def claim(out: Path, *, overwrite: bool = False, **identity: Any) -> JobFolder:
    return JobFolder.claim(
        Outputs(out),
        identity=identity or {"a": 1},
        plan=lambda kept: kept or Plan((2, 3), 5),
        created="now",
        overwrite=overwrite,
    )


def test_outputs_stand_beside_the_class_map() -> None:
    names = [path.name for path in Outputs(Path("runs/zion.v2.tif")).paths]
    assert names == ["zion.v2.tif", "zion.v2.confidence.tif", "zion.v2.qml", "zion.v2.stac.json"]
    assert Outputs(Path("a/map.tif")).within(Path("b")).layer("confidence") == Path("b/map.confidence.tif")


def test_the_style_of_polygons_is_not_taken_away(tmp_path: Path) -> None:
    style = tmp_path / "map.qml"
    style.write_text('<qgis><renderer-v2 type="categorizedSymbol"/></qgis>')
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"map\.qml is the style of polygons"):
            check_outputs(Outputs(tmp_path / "map.tif"), inputs=(), overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["map.qml"]
    style.write_text('<qgis><pipe><rasterrenderer type="paletted"/></pipe></qgis>')
    check_outputs(Outputs(tmp_path / "map.tif"), inputs=(), overwrite=True)


def test_the_same_job_finds_its_folder_and_keeps_its_blocks(tmp_path: Path) -> None:
    first = claim(tmp_path / "map.tif", a=(1, 2), b={"c": None})
    again = JobFolder.claim(
        Outputs(tmp_path / "map.tif"), identity={"b": {"c": None}, "a": [1, 2]}, plan=lambda kept: kept or Plan((9, 9)),
        created="later", overwrite=False,
    )  # fmt: skip
    assert (again.path, again.plan, again.created) == (first.path, Plan((2, 3), 5), "now")


def test_a_block_is_finished_with_both_parts(tmp_path: Path) -> None:
    folder = claim(tmp_path / "map.tif")
    folder.part(BLOCK, "confidence").touch()
    assert not folder.is_finished(BLOCK)
    assert not folder.has_parts
    folder.part(BLOCK, "class").touch()
    assert folder.is_finished(BLOCK)
    assert folder.has_parts


def test_an_empty_folder_of_a_killed_start_is_taken_over(tmp_path: Path) -> None:
    folder_of(tmp_path / "map.tif").mkdir()
    assert claim(tmp_path / "map.tif").plan.cells == (2, 3)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 0}', "{broken"])
def test_a_folder_whose_job_cannot_be_read_is_not_deleted(tmp_path: Path, text: str) -> None:
    folder = folder_of(tmp_path / "map.tif")
    folder.mkdir()
    (folder / "job.json").write_text(text)
    with pytest.raises(OutputError, match="no job's folder"):
        claim(tmp_path / "map.tif", overwrite=True)


def test_a_file_in_the_folders_place_is_left_alone(tmp_path: Path) -> None:
    folder_of(tmp_path / "map.tif").write_text("mine")
    with pytest.raises(OutputError, match="in the way"):
        claim(tmp_path / "map.tif")


def test_publishing_moves_all_and_clears_up(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "map.tif")
    folder = claim(outputs.class_map)
    staged = folder.stage()
    for name in ("map.tif", "map.tif.aux.xml", "map.qml"):
        (staged / name).write_text(name)
    assert not is_complete(outputs.class_map, {"a": 1})
    folder.publish(outputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.qml", "map.tif", "map.tif.aux.xml"]


def test_staging_starts_empty(tmp_path: Path) -> None:
    folder = claim(tmp_path / "map.tif")
    (folder.stage() / "half").touch()
    assert not list(folder.stage().iterdir())


def test_complete_is_said_of_the_same_job_only(tmp_path: Path) -> None:
    folder = claim(tmp_path / "map.tif")
    folder.stage().rename(folder.done)
    assert is_complete(tmp_path / "map.tif", {"a": 1})
    assert not is_complete(tmp_path / "map.tif", {"a": 2})


def test_all_files_of_nested_sources_are_found_once() -> None:
    stack = BandStack((GdalSource("b2.tif"), Mosaic((GdalSource("east.tif"), GdalSource("b2.tif")))))
    assert paths_in(stack) == ["b2.tif", "east.tif"]


def test_sources_of_others_are_no_trouble() -> None:
    @dataclass
    class Other:
        name: str = "no path"

    assert paths_in(Other()) == paths_in(object()) == []


def test_stamps_tell_size_and_time_and_none_for_addresses(tmp_path: Path) -> None:
    file = tmp_path / "scene.tif"
    file.write_text("12345")
    found = file_stamps([str(file), "https://example.org/scene.tif"])
    assert found[str(file)] == [5, file.stat().st_mtime_ns]
    assert found["https://example.org/scene.tif"] is None


def test_a_folder_of_another_version_is_another_job(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "map.tif")
    folder.mkdir()
    (folder / "job.json").write_text('{"format": 1, "identity": {"a": 1}}')
    with pytest.raises(OutputError, match=r"parts of another job \(changed: a, format\)"):
        claim(tmp_path / "map.tif")
    assert claim(tmp_path / "map.tif", overwrite=True).plan == Plan((2, 3), 5)


def test_files_of_vrts_and_beside_rasters_are_a_sources_files_too(tmp_path: Path) -> None:
    (tmp_path / "inner.vrt").write_text("<V><SourceFilename relativeToVRT='1'>b.tif</SourceFilename></V>")
    (tmp_path / "outer.vrt").write_text("<V><SourceFilename relativeToVRT='1'>inner.vrt</SourceFilename></V>")
    for name in ("b.tif", "b.tif.msk", "outer.vrt.ovr"):
        (tmp_path / name).touch()
    found = files_in(GdalSource(str(tmp_path / "outer.vrt")))
    assert {Path(path).name for path in found} == {"outer.vrt", "inner.vrt", "b.tif", "b.tif.msk", "outer.vrt.ovr"}
