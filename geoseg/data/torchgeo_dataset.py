"""geoseg's sources as torchgeo's datasets."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from geoseg.data.arrays import as_kept
from geoseg.errors import GridError, InputError
from geoseg.extras import extra_module
from geoseg.io.labels import LabelSource, LabelSpec, open_labels
from geoseg.io.protocol import Source
from geoseg.io.sources import SourceSpec, open_source
from geoseg.legend import Legend


def as_torchgeo(
    source: SourceSpec | Source,
    *,
    labels: LabelSpec | None = None,
    legend: Legend | None = None,
    fill: float = 0,
    mask_fill: int | None = None,
    dates: tuple[Any, Any] | None = None,
) -> Any:
    """A source as a torchgeo dataset (GeoDataset), for torchgeo's samplers, data loaders, `&` and `|`.

    A sample holds `image`, float32 `(band, row, col)`, or, of a label source, `mask`, int64 `(row, col)` of class ids;
    both where `labels` are given; and `crs` and `bounds` as torchgeo's own samples do. It is read onto the grid asked
    for, whatever CRS and resolution torchgeo sets. The dataset can be pickled, and has the attributes `source`,
    `labels`, `legend` and `all_bands`.

    Args:
        source: An image, or a label source, or what `geoseg.io.open_source` takes.
        labels: The image's labels, or what `geoseg.io.open_labels` takes.
        legend: The classes wanted of labels that are yet to be opened.
        fill: Value of image pixels that are invalid or outside.
        mask_fill: Value of mask pixels without a class; the legend's ignore value unless given. A union (`|`) takes the
            larger of two masks, so 0 goes with that.
        dates: First and last moment of the pixels, as pandas takes them; any time unless given, so that `&` joins
            the dataset to those of any date.

    Raises:
        GridError: The source has no CRS, or its grid is turned.
        InputError: torchgeo is not installed, or there are labels of labels.
        GeosegError: The source or the labels cannot be opened.
    """
    image = source if isinstance(source, LabelSource) else open_source(source)
    mask = None if labels is None else open_labels(labels, legend=legend)[0]
    if isinstance(image, LabelSource) and mask is not None:
        raise InputError("the source holds labels itself; needed is an image where labels= are given")
    grid = _upright(image.geobox)
    options = {"res": (float(grid.affine.a), float(-grid.affine.e)), "fill": fill, "mask_fill": mask_fill}
    found = (None, image) if isinstance(image, LabelSource) else (image, mask)
    return _dataset_class()(*found, index=_index(grid, dates), **options)


@cache
def _dataset_class() -> Any:
    """The class, made when torchgeo is first needed."""
    extra_module("torchgeo", extra="torchgeo", needed_by="a torchgeo dataset")
    from torchgeo.datasets import GeoDataset

    class SourceDataset(GeoDataset):
        """One or two sources as a dataset of one file."""

        paths = ""

        def __init__(self, image: Source | None, labels: LabelSource | None, *, index: Any, **options: Any) -> None:
            self.source, self.labels, self.index = image, labels, index
            self.legend = None if labels is None else labels.legend
            self.all_bands = self.bands = () if image is None else image.bands
            self.is_image = image is not None
            self._res, self.fill, self.mask_fill = options["res"], options["fill"], options["mask_fill"]
            if self.mask_fill is None and self.legend is not None:
                self.mask_fill = self.legend.ignore

        def __reduce__(self) -> tuple[Any, ...]:
            return _blank, (), vars(self)

        def __getitem__(self, query: Any) -> dict[str, Any]:
            """The sample on the grid of `[left:right:step, bottom:top:step, first:last]`.

            Raises:
                IndexError: It lies outside.
            """
            import pandas as pd

            x, y, t = self._disambiguate_slice(query)
            index = self.index.iloc[self.index.index.overlaps(pd.Interval(t.start, t.stop))]
            if index.cx[x.start : x.stop, y.start : y.stop].empty:
                raise IndexError(f"query: {query} not found in index with bounds: {self.bounds}")
            shape = max(1, round((y.stop - y.start) / y.step)), max(1, round((x.stop - x.start) / x.step))
            grid = GeoBox(shape, Affine(x.step, 0, x.start, 0, -y.step, y.stop), CRS(self.crs.to_wkt()))
            return {"crs": self.crs, "bounds": query, **_sample(self, grid)}

    return SourceDataset


def _sample(dataset: Any, grid: GeoBox) -> dict[str, Any]:
    """Tensors of what a dataset holds on a grid."""
    import torch

    found: dict[str, Any] = {}
    if dataset.source is not None:
        raster = dataset.source.read(grid)
        pixels = as_kept(raster.pixels, np.dtype(np.float32))
        usable = raster.valid & np.isfinite(pixels).all(0)  # float64 may hold what float32 does not
        found["image"] = torch.from_numpy(np.where(usable, pixels, np.float32(dataset.fill)))
    if dataset.labels is not None:
        raster = dataset.labels.read(grid)
        codes = np.where(raster.valid, raster.pixels[0].astype(np.int64), dataset.mask_fill)
        found["mask"] = torch.from_numpy(codes)
    return found


def _blank() -> Any:
    """A dataset that its pickle fills."""
    return _dataset_class().__new__(_dataset_class())


def _upright(grid: GeoBox) -> GeoBox:
    """The grid.

    Raises:
        GridError: It has no CRS, or its rows do not run from west to east and from north to south.
    """
    affine = grid.affine
    if grid.crs is None:
        raise GridError("the source has no CRS, so torchgeo cannot place it; give it with crs: EPSG:...")
    if affine.b or affine.d or affine.a <= 0 or affine.e >= 0:
        raise GridError("the source's grid is turned or upside down, which torchgeo has no words for; warp it first")
    return grid


def _index(grid: GeoBox, dates: tuple[Any, Any] | None) -> Any:
    """The index that torchgeo keeps of files: here of one, its footprint and its time."""
    import geopandas as gpd
    import pandas as pd

    first, last = (pd.Timestamp.min, pd.Timestamp.max) if dates is None else map(pd.Timestamp, dates)
    when = pd.IntervalIndex.from_tuples([(first, last)], closed="both", name="datetime")
    crs = None if grid.crs is None else grid.crs.proj
    return gpd.GeoDataFrame({"filepath": [""]}, index=when, geometry=[grid.extent.geom], crs=crs)
