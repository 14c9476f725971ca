"""Source and model to finished maps, in bounded memory; names load when they are first used."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
