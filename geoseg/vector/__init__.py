"""From a class map to polygons without gap or overlap; read it from the top of this list down.

- `polygonize`, `options`, `kinds`: the whole way, what may be asked of it, and what a map's integers are.
- `reading`, `tracing`, `regions`: one block: its pixels, its regions, the boundaries between them.
- `coverage`, `stitching`, `dissolve`, `unionfind`: arcs; blocks put together; pieces joined to longer arcs.
- `merging`, `neighbours`, `grouping`: small regions go; who touches whom; regions that make up one feature.
- `lines/`: arcs simplified, smoothed, made rectangular.
- `metric`, `attributes`: the ground under the grid; areas and perimeters.
- `rings`, `features`, `layer`: arcs to rings, rings and attributes to batches.
- `formats/`: batches to files.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
