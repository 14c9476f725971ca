"""What lies where in the synthetic landscape: class ids, parcels, buildings and terrain, as plain arrays.

Shapes come first and colours later (`light.py`), so that the labels are true by construction: nothing here ever
looks at a spectrum. Every feature has a size in pixels, not in shares of the scene, so a larger scene holds more of the
same landscape instead of a magnified one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.sparse.csgraph import minimum_spanning_tree
from skimage.graph import route_through_array
from skimage.measure import label

FloatArray: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]
IdArray: TypeAlias = NDArray[np.uint32]
Shape: TypeAlias = tuple[int, int]

WATER, FOREST, GRASSLAND, CROPLAND, BARE_SOIL, BUILDING, ROAD = range(1, 8)

MIN_BUILDING_PX = 9
MIN_PARCEL_PX = 100
MIN_PATCH_PX = 40  # of woods, quarries and ponds


@dataclass(frozen=True, slots=True)
class Layout:
    """Arrays `(row, col)` that say what lies where."""

    labels: NDArray[np.uint8]  # class ids, WATER ... ROAD
    parcels: IdArray  # 0 = none
    buildings: IdArray  # 0 = none
    elevation: FloatArray  # standardised height, no unit
    furrow: FloatArray  # px across the furrows of the field that a pixel lies in
    shore_px: FloatArray  # distance from the nearest water
    shade: BoolArray  # ground in the shadow of a building


def fractal(rng: np.random.Generator, shape: Shape, *, scale_px: float, slope: float = 2.0) -> FloatArray:
    """Smooth random field `(row, col)`, zero mean and unit deviation, with features of about `scale_px`.

    White noise shaped in the Fourier domain by an amplitude of (f^2 + f0^2)^(-slope/2) with f0 = 1 / scale_px: a power
    law for short waves, as natural terrain has (Voss 1985, "Random fractal forgeries"), flat for longer ones.
    """
    padded = [fft.next_fast_len(n, real=True) for n in shape]
    spectrum = fft.rfft2(rng.standard_normal(padded, dtype=np.float32))
    frequency2 = fft.fftfreq(padded[0])[:, None] ** 2 + fft.rfftfreq(padded[1])[None, :] ** 2
    spectrum *= ((frequency2 + scale_px**-2.0) ** (-slope / 2)).astype(np.float32)
    field = fft.irfft2(spectrum, s=padded)[: shape[0], : shape[1]]
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), dtype=np.float32)


def lay_out(rng: np.random.Generator, shape: Shape) -> Layout:
    """Layout of a whole landscape: waters, fields, woods, quarries, villages and the roads that join them."""
    # One stream a theme: a change to the villages leaves the river of every seed where it was.
    water_rng, land_rng, field_rng, village_rng, road_rng = rng.spawn(5)
    elevation = fractal(water_rng, shape, scale_px=220, slope=2.4)
    low = elevation < np.quantile(elevation, 0.035)
    water = _components(_river(water_rng, shape) | low, MIN_PATCH_PX) > 0
    shore_px = _distance_to(water)
    centres, radii = _village_sites(village_rng, shape, shore_px)
    roads = _road_network(road_rng, elevation, water, centres)
    halls, streets, ground = _settlements(village_rng, shape, centres, radii)
    roads |= streets & ~water
    buildings = _components(halls & ~(roads | (shore_px < 2)), MIN_BUILDING_PX)
    closed = water | ground | roads

    forest = _cover(fractal(land_rng, shape, scale_px=90, slope=2.8) + 0.5 * (shore_px < 12), ~closed, 0.26)
    bare = _cover(fractal(land_rng, shape, scale_px=60, slope=3.4) + 0.3 * (shore_px < 6), ~(closed | forest), 0.055)
    forest, bare = (_components(patches, MIN_PATCH_PX) > 0 for patches in (forest, bare))
    parcels, furrow = _parcels(field_rng, shape, closed | forest | bare)
    farmed, cropped = _land_use(field_rng, parcels)
    labels = np.full(shape, GRASSLAND, dtype=np.uint8)
    for class_id, where in (
        (FOREST, forest & ~closed), (BARE_SOIL, bare & ~closed), (CROPLAND, cropped[parcels]), (WATER, water),
        (BUILDING, buildings > 0), (ROAD, roads),
    ):  # fmt: skip
        labels[where] = class_id
    return Layout(
        labels=labels,
        parcels=_renumber(np.where(farmed[parcels], parcels, 0)),
        buildings=buildings,
        elevation=elevation,
        furrow=furrow,
        shore_px=shore_px,
        shade=_building_shade(buildings > 0),
    )


def _cover(field: FloatArray, allowed: BoolArray, share: float) -> BoolArray:
    """The places inside `allowed` where `field` is highest: `share` of all pixels, as far as there are so many."""
    wanted = min(share * field.size / max(int(allowed.sum()), 1), 0.9)
    return np.asarray(allowed & (field > np.quantile(field[allowed], 1 - wanted)))


def _distance_to(mask: BoolArray) -> FloatArray:
    """Distance in px from every pixel to the nearest True one; 1e6 where there is none."""
    if not mask.any():
        return np.full(mask.shape, 1e6, dtype=np.float32)
    return np.asarray(ndimage.distance_transform_edt(~mask), dtype=np.float32)


def _components(mask: BoolArray, min_px: int) -> IdArray:
    """Ids 1 ... n of the 4-connected regions of `mask` that have at least `min_px` pixels."""
    regions, _ = ndimage.label(mask)
    sizes = np.bincount(regions.ravel())
    return _renumber(np.where(sizes[regions] >= min_px, regions, 0))


def _renumber(ids: NDArray[np.integer]) -> IdArray:
    """The same regions with ids 1 ... n without gaps; 0 stays 0."""
    present = np.bincount(ids.ravel()) > 0
    present[0] = False
    return np.asarray((np.cumsum(present) * present).astype(np.uint32)[ids])


def _mark(points: NDArray[np.float64], shape: Shape) -> BoolArray:
    """Mask of the pixels that the points `(n, [row, col])` fall on; points outside the scene are left out."""
    row, col = np.rint(points).astype(np.intp).T
    inside = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
    mask = np.zeros(shape, dtype=np.bool_)
    mask[row[inside], col[inside]] = True
    return mask


def _densify(points: NDArray[np.float64], step_px: float = 0.4) -> NDArray[np.float64]:
    """The polyline `(n, [row, col])` resampled so that no two neighbours are further apart than `step_px`."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.linspace(0.0, along[-1], int(along[-1] / step_px) + 2)
    return np.stack([np.interp(at, along, points[:, axis]) for axis in (0, 1)], axis=1)


def _river(rng: np.random.Generator, shape: Shape) -> BoolArray:
    """Mask of a river that meanders from the west edge to the east edge, 5 to 9 px wide.

    Its direction follows a sine-generated curve, theta(s) = w sin(2 pi s / M), the shape of real meanders (Langbein and
    Leopold 1966, USGS Professional Paper 422-H), with w and M drifting along the way.
    """
    n_px = 4 * (shape[1] + 120)
    drift = [fractal(rng, (1, n_px), scale_px=scale)[0] for scale in (300, 300, 500)]
    phase = np.cumsum(2 * np.pi / (115 * np.exp(0.25 * drift[0]))) + rng.uniform(0, 2 * np.pi)
    heading = np.clip(1.1 + 0.3 * drift[1], 0.3, 1.7) * np.sin(phase) + 0.18 * drift[2]
    steps = 0.5 * np.stack([np.sin(heading), np.cos(heading)], axis=1)
    points = np.cumsum(steps, axis=0)
    crossing = points[:, 1] < shape[1] + 20
    # Centred on a random row: the river may leave the scene for a while, but not for good.
    points[:, 0] += rng.uniform(0.35, 0.65) * shape[0] - points[crossing, 0].mean()
    points[:, 1] -= 10
    width = 3.4 + 0.7 * np.sin(np.arange(n_px) / 260 + rng.uniform(0, 6))
    mask = np.zeros(shape, dtype=np.bool_)
    for half_px in (2.5, 3.1, 3.7):
        mask |= _distance_to(_mark(points[crossing & (width >= half_px - 0.05)], shape)) <= half_px
    return mask


def _village_sites(
    rng: np.random.Generator, shape: Shape, shore_px: FloatArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres `(n, [row, col])` and radii in px of the villages, one for every square of 145 px, off the water."""
    n_rows, n_cols = (max(1, round(n / 145)) for n in shape)
    corner = np.stack(np.meshgrid(np.arange(n_rows), np.arange(n_cols), indexing="ij"), axis=-1).reshape(-1, 1, 2)
    cell = np.array([shape[0] / n_rows, shape[1] / n_cols])
    candidates = (corner + rng.uniform(0.22, 0.78, (len(corner), 16, 2))) * cell
    row, col = candidates.astype(np.intp)[..., 0], candidates.astype(np.intp)[..., 1]
    best = np.argmax(np.minimum(shore_px[row, col], 30) + rng.uniform(0, 6, row.shape), axis=1)
    radii = np.minimum(rng.uniform(32, 48, len(corner)), min(shape) / 4)
    return candidates[np.arange(len(corner)), best], radii


def _road_network(
    rng: np.random.Generator, elevation: FloatArray, water: BoolArray, centres: NDArray[np.float64]
) -> BoolArray:
    """Mask of the roads between the villages and out of the scene: main roads 6 px wide, side roads 5 px."""
    step_px = 6
    cost = _travel_cost(rng, elevation, water, step_px)
    routes: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for start, end, is_main in _links(centres, water.shape):
        routes[is_main].append(_route(cost, start, end, step_px))
    roads = np.zeros(water.shape, dtype=np.bool_)
    for width_px, group in zip((5, 6), routes, strict=True):
        if group:
            line = _mark(np.concatenate(group), water.shape)
            roads |= ndimage.binary_dilation(line, np.ones((width_px, width_px)))
    return roads


def _travel_cost(rng: np.random.Generator, elevation: FloatArray, water: BoolArray, step_px: int) -> FloatArray:
    """Cost of a road on a grid of `step_px`: slopes and above all water are dear, and chance bends the rest."""
    coarse = elevation[::step_px, ::step_px]
    slope = np.hypot(*np.gradient(coarse))
    wiggle = np.exp(0.35 * fractal(rng, coarse.shape, scale_px=6))
    return np.asarray((1 + 3 * slope) * wiggle + 12 * water[::step_px, ::step_px], dtype=np.float32)


def _links(centres: NDArray[np.float64], shape: Shape) -> list[tuple[NDArray[np.float64], NDArray[np.float64], int]]:
    """Pairs of places to join by road, and 1 for a main road: the villages' spanning tree, short cuts, and ways out."""
    apart = np.hypot(*(centres[:, None] - centres[None, :]).transpose(2, 0, 1))
    tree = np.argwhere(minimum_spanning_tree(apart).toarray() > 0)
    links = [(centres[a], centres[b], 1) for a, b in tree]
    joined = {frozenset(pair) for pair in tree.tolist()}
    for a, nearest in enumerate(np.argsort(apart, axis=1)[:, 1:3].tolist()):
        links += [(centres[a], centres[b], 0) for b in nearest if frozenset((a, b)) not in joined]
        joined |= {frozenset((a, b)) for b in nearest}
    for axis, edge in ((0, 0), (0, shape[0] - 1), (1, 0), (1, shape[1] - 1)):
        gate = centres[np.argmin(np.abs(centres[:, axis] - edge))]
        links.append((gate, np.where(np.arange(2) == axis, edge, gate), 1))
    return links


def _route(cost: FloatArray, start: NDArray[np.float64], end: NDArray[np.float64], step_px: int) -> NDArray[np.float64]:
    """Smooth dense polyline `(n, [row, col])` of the cheapest way; the way lowers `cost`, so later roads join it."""
    first, last = (tuple(np.minimum(place / step_px, np.array(cost.shape) - 1).astype(int)) for place in (start, end))
    cells, _ = route_through_array(cost, first, last, fully_connected=True, geometric=True)
    path = np.array(cells)
    cost[path[:, 0], path[:, 1]] = np.minimum(cost[path[:, 0], path[:, 1]], 0.35)
    bends = np.concatenate([start[None], path[1:-1] * float(step_px), end[None]])
    smooth = ndimage.gaussian_filter1d(_densify(bends, 1.0), 8.0, axis=0, mode="nearest")
    return _densify(np.concatenate([start[None], smooth, end[None]]))


def _settlements(
    rng: np.random.Generator, shape: Shape, centres: NDArray[np.float64], radii: NDArray[np.float64]
) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Masks of the buildings, the streets and the built ground of all villages; every third has large halls."""
    halls, streets, ground = (np.zeros(shape, dtype=np.bool_) for _ in range(3))
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True)):
        block_px = 24.0 if number % 3 == 2 else 17.5
        reach = int(radius) + 3
        low = np.maximum(centre.astype(int) - reach, 0)
        high = np.minimum(centre.astype(int) + reach + 1, shape)
        window = (slice(low[0], high[0]), slice(low[1], high[1]))
        offset = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij")) - centre[:, None, None]
        hall, street, inside = _settlement(rng, offset, radius, block_px)
        halls[window] |= hall
        streets[window] |= street
        ground[window] |= inside
    return halls, streets, ground


def _settlement(
    rng: np.random.Generator, offset: NDArray[np.float64], radius: float, block_px: float
) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Buildings, streets and ground of one village on `offset` `([row, col], row, col)` in px from its centre.

    A turned lattice of blocks: a building in most of them, at a random place and size that leave a gap to the next, and
    a street between every second row of blocks.
    """
    angle = rng.uniform(0, np.pi)
    uv = np.stack([np.cos(angle) * offset[0] + np.sin(angle) * offset[1],
                   np.cos(angle) * offset[1] - np.sin(angle) * offset[0]])  # fmt: skip
    block = np.floor(uv / block_px)
    within = uv - block * block_px
    centre_uv = (block + 0.5) * block_px
    n_blocks = int(np.abs(uv).max() / block_px) + 2
    index = (block + n_blocks).astype(np.intp)
    size = rng.uniform(0.52, 0.68, (2, 2 * n_blocks, 2 * n_blocks)) * block_px
    shift = rng.uniform(0.18, 0.88, (2, 2 * n_blocks, 2 * n_blocks)) * (block_px - size - 2.4) + 2.1
    built = rng.random((2 * n_blocks, 2 * n_blocks)) < 0.82
    inside = np.hypot(*centre_uv) < radius * (0.9 + 0.12 * np.sin(3 * np.arctan2(*centre_uv) + angle))
    start = within - shift[:, index[0], index[1]]
    hall = np.all((start >= 0) & (start < size[:, index[0], index[1]]), axis=0)
    street = (np.mod(uv[0] + 2.1, 2 * block_px) < 4.2) | (np.mod(uv[1] + 2.1, 3 * block_px) < 4.2)
    street &= np.hypot(*uv) < radius
    return hall & inside & built[index[0], index[1]] & ~street, street, inside | street


def _parcels(rng: np.random.Generator, shape: Shape, closed: BoolArray) -> tuple[IdArray, FloatArray]:
    """Field parcels outside `closed`, ids 1 ... n, each one connected piece, and px across their furrows.

    The country is cut into districts (cells of a jittered lattice, Worley 1996), each with its own direction; a
    district into strips, a strip into parcels.
    """
    district = _districts(rng, shape, spacing_px=150)
    n = int(district.max()) + 1
    angle = rng.uniform(0, np.pi, n)[district]
    row, col = np.indices(shape, dtype=np.float32, sparse=True)
    across = np.cos(angle) * row + np.sin(angle) * col + 1e4
    along = np.cos(angle) * col - np.sin(angle) * row + 1e4
    strip = _jittered_floor(rng, across / rng.uniform(17, 30, n)[district], district)
    width = rng.uniform(26, 62, 4096)[(district * 131 + strip) % 4096]
    piece = _jittered_floor(rng, along / width, district * 577 + strip)
    key = (district * 4001 + strip) * 4001 + piece
    key = np.unique(key, return_inverse=True)[1].reshape(shape) + 1
    regions = label(np.where(closed, 0, key), connectivity=1)
    sizes = np.bincount(regions.ravel())
    return _renumber(np.where(sizes[regions] >= MIN_PARCEL_PX, regions, 0)), across.astype(np.float32)


def _districts(rng: np.random.Generator, shape: Shape, *, spacing_px: int) -> NDArray[np.intp]:
    """Cell number of the nearest of one random point in each square of `spacing_px`, for every pixel."""
    row, col = np.indices(shape, sparse=True)
    n_rows, n_cols = (n // spacing_px + 3 for n in shape)
    points = (np.indices((n_rows, n_cols)) - 1 + rng.uniform(0.1, 0.9, (2, n_rows, n_cols))) * spacing_px
    nearest = np.full(shape, np.inf, dtype=np.float32)
    district = np.zeros(shape, dtype=np.intp)
    for d_row, d_col in np.ndindex(3, 3):  # farther squares hold the nearest point too rarely to matter
        i, j = row // spacing_px + d_row, col // spacing_px + d_col
        distance = np.hypot(points[0][i, j] - row, points[1][i, j] - col)
        closer = distance < nearest
        nearest[closer] = distance[closer]
        district[closer] = (i * n_cols + j)[closer]
    return district


def _jittered_floor(rng: np.random.Generator, value: NDArray[np.float64], salt: NDArray[np.intp]) -> NDArray[np.intp]:
    """Number of the interval that `value` lies in, where the ends of the unit intervals are shifted at random."""
    whole = np.floor(value).astype(np.intp)
    jitter = rng.uniform(0, 0.45, 4096)
    return np.asarray(whole - (value - whole < jitter[(whole * 17 + salt * 257) % 4096]))


def _land_use(rng: np.random.Generator, parcels: IdArray) -> tuple[BoolArray, BoolArray]:
    """For every parcel id whether it is farmed at all, and whether with a crop; the other farmed ones are meadows."""
    field = fractal(rng, (parcels.shape[0], parcels.shape[1]), scale_px=160)
    sizes = np.bincount(parcels.ravel())
    suitable = np.bincount(parcels.ravel(), weights=field.ravel()) / np.maximum(sizes, 1)
    exists = np.arange(len(sizes)) > 0
    order = np.argsort(suitable[1:])
    wild = np.cumsum(sizes[1:][order]) < 0.2 * sizes[1:].sum()
    farmed = exists.copy()
    farmed[1:][order[wild]] = False
    return farmed, farmed & (rng.random(len(sizes)) < 0.76)


def _building_shade(buildings: BoolArray) -> BoolArray:
    """Ground that buildings shade, two px to the north-west: the sun stands in the south-east at the overpass."""
    shade = np.zeros_like(buildings)
    for shift in (1, 2):
        shade[:-shift, :-shift] |= buildings[shift:, shift:]
    return shade & ~buildings
