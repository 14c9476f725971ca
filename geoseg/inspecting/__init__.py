"""What `geoseg info` says of a scene, a class map, a folder of scenes or the data of a training config."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
