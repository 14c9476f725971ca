"""Batches to other batches that might as well have been photographed, on their device: `augment_batch`."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
