"""From a class map to polygons: a coverage without gaps, and the formats it is written in."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
