"""The README's two pictures of polygons: a map of the synthetic landscape, exact and as a mapper would publish it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from geoseg import synthetic
from geoseg.vector import PolygonOptions, polygonize

FOLDER, PART, PIXELS = Path(__file__).parent, (30, 130, 20, 120), 300
CLEAN = PolygonOptions(min_area_m2=1500, smooth=True, tolerance_m=5, right_angles=("building",))


def main() -> None:
    """Write both pictures."""
    place = synthetic.landscape(4, shape=(PIXELS, PIXELS))
    rng, ids = np.random.default_rng(0), place.labels.pixels.copy()
    wrong = rng.random(ids.shape) < 0.02  # what a network leaves behind
    ids[wrong] = rng.choice(place.legend.ids, int(wrong.sum()))
    raster, transform = replace(place.labels, pixels=ids), place.labels.geobox.affine
    top, bottom, left, right = PART
    (x0, y0), (x1, y1) = transform @ (left, bottom), transform @ (right, top)
    colors = {item.id: item.color for item in place.legend.classes}
    for name, options in (("exact", PolygonOptions()), ("smooth", CLEAN)):
        frame = polygonize(raster, legend=place.legend, options=options)
        figure, axes = plt.subplots(figsize=(5, 5))
        frame.plot(ax=axes, color=frame["class_id"].map(colors), edgecolor="#222222", linewidth=0.5)
        axes.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
        axes.set_axis_off()
        figure.subplots_adjust(0, 0, 1, 1)
        figure.savefig(FOLDER / f"polygons_{name}.png", dpi=100)
        plt.close(figure)


if __name__ == "__main__":
    main()
