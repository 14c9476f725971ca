"""geoseg: satellite and aerial imagery in, land-cover maps that a GIS opens at once out."""

__version__ = "0.1.0"
