"""Splits by place: what trains, what validates, what tests, and how far they are kept apart.

- `options`, `split`: what may be asked, and the whole way from scenes to their parts.
- `units`, `blocks`, `patchwork`, `drawing`, `choice`: what is drawn, and the draw.
- `plan`, `files`: a split as a value, and as polygons in a file.
- `planes`, `buffer`, `reach`, `foreign`: units to pixels, and the buffer that is cut from them.
- `leaks`, `checks`, `variogram`: what would spoil a score, and how far labels are alike.
- `picture`: a split drawn.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
