"""What a file says of itself: its grid, bands, nodata, masks and scaling; and the files that are refused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError as RasterioCRSError

from geoseg.errors import BandError, GridError, InputError, ReadError
from geoseg.raster import match_bands

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_BLOCK_BYTES = 512 << 20
"""A file whose smallest readable piece is larger than this is refused."""


class Options(Protocol):
    """What a user says of a file; None leaves it to the file."""

    @property
    def path(self) -> str:
        """The file."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the image bands in file order."""

    @property
    def chosen(self) -> tuple[str | int, ...] | None:
        """Names or 1-based numbers of the bands that are read."""

    @property
    def nodata(self) -> float | None:
        """Value that stands for nothing."""

    @property
    def scale(self) -> float | None:
        """Factor on raw values."""

    @property
    def offset(self) -> float | None:
        """Added to scaled values."""

    @property
    def crs(self) -> str | None:
        """CRS of the file."""


@dataclass(frozen=True, slots=True)
class BandFacts:
    """What a file says of one band: 1-based index in the file, 1-based number without alpha, name, nodata, scaling."""

    index: int
    number: int
    name: str
    nodata: float | None
    scale: float
    offset: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What a source knows of its file.

    Attributes:
        geobox: The file's grid.
        bands: The selected bands.
        raw_dtype: Dtype of the pixels in the file.
        masks: 1-based indexes of the bands whose mask counts, by GDAL's mask or as alpha band.
        alphas: 1-based indexes of the alpha bands.
        overviews: Factors of the overviews as they stand in the file; none where they may be mixed from what the user
            calls nodata.
    """

    geobox: GeoBox
    bands: tuple[BandFacts, ...]
    raw_dtype: np.dtype[Any]
    masks: tuple[int, ...]
    alphas: tuple[int, ...]
    overviews: tuple[int, ...]

    @property
    def scaled(self) -> bool:
        """Whether values are scaled on reading."""
        return any((band.scale, band.offset) != (1, 0) for band in self.bands)


@lru_cache(maxsize=256)
def crs_from_wkt(wkt: str) -> CRS:
    """The CRS of `wkt`, by its EPSG code where it is exactly that."""
    found = CRS(wkt)
    code = found.proj.to_epsg(min_confidence=100)
    named = CRS(f"EPSG:{code}") if code else found
    return named if named.proj == found.proj else found


def crs_named(name: str) -> CRS:
    """The CRS that a user names, such as EPSG:32612.

    Raises:
        InputError: There is no such CRS.
    """
    try:
        return CRS(name)
    except (CRSError, ValueError) as error:
        raise InputError(f"crs {name!r} is not known; needed is a code such as EPSG:32612") from error


def describe(source: Options, opened: Any) -> Facts:
    """What `opened` says, with the options of `source` in place of it.

    Raises:
        ReadError: The file is of a kind that cannot be read: several rasters in one, complex numbers, huge blocks.
        GridError: The file is placed by ground control points or RPCs.
        BandError: Band names do not fit the bands.
    """
    _refuse_container(source.path, opened)
    geobox = _geobox(source, opened)
    alphas = _alphas(source, opened)
    image = [index for index in opened.indexes if index not in alphas]
    bands = _chosen(source, _bands(source, opened, image))
    dtype = _dtype(source.path, [opened.dtypes[band.index - 1] for band in bands])
    _refuse_blocks(source.path, opened)
    return Facts(geobox, bands, dtype, _masks(opened, bands), tuple(alphas), _overviews(source, opened))


def _refuse_container(path: str, opened: Any) -> None:
    if opened.count == 0:
        names = ", ".join(opened.subdatasets) or "none"
        raise ReadError(f"{path} holds several rasters; needed is one; name one of: {names}")


def _geobox(source: Options, opened: Any) -> GeoBox:
    """The file's grid."""
    if opened.transform.is_identity and (opened.gcps[0] or opened.rpcs):
        kind = "ground control points" if opened.gcps[0] else "RPCs"
        raise GridError(
            f"{source.path} is placed by {kind}, not by a grid; warp it first, for example with "
            f"gdalwarp {'-rpc ' if kind == 'RPCs' else ''}{source.path} warped.tif"
        )
    if opened.transform.determinant == 0:
        raise GridError(f"{source.path} has a geotransform without area: {tuple(opened.transform)[:6]}")
    return GeoBox(opened.shape, opened.transform, _crs(source, opened))


def _crs(source: Options, opened: Any) -> CRS | None:
    if source.crs is not None:
        return crs_named(source.crs)
    try:
        return crs_from_wkt(opened.crs.to_wkt()) if opened.crs else None
    except (CRSError, RasterioCRSError, ValueError) as error:
        raise GridError(f"{source.path} has a CRS that is not understood; give it with crs: EPSG:...") from error


def _alphas(source: Options, opened: Any) -> list[int]:
    """1-based indexes of the alpha bands; none where the user names as many bands as the file has with them."""
    if source.names is not None and len(source.names) == opened.count:
        return []
    return [i for i, colour in zip(opened.indexes, opened.colorinterp, strict=True) if colour == ColorInterp.alpha]


def _bands(source: Options, opened: Any, image: list[int]) -> list[BandFacts]:
    """All image bands."""
    names = source.names or tuple(opened.descriptions[i - 1] or f"band{n}" for n, i in enumerate(image, start=1))
    if len(names) != len(image):
        raise BandError(
            f"{source.path} has {len(image)} image bands, {len(names)} names were given: [{', '.join(names)}]"
        )
    if not image:
        raise BandError(f"{source.path} has no image band, only alpha")
    found = []
    for number, (name, index) in enumerate(zip(names, image, strict=True), start=1):
        nodata = opened.nodatavals[index - 1] if source.nodata is None else source.nodata
        scale = opened.scales[index - 1] if source.scale is None else source.scale
        offset = opened.offsets[index - 1] if source.offset is None else source.offset
        found.append(BandFacts(index, number, name, nodata, scale, offset))
    return found


def _chosen(source: Options, bands: list[BandFacts]) -> tuple[BandFacts, ...]:
    """The bands that the user selects."""
    if source.chosen is None:
        return tuple(bands)
    return tuple(bands[i] for i in positions(source.chosen, [band.name for band in bands], source.path))


def positions(chosen: Sequence[str | int], names: Sequence[str], what: str) -> list[int]:
    """Positions in `names` of names or 1-based numbers.

    Raises:
        BandError: A name or a number is not there.
    """
    found: list[int] = []
    for choice in chosen:
        if isinstance(choice, str):
            found += match_bands([choice], names)
        elif 1 <= choice <= len(names):
            found.append(choice - 1)
        else:
            raise BandError(f"band {choice} was selected, {what} has bands 1 to {len(names)}: [{', '.join(names)}]")
    return found


def _dtype(path: str, names: list[str]) -> np.dtype[Any]:
    """The dtype that holds all bands."""
    odd = [name for name in names if name.startswith("complex")]
    if odd:
        raise ReadError(f"{path} holds complex numbers ({odd[0]}); needed are real ones, such as their amplitude")
    return np.result_type(*[np.dtype(name) for name in names])


def _refuse_blocks(path: str, opened: Any) -> None:
    """Refuse a file whose smallest readable piece would fill memory."""
    rows, cols = opened.block_shapes[0]
    together = opened.count if opened.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL" else 1
    size = rows * cols * together * np.dtype(opened.dtypes[0]).itemsize
    if size > LARGEST_BLOCK_BYTES:
        raise ReadError(
            f"{path} is stored in blocks of {rows} x {cols} pixels, {size >> 20} MB each; needed are at most "
            f"{LARGEST_BLOCK_BYTES >> 20} MB; rewrite it with gdal_translate -of COG"
        )


def _masks(opened: Any, bands: tuple[BandFacts, ...]) -> tuple[int, ...]:
    """1-based indexes of bands whose mask is kept in the file, one of them where the mask is shared by all."""
    flags = opened.mask_flag_enums
    kept = [b.index for b in bands if not {MaskFlags.all_valid, MaskFlags.alpha} & set(flags[b.index - 1])]
    kept = [i for i in kept if MaskFlags.per_dataset in flags[i - 1] or MaskFlags.nodata not in flags[i - 1]]
    shared = [i for i in kept if MaskFlags.per_dataset in flags[i - 1]]
    return tuple(sorted({*shared[:1], *(i for i in kept if i not in shared)}))


def _overviews(source: Options, opened: Any) -> tuple[int, ...]:
    """Factors of the overviews; none where the user has a nodata of their own."""
    if source.nodata is not None:
        return ()
    return tuple(opened.overviews(1))
