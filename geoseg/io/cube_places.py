"""Where cubes come from: Zarr on disk or at an address, or an xarray object in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from geoseg.errors import MissingInputError, ReadError
from geoseg.extras import extra_module
from geoseg.io.handles import one_line
from geoseg.io.stamps import file_stamps
from geoseg.io.xarray_grid import CRS_KEYS

READ_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, EOFError)
"""What Zarr, its codecs and its stores raise when they fail."""


class Place(Protocol):
    """Where a cube comes from."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    def open(self) -> Any:
        """The Dataset or DataArray; no pixel is read."""


@dataclass(frozen=True)
class ZarrPlace:
    """A Zarr hierarchy on disk, or at an address that fsspec knows.

    Attributes:
        path: A folder, a .zip or an address.
        group: The group in it; None is the first.
    """

    path: str
    group: str | None = None

    @property
    def name(self) -> str:
        """The path, and the group."""
        return self.path if self.group is None else f"{self.path}/{self.group}"

    def open(self) -> Any:
        """The Dataset of the group, its values as they are stored, its variables in alphabetical order.

        Raises:
            MissingInputError: There is nothing.
            ReadError: It is no Zarr, or a group without arrays.
            InputError: A library is not installed.
        """
        xarray = extra_module("xarray", extra="zarr", needed_by="a Zarr source")
        extra_module("zarr", extra="zarr", needed_by="a Zarr source")
        remote = "://" in self.path
        if remote:
            extra_module("fsspec", extra="zarr", needed_by="Zarr at an address")
        elif not Path(self.path).exists():
            raise MissingInputError(f"{self.path} is not there; needed is a Zarr folder")
        try:
            # Only a store that cannot list its keys needs consolidated metadata, which may be out of date.
            found = xarray.open_dataset(
                self._store(),
                engine="zarr",
                group=self.group,
                chunks=None,
                cache=False,
                mask_and_scale=False,
                decode_coords="all",
                decode_timedelta=False,
                consolidated=None if remote else False,
            )
        except FileNotFoundError as error:
            raise MissingInputError(f"{self.name} is not there; needed is a group of Zarr{self._groups()}") from error
        except READ_ERRORS as error:
            raise ReadError(f"{self.name} cannot be opened as Zarr: {one_line(error)}") from error
        if not found.data_vars:
            raise ReadError(f"{self.name} holds no array with named dimensions{self._groups()}")
        # Folders list their arrays in any order.
        return found[sorted(found.data_vars)].assign_attrs({**self._inherited(), **found.attrs})

    def _inherited(self) -> dict[str, Any]:
        """The CRS that the groups around the group name for all within, the nearest first."""
        zarr = extra_module("zarr", extra="zarr", needed_by="a Zarr source")
        around = "" if self.group is None else self.group.strip("/")
        while around:
            around = around.rpartition("/")[0]
            try:
                attributes = zarr.open_group(self._store(), path=around or None, mode="r").attrs.asdict()
            except READ_ERRORS:
                continue
            named = {key: attributes[key] for key in CRS_KEYS if attributes.get(key)}
            if named:
                return named
        return {}

    def _store(self) -> Any:
        """What Zarr opens."""
        if not self.path.lower().endswith(".zip") or "://" in self.path:
            return self.path
        storage = extra_module("zarr.storage", extra="zarr", needed_by="a Zarr source")
        return storage.ZipStore(self.path, mode="r", read_only=True)

    def _groups(self) -> str:
        """The groups within, in words."""
        zarr = extra_module("zarr", extra="zarr", needed_by="a Zarr source")
        try:
            members = zarr.open_group(self._store(), mode="r").members(max_depth=None)
        except READ_ERRORS:
            return ""
        names = sorted(key for key, member in members if isinstance(member, zarr.Group))
        return f"; choose with group: one of {', '.join(names)}" if names else ""


@dataclass(frozen=True, eq=False)
class InMemory:
    """A DataArray or Dataset, whatever it is backed by.

    Attributes:
        data: The object.
    """

    data: Any

    def __repr__(self) -> str:
        """What it is, with a digest of its values: xarray's own text leaves most of them out."""
        return f"InMemory({self.name}, {self._digest})"

    @cached_property
    def _digest(self) -> str:
        """SHA-256 of names, coordinates and values; of lazy ones dask's token, or the file's name, size and time."""
        digest = hashlib.sha256(repr(dict(self.data.sizes)).encode())
        arrays = self.data.data_vars.values() if hasattr(self.data, "data_vars") else [self.data]
        for array in [*arrays, *self.data.coords.values()]:
            digest.update(f"{array.name} {array.dtype} {array.dims} {array.attrs}".encode())
            if array.chunks is not None:
                digest.update(
                    extra_module("dask.base", extra="dask", needed_by="dask arrays").tokenize(array.data).encode()
                )
                continue
            if not getattr(array.variable, "_in_memory", True):
                source = str(array.encoding.get("source", ""))
                digest.update(f"{source} {file_stamps([source])}".encode())
                continue
            for part in array if array.ndim else [array]:
                values = np.ascontiguousarray(part.values)
                digest.update(str(values.tolist()).encode() if values.dtype.hasobject else values.tobytes())
        return digest.hexdigest()

    @property
    def name(self) -> str:
        """The array's name."""
        named = None if hasattr(self.data, "data_vars") else self.data.name
        return "the xarray object" if named is None else str(named)

    def open(self) -> Any:
        """The object."""
        return self.data


def is_xarray(given: Any) -> bool:
    """Whether an object is a DataArray or a Dataset; xarray is not loaded for it."""
    kind = type(given)
    return kind.__name__ in ("DataArray", "Dataset") and kind.__module__.partition(".")[0] == "xarray"


def is_zarr(path: str) -> bool:
    """Whether a path or an address names Zarr, by its end."""
    return path.rstrip("/").lower().endswith((".zarr", ".zarr.zip"))
