"""Several sources as one: bands on top of each other, or pieces side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, GridError
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import (
    FINER,
    Lattice,
    aligned,
    common_grid,
    corners,
    crop,
    ground_bounds,
    rectangles,
    relative_size,
    window_of,
)
from geoseg.io.moving import world_of
from geoseg.io.protocol import Source
from geoseg.io.resample import Patch, cut_up, read_onto, resampling_named, thin_mean, thin_pick
from geoseg.io.xarray_source import XarraySource
from geoseg.raster import Raster, match_bands
from geoseg.tiling import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

COMPOSED_SAMPLES = 1 << 21
"""Samples of pieces that are put together at once before they are thinned."""

SEAM_STEPS = 8
"""Parts a side, or more, from which a mean of more pixels a side is put together where pieces share it."""


@dataclass(frozen=True)
class Picked:
    """Some bands of another source, in any order and under any names.

    Attributes:
        source: Where the bands come from.
        positions: 0-based positions of the bands in `source`.
        names: What they are called here.
    """

    source: Source
    positions: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def geobox(self) -> GeoBox:
        """The source's grid."""
        return self.source.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """The names given."""
        return self.names

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source's dtype."""
        return self.source.dtype

    def read(self, geobox: GeoBox) -> Raster:
        """The picked bands on `geobox`."""
        found = self.source.read(geobox)
        return Raster(found.pixels[list(self.positions)], found.valid, geobox, self.names)


def pick(source: Source, positions: Sequence[int], names: Sequence[str]) -> Source:
    """`source` with the bands at `positions` alone, under `names`; bands left out are not read and not asked if valid.

    Sources of other packages are read whole.
    """
    if tuple(names) == source.bands and list(positions) == list(range(len(source.bands))):
        return source
    if isinstance(source, Picked):
        return pick(source.source, [source.positions[i] for i in positions], names)
    if isinstance(source, BandStack):
        return _pick_stack(source, positions, names)
    if isinstance(source, Mosaic):
        first = source.members[0].bands  # what the members call them, which the mosaic may have renamed
        members = tuple(_pick_member(member, first, positions) for member in source.members)
        return replace(source, members=members, names=tuple(names), grid=source.geobox)
    if isinstance(source, GdalSource):
        chosen = replace(source, chosen=tuple(source.facts.bands[i].number for i in positions))
        return chosen if tuple(names) == chosen.bands else Picked(chosen, tuple(range(len(names))), tuple(names))
    # Sources around others, such as masked ones, know for themselves how to leave bands out.
    own = getattr(source, "picked", None)
    found: Source = Picked(source, tuple(positions), tuple(names)) if own is None else own(positions, names)
    return found


def _pick_member(member: Source, bands: Sequence[str], positions: Sequence[int]) -> Source:
    found = [match_bands([bands[i]], member.bands)[0] for i in positions]
    return pick(member, found, [member.bands[i] for i in found])


def _pick_stack(stack: BandStack, positions: Sequence[int], names: Sequence[str]) -> Source:
    """The members that still have a band, on the grid of the whole stack."""
    owners = [(m, band) for m, member in enumerate(stack.members) for band in range(len(member.bands))]
    parts: list[Source] = []
    for m, group in groupby((owners[position] for position in positions), key=lambda owner: owner[0]):
        member, found = stack.members[m], [band for _, band in group]
        parts.append(pick(member, found, [member.bands[band] for band in found]))
    return BandStack(tuple(parts), names=tuple(names), grid=stack.geobox)


@dataclass(frozen=True)
class BandStack:
    """The bands of all members, in order, on the grid of the finest.

    Attributes:
        members: One source a band or more; they may differ in resolution, CRS and extent.
        names: Names of all bands; None takes the members', and numbers those without through.
        grid: The stack's own grid; None takes that of the member with the smallest pixels, the first at a tie.
    """

    members: tuple[Source, ...]
    names: tuple[str, ...] | None = None
    grid: GeoBox | None = None

    @cached_property
    def geobox(self) -> GeoBox:
        """The stack's own grid."""
        if self.grid is not None:
            return self.grid
        best = self.members[0].geobox
        for member in self.members[1:]:
            if prod(relative_size(member.geobox, best)) < FINER:
                best = member.geobox
        return best

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """Names of all bands.

        Raises:
            BandError: Two bands have one name, or there are more or fewer names than bands.
        """
        found = [name for member in self.members for name in _unless_numbered(member)]
        if self.names is not None:
            return _names_for(self.names, len(found), "the stack")
        names = tuple(name or f"band{i}" for i, name in enumerate(found, start=1))
        if len({name.lower() for name in names}) < len(names):
            raise BandError(
                f"bands of the stack share a name: [{', '.join(names)}]; name them in order with bands: [...]"
            )
        return names

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds all bands."""
        return np.result_type(*[member.dtype for member in self.members])

    def read(self, geobox: GeoBox) -> Raster:
        """All bands on `geobox`; valid where every member is."""
        pixels = np.empty((len(self.bands), *geobox.shape), dtype=self.dtype)
        valid = np.ones(geobox.shape, dtype=bool)
        start = 0
        for member in self.members:
            part = member.read(geobox)
            pixels[start : start + len(part.bands)] = part.pixels
            valid &= part.valid
            start += len(part.bands)
        return Raster(pixels, valid, geobox, self.bands)


def _unless_numbered(member: Source) -> list[str]:
    """The member's band names, empty ones where they are but numbers."""
    numbered = member.bands == tuple(f"band{i + 1}" for i in range(len(member.bands)))
    return [""] * len(member.bands) if numbered else list(member.bands)


def _names_for(names: Sequence[str], count: int, what: str) -> tuple[str, ...]:
    if len(names) != count:
        raise BandError(f"{what} has {count} bands, {len(names)} names were given: [{', '.join(names)}]")
    return tuple(names)


@dataclass(frozen=True)
class Mosaic:
    """Pieces side by side; where they overlap the first valid pixel wins.

    Attributes:
        members: The pieces; they may differ in CRS, resolution and order of bands. Bands are matched by name.
        names: What the bands are called here; None takes the first member's names.
        grid: The mosaic's own grid; None takes the first member's CRS and origin, the finest member's resolution and
            the extent of all.
        resampling: How values are taken on other grids, where all members lie on one; then it holds for theirs too.
            None takes the members', each its own where they differ.
    """

    members: tuple[Source, ...]
    names: tuple[str, ...] | None = None
    grid: GeoBox | None = None
    resampling: str | None = None

    def __post_init__(self) -> None:
        if self.resampling is not None:
            resampling_named(self.resampling)

    @cached_property
    def geobox(self) -> GeoBox:
        """The mosaic's own grid.

        Raises:
            GridError: A member has no CRS.
        """
        return self.grid if self.grid is not None else common_grid([member.geobox for member in self.members])

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands.

        Raises:
            BandError: There are more or fewer names than bands.
        """
        first = self.members[0].bands
        return first if self.names is None else _names_for(self.names, len(first), "the mosaic")

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds all members."""
        return np.result_type(*[member.dtype for member in self.members])

    @cached_property
    def alike(self) -> tuple[Source, ...]:
        """The members with their bands in the first's order."""
        first = self.members[0].bands
        orders = [match_bands(first, member.bands) for member in self.members]
        found = tuple(pick(m, order, first) for m, order in zip(self.members, orders, strict=True))
        way = self._way
        return found if way is None else tuple(resampled(member, way) for member in found)

    @cached_property
    def _way(self) -> str | None:
        """How values are taken of the members put together; None where each is read by itself."""
        if self._spans is None or self.resampling is not None:
            return None if self._spans is None else self.resampling
        ways = resamplings(self) or {"bilinear"}
        return min(ways) if len(ways) == 1 else None

    def matches(self, count: int) -> bool:
        """Whether all members have the first's names, as many as `count`; else each is to be named in its order."""
        first, *others = ({name.lower() for name in member.bands} for member in self.members)
        return len(self.members[0].bands) == count and all(first <= names for names in others)

    @cached_property
    def _spans(self) -> NDArray[np.int64] | None:
        """Rows and columns, first and past the last, of the members on the mosaic's grid; None where one is off it."""
        lattices = [aligned(self.geobox, member.geobox) for member in self.members]
        windows = [lattice.window for lattice in lattices if lattice is not None and lattice.factors == (1, 1)]
        spans = [(w.row_off, w.col_off, w.row_stop, w.col_stop) for w in windows]
        return np.array(spans) if len(spans) == len(lattices) else None

    @cached_property
    def _bounds(self) -> dict[CRS, NDArray[np.float64]]:
        """West, south, east, north of each member, by CRS; filled as CRSs are met."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: not the bounds, which cost little and are met again."""
        return {name: value for name, value in self.__dict__.items() if name != "_bounds"}

    def read(self, geobox: GeoBox) -> Raster:
        """The first valid pixels on `geobox`.

        Members of one grid and resampling are put together on it and taken to `geobox` at once, without a seam. Means
        of more than `SEAM_STEPS` pixels a side are coarser where members share one: the first of them may get up to an
        eighth of the side more than its share. Pixels that lie in one member alone may come from its overviews.
        """
        if self._way is None:
            found = self._compose(geobox)
        else:
            found = read_onto(
                self.geobox,
                geobox,
                partial(self._read_lattice, resampling=self._way),
                resampling=self._way,
                count=len(self.bands),
                dtype=self.dtype,
                name="the mosaic",
            )
        return Raster(found.pixels, found.valid, geobox, self.bands)

    def _read_lattice(self, lattice: Lattice, *, resampling: str) -> Patch:
        """The pixels of `lattice`: of one member as it thins them, of several put together first and then thinned."""
        thin, box = resampling_named(resampling).thin, lattice.on(self.geobox)
        # A pixel that is picked lies in one member, however many its block touches.
        if lattice.factors == (1, 1) or thin is thin_pick:
            return self._compose(box)
        shared = self._shared(lattice)
        out = self._compose(box, ~shared)
        steps = [_seam_factor(factor) if thin is thin_mean else 1 for factor in lattice.factors]
        rest = lattice.factors[0] // steps[0], lattice.factors[1] // steps[1]
        most = COMPOSED_SAMPLES // (rest[0] * rest[1] * len(self.bands))
        for window in (piece for whole in rectangles(shared) for piece in cut_up(whole, most)):
            rows, cols = window.rows * rest[0], window.cols * rest[1]
            fine = replace(lattice.part(window), rows=rows, cols=cols, factors=(steps[0], steps[1]))
            part = thin(self._compose(fine.on(self.geobox)), rest)
            out.pixels[:, *window.slices], out.valid[window.slices] = part.pixels, part.valid
        return out

    def _shared(self, lattice: Lattice) -> NDArray[np.bool_]:
        """Where several members touch a thinned pixel of `lattice`, `(row, col)`."""
        touching = np.zeros((lattice.rows, lattice.cols), dtype=np.int32)
        spans = np.asarray(self._spans) - np.array([lattice.row, lattice.col] * 2)
        first = np.maximum(spans[:, :2] // lattice.factors, 0)
        stop = np.minimum(-(-spans[:, 2:] // lattice.factors), touching.shape)
        for index in np.flatnonzero((first < stop).all(axis=1)):
            touching[first[index, 0] : stop[index, 0], first[index, 1] : stop[index, 1]] += 1
        return touching > 1

    @property
    def placed(self) -> list[tuple[Source, Window]]:
        """Each member with its bands in the mosaic's order, and the window of the mosaic's grid that holds its pixels.

        Members without a pixel there are left out.
        """
        return [(self.alike[index], window) for index, window in self._meeting(self.geobox)]

    def _compose(self, geobox: GeoBox, asked: NDArray[np.bool_] | None = None) -> Patch:
        """Each member read onto `geobox` where it can be, the first valid one kept; of all pixels or those `asked`."""
        out = Patch.empty(len(self.bands), geobox.shape.yx, self.dtype)
        lacking = np.ones(geobox.shape.yx, dtype=bool) if asked is None else asked.copy()
        for index, window in self._meeting(geobox):
            missing = lacking[window.slices]
            if not missing.any():
                continue
            part = self.alike[index].read(crop(geobox, window))
            taken = missing & part.valid
            out.pixels[:, *window.slices][:, taken] = part.pixels[:, taken]
            out.valid[window.slices] |= taken
            missing &= ~taken
        return out

    def _meeting(self, geobox: GeoBox) -> list[tuple[int, Window]]:
        """Members that may have pixels on `geobox`, and the window of `geobox` that holds them."""
        if geobox.crs is None:
            raise GridError("the grid asked of the mosaic has no CRS; needed is one")
        if geobox.crs not in self._bounds:
            self._bounds[geobox.crs] = np.array([ground_bounds(m.geobox, geobox.crs) for m in self.members])
        bounds = self._bounds[geobox.crs]
        x, y = (np.array(side) for side in zip(*[geobox.affine @ corner for corner in corners(geobox)], strict=True))
        level = (bounds[:, 1] < y.max()) & (bounds[:, 3] > y.min())
        beside = level & (bounds[:, 0] < x.max()) & (bounds[:, 2] > x.min())
        world, around = world_of(geobox.crs), np.zeros(len(bounds), np.bool_)
        for moved in (world.turn, -world.turn) if world else ():  # a grid that counts on beyond the antimeridian
            around |= level & (bounds[:, 0] + moved < x.max()) & (bounds[:, 2] + moved > x.min())
        whole = Window(0, 0, *geobox.shape)
        windows = [
            (int(index), whole if around[index] else window_of(bounds[index], geobox))
            for index in np.flatnonzero(beside | around)
        ]
        return [(index, window) for index, window in windows if window.rows and window.cols]


def _seam_factor(factor: int) -> int:
    """The most pixels that divide `factor` into `SEAM_STEPS` or more."""
    return next((step for step in range(factor // SEAM_STEPS, 1, -1) if factor % step == 0), 1)


def resamplings(source: Any) -> set[str]:
    """The ways in which values of a source, or of those within it, are taken; none where it does not say."""
    way = getattr(source, "resampling", None)
    if isinstance(way, str):
        return {way}
    within = [*getattr(source, "members", ()), getattr(source, "source", None)]
    return {way for inner in within if inner is not None for way in resamplings(inner)}


def resampled(source: Source, resampling: str) -> Source:
    """`source` with values taken by `resampling`; sources of other packages stay as they are."""
    if resamplings(source) <= {resampling}:
        return source
    if isinstance(source, Picked):
        return replace(source, source=resampled(source.source, resampling))
    if isinstance(source, BandStack):
        members = tuple(resampled(member, resampling) for member in source.members)
        return replace(source, members=members, grid=source.geobox)
    if isinstance(source, GdalSource | XarraySource | Mosaic):
        return replace(source, resampling=resampling)
    # Sources around others, such as masked ones, know for themselves how that is done.
    own = getattr(source, "resampled", None)
    found: Source = source if own is None else own(resampling)
    return found
