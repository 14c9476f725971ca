"""The run: configuration in, one model file out. Loaded when first used, for it needs torch and Lightning."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
