"""One raster of any format that GDAL opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError as RasterioCRSError
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import BandError, GridError, InputError, ReadError
from geoseg.io.grids import Lattice
from geoseg.io.handles import GDAL_ERRORS, dataset, forget, gdal, one_line
from geoseg.io.resample import Patch, read_onto, resampling_named
from geoseg.io.vrt import refuse_broken
from geoseg.raster import Raster, match_bands
from geoseg.tiling import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_BLOCK_BYTES = 512 << 20
"""A file whose smallest readable piece is larger than this is refused."""

CHUNK_PX = 1 << 23
"""Samples that are decoded at once while thinning."""


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
        overviews: Factors of the overviews that are fit to average from.
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


@dataclass(frozen=True)
class GdalSource:
    """A single raster; opened when its grid, bands or pixels are first asked for.

    Attributes:
        path: A file, a `/vsi...` path or an address.
        names: Names of the image bands in file order; None takes the file's, else band1, band2, ... As many names as
            there are bands with the alpha band counted make the alpha band an image band.
        chosen: Names or 1-based numbers of the bands that are read; None takes all.
        nodata: Value that stands for nothing, instead of the file's.
        scale: Factor on raw values, instead of the file's.
        offset: Added to scaled values, instead of the file's.
        crs: CRS instead of the file's.
        resampling: How values are taken on grids other than the file's own.
    """

    path: str
    names: tuple[str, ...] | None = None
    chosen: tuple[str | int, ...] | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    crs: str | None = None
    resampling: str = "bilinear"

    def __post_init__(self) -> None:
        resampling_named(self.resampling)

    @cached_property
    def facts(self) -> Facts:
        """What the file says, with what the options say instead."""
        with gdal(self.path):
            refuse_broken(self.path)
            return describe(self, dataset(self.path))

    @property
    def geobox(self) -> GeoBox:
        """The file's grid."""
        return self.facts.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the selected bands."""
        return tuple(band.name for band in self.facts.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The file's dtype, or float32 where values are scaled."""
        return np.dtype(np.float32) if self.facts.scaled else self.facts.raw_dtype

    def read(self, geobox: GeoBox) -> Raster:
        """The pixels on `geobox`.

        Raises:
            ReadError: The file cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        found = read_onto(
            self.geobox,
            geobox,
            self._read_lattice,
            resampling=self.resampling,
            count=len(self.facts.bands),
            dtype=self.dtype,
            name=self.path,
        )
        return Raster(found.pixels, found.valid, geobox, self.bands)

    def _read_lattice(self, lattice: Lattice) -> Patch:
        """The pixels of `lattice`; those outside the file are invalid."""
        out = Patch.empty(len(self.facts.bands), (lattice.rows, lattice.cols), self.dtype)
        inside = _thinned_inside(lattice, self.geobox)
        if inside.rows and inside.cols:
            with gdal(self.path):
                self._fill(out, lattice, inside)
        return out

    def _fill(self, out: Patch, lattice: Lattice, inside: Window) -> None:
        """Read `inside`, counted in thinned pixels of `lattice`, into `out`, a chunk at a time."""
        opened, method = dataset(self.path), resampling_named(self.resampling)
        level = _level(lattice, self.geobox, self.facts.overviews if method.overviews else ())
        rest = lattice.factors[0] // level[0], lattice.factors[1] // level[1]
        for chunk in _chunks(inside, rest, len(self.facts.bands)):
            patch = self._decode(opened, lattice.part(chunk), level)
            thinned = patch if rest == (1, 1) else method.thin(patch, rest)
            out.pixels[:, chunk.slices[0], chunk.slices[1]] = thinned.pixels
            out.valid[chunk.slices] = thinned.valid

    def _decode(self, opened: Any, lattice: Lattice, level: tuple[int, int]) -> Patch:
        """Scaled pixels and validity of the file under `lattice`, `level` pixels of the file in one of them."""
        whole = lattice.window
        window = whole.intersect(Window(0, 0, *self.facts.geobox.shape))
        found = self._decode_inside(opened, window, (-(-window.rows // level[0]), -(-window.cols // level[1])))
        shape = whole.rows // level[0], whole.cols // level[1]
        if found.valid.shape == shape:
            return found
        out = Patch.empty(len(found.pixels), shape, found.pixels.dtype)
        row, col = (window.row_off - whole.row_off) // level[0], (window.col_off - whole.col_off) // level[1]
        rows, cols = min(found.valid.shape[0], shape[0] - row), min(found.valid.shape[1], shape[1] - col)
        out.pixels[:, row : row + rows, col : col + cols] = found.pixels[:, :rows, :cols]
        out.valid[row : row + rows, col : col + cols] = found.valid[:rows, :cols]
        return out

    def _decode_inside(self, opened: Any, window: Window, shape: tuple[int, int]) -> Patch:
        """Scaled pixels and validity of `window` of the file as `shape` pixels."""
        facts = self.facts
        place = RasterioWindow(window.col_off, window.row_off, window.cols, window.rows)
        indexes = [band.index for band in facts.bands]
        try:
            raw = opened.read(indexes, window=place, out_shape=(len(indexes), *shape), out_dtype=facts.raw_dtype)
            valid = _valid(raw, facts)
            for index in facts.masks:
                valid &= opened.read_masks(index, window=place, out_shape=shape) != 0
            for index in facts.alphas:
                valid &= opened.read(index, window=place, out_shape=shape) > 0
        except GDAL_ERRORS as error:
            forget(self.path)
            raise ReadError(
                f"{self.path} cannot be read at rows {window.row_off} to {window.row_stop}, "
                f"columns {window.col_off} to {window.col_stop}: {one_line(error)}"
            ) from error
        return Patch(_scaled(raw, facts), valid)


def _thinned_inside(lattice: Lattice, grid: GeoBox) -> Window:
    """The thinned pixels of `lattice` that share a pixel with `grid`, counted from the lattice's first."""
    spans = []
    for start, count, factor, size in zip(
        (lattice.row, lattice.col), (lattice.rows, lattice.cols), lattice.factors, grid.shape, strict=True
    ):
        first, stop = max(0, -start // factor), min(count, -(-(size - start) // factor))
        spans.append((first, max(0, stop - first)))
    return Window(spans[0][0], spans[1][0], spans[0][1], spans[1][1])


def _level(lattice: Lattice, grid: GeoBox, overviews: tuple[int, ...]) -> tuple[int, int]:
    """File pixels that a decoded pixel spans: those of an overview that divides the factors, else one."""

    def fits(level: int) -> bool:
        whole = not (lattice.row % level or lattice.col % level or grid.shape[0] % level or grid.shape[1] % level)
        # An overview whose pixels do not start with ours is off by up to half of one: little where there are many.
        return all(factor % level == 0 and (whole or factor >= 4 * level) for factor in lattice.factors)

    best = max((level for level in overviews if fits(level)), default=1)
    return best, best


def _chunks(inside: Window, rest: tuple[int, int], bands: int) -> Iterator[Window]:
    """Windows of thinned pixels whose decoded pixels fit in memory."""
    if rest == (1, 1):
        yield inside
        return
    cols = max(1, min(inside.cols, CHUNK_PX // (rest[0] * rest[1] * bands)))
    rows = max(1, CHUNK_PX // (rest[0] * rest[1] * bands * cols))
    for row in range(inside.row_off, inside.row_stop, rows):
        for col in range(inside.col_off, inside.col_stop, cols):
            yield Window(row, col, min(rows, inside.row_stop - row), min(cols, inside.col_stop - col))


def _valid(raw: NDArray[Any], facts: Facts) -> NDArray[np.bool_]:
    """Where all bands are finite and none is nodata."""
    valid = np.ones(raw.shape[1:], dtype=bool)
    for values, band in zip(raw, facts.bands, strict=True):
        if np.issubdtype(raw.dtype, np.floating):
            valid &= np.isfinite(values)
        if band.nodata is not None:
            valid &= ~equals_nodata(values, band.nodata)
    return valid


def equals_nodata(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Where `values` stand for nothing; float32 values match a nodata that was written with few digits too.

    A nodata that the dtype cannot hold matches nothing.
    """
    if np.issubdtype(values.dtype, np.integer):
        limits = np.iinfo(values.dtype)
        fits = np.isfinite(nodata) and nodata == int(nodata) and limits.min <= nodata <= limits.max
        return values == values.dtype.type(int(nodata)) if fits else np.zeros(values.shape, dtype=bool)
    if np.isnan(nodata):
        return np.isnan(values)
    if values.dtype != np.float32 or not np.isfinite(nodata):
        found: NDArray[np.bool_] = values == nodata
        return found
    # GDAL's own tolerance (ARE_REAL_EQUAL in gdal_priv_templates.hpp), in double so that it does not overflow.
    wide = values.astype(np.float64)
    tolerance = 2 * float(np.finfo(np.float32).eps) * np.abs(wide + nodata)
    return np.asarray((wide == nodata) | (np.abs(wide - nodata) < tolerance))


def _scaled(raw: NDArray[Any], facts: Facts) -> NDArray[Any]:
    """`raw` times scale plus offset as float32, where the file has them."""
    if not facts.scaled:
        return raw
    scale = np.array([band.scale for band in facts.bands])[:, None, None]
    offset = np.array([band.offset for band in facts.bands])[:, None, None]
    return (raw * scale + offset).astype(np.float32)


# -- what a file says --------------------------------------------------------------------------------------------------


def describe(source: GdalSource, opened: Any) -> Facts:
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


def _geobox(source: GdalSource, opened: Any) -> GeoBox:
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


def _crs(source: GdalSource, opened: Any) -> CRS | None:
    if source.crs is not None:
        return crs_named(source.crs)
    try:
        return crs_from_wkt(opened.crs.to_wkt()) if opened.crs else None
    except (CRSError, RasterioCRSError, ValueError) as error:
        raise GridError(f"{source.path} has a CRS that is not understood; give it with crs: EPSG:...") from error


def _alphas(source: GdalSource, opened: Any) -> list[int]:
    """1-based indexes of the alpha bands; none where the user names as many bands as the file has with them."""
    if source.names is not None and len(source.names) == opened.count:
        return []
    return [i for i, colour in zip(opened.indexes, opened.colorinterp, strict=True) if colour == ColorInterp.alpha]


def _bands(source: GdalSource, opened: Any, image: list[int]) -> list[BandFacts]:
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


def _chosen(source: GdalSource, bands: list[BandFacts]) -> tuple[BandFacts, ...]:
    """The bands that the user selects."""
    if source.chosen is None:
        return tuple(bands)
    return tuple(bands[i] for i in positions(source.chosen, [band.name for band in bands], source.path))


def positions(chosen: tuple[str | int, ...], names: list[str], what: str) -> list[int]:
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


def _overviews(source: GdalSource, opened: Any) -> tuple[int, ...]:
    """Factors of the overviews; none where they may be mixed from pixels that the user calls nodata."""
    if source.nodata is not None:
        return ()
    return tuple(level for level in opened.overviews(1) if level > 1)
