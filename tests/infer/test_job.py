"""A job makes the outputs, carries on after a stop, and leaves nothing where it may not work."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.errors import InputError, ModelFileError, OutputError, OutputExistsError, ReadError
from geoseg.infer import assemble, parts, plan
from geoseg.infer.executors import Crew
from geoseg.infer.job import Job, PredictResult, run_job
from geoseg.infer.layers import LAYERS, chosen_layers
from geoseg.infer.memory import memory_returned
from geoseg.infer.parts import JobFolder, Plan
from geoseg.infer.plan import buffer_bytes, bytes_per_col, cells_for, lanes_of, largest_overlap
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import Member, SceneTask
from geoseg.legend import Legend
from geoseg.tiling import Window

Run = Callable[..., PredictResult]


@pytest.fixture
def run(legend: Legend, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a job of many small blocks."""
    monkeypatch.setattr(plan, "STRIP_PX", 100)
    monkeypatch.setattr(plan, "BLOCK_PX", 5000)

    def start(
        source: Any, predictor: Any, out: Path, *, progress: Any = None, crew: Crew | None = None,
        overwrite: bool = False, model: Any = None, **options: Any,
    ) -> PredictResult:  # fmt: skip
        task = task_of(source, predictor, legend, **options)
        known = model or {"name": "fake", "sha256": "00"}
        cut = Job(
            task, out, lambda kept: kept or Plan(cells_for(task, memory_bytes=10**9)), crew=crew or Crew(), model=known,
            overwrite=overwrite,
        )  # fmt: skip
        return run_job(cut, progress=progress)

    return start


def task_of(source: Any, predictor: Any, legend: Legend, **options: Any) -> SceneTask:
    lattice = lattice_for(source.geobox.shape, tile_px=64, overlap_px=16, scale=(1.0, 1.0))
    return SceneTask(
        source, predictor, legend, lattice.tiling, lattice.model_shape, options.pop("blend", "hann"), **options
    )


def failing(predictor: Any, *, after: int, error: BaseException) -> Any:
    """The predictor, which fails once `after` tiles are done."""
    function = predictor.function

    def work(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        if predictor.tiles > after:
            raise error
        found: NDArray[np.float32] = function(pixels, valid)
        return found

    predictor.function = work
    return predictor


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".json"}


def test_the_outputs_are_on_the_scenes_grid_and_complete(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, legend: Legend
) -> None:
    valid = np.ones((230, 170), np.bool_)
    valid[100:140, :60] = False
    source = scene(230, 170, valid=valid)
    result = run(source, positions(), tmp_path / "map.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "map.confidence.tif", "map.qml", "map.stac.json", "map.tif", "map.tif.aux.xml",
    ]  # fmt: skip
    with rasterio.open(result.class_map) as file:
        assert file.transform == source.geobox.affine
        assert file.shape == (230, 170)
        assert (file.crs.to_epsg(), file.nodata, file.dtypes) == (32633, 255, ("uint8",))
        classes, tags = file.read(1), file.tags()
        assert file.colormap(1)[7][:3] == legend.by_id(7).rgb
    with rasterio.open(result.confidence) as file:
        assert file.transform == source.geobox.affine
        confidence = file.read(1)
    assert ((classes != 255) == valid).all()
    assert ((confidence <= 100) == valid).all()
    assert result.valid_px == valid.sum()
    assert result.blocks > 6
    assert tags["GEOSEG_MODEL_NAME"] == "fake"
    assert tags["GEOSEG_SOURCES"] == "memory.tif"
    assert (tags["GEOSEG_BLEND"], tags["GEOSEG_OVERLAP_PX"]) == ("hann", "16 16")
    assert "170 x 230 pixels" in str(result)


def test_memory_and_blocks_do_not_change_a_byte(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, found = scene(230, 170), []
    for number, strip in enumerate((48, 100, 5000)):
        monkeypatch.setattr(plan, "STRIP_PX", strip)
        run(source, positions(), tmp_path / str(number) / "map.tif")
        found.append(contents(tmp_path / str(number)))
    assert found[0] == found[1] == found[2]


def test_a_large_map_is_put_together_in_less_memory_to_the_same_bytes(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = scene(150, 220)
    entered: list[int] = []

    def seen() -> AbstractContextManager[None]:
        entered.append(len(entered))
        return memory_returned()

    monkeypatch.setattr(assemble, "memory_returned", seen)
    run(source, positions(), tmp_path / "small" / "map.tif")
    assert not entered
    monkeypatch.setattr(assemble, "LARGE_PX", 150 * 220 - 1)
    run(source, positions(), tmp_path / "large" / "map.tif")
    assert entered == [0]
    assert contents(tmp_path / "small") == contents(tmp_path / "large")


@pytest.mark.parametrize(
    ("after", "kind"), [(5, KeyboardInterrupt), (9, ReadError), (14, KeyboardInterrupt), (18, ZeroDivisionError)]
)
def test_a_job_that_was_stopped_carries_on_to_the_same_bytes(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, *, after: int, kind: Any
) -> None:
    source = scene(230, 170)
    whole = run(source, positions(), tmp_path / "whole" / "map.tif")
    out = tmp_path / "stopped" / "map.tif"
    with pytest.raises(kind):
        run(source, failing(positions(), after=after, error=kind("stop")), out)
    assert [path.name for path in out.parent.iterdir()] == ["map.tif.parts"]
    predictor = positions()
    again = run(source, predictor, out)
    assert again.resumed > 0
    assert predictor.tiles < whole.blocks * 4
    assert contents(out.parent) == contents(tmp_path / "whole")


def test_an_error_after_finished_blocks_says_how_to_go_on(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    with pytest.raises(ReadError, match=r"broken; \d+ of 10 blocks are kept in .*map.tif.parts: run the same again"):
        run(scene(230, 170), failing(positions(), after=14, error=ReadError("broken")), tmp_path / "map.tif")


def test_an_interruption_is_said_in_the_log(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(scene(230, 170), failing(positions(), after=14, error=KeyboardInterrupt()), tmp_path / "map.tif")
    assert "interrupted; " in caplog.text
    assert "run the same again to go on" in caplog.text


@pytest.mark.parametrize("error", [ReadError("broken"), KeyboardInterrupt(), ZeroDivisionError()])
def test_nothing_is_left_where_no_block_was_finished(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        run(scene(230, 170), failing(positions(), after=0, error=error), tmp_path / "new" / "folder" / "map.tif")
    assert not list(tmp_path.iterdir())


def test_nan_is_never_written(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    predictor = positions()
    predictor.function = lambda _, valid: np.full((3, *valid.shape), np.nan, np.float32)
    with pytest.raises(ModelFileError, match="NaN"):
        run(scene(64, 64), predictor, tmp_path / "map.tif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "changed"),
    [({"blend": "flat"}, "blend"), ({"model": {"name": "other", "sha256": "11"}}, "model")],
)
def test_parts_of_another_job_are_refused_and_overwritten_on_request(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, *, options: Any, changed: str
) -> None:
    source, out = scene(230, 170), tmp_path / "map.tif"
    with pytest.raises(ReadError):
        run(source, failing(positions(), after=14, error=ReadError("broken")), out)
    before = sorted(path.name for path in (tmp_path / "map.tif.parts").iterdir())
    with pytest.raises(OutputError, match=rf"parts of another job \(changed: {changed}\).*--overwrite"):
        run(source, positions(), out, **options)
    assert sorted(path.name for path in (tmp_path / "map.tif.parts").iterdir()) == before
    result = run(source, positions(), out, overwrite=True, **options)
    assert result.resumed == 0
    assert not (tmp_path / "map.tif.parts").exists()


def test_a_changed_scene_is_another_job(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "map.tif"
    with pytest.raises(ReadError):
        run(scene(230, 170), failing(positions(), after=14, error=ReadError("broken")), out)
    with pytest.raises(OutputError, match="changed: grid, source"):
        run(scene(230, 171), positions(), out)


@pytest.mark.parametrize("name", ["map.tif", "map.confidence.tif", "map.qml", "map.stac.json"])
def test_existing_outputs_are_refused_before_any_work(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    predictor = positions()
    with pytest.raises(OutputExistsError, match=f"{name} exists"):
        run(scene(64, 64), predictor, tmp_path / "map.tif")
    assert predictor.tiles == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    run(scene(64, 64), predictor, tmp_path / "map.tif", overwrite=True)
    assert (tmp_path / name).read_bytes() != b"mine"


def test_an_old_maps_notes_do_not_stay_beside_the_new_one(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    for name in ("map.tif.ovr", "map.confidence.tif.aux.xml"):
        (tmp_path / name).write_text("old")
    run(scene(64, 64), positions(), tmp_path / "map.tif")
    assert not {"map.tif.ovr", "map.confidence.tif.aux.xml"} & {path.name for path in tmp_path.iterdir()}


def test_the_input_is_never_the_output(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory.tif").write_text("a scene")
    with pytest.raises(InputError, match="also an input"):
        run(scene(64, 64), positions(), Path("memory.tif"), overwrite=True)
    assert Path("memory.tif").read_text() == "a scene"


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    predictor = positions()
    with pytest.raises(OutputError, match="cannot be made"):
        run(scene(64, 64), predictor, tmp_path / "file" / "map.tif")
    assert predictor.tiles == 0


def test_something_foreign_in_the_place_of_the_parts_is_left_alone(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "map.tif.parts").mkdir()
    (tmp_path / "map.tif.parts" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="no job's folder"):
        run(scene(64, 64), positions(), tmp_path / "map.tif", overwrite=True)
    assert (tmp_path / "map.tif.parts" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "said"), [({"blend": "cosine"}, "known are hann"), ({"crew": Crew("magic")}, "known are serial")]
)
def test_unknown_names_list_the_known_ones(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, *, options: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run(scene(64, 64), positions(), tmp_path / "map.tif", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"overwrite": True, "blend": "flat"}])
def test_two_runs_at_once_are_refused_and_the_first_goes_on(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, *, options: dict[str, Any]
) -> None:
    source, out = scene(230, 170), tmp_path / "map.tif"
    run(source, positions(), tmp_path / "whole" / "map.tif")
    predictor, refused = positions(), 0
    function = predictor.function

    def work(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        nonlocal refused
        if predictor.tiles in (1, 9):
            with pytest.raises(OutputError, match="another run is at work"):
                run(source, positions(), out, **options)
            refused += 1
        found: NDArray[np.float32] = function(pixels, valid)
        return found

    predictor.function = work
    run(source, predictor, out)
    assert refused == 2
    assert out.read_bytes() == (tmp_path / "whole" / "map.tif").read_bytes()


def test_layers_of_an_older_map_do_not_stay_beside_the_new_one(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "map.tif"
    run(scene(90, 80), positions(), out, layers=chosen_layers(["entropy", "probabilities"]))
    run(scene(70, 60), positions(), out, overwrite=True, layers=chosen_layers(["margin"]))
    assert {path.name for path in tmp_path.glob("*.tif")} == {"map.tif", "map.confidence.tif", "map.margin.tif"}


def test_blocks_with_pixels_that_could_not_be_read_are_made_anew_where_that_stops_a_job(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    source, out = scene(230, 170), tmp_path / "map.tif"
    read = type(source).read

    class Half(type(source)):  # type: ignore[misc]
        def read(self, geobox: Any) -> Any:
            if geobox.affine.f < 4_999_990:
                raise ReadError("broken")
            return read(self, geobox)

    half = Half(source.pixels, source.valid, source.geobox, source.bands)
    with pytest.raises(KeyboardInterrupt):
        run(half, failing(positions(), after=3, error=KeyboardInterrupt()), out, on_error="nodata")
    job = json.loads((tmp_path / "map.tif.parts" / "job.json").read_text())
    job["identity"]["source"] = repr(source)
    (tmp_path / "map.tif.parts" / "job.json").write_text(json.dumps(job))
    result = run(source, positions(), out)
    assert result.unread == ()
    assert result.valid_px == 230 * 170


@pytest.mark.parametrize(("broken", "lost"), [((0,), 64 * 64), ((0, 1), 2 * 64 * 64)])
def test_what_another_scene_gave_a_class_is_no_nodata(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, *, broken: tuple[int, ...], lost: int,
) -> None:  # fmt: skip
    whole = scene(128, 128)

    class Holed(type(whole)):  # type: ignore[misc]
        def read(self, geobox: Any) -> Any:
            if geobox.affine.f > 4_999_370 and geobox.affine.c < 501_280:
                raise ReadError("broken")
            return super().read(geobox)

    kinds = [Holed if number in broken else type(whole) for number in (0, 1)]
    sources = [
        kind(whole.pixels, whole.valid, whole.geobox, whole.bands, path=f"{number}.tif")
        for number, kind in enumerate(kinds)
    ]
    # The second scene lies under the left half of what the first one lacks, above.
    members = Member(sources[0], Window(0, 0, 128, 128)), Member(sources[1], Window(0, 0, 128, 64))
    out = tmp_path / "map.tif"
    result = run(whole, positions(), out, members=members, rule="mean", on_error="nodata")
    with rasterio.open(out) as file:
        nodata = file.read(1) == 255
    assert nodata.sum() == lost
    item = json.loads(result.item.read_text())["properties"]["geoseg:unread"]
    assert {values[5] for values in item} == {f"{number}.tif" for number in broken}
    assert {item.scene for item in result.unread} == {f"{number}.tif" for number in broken}
    pixels = sum(item.window.rows * item.window.cols for item in result.unread)
    assert f"{pixels} pixels in {len(result.unread)} place" in caplog.text
    assert f"could not be read of some scene, {lost} of the map are nodata:" in caplog.text
    assert "rows 0 to 64, columns 0 to 128 of 0.tif: broken" in caplog.text


def test_the_log_says_what_is_there_from_an_earlier_run(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "geoseg")
    with pytest.raises(ReadError):
        run(scene(230, 170), failing(positions(), after=14, error=ReadError("broken")), tmp_path / "map.tif")
    run(scene(230, 170), positions(), tmp_path / "map.tif")
    assert "of 10 blocks are there from an earlier run" in caplog.text


def test_the_map_is_a_tif(scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.tif"):
        run(scene(64, 64), positions(), tmp_path / "map.png")


def test_a_full_disk_keeps_finished_blocks(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, written = scene(230, 170), tmp_path / "map.tif", []
    real = JobFolder.keep

    def full(self: JobFolder, encoded: Any) -> None:
        written.append(encoded.block)
        if len(written) > 2:
            raise OutputError(f"{self.path} cannot be written: No space left on device")
        real(self, encoded)

    monkeypatch.setattr(JobFolder, "keep", full)
    with pytest.raises(OutputError, match=r"No space left on device; 2 of 10 blocks are kept"):
        run(source, positions(), out)
    monkeypatch.undo()
    monkeypatch.setattr(plan, "STRIP_PX", 100)
    assert run(source, positions(), out).resumed == 2


@pytest.mark.parametrize(
    "stop_at", ["map.confidence.tif", "map.qml", "map.stac.json", "map.tif.aux.xml", "map.tif", "assembling"]
)
def test_a_stop_while_the_outputs_are_put_in_place_is_mended(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    *, stop_at: str,
) -> None:  # fmt: skip
    source, whole, killed = scene(230, 170), tmp_path / "whole", tmp_path / "killed"
    run(source, positions(), whole / "map.tif")
    out = killed / "map.tif"
    killed.mkdir()
    (killed / "map.confidence.tif.aux.xml").write_text("of an older map")

    def stopping(move: Callable[[Path, Any], Path]) -> Callable[[Path, Any], Path]:
        def stop(self: Path, target: Path) -> Path:
            if self.name == stop_at and self.parent.name in ("done", "map.tif.parts"):
                raise KeyboardInterrupt
            return move(self, target)

        return stop

    with monkeypatch.context() as patch:
        for name in ("replace", "rename"):
            patch.setattr(Path, name, stopping(getattr(Path, name)))
        with pytest.raises(KeyboardInterrupt):
            run(source, positions(), out)
    assert not out.exists()
    predictor = positions()
    run(source, predictor, out)
    assert predictor.tiles == 0
    assert contents(killed) == contents(whole)
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}


def test_a_scene_without_valid_pixels_is_a_map_of_nodata_and_a_warning(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(scene(80, 60, valid=np.zeros((80, 60), np.bool_)), positions(), tmp_path / "map.tif")
    assert result.valid_px == 0
    assert "no valid pixel" in caplog.text
    with rasterio.open(result.class_map) as file:
        assert (file.read(1) == 255).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (30, 33)])
def test_small_scenes(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, shape: tuple[int, int]
) -> None:
    result = run(scene(*shape), positions(), tmp_path / "map.tif")
    with rasterio.open(result.class_map) as file:
        assert file.shape == shape
        assert np.isin(file.read(1), [3, 7, 12]).all()


def test_progress_reaches_the_end_and_starts_at_what_is_finished(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    source, seen = scene(230, 170), []
    with pytest.raises(ReadError):
        run(source, failing(positions(), after=14, error=ReadError("broken")), tmp_path / "map.tif")
    run(source, positions(), tmp_path / "map.tif", progress=lambda done, total: seen.append((done, total)))
    assert seen[0][0] > 0
    assert seen == sorted(seen)
    assert seen[-1] == (230 * 170, 230 * 170)


def test_the_stac_item_describes_the_files(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    result = run(scene(80, 60), positions(), tmp_path / "map.tif")
    item = json.loads(result.item.read_text())
    assert item["id"] == "map"
    for asset in item["assets"].values():
        assert (tmp_path / asset["href"]).stat().st_size == asset["file:size"]


def test_percent_have_their_unit_and_classes_none(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path
) -> None:
    run(scene(90, 80), positions(), tmp_path / "map.tif", layers=chosen_layers([*LAYERS]))
    units = {}
    for layer in LAYERS:
        with rasterio.open(tmp_path / ("map.tif" if layer == "class" else f"map.{layer}.tif")) as file:
            units[layer] = set(file.units)
    percent = {key: {"%"} for key in ("confidence", "entropy", "margin", "probabilities")}
    assert units == percent | {key: {None} for key in ("class", "second")}


def test_the_style_holds_the_classes(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, legend: Legend
) -> None:
    result = run(scene(80, 60), positions(), tmp_path / "map.tif")
    assert Legend.from_qml(result.style.read_text()).names == legend.names


def test_files_of_the_scene_stand_in_the_identity(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory.tif").write_text("first")
    with pytest.raises(ReadError):
        run(scene(230, 170), failing(positions(), after=14, error=ReadError("broken")), Path("map.tif"))
    os.utime("memory.tif", ns=(1, 1))
    with pytest.raises(OutputError, match="changed: files"):
        run(scene(230, 170), positions(), Path("map.tif"))


def test_a_job_goes_on_from_another_folder(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "scene.tif").write_text("here")
    source, out = scene(230, 170), tmp_path / "map.tif"
    for folder, name, after in ((tmp_path, "scene.tif", 5), (tmp_path / "elsewhere", "../scene.tif", 9)):
        monkeypatch.chdir(folder)
        with pytest.raises(ReadError, match="run the same again to go on"):
            run(replace(source, path=name), failing(positions(), after=after, error=ReadError("stop")), out)
    assert run(replace(source, path=str(tmp_path / "scene.tif")), positions(), out).resumed > 0


def test_strips_are_as_wide_as_memory_allows(
    scene: Callable[..., Any], positions: Callable[..., Any], legend: Legend
) -> None:
    task = large_task(scene, positions, legend)
    widths = []
    for memory in (50 * 10**6, 150 * 10**6, 10**9, 64 * 10**9):
        down, across = cells_for(task, memory_bytes=memory)
        assert (across * 448 + 512) * bytes_per_col(task, block_rows=down) <= memory
        assert across * 448 <= plan.STRIP_PX
        widths.append(across)
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_a_device_gets_wider_strips(scene: Callable[..., Any], positions: Callable[..., Any], legend: Legend) -> None:
    task = large_task(scene, positions, legend)
    task.predictor.readers = 4  # type: ignore[misc]
    assert cells_for(task, memory_bytes=10**10) == (1, 23)


def large_task(scene: Callable[..., Any], positions: Callable[..., Any], legend: Legend) -> SceneTask:
    lattice = lattice_for((20_000, 20_000), tile_px=512, overlap_px=64, scale=(1.0, 1.0))
    return SceneTask(scene(8, 8), positions(), legend, lattice.tiling, lattice.model_shape, "hann")


def test_memory_below_a_tile_says_how_much_would_do(
    scene: Callable[..., Any], positions: Callable[..., Any], legend: Legend
) -> None:
    task = large_task(scene, positions, legend)
    with pytest.raises(InputError, match=r"needs (\d+) MB; try --memory (\d+)MB") as found:
        cells_for(task, memory_bytes=10**6, spent_bytes=700 * 10**6, sharing=2)
    needed = int(str(found.value).split(" needs ")[1].split()[0])
    assert cells_for(task, memory_bytes=needed * 10**6, spent_bytes=700 * 10**6, sharing=2) == (1, 1)


@pytest.mark.parametrize(
    ("workers", "alone", "rows"),
    [(1, False, 2), (2, False, 2), (60, False, 1), (1, True, 15), (2, True, 15), (8, True, 15), (40, True, 6)],
)
def test_blocks_made_alone_are_long_and_no_worker_goes_empty(
    scene: Callable[..., Any], positions: Callable[..., Any], legend: Legend, *, workers: int, alone: bool, rows: int
) -> None:
    task = large_task(scene, positions, legend)  # 45 rows of tiles, 5 strips
    down, across = cells_for(task, memory_bytes=10**10, workers=workers, alone=alone)
    assert (down, across) == (rows, 9)
    assert len(task.tiling.blocks(cells=(down, across))) >= workers


@pytest.mark.parametrize(
    ("windows", "most"), [([(0, 10)], 1), ([(0, 100), (300, 100)], 1), ([(0, 100), (150, 9), (120, 9)], 3), ([], 1)]
)
def test_scenes_under_one_row_of_tiles_are_counted(windows: list[tuple[int, int]], most: int) -> None:
    members = [Member(None, Window(top, 0, rows, 5)) for top, rows in windows]  # type: ignore[arg-type]
    assert largest_overlap(members, slack_px=32) == most


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 399), st.integers(1, 150)), max_size=8), st.integers(0, 32), st.integers(1, 9))
def test_scenes_under_a_strip_are_counted_as_they_are_read(
    places: list[tuple[int, int]], overlap: int, across: int
) -> None:
    tiling = lattice_for((64, 400), tile_px=64, overlap_px=overlap, scale=(1.0, 1.0)).tiling
    windows = [Window(0, left, 64, min(cols, 400 - left)) for left, cols in places]
    members: Any = tuple(Member(None, window) for window in windows)  # type: ignore[arg-type]
    task = SceneTask(None, None, None, tiling, tiling.tile_shape, "hann", (), members)  # type: ignore[arg-type]
    read = []
    for block in tiling.blocks(cells=(1, across)):
        tiles = [tiling.tile(*place) for place in tiling.touching(block.window)]
        read.append(sum(any(tile.intersect(window).cols for tile in tiles) for window in windows))
    assert lanes_of(task, across=across) == max(1, *read)


def test_scenes_side_by_side_take_the_memory_of_those_under_a_strip(
    scene: Callable[..., Any], positions: Callable[..., Any], legend: Legend
) -> None:
    task = large_task(scene, positions, legend)
    beside = tuple(Member(task.source, Window(0, 500 * place, 20_000, 500)) for place in range(40))
    one = buffer_bytes(task, (1, 1))
    assert buffer_bytes(replace(task, members=beside), (1, 1)) < 4 * one
    assert cells_for(replace(task, members=beside), memory_bytes=15 * one)[1] > 1
    under = tuple(Member(task.source, task.tiling.scene) for _ in range(40))
    with pytest.raises(InputError, match="memory of"):
        cells_for(replace(task, members=under), memory_bytes=15 * one)


def test_an_input_of_a_layers_name_is_not_deleted(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = replace(scene(64, 64), path="map.second.tif")
    Path(source.path).write_text("the scene")
    with pytest.raises(InputError, match=r"the input map.second.tif has the name of a layer of map.tif"):
        run(source, positions(), Path("map.tif"), overwrite=True)
    assert Path(source.path).read_text() == "the scene"


def test_a_disk_that_is_full_at_the_last_note_is_one_line(
    scene: Callable[..., Any], positions: Callable[..., Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = parts.write_text

    def full(path: Path, text: str) -> Path:
        if path.name == parts.NOTES:
            raise OSError(28, "No space left on device")
        return written(path, text)

    monkeypatch.setattr(parts, "write_text", full)
    with pytest.raises(OutputError, match=r"notes.json cannot be written: No space left on device; .* are kept in"):
        run(scene(64, 64), positions(), tmp_path / "map.tif")
    monkeypatch.undo()
    assert run(scene(64, 64), positions(), tmp_path / "map.tif").resumed == 1
