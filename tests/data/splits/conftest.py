"""Labels in fields, layers that are as strict as stored ones, and distances by brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy.spatial import cKDTree


class StrictLayer:
    """An array read and written by one slice of step 1 an axis, as blocks in a file are; it hands out copies."""

    def __init__(self, values):
        self._values = values.copy()
        self.largest = 0

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)

    def _check(self, key):
        assert isinstance(key, tuple)
        assert len(key) == self._values.ndim
        assert all(isinstance(axis, slice) and axis.step in (None, 1) for axis in key)
        assert all((axis.start or 0) >= 0 and (axis.stop is None or axis.stop >= 0) for axis in key)

    def __getitem__(self, key):
        self._check(key)
        found = self._values[key].copy()
        self.largest = max(self.largest, found.size)
        return found

    def __setitem__(self, key, values):
        self._check(key)
        self._values[key] = values


@pytest.fixture(scope="session")
def strict():
    """A function that gives a scene whose layers are strict."""

    def make(scene):
        layers = {name: StrictLayer(getattr(scene, name)) for name in ("pixels", "valid", "labels", "part")}
        return replace(scene, **layers)

    return make


@pytest.fixture(scope="session")
def patchy():
    """A function that makes labels in square fields."""

    def make(seed, shape=(96, 80), classes=3, side=8):
        rng = np.random.default_rng(seed)
        fields = rng.integers(0, classes, (-(-shape[0] // side), -(-shape[1] // side)))
        return np.kron(fields, np.ones((side, side)))[: shape[0], : shape[1]].astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def sparse():
    """Three polygons of class 0, three of class 1 and a single one of class 2, in a wide unlabelled scene."""
    labels = np.full((200, 200), 255, np.uint8)
    for k, (row, col) in enumerate([(10, 10), (10, 100), (100, 10), (60, 60), (150, 20), (180, 150)]):
        labels[row : row + 6, col : col + 6] = k % 2
    labels[120:126, 120:126] = 2
    return labels


def lonlat_of(scene, mask):
    row, col = np.nonzero(mask)
    a = scene.geobox.affine
    x, y = a.a * (col + 0.5) + a.b * (row + 0.5) + a.c, a.d * (col + 0.5) + a.e * (row + 0.5) + a.f
    return Transformer.from_crs(scene.geobox.crs.proj, "EPSG:4326", always_xy=True).transform(x, y)


@pytest.fixture(scope="session")
def nearest_m():
    """A function that gives the distance from each pixel of a part of a scene to the nearest one of parts of scenes.

    Through earth-centred coordinates of pyproj, so that no grid has a say.
    """
    geocentric = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)

    def places(scene, parts):
        lon, lat = lonlat_of(scene, np.isin(scene.part[:, :], parts))
        return np.stack(geocentric.transform(lon, lat, np.zeros_like(lon)), 1).reshape(-1, 3)

    def measure(scene, parts, others, their_parts):
        found = np.concatenate([places(other, their_parts) for other in others])
        return cKDTree(found).query(places(scene, parts))[0] if len(found) else np.array([np.inf])

    return measure


@pytest.fixture(scope="session")
def two_zones():
    """The same place near 12 E in UTM 32 and 33, 120 x 120 pixels each."""
    east = Transformer.from_crs(32632, 32633, always_xy=True).transform(717_000, 5_300_000)
    one = GeoBox((120, 120), Affine(10, 0, 717_000 - 600, 0, -10, 5_300_600), "EPSG:32632")
    other = GeoBox((120, 120), Affine(10, 0, east[0] - 600, 0, -10, east[1] + 600), "EPSG:32633")
    return one, other
