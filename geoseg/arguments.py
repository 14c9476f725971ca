"""What the verbs are given, as the command line gives it: scenes, names, model files, sizes; and what they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg import infer, io, models
from geoseg.errors import GridError, InputError, OutputError

if TYPE_CHECKING:
    from geoseg.io import Source

Scene = str | list[Any] | dict[str, Any]


def png_path(path: Path) -> Path:
    """The path, which ends in .png.

    Raises:
        InputError: It does not.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"the picture {path} does not end in .png; name it {path.with_suffix('.png')}")
    return path


def parse_bytes(text: str | int) -> int:
    """Bytes of a size such as `2GB`, `500 MB` or a plain number.

    Raises:
        InputError: The text is no size.

    >>> parse_bytes("2GB"), parse_bytes("1.5 MB")
    (2000000000, 1500000)
    """
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
             "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
    lowered = str(text).strip().lower()
    number = lowered.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = lowered[len(number) :].strip()
    try:
        size = int(float(number) * units[unit])
    except (KeyError, ValueError, OverflowError) as error:
        raise InputError(f"memory '{text}' is no size; write it like 2GB or 500MB") from error
    if size < units["mb"]:
        raise InputError(f"memory '{text}' is {size} bytes; needed is a size such as 2GB or 500MB")
    return size


def placed_scene(
    scene: Scene | Path | tuple[Any, ...], *, bands: list[str] | str | None, nodata: float | None, crs: str | None
) -> Source:
    """The source of a scene as the command line gives it; it has a CRS.

    Raises:
        GridError: It has none.
    """
    source = opened_scene(scene, bands=bands, nodata=nodata, crs=crs)
    if source.geobox.crs is None:
        named = ", ".join(map(str, scene)) if isinstance(scene, list | tuple) else scene
        raise GridError(f"{named} has no CRS; say it with --crs EPSG:..., or write it into the file")
    return source


def opened_scene(
    scene: Scene | Path | tuple[Any, ...], *, bands: list[str] | str | None, nodata: float | None, crs: str | None
) -> Source:
    """The source of a scene as the command line gives it."""
    extra = {key: value for key, value in (("nodata", nodata), ("crs", crs)) if value is not None}
    spec: Any = list(scene) if isinstance(scene, tuple) else str(scene) if isinstance(scene, Path) else scene
    spec = spec[0] if isinstance(spec, list) and len(spec) == 1 else spec
    spec = str(spec) if isinstance(spec, Path) else spec
    if extra and isinstance(spec, str):
        spec = {"path": spec, **extra}
    elif extra and isinstance(spec, list):
        spec = [_with(item, extra) for item in spec]
    elif extra:
        spec = {**spec, **extra}
    return io.open_source(spec, bands=names_of(bands))


def _with(item: Any, extra: dict[str, Any]) -> dict[str, Any]:
    """One of several scenes with what holds for all."""
    if isinstance(item, str | Path):
        return {"path": str(item), **extra}
    return {"mosaic": item, **extra} if isinstance(item, list | tuple) else {**item, **extra}


def files_named(given: Any) -> tuple[str, ...]:
    """Files that an argument names, however deep: inputs that no output may replace."""
    if isinstance(given, str | Path):
        try:
            return (str(given),) if Path(given).is_file() else ()
        except (OSError, ValueError):
            return ()
    inner = given.values() if isinstance(given, dict) else given if isinstance(given, list | tuple) else ()
    return tuple(path for item in inner for path in files_named(item))


def names_of(given: list[str] | str | None) -> list[str] | None:
    """Names as a list, where the command line gives them with commas between."""
    return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given


def model_paths(given: Path | list[Path] | tuple[Path, ...]) -> list[Path]:
    """One path or more; the command line gives several with commas between."""
    if isinstance(given, list | tuple):
        return [Path(path) for path in given]
    if Path(given).exists():
        return [Path(given)]
    return [Path(part.strip()) for part in str(given).split(",") if part.strip()]


def trained_model(path: Path) -> infer.TrainedModel:
    """The model of a file."""
    return infer.OnnxModel.load(path) if path.suffix == ".onnx" else infer.TorchModel.load(path)


def seeing(trained: infer.TrainedModel, source: Source) -> infer.TrainedModel:
    """The model for all bands of a scene, by their wavelengths.

    Raises:
        InputError: It is not built from wavelengths, or they are not known.
    """
    if not isinstance(trained, infer.TorchModel):
        raise InputError(
            f"{trained.card.name} is an ONNX file, whose bands are fixed; --by-wavelength needs .safetensors"
        )
    return infer.TorchModel(*models.seen_by_wavelength(trained.network, trained.card, band_names=source.bands))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
