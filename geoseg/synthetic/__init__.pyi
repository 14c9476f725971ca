from .scene import LEGEND as LEGEND
from .scene import Landscape as Landscape
from .scene import landscape as landscape
