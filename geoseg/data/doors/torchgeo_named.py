"""torchgeo's datasets and data modules by what a config says of them."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import reduce
from importlib import import_module
from types import ModuleType
from typing import Any

from pyproj import CRS
from pyproj.exceptions import CRSError

from geoseg.data.doors.torchgeo_identity import is_torchgeo
from geoseg.errors import GeosegError, InputError, MissingInputError
from geoseg.extras import extra_module
from geoseg.io.handles import one_line

logger = logging.getLogger(__name__)

KINDS = ("dataset", "datamodule", "class_path", "and", "or")
NEEDED = (
    "needed is {dataset: LoveDA, root: ...}, {datamodule: LoveDADataModule, root: ...}, {class_path: ..., init_args: "
    "{...}}, {and: [..., ...]} or {or: [..., ...]}"
)


def torchgeo_module(name: str = "torchgeo.datasets") -> ModuleType:
    """A module of torchgeo.

    Raises:
        InputError: torchgeo is not installed.
    """
    extra_module("torchgeo", extra="torchgeo", needed_by="a torchgeo dataset")
    return import_module(name)


def built(value: Any) -> Any:
    """The dataset or data module that `value`, the value of the key `torchgeo`, names; one is passed on.

    Raises:
        InputError: The value makes no sense, or torchgeo refuses its arguments.
        MissingInputError: The files are not there; nothing is downloaded unless the arguments say so.
    """
    if is_torchgeo(value):
        return value
    if not isinstance(value, Mapping):
        raise InputError(f"torchgeo cannot be {value!r}; {NEEDED}")
    kinds = [kind for kind in KINDS if kind in value]
    if len(kinds) != 1:
        raise InputError(f"torchgeo has {', '.join(kinds) or 'none'} of {', '.join(KINDS)}; {NEEDED}")
    kind = kinds[0]
    given = {str(key): inner for key, inner in value.items() if key != kind}
    if kind in ("and", "or"):
        return _combined(kind, value[kind], given)
    if is_torchgeo(value[kind]):
        return value[kind]
    if kind == "class_path":
        stray = sorted(set(given) - {"init_args"})
        if stray:
            raise InputError(f"class_path has no option {', '.join(stray)} beside it; arguments go into init_args")
        given = dict(given.get("init_args") or {})
    return made(_class(kind, value[kind]), given)


def _class(kind: str, name: Any) -> type:
    module, _, last = str(name).rpartition(".")
    if kind != "class_path":
        module = f"torchgeo.{kind}s"
    top = torchgeo_module("torchgeo.datasets" if not module.startswith("torchgeo.datamodules") else module)
    try:
        found = getattr(top if module == top.__name__ else import_module(module), last, None)
    except (ImportError, ValueError) as error:
        raise InputError(f"{name} cannot be imported: {one_line(error)}; needed is the path of a class") from error
    if not inspect.isclass(found):
        raise InputError(f"there is no {last} in {module}; {_alike(module, last)}")
    return found


def _alike(module: str, name: str) -> str:
    """A hint at names that look like a misspelt one."""
    names = getattr(import_module(module), "__all__", ())
    close = get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else "see torchgeo's documentation for the names"


def _combined(how: str, members: Any, options: dict[str, Any]) -> Any:
    """All of `members` by torchgeo's set operations."""
    if isinstance(members, str | Mapping) or not isinstance(members, Sequence) or len(members) < 2:
        raise InputError(f"{how}: needed is a list of two datasets or more, got {members!r}")
    datasets = torchgeo_module()
    combine = datasets.IntersectionDataset if how == "and" else datasets.UnionDataset
    found = [built(member) for member in members]
    unplaced = [type(dataset).__name__ for dataset in found if not isinstance(dataset, datasets.GeoDataset)]
    if unplaced:
        raise InputError(
            f"{how}: {', '.join(unplaced)} has no place on the ground; needed are datasets with a CRS (GeoDataset)"
        )
    return reduce(lambda one, other: made(combine, {"dataset1": one, "dataset2": other, **options}), found)


def made(cls: type, arguments: Mapping[str, Any]) -> Any:
    """An instance of `cls`; a `crs` may be a code or a text.

    Raises:
        InputError: The class refuses its arguments.
        MissingInputError: Its files are not there.
    """
    given = {key: _crs(inner) if key == "crs" else inner for key, inner in arguments.items()}
    with mended(cls.__name__, how=_download(cls, arguments)):
        return cls(**given)


def _crs(given: Any) -> Any:
    if not isinstance(given, str | int):
        return given
    try:
        return CRS.from_user_input(given)
    except CRSError as error:
        raise InputError(
            f"crs {given!r} is not understood: {one_line(error)}; needed is a code such as 32633"
        ) from error


def _download(cls: type, arguments: Mapping[str, Any]) -> str:
    """How the files of a class come to where it looks for them."""
    takes = inspect.signature(cls).parameters
    named = [key for key in ("root", "paths") if key in arguments]
    if "download" in takes and named:
        path = f"{cls.__module__.rpartition('.')[0] or cls.__module__}.{cls.__name__}"
        return f"get them once with {path}({named[0]}={str(arguments[named[0]])!r}, download=True)"
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        return "get them once with download=True on its dataset"
    return "get them yourself, into the folders that torchgeo's documentation of it shows"


@contextlib.contextmanager
def mended(
    name: str,
    *,
    how: str = "get them once with download=True on its dataset",
    fault: str = "refuses its arguments",
) -> Iterator[None]:
    """Errors of torchgeo as ours, its warnings in the log, and what it prints on standard output left out.

    Raises:
        InputError: torchgeo refuses what it was given.
        MissingInputError: Files are not there.
    """
    errors = torchgeo_module("torchgeo.datasets.errors")
    try:
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("always")
            yield
    except GeosegError:
        raise
    except FileNotFoundError as error:
        raise MissingInputError(f"files of {name} are not there ({one_line(error).rstrip('.')}); {how}") from error
    except AssertionError as error:
        said = str(error).strip() or f"it asks that {traceback.extract_tb(error.__traceback__)[-1].line}"
        raise InputError(f"{name} {fault}: {' '.join(said.split())}") from error
    except (TypeError, ValueError, KeyError, RuntimeError, ImportError, errors.DependencyNotFoundError) as error:
        raise InputError(f"{name} {fault}: {one_line(error)}") from error
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            logger.warning("%s: %s", name, " ".join(str(warning.message).split()))
