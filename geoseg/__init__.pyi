from .demo import run_demo as run_demo
from .errors import GeosegError as GeosegError
from .legend import Legend as Legend
from .legend import LegendClass as LegendClass
from .pipeline import assess as assess
from .pipeline import export as export
from .pipeline import fit as fit
from .pipeline import info as info
from .pipeline import open_source as open_source
from .pipeline import predict as predict
from .pipeline import vectorize as vectorize
from .raster import Raster as Raster
from .tiling import Tiling as Tiling

__version__: str
