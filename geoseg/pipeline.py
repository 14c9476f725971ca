"""The verbs: the whole job in functions whose signatures are the command line's options.

This is the only module that knows every room. The rooms load what they need when it is used, so a verb pays for its own
libraries only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from odc.geo.geobox import GeoBox

from geoseg import accuracy, infer, inspecting, io, models, training, vectorizing
from geoseg.arguments import (
    Scene,
    files_named,
    model_paths,
    names_of,
    opened_scene,
    parse_bytes,
    placed_scene,
    png_path,
    seeing,
    trained_model,
    write_json,
)
from geoseg.errors import GeosegError, InputError
from geoseg.io.outputs import check_kept, check_output
from geoseg.io.stamps import files_in
from geoseg.progress import progress_bar
from geoseg.vectorizing import open_class_map

Region = str | dict[str, Any]

logger = logging.getLogger(__name__)

open_source = io.open_source
vectorize = vectorizing.vectorize


@dataclass(frozen=True, slots=True)
class Assessment:
    """What `assess` found: the scores with their counts, and where they were written."""

    accuracy: accuracy.Accuracy
    out: Path | None

    def __str__(self) -> str:
        return self.accuracy.table() + (f"\nwritten to {self.out}" if self.out else "")


@dataclass(frozen=True, slots=True)
class Exported:
    """The files that `export` wrote."""

    files: tuple[Path, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.files))


def fit(
    config: str | Path | dict[str, Any] | None = None, *, args: Sequence[str] = (), **options: Any
) -> training.FitResult:
    """Train a model on georeferenced patches and write one model file.

    Args:
        config: A YAML file, or the same keys as a mapping: `name`, `data`, `model`, `trainer`, ...
        args: Command-line arguments, as after `geoseg fit`.
        options: Keys that win over those of `config`: `data={...}`, `model={...}`, `trainer={...}`, `name="run"`.

    Returns:
        Where the model file is, and its scores on the validation part.

    Raises:
        InputError: A key is unknown or a value does not fit.
        OutputExistsError: The run exists and was not to be overwritten.
    """
    return training.run_fit(config, args=args, **options)


def predict(
    scene: Scene,
    *,
    model: Path | list[Path],
    out: Path,
    bands: list[str] | str | None = None,
    nodata: float | None = None,
    crs: str | None = None,
    area: Region | None = None,
    rule: str = "first",
    layers: list[str] | str | None = None,
    native: bool = False,
    tile_px: int | None = None,
    overlap_px: int | Literal["auto"] | None = None,
    blend: str = "hann",
    tta: Literal["none", "flips", "all"] = "none",
    batch: int | None = None,
    memory: str = "4GB",
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    compile: bool = False,  # noqa: A002 (the option is called so everywhere)
    engine: str = "auto",
    devices: int = 1,
    scheduler: str | None = None,
    on_error: Literal["stop", "nodata"] = "stop",
    check_seams: bool = False,
    by_wavelength: bool = False,
    overwrite: bool = False,
) -> infer.PredictResult:
    """Map whole scenes with a model file.

    Writes the class map `out`, and beside it the confidence map, a QGIS style and a STAC Item. A run that was stopped
    carries on when it is started again.

    Args:
        scene: One or more rasters, addresses or patterns; several make a mosaic. A config may say `stack`, `path`, ...
        model: The model file, .safetensors or .onnx; of several, with commas between, the probabilities are averaged.
        out: The class map to write, a Cloud-Optimized GeoTIFF.
        bands: Names of the scene's bands in their order, such as red,green,blue, where the file does not name them.
        nodata: The value that means nodata, where the file does not say.
        crs: The scene's CRS, where the file does not say.
        area: Map only this part: a polygon file, or {cols: [708, null]}, {rows: [...]}, {bbox: [...], crs: ...}.
        rule: Where scenes overlap: first, newest, confidence (the most certain) or mean (of the probabilities).
        layers: More to write for each pixel: entropy, margin, second (the second class) and probabilities.
        native: Whether to keep the scene's own resolution where the model was trained on another.
        tile_px: The largest tile's side; the model's by default.
        overlap_px: Pixels that neighbouring tiles share; the model's by default, auto measures the network's reach.
        blend: How overlapping tiles are weighted: hann, triangle or flat.
        tta: Test-time augmentation: the mean over four flips, or over all eight flips and turns.
        batch: Tiles in one forward pass; found by a short trial by default.
        memory: The memory to stay within, such as 4GB, of all processes on this machine together.
        device: auto, cpu, cuda or cuda:1.
        precision: The arithmetic of the network; auto is bf16 where the device computes with it, and where 99.9 % of
            the pixels of a trial keep their class; else fp32.
        compile: Whether torch.compile makes the network faster, which takes a minute first.
        engine: Who does the work: serial, processes or dask; auto follows from devices and scheduler.
        devices: Processes that share the work, one a GPU where there are GPUs.
        scheduler: The address of a Dask scheduler, such as tcp://host:8786.
        on_error: What becomes of pixels that cannot be read: stop there, or make them nodata and list them.
        check_seams: Whether to measure if tile borders show in the map.
        by_wavelength: Whether a model that is built from wavelengths (DOFA, Copernicus-FM, Panopticon) sees all bands
            of the scene, those it was not trained on too; their numbers must be in the unit of its training.
        overwrite: Whether existing outputs may be replaced.

    Returns:
        The files written, and what the work was.

    Raises:
        GeosegError: Something about the input or the output has to be mended. Blocks that were finished are kept, and
            the same call goes on from there.
    """
    out = Path(out)
    source = placed_scene(scene, bands=bands, nodata=nodata, crs=crs)
    options = infer.PredictOptions(
        tile_px=tile_px, overlap_px=overlap_px, blend=blend, batch=batch, memory_bytes=parse_bytes(memory),
        device=device, precision=precision, compiled=compile, tta=tta, native=native,
        layers=tuple(names_of(layers) or ()), rule=rule, area=area, on_error=on_error,
        crew=infer.Crew(engine, devices, scheduler), seams=check_seams, overwrite=overwrite,
        inputs=(*map(str, model_paths(model)), *files_named([scene, area])),
    )  # fmt: skip
    trained = [trained_model(path) for path in model_paths(model)]
    if by_wavelength:
        trained = [seeing(each, source) for each in trained]
    for line in dict.fromkeys(line for each in trained for line in inspecting.drift_lines(source, each.card)):
        logger.warning("%s; geoseg info SCENE --model MODEL says more", line)
    with progress_bar("predict") as progress:
        return infer.predict_scene(source, models=trained, out=out, options=options, progress=progress)


def assess(
    class_map: Path,
    *,
    reference: Region,
    column: str | None = None,
    band: str | int | None = None,
    region: Region | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> Assessment:
    """Compare a class map with a reference.

    Every pixel of the map that the reference labels is counted once, on the map's grid; the reference may have another
    CRS and resolution.

    Args:
        class_map: A raster of class ids.
        reference: Labels: a raster, a vector file, or a mapping as in a training config. Classes are matched by name;
            of a map without names by number.
        column: The vector's column of classes.
        band: The band of classes, by name or number, where the map has several.
        region: Only this part: a polygon file, or {cols: [708, null]}, {rows: [...]}, {bbox: [...], crs: ...}.
        out: A JSON file for the figures.
        overwrite: Whether an existing `out` may be replaced.

    Returns:
        The counts, their figures and a table.

    Raises:
        GeosegError: Something about the input or the output has to be mended; nothing is left behind.
    """
    inputs = [str(class_map), *files_named([reference, region])]
    out = None if out is None else check_output(out, overwrite=overwrite, inputs=inputs)
    source, labels, legend = io.open_pair(open_class_map(class_map, band=band), reference, column=column)
    if out is not None:
        check_kept(out, files_in([source, labels]))
    counts = accuracy.Confusion.zeros(legend)
    for block in blocks_of(source.geobox):
        inside = io.region_mask(region, block, grid=source.geobox)
        if inside.any():
            mapped, truth = source.read(block), labels.read(block)
            counts = counts.update(mapped.pixels[0], mapped.valid, truth.pixels[0], truth.valid & inside)
    found = counts.finish()
    if out is not None:
        write_json(out, found.to_dict())
    return Assessment(found, out)


def export(
    model: Path,
    *,
    onnx: Path | None = None,
    torch: Path | None = None,
    stac: Path | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a model file in other formats: ONNX, a program of torch.export, a STAC Item.

    ONNX and program take any batch, normalised as the card within them says, and sides that are multiples of 32: the
    program from 64 px on; of PAN ONNX from 128 and the program from 256. A program with Swin has the sides of the
    model's tiles. `geoseg predict --model` takes ONNX where onnxruntime is installed.

    Args:
        model: The model file, .safetensors.
        onnx: The ONNX file to write, .onnx: for other software, and to map without torch.
        torch: The program to write, .pt2: torch loads it without geoseg.
        stac: The STAC Item to write, .json, for catalogues of models; it names the other files of the call.
        overwrite: Whether existing outputs may be replaced.

    Returns:
        The files written.

    Raises:
        GeosegError: Something about the input or an output has to be mended; each file appears whole or not at all.
    """
    model = Path(model)
    wanted = {"onnx": (onnx, ".onnx"), "torch": (torch, ".pt2"), "stac": (stac, ".json")}
    outputs = {kind: _named(Path(out), suffix) for kind, (out, suffix) in wanted.items() if out is not None}
    if not outputs:
        raise InputError("nothing is asked for; give --onnx M.onnx, --torch M.pt2 or --stac M.json, or several")
    for out in outputs.values():
        check_output(out, overwrite=overwrite, inputs=[model])
    network, card = models.load_model(model)
    files = {"weights": model}
    if "onnx" in outputs:
        files["onnx"] = models.export_onnx(network, card, outputs["onnx"])
    if "torch" in outputs:
        files["program"] = models.export_torch(network, card, outputs["torch"])
    if "stac" in outputs:
        parameters = sum(parameter.numel() for parameter in network.parameters())
        item = models.model_item(card, files, out=outputs["stac"], parameters=parameters)
        models.write_model_item(outputs["stac"], item)
    return Exported(tuple(outputs.values()))


def _named(out: Path, suffix: str) -> Path:
    """The path of an output, which ends in `suffix`.

    Raises:
        InputError: It does not.
    """
    if out.suffix != suffix:
        raise InputError(f"the output {out} does not end in {suffix}; name it {out.with_suffix(suffix)}")
    return out


def info(
    path: Scene,
    *,
    model: Path | None = None,
    bands: list[str] | str | None = None,
    nodata: float | None = None,
    crs: str | None = None,
    exact: bool = False,
    picture: Path | None = None,
    json: Path | None = None,
    overwrite: bool = False,
) -> inspecting.Info:
    """Describe a scene, a class map, a folder of them, a training config or a model file.

    What is said of a large scene comes from a sample of it, and the text says so.

    Args:
        path: Rasters, addresses or a pattern; a folder; a .yaml of geoseg fit; or a model file.
        model: A model file: are its bands in the scene, and do their values look like those it was trained on?
        bands: Names of the scene's bands in their order, such as red,green,blue, where the file does not name them.
        nodata: The value that means nodata, where the file does not say.
        crs: The scene's CRS, where the file does not say.
        exact: Whether the classes of a large class map are counted pixel by pixel, not from a sample.
        picture: A PNG file to draw: the scene, or where a config's training, validation and test pixels lie.
        json: A JSON file for everything that was found.
        overwrite: Whether existing outputs may be replaced.

    Returns:
        What was found: print it, or take its `to_dict()`.

    Raises:
        GeosegError: The file is missing or is none of these.
    """
    given = [str(item) for item in (path if isinstance(path, list) else [path]) if isinstance(item, str | Path)]
    inputs = [*given, *files_named([path, model])]
    picture = None if picture is None else png_path(check_output(picture, overwrite=overwrite, inputs=inputs))
    json = None if json is None else check_output(json, overwrite=overwrite, inputs=inputs)
    outputs = [out for out in (picture, json) if out is not None]
    kind = _kind(given[0]) if len(given) == 1 and not isinstance(path, dict) else "scene"
    if kind != "scene" and model is not None:
        raise InputError(f"{given[0]} is a {kind}; --model compares a scene with a model")
    if kind in ("folder", "model") and picture is not None:
        raise InputError(f"{given[0]} is a {kind}, which has no picture; --picture draws a scene or a config's split")
    if kind == "scene":
        opened = opened_scene(path, bands=bands, nodata=nodata, crs=crs)
        _check_all_kept(outputs, files_in(opened))
        found = inspecting.inspect_scene(opened, name=", ".join(given) or "scene", exact=exact)
        if model is not None:
            found = inspecting.compare_scene(found, opened, inspecting.model_card(Path(model)))
        if picture is not None:
            inspecting.draw_scene(opened, picture, classes=found.kind == "class map")
    elif kind == "folder":
        _check_all_kept(outputs, [file for out in outputs for file in _like(out, folder=Path(given[0]))])
        with progress_bar("look at rasters") as progress:
            found = inspecting.inspect_folder(Path(given[0]), progress=progress)
    elif kind == "config":
        found = _config_info(Path(given[0]), picture=picture, outputs=outputs)
    else:
        found = inspecting.describe_model(Path(given[0]))
    if json is not None:
        write_json(json, found.to_dict())
    return found


def _kind(path: str) -> str:
    """What a path names, by its ending: a scene unless it is a model, a config or a folder."""
    suffix = Path(path).suffix.lower()
    if suffix in (".safetensors", ".onnx", ".pt2"):
        return "model"
    if suffix in (".yaml", ".yml"):
        return "config"
    return "folder" if Path(path).is_dir() and suffix != ".zarr" else "scene"


def _check_all_kept(outputs: Sequence[Path], inputs: Sequence[str | Path]) -> None:
    for out in outputs:
        check_kept(out, inputs)


def _like(out: Path, *, folder: Path) -> list[Path]:
    """Files of a folder that is looked through with the ending of an output, unless it is that of JSON."""
    return [] if out.suffix.lower() in ("", ".json") else list(folder.rglob(f"*{out.suffix}"))


def _config_info(config: Path, *, picture: Path | None, outputs: Sequence[Path]) -> inspecting.Info:
    """What a training config would train on; where its split is refused, the text says why."""
    with training.opened_data(config) as data:
        refused = ""
        try:
            data.setup("fit")
        except GeosegError as error:
            if not data.scenes:  # the scenes themselves cannot be used
                raise
            refused = str(error)
        _check_all_kept(outputs, data.files)
        plan = None if refused else data.split_plan
        found = inspecting.inspect_data(
            data.scenes,
            legend=data.legend,
            name=str(config),
            stats=None if refused else data.stats,
            buffer_m=None if plan is None else plan.buffer_m,
            refused=refused,
            unreadable=[str(scene) for scene in data.unreadable],
            unlabelled=data.unlabelled,
        )
        if picture is not None and plan is not None:
            inspecting.draw_parts(data.scenes, plan, picture)
    return found


def blocks_of(geobox: GeoBox, *, side_px: int = 2048) -> Iterator[GeoBox]:
    """The geobox cut into blocks of at most `side_px` each way, row by row."""
    rows, cols = geobox.shape
    for top in range(0, rows, side_px):
        for left in range(0, cols, side_px):
            yield geobox[top : min(top + side_px, rows), left : min(left + side_px, cols)]
