"""Sets of scenes that come in other shapes: each door turns one mapping of a config into one a scene."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
