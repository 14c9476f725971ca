"""What the satellite sees of the synthetic landscape: reflectance in six bands, clouds and their shadows.

Classes overlap in colour on purpose, as they do in nature: a ploughed field is bare soil, a tiled roof looks like loam,
a young crop like a meadow, maize like a wood. What tells them apart is what surrounds a pixel: furrows and straight
edges, crowns, blocks that cast a shadow, long thin shapes.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geoseg.synthetic.layout import (
    BARE_SOIL,
    BUILDING,
    CROPLAND,
    FOREST,
    GRASSLAND,
    ROAD,
    WATER,
    BoolArray,
    FloatArray,
    IdArray,
    Layout,
    Shape,
    fractal,
)

BandArray: TypeAlias = NDArray[np.float32]  # (band, row, col), reflectance x 10,000

# Sentinel-2's B2, B3, B4, B8, B11, B12.
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")

# Surface reflectance x 10,000 in the order of BANDS: rounded values that are usual in Sentinel-2 level-2A scenes of
# central Europe. Classes are mixtures of neighbours in these tables.
CLEAR_WATER, TURBID_WATER = (330, 370, 240, 140, 80, 60), (640, 860, 760, 420, 210, 150)
BROADLEAF, CONIFER = (260, 520, 320, 3500, 1750, 820), (210, 360, 240, 2500, 1200, 580)
LUSH_GRASS, DRY_GRASS = (400, 780, 560, 3400, 2200, 1250), (720, 1020, 1180, 2750, 2950, 2050)
LOAM, SAND = (880, 1180, 1560, 2150, 2900, 2500), (1350, 1720, 2150, 2750, 3450, 3050)
CROPS = (
    (300, 560, 350, 3500, 1750, 840),  # maize, like a wood
    (380, 760, 480, 3700, 2000, 1050),  # winter wheat, green
    (520, 1150, 900, 3700, 2150, 1200),  # oilseed rape
    (620, 930, 980, 2950, 2650, 1750),  # young crop over soil
    (850, 1200, 1500, 2700, 3100, 2350),  # ripe grain, stubble
    (880, 1180, 1560, 2150, 2900, 2500),  # ploughed loam
    (1120, 1440, 1850, 2450, 3150, 2750),  # seedbed, dry and pale
)
ROOFS = (
    (900, 1150, 1700, 2200, 2800, 2450),  # tiles, like loam
    (1300, 1620, 2050, 2550, 3100, 2800),  # sun-bleached tiles, like sand
    (1080, 1200, 1330, 1600, 1800, 1700),  # bitumen, like asphalt
    (1700, 1850, 2000, 2250, 2450, 2350),  # fibre cement, like concrete
    (2500, 2700, 2850, 3000, 2900, 2700),  # white sheet
)
ASPHALT, CONCRETE, GRAVEL = (
    (1050, 1180, 1320, 1600, 1850, 1750),
    (1650, 1820, 2000, 2300, 2550, 2400),
    (1250, 1550, 1950, 2450, 3050, 2750),
)
CLOUD = (7200, 7100, 7100, 7300, 5200, 3800)
SKYLIGHT = (0.62, 0.55, 0.50, 0.45, 0.42, 0.40)  # of full light in a cloud's shadow: the blue sky still shines

PSF_SIGMA_PX = 0.45
NOISE_DN = (38.0, 38.0, 42.0, 75.0, 65.0, 55.0)
SCATTER_DN = (150.0, 90.0, 55.0, 20.0, 8.0, 4.0)  # of full haze
CLOUD_SHARE = 0.022
OPAQUE = 0.3  # opacity from which nothing of the ground is taken to be seen


def expose(rng: np.random.Generator, layout: Layout) -> tuple[NDArray[np.uint16], BoolArray]:
    """Image `(band, row, col)` in reflectance x 10,000, and its valid mask; 0 under clouds and outside the swath."""
    surface_rng, light_rng, cloud_rng, sensor_rng = rng.spawn(4)
    scene = _surface(surface_rng, layout)
    scene *= _illumination(light_rng, layout)
    opacity, shadow = _clouds(cloud_rng, layout.labels.shape)
    _shade(scene, shadow)
    _blend(scene, CLOUD, opacity)
    _sense(sensor_rng, scene)
    valid = (opacity < OPAQUE) & _swath(cloud_rng, layout.labels.shape)
    return np.where(valid, np.clip(np.rint(scene), 1, 12_000), 0).astype(np.uint16), valid


def _surface(rng: np.random.Generator, layout: Layout) -> BandArray:
    """Reflectance of the ground in even light, before any blur."""
    water, forest, grass, crop, soil, roof, road = rng.spawn(7)
    at = {class_id: layout.labels == class_id for class_id in range(WATER, ROAD + 1)}
    painted = {
        WATER: _water(water, at[WATER]),
        FOREST: _forest(forest, at[FOREST]),
        GRASSLAND: _grassland(grass, at[GRASSLAND], layout.parcels),
        CROPLAND: _cropland(crop, at[CROPLAND], layout.parcels, layout.furrow),
        BARE_SOIL: _bare_soil(soil, at[BARE_SOIL]),
        BUILDING: _buildings(roof, at[BUILDING], layout.buildings),
        ROAD: _roads(road, at[ROAD]),
    }
    scene = np.empty((len(BANDS), *layout.labels.shape), dtype=np.float32)
    for class_id, spectra in painted.items():
        scene[:, at[class_id]] = spectra
    # Soil, growth and moisture drift through every class alike; the bands drift together, but not in step.
    common = 0.08 * fractal(rng, layout.labels.shape, scale_px=25, slope=1.6)
    green = 0.07 * fractal(rng, layout.labels.shape, scale_px=14, slope=1.4)
    tilt = np.array([-1.0, -0.4, -1.1, 1.0, -0.2, -0.7], dtype=np.float32)[:, None, None]
    scene *= np.exp(common + tilt * green)
    return scene


def _mix(first: tuple[int, ...], second: tuple[int, ...], share: FloatArray) -> BandArray:
    """Spectra `(band, n)` between two materials, `share` of the second."""
    one, two = (np.array(material, dtype=np.float32)[:, None] for material in (first, second))
    return np.asarray(one + (two - one) * np.clip(share, 0, 1), dtype=np.float32)


def _gain(rng: np.random.Generator, n: int, deviation: float) -> FloatArray:
    """Factors around 1 for the pixels or things of one kind."""
    return np.asarray(np.exp(deviation * rng.standard_normal(n, dtype=np.float32)))


def _water(rng: np.random.Generator, where: BoolArray) -> BandArray:
    """Clear to turbid by streaks; smooth."""
    share = 0.5 + 0.35 * fractal(rng, where.shape, scale_px=60)[where]
    return _mix(CLEAR_WATER, TURBID_WATER, share) * _gain(rng, share.size, 0.05)


def _forest(rng: np.random.Generator, where: BoolArray) -> BandArray:
    """Stands of broadleaf and conifer, roughened by crowns that are lit on one side and shaded on the other."""
    stands = fractal(rng, where.shape, scale_px=30, slope=2.5)[where]
    crowns = fractal(rng, where.shape, scale_px=2.5, slope=1.5)
    relief = crowns - np.roll(crowns, (1, 1), axis=(0, 1))
    bright = np.exp(0.16 * relief / relief.std() + 0.05 * crowns)[where]
    glades = np.clip(fractal(rng, where.shape, scale_px=7)[where] - 1.6, 0, 0.6)
    return _blended(_mix(BROADLEAF, CONIFER, 0.5 + 0.9 * stands) * bright, LUSH_GRASS, glades)


def _blended(spectra: BandArray, material: tuple[int, ...], share: FloatArray) -> BandArray:
    """`spectra` with `share` of their area covered by a material."""
    return np.asarray(spectra + (np.array(material, dtype=np.float32)[:, None] - spectra) * share, dtype=np.float32)


def _grassland(rng: np.random.Generator, where: BoolArray, parcels: IdArray) -> BandArray:
    """Lush to dry by moisture, mottled by tussocks and shrubs; mown meadows differ as parcels do."""
    parcel_tone = 0.18 * rng.standard_normal(int(parcels.max()) + 1, dtype=np.float32)
    dry = 0.45 + 0.3 * fractal(rng, where.shape, scale_px=45)[where] + parcel_tone[parcels[where]]
    mottle = fractal(rng, where.shape, scale_px=4, slope=1.6)[where]
    shrubs = np.clip(0.7 * (fractal(rng, where.shape, scale_px=3)[where] - 1.7), 0, 0.7)
    worn = 0.4 * np.clip(fractal(rng, where.shape, scale_px=9)[where] - 1.8, 0, 1)
    spectra = _mix(LUSH_GRASS, DRY_GRASS, dry + 0.16 * mottle)
    return _blended(_blended(spectra, BROADLEAF, shrubs), LOAM, worn)


def _cropland(rng: np.random.Generator, where: BoolArray, parcels: IdArray, furrow: FloatArray) -> BandArray:
    """One crop at one stage a parcel, in furrows, thin in patches."""
    parcel = parcels[where]
    n = int(parcels.max()) + 1
    crop = np.array(CROPS, dtype=np.float32)[rng.integers(0, len(CROPS), n)]
    crop = crop * _gain(rng, n, 0.10)[:, None] * np.exp(0.05 * rng.standard_normal((n, len(BANDS)), dtype=np.float32))
    furrows = _furrows(rng, parcel, furrow[where])
    thin = np.clip(0.15 * fractal(rng, where.shape, scale_px=18)[where], 0, 0.4)
    spectra = _blended(crop[parcel].T.astype(np.float32), LOAM, thin)
    return np.asarray(spectra * (1 + furrows) * _gain(rng, parcel.size, 0.025), dtype=np.float32)


def _furrows(rng: np.random.Generator, parcel: IdArray, furrow: FloatArray) -> FloatArray:
    """Relative brightness of drill rows and tramlines: waves of 4 to 6 px, of another strength in each parcel."""
    n = int(parcel.max()) + 1
    wavelength_px = rng.uniform(4.0, 6.0, n).astype(np.float32)[parcel]
    strength = rng.uniform(0.16, 0.24, n).astype(np.float32)[parcel]
    return np.asarray(strength * np.sin(2 * np.pi * furrow / wavelength_px), dtype=np.float32)


def _bare_soil(rng: np.random.Generator, where: BoolArray) -> BandArray:
    """Loam to sand and rock in lumps, rough, with tufts of grass."""
    share = 0.65 + 0.35 * fractal(rng, where.shape, scale_px=12, slope=1.6)[where]
    tufts = 0.3 * np.clip(fractal(rng, where.shape, scale_px=3, slope=1.3)[where] - 0.8, 0, 1.5)
    return _blended(_mix(LOAM, SAND, share), DRY_GRASS, tufts) * _gain(rng, share.size, 0.14)


def _buildings(rng: np.random.Generator, where: BoolArray, buildings: IdArray) -> BandArray:
    """One roof a building, even over its whole area."""
    n = int(buildings.max()) + 1
    roofs = np.array(ROOFS, dtype=np.float32)[rng.choice(len(ROOFS), n, p=(0.32, 0.22, 0.2, 0.14, 0.12))]
    roofs = roofs * _gain(rng, n, 0.10)[:, None]
    return np.asarray(roofs[buildings[where]].T * _gain(rng, int(where.sum()), 0.04), dtype=np.float32)


def _roads(rng: np.random.Generator, where: BoolArray) -> BandArray:
    """Asphalt, concrete or gravel by stretches, with the noise of traffic and verges."""
    kind = fractal(rng, where.shape, scale_px=70)[where]
    spectra = _blended(_mix(ASPHALT, CONCRETE, 2.5 * kind), GRAVEL, np.clip(-2.5 * (kind + 0.8), 0, 1))
    return _blended(spectra, DRY_GRASS, 0.12 * rng.random(kind.size, dtype=np.float32)) * _gain(rng, kind.size, 0.06)


def _illumination(rng: np.random.Generator, layout: Layout) -> FloatArray:
    """Brightness `(row, col)`: slopes that face the sun in the south-east or not, buildings' shade, swath fall-off."""
    d_row, d_col = np.gradient(layout.elevation)
    lit = 1 - np.clip(2.2 * (d_row + d_col), -0.25, 0.25)
    across = np.linspace(-1, 1, layout.labels.shape[1]) * rng.choice([-1, 1])
    return np.asarray(lit * (1 + 0.04 * across) * np.where(layout.shade, 0.5, 1.0), dtype=np.float32)


def _clouds(rng: np.random.Generator, shape: Shape) -> tuple[FloatArray, FloatArray]:
    """Opacity of the clouds and depth of their shadows, both 0 to 1; the shadows lie north-west of the clouds."""
    field = fractal(rng, shape, scale_px=60, slope=3.2) + 0.06 * fractal(rng, shape, scale_px=8)
    opacity = np.clip((field - np.quantile(field, 1 - CLOUD_SHARE)) / 0.3 + 0.4, 0, 1)
    shift = (-int(rng.integers(16, 24)), -int(rng.integers(14, 22)))
    shadow = np.zeros(shape, dtype=np.float32)
    shadow[: shift[0], : shift[1]] = opacity[-shift[0] :, -shift[1] :]
    return opacity.astype(np.float32), np.clip(1.6 * shadow, 0, 1)


def _shade(scene: BandArray, depth: FloatArray) -> None:
    """Darken `scene` in place under a shadow of that depth."""
    lost = 1 - np.array(SKYLIGHT, dtype=np.float32)
    scene *= 1 - depth * lost[:, None, None]


def _blend(scene: BandArray, material: tuple[int, ...], share: FloatArray) -> None:
    """Cover `share` of every pixel of `scene`, in place, by a material."""
    scene += (np.array(material, dtype=np.float32)[:, None, None] - scene) * share


def _sense(rng: np.random.Generator, scene: BandArray) -> None:
    """Blur `scene` in place by the point spread, which mixes pixels at every border, and add haze and sensor noise."""
    haze = np.clip(0.5 + 0.4 * fractal(rng, (scene.shape[1], scene.shape[2]), scale_px=300), 0, 1)
    for number, (noise_dn, scatter_dn) in enumerate(zip(NOISE_DN, SCATTER_DN, strict=True)):
        noise = noise_dn * rng.standard_normal(haze.shape, dtype=np.float32)
        scene[number] = ndimage.gaussian_filter(scene[number], PSF_SIGMA_PX) + scatter_dn * haze + noise


def _swath(rng: np.random.Generator, shape: Shape) -> BoolArray:
    """The part of the scene inside the swath, whose slanted edge cuts off the north-west corner."""
    row, col = np.indices(shape, dtype=np.float32, sparse=True)
    reach_px = rng.uniform(0.14, 0.24) * shape[1]
    return np.asarray(col > reach_px - row * reach_px / (0.75 * shape[0]))
