"""Cloud and shadow masks: what a mask hides, or says nothing of, is not valid."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError
from geoseg.io.combine import BandStack, Mosaic, Picked, pick, resampled, resamplings
from geoseg.io.gdal import GdalSource, is_code, thinned_inside
from geoseg.io.grids import Lattice, aligned, crop, shrink
from geoseg.io.mask_rules import MASKS, MaskRule, MaskSpec, rule_of
from geoseg.io.protocol import Source
from geoseg.io.resample import Patch, cut_up, read_onto, resampling_named, thin_pick
from geoseg.io.stamps import paths_in
from geoseg.io.xarray_source import XarraySource
from geoseg.raster import Raster
from geoseg.tiling import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

NO_NODATA = 1e30
"""A nodata value that no code has."""

ANY_CODE = range(-(1 << 31), 1 << 32)
"""All values that a code may have."""

MASKED_SAMPLES = 1 << 21
"""Samples that are masked at once before they are thinned."""

RAGGED_PX = 1 << 16
"""Pixels of the image, about a block of a file, that are read at once where a mask hides a part of them."""


@dataclass(frozen=True)
class Masked:
    """An image whose pixels are valid only where a mask says so.

    The mask lies on the image's own pixels, so that what it hides has no share in means and interpolated values.

    Attributes:
        source: The image. Of one that does not say how its values are taken on other grids, what is read is masked.
        mask: One band of codes, on any grid; where it has no value, the image is not valid.
        rule: Which codes hide the ground.
        grid: The grid whose pixels `grow_px` of the rule counts; None takes the image's.
        rough: Whether shrunk pixels may be masked as they are, the mask by what lies under their centres, as is enough
            for a picture.
    """

    source: Source
    mask: Source
    rule: MaskRule
    grid: GeoBox | None = None
    rough: bool = False

    @property
    def geobox(self) -> GeoBox:
        """The image's grid."""
        return self.source.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """The image's bands."""
        return self.source.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """The image's dtype."""
        return self.source.dtype

    def read(self, geobox: GeoBox) -> Raster:
        """The image on `geobox`, valid where it is and nothing is hidden.

        Raises:
            ReadError: A file cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        if self._parted is not None:
            return self._parted.read(geobox)
        ways = resamplings(self.source)
        if len(ways) != 1:
            found = self._seen(geobox)
        else:
            found = read_onto(
                self.geobox,
                geobox,
                partial(self._read_lattice, resampling=min(ways)),
                resampling=min(ways),
                count=len(self.bands),
                dtype=self.dtype,
                name="the masked image",
            )
        return Raster(found.pixels, found.valid, geobox, self.bands)

    @cached_property
    def _parted(self) -> Source | None:
        """The image with each piece masked by itself; None where it is one piece, or on one grid."""
        image = self.source
        around = partial(replace, self, grid=self.grid or self.geobox)
        if isinstance(image, Mosaic):
            return replace(image, members=tuple(around(source=m) for m in image.members), grid=image.geobox)
        if not isinstance(image, BandStack):
            return None
        parts = _by_grid(image)
        if len(parts) == 1 and parts[0].geobox == image.geobox:
            return None
        return BandStack(tuple(around(source=part) for part in parts), names=image.bands, grid=image.geobox)

    def _seen(self, geobox: GeoBox) -> Patch:
        """The image read onto `geobox` and masked there."""
        found = self.source.read(geobox)
        return Patch(found.pixels, found.valid & self.clear(geobox) if found.valid.any() else found.valid)

    def _read_lattice(self, lattice: Lattice, *, resampling: str) -> Patch:
        """The pixels of `lattice` of the image's grid, thinned without those that are hidden."""
        if self.rough or lattice.factors == (1, 1) or resampling_named(resampling).thin is thin_pick:
            return self._seen(lattice.on(self.geobox))
        out = Patch.empty(len(self.bands), (lattice.rows, lattice.cols), self.dtype)
        inside = thinned_inside(lattice, self.geobox)
        most = MASKED_SAMPLES // (lattice.factors[0] * lattice.factors[1] * len(self.bands))
        for window in cut_up(inside, most) if inside.rows and inside.cols else ():
            part = self._thinned(lattice.part(window), resampling)
            out.pixels[:, *window.slices], out.valid[window.slices] = part.pixels, part.valid
        return out

    def _thinned(self, lattice: Lattice, resampling: str) -> Patch:
        """The pixels of `lattice`: those without anything hidden as the image thins them, others from what is seen."""
        down, across = lattice.factors
        clear = self.clear(lattice.unthinned.on(self.geobox))
        blocks = clear.reshape(lattice.rows, down, lattice.cols, across)
        whole, some = blocks.all(axis=(1, 3)), blocks.any(axis=(1, 3))
        out = Patch.empty(len(self.bands), whole.shape, self.dtype)
        if whole.any():
            found = self.source.read(lattice.on(self.geobox))
            out.pixels[:, whole], out.valid[whole] = found.pixels[:, whole], found.valid[whole]
        ragged = np.asarray(some & ~whole)
        for window in cut_up(_bounds(ragged), RAGGED_PX // (down * across)) if ragged.any() else ():
            taken = ragged[window.slices]
            if taken.any():
                part = self._thinned_by_hand(lattice.part(window), clear[_times(window, lattice.factors)], resampling)
                out.pixels[:, *window.slices][:, taken] = part.pixels[:, taken]
                out.valid[window.slices][taken] = part.valid[taken]
        return out

    def _thinned_by_hand(self, lattice: Lattice, clear: NDArray[np.bool_], resampling: str) -> Patch:
        """The pixels of `lattice`, each of those under it that are `clear`."""
        found = self.source.read(lattice.unthinned.on(self.geobox))
        return resampling_named(resampling).thin(Patch(found.pixels, found.valid & clear), lattice.factors)

    def clear(self, geobox: GeoBox) -> NDArray[np.bool_]:
        """Where the mask says that the ground is seen, `(row, col)`."""
        high, wide = self._radii(geobox)
        rows, cols = geobox.shape
        # What is hidden just outside the window may grow into it.
        around = self.mask.read(crop(geobox, Window(-high, -wide, rows + 2 * high, cols + 2 * wide)))
        codes, inner = around.pixels[0], (slice(high, high + rows), slice(wide, wide + cols))
        said = around.valid & ~self.rule.is_fill(codes)
        hidden = grown(said & self.rule.hidden(codes), (high, wide))
        return np.asarray(said[inner] & ~hidden[inner])

    def picked(self, positions: Sequence[int], names: Sequence[str]) -> Source:
        """Some bands of the image, masked all the same; bands left out are not read."""
        return replace(self, source=pick_bands(self.source, positions, names))

    def resampled(self, resampling: str) -> Masked:
        """The same, values of the image taken by `resampling`."""
        return replace(self, source=resampled(self.source, resampling))

    def _radii(self, geobox: GeoBox) -> tuple[int, int]:
        """Rows and columns of `geobox` that the mask grows by; the same for every window of a grid."""
        if not self.rule.grow_px:
            return 0, 0
        own = self.grid or self.geobox
        lattice = aligned(own, geobox) if geobox.crs is None else None
        steps = shrink(own, geobox) if lattice is None else lattice.factors
        return tuple(max(1, ceil(self.rule.grow_px / step - 1e-6)) for step in steps)  # type: ignore[return-value]


def _by_grid(stack: BandStack) -> list[Source]:
    """The members of a stack in order, runs of those on one grid and of one resampling as one."""
    found: list[Source] = []
    first = 0
    for _, run in groupby(stack.members, key=lambda member: (member.geobox, frozenset(resamplings(member)))):
        members = tuple(run)
        stop = first + sum(len(member.bands) for member in members)
        found.append(members[0] if len(members) == 1 else BandStack(members, names=stack.bands[first:stop]))
        first = stop
    return found


def _bounds(mask: NDArray[np.bool_]) -> Window:
    """The smallest window that holds all that is true."""
    rows, cols = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return Window(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0]) + 1, int(cols[-1] - cols[0]) + 1)


def _times(window: Window, factors: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns under `window`, whose pixels are blocks of `factors`."""
    down, across = factors
    return (
        slice(window.row_off * down, window.row_stop * down),
        slice(window.col_off * across, window.col_stop * across),
    )


def grown(hidden: NDArray[np.bool_], radii: tuple[int, int]) -> NDArray[np.bool_]:
    """`hidden` and all within an ellipse of that many rows and columns around it, same shape."""
    if not any(radii) or not hidden.any():
        return hidden
    from scipy.ndimage import distance_transform_edt

    far = distance_transform_edt(~hidden, sampling=(1 / radii[0], 1 / radii[1]))
    return np.asarray(far <= 1 + 1e-6)


def masked_by_band(source: Source, spec: MaskSpec, *, chosen: Sequence[int] | None = None) -> Masked:
    """`source` masked by one of its bands, which is no image band any more.

    Args:
        source: The image, the mask among its bands.
        spec: Names the band.
        chosen: Positions of the image bands wanted; None takes all.

    Raises:
        BandError: There is no such band, or no other.
        InputError: Nothing says what its values mean.
    """
    lowered = [name.lower() for name in source.bands]
    wanted = str(spec.band).lower()
    if lowered.count(wanted) != 1:
        raise BandError(
            f"mask: band {spec.band} is not one of the bands [{', '.join(source.bands)}]; name one of them, or a file "
            "with mask: {path: ...}"
        )
    place = lowered.index(wanted)
    image = [i for i in (range(len(lowered)) if chosen is None else chosen) if i != place]
    if not image:
        raise BandError(
            f"mask: beside band {spec.band} no image band is left; choose more of [{', '.join(source.bands)}]"
        )
    mask = pick_bands(source, [place], [source.bands[place]])
    return masked(pick_bands(source, image, [source.bands[i] for i in image]), mask, spec)


def masked(source: Source, mask: Source, spec: MaskSpec) -> Masked:
    """`source` masked by `mask`.

    Raises:
        BandError: The mask has more than one band.
        InputError: Nothing says what its values mean.
    """
    if len(mask.bands) != 1:
        raise BandError(
            f"a mask needs one band, this has [{', '.join(mask.bands)}]; choose with mask: {{path: ..., select: [1]}}"
        )
    # A scale is that of the image where the mask is one of its bands; a probability in a file of its own may have one.
    own = spec.band is None
    rule = rule_of(spec, mask if own else by_nearest(mask, codes=range(0)))
    scaled = own and rule.kind == "probability"
    return Masked(source, by_nearest(mask, codes=_meant(source, mask, spec, rule), scaled=scaled), rule)


def _meant(source: Source, mask: Source, spec: MaskSpec, rule: MaskRule) -> range:
    """Codes of `mask` that mean something, so that a file which calls one of them nodata is not believed."""
    # What the user says of the mask's own nodata holds; of an image band it was said for the image.
    if isinstance(spec.place, Mapping) and spec.place.get("nodata") is not None:
        return range(0)
    if rule.kind != "values":
        return MASKS[rule.kind].meant
    # Of values whose meaning the user says, what a file calls nodata for its image bands too says nothing.
    files = set(paths_in(mask))
    if spec.band is not None and (not files or not files.isdisjoint(paths_in(source))):
        return ANY_CODE
    nodata = _nodata_of(mask)
    if not nodata.isdisjoint(rule.numbers):
        return ANY_CODE
    if 0 in nodata and not rule.keep:
        _say_that_zero_is_nodata(tuple(sorted(files)))
    return range(0)


@lru_cache(maxsize=1024)
def _say_that_zero_is_nodata(files: tuple[str, ...]) -> None:
    """One line a mask, however often it is opened."""
    log.warning(
        "mask %s: 0 is its nodata, so that the image is not valid there; where 0 means clear, give keep: [0] instead "
        "of drop",
        ", ".join(Path(file).name for file in files) or "in memory",
    )


def _nodata_of(source: Source) -> set[float]:
    """What the files of `source` call nodata."""
    if isinstance(source, GdalSource):
        return {band.nodata for band in source.facts.bands if band.nodata is not None}
    if isinstance(source, XarraySource):
        return {value for piece in source.cube.pieces for value in piece.nodata if value is not None}
    if isinstance(source, Mosaic | BandStack):
        return set().union(*map(_nodata_of, source.members))
    return _nodata_of(source.source) if isinstance(source, Picked | Masked) else set()


def pick_bands(source: Source, positions: Sequence[int], names: Sequence[str]) -> Source:
    """`pick`, also within sources that know for themselves how to leave bands out, by a method `picked`."""
    own = getattr(source, "picked", None)
    if own is None or (tuple(names) == source.bands and list(positions) == list(range(len(source.bands)))):
        return pick(source, positions, names)
    found: Source = own(positions, names)
    return found


def by_nearest(source: Source, *, codes: range | None = None, scaled: bool = False) -> Source:
    """`source` read by nearest neighbour.

    Args:
        source: What is read. Sources of other packages are read as they are.
        codes: Its values are codes: they are not scaled, and what a file calls nodata is passed over where it is one of
            these codes. A file of many bands often has one nodata for all, and 0 may be clear land in its mask.
        scaled: The codes are scaled all the same, as shares of which a file holds percent.
    """
    if isinstance(source, GdalSource):
        return _file_by_nearest(source, codes, scaled=scaled)
    if isinstance(source, XarraySource):
        return source.nearest(codes, scaled=scaled)
    inner = partial(by_nearest, codes=codes, scaled=scaled)
    if isinstance(source, Mosaic):
        return replace(source, members=tuple(map(inner, source.members)), resampling="nearest")
    if isinstance(source, BandStack):
        return replace(source, members=tuple(map(inner, source.members)), grid=source.geobox)
    if isinstance(source, Picked | Masked):
        return replace(source, source=inner(source.source))
    return source


def roughly(source: Source) -> Source:
    """`source` read as is enough for a picture: shrunk from overviews of any kind, means or not."""
    if isinstance(source, GdalSource):
        return replace(source, rough=True)
    if isinstance(source, Mosaic | BandStack):
        return replace(source, members=tuple(map(roughly, source.members)), grid=source.geobox)
    if isinstance(source, Masked):
        return replace(source, source=roughly(source.source), rough=True)
    if isinstance(source, Picked):
        return replace(source, source=roughly(source.source))
    return source


def _file_by_nearest(source: GdalSource, codes: range | None, *, scaled: bool) -> GdalSource:
    found = replace(source, resampling="nearest")
    if codes is None:
        return found
    meant = any(is_code(band.nodata, codes) for band in source.facts.bands)
    found = replace(found, nodata=NO_NODATA if meant else source.nodata)
    return found if scaled else replace(found, scale=1.0, offset=0.0)
