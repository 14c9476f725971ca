"""One seeded landscape: imagery, labels, instances and true areas. The demo, the tests and the notebook live on it."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
