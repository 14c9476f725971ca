"""geoseg: satellite and aerial imagery in, land-cover maps that a GIS opens at once out.

The names of `__init__.pyi` are loaded when they are first used; `import geoseg` itself loads neither torch nor any
other heavy library.
"""

import lazy_loader as lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
