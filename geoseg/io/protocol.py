"""What every source of pixels can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from odc.geo.geobox import GeoBox

    from geoseg.raster import Raster


@runtime_checkable
class Source(Protocol):
    """Pixels that can be read onto any grid.

    A source is a value: what to read and how, no open file. It can be pickled, compared and shared by threads and
    processes.
    """

    @property
    def geobox(self) -> GeoBox:
        """The source's own grid; its CRS is None where the file has none."""

    @property
    def bands(self) -> tuple[str, ...]:
        """One name a band."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the pixels that `read` returns."""

    def read(self, geobox: GeoBox) -> Raster:
        """The pixels on `geobox`; what lies outside the source is invalid there.

        Onto the source's own grid (whole-pixel offset, any extent) the values are those of the file, bit for bit. A
        window of a read is the read of that window.

        Raises:
            ReadError: The file cannot be read there.
            GridError: The source or `geobox` has no CRS and the two are not one grid.
        """
