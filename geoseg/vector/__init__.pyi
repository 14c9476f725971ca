from .export import FORMATS as FORMATS
from .export import polygon_style as polygon_style
from .export import write_polygons as write_polygons
from .polygonize import polygonize as polygonize
