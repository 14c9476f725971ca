from .table import DOORS as DOORS
from .table import expand_scenes as expand_scenes
from .table import expand_unlabelled as expand_unlabelled
from .torchgeo import torchgeo_labels as torchgeo_labels
from .torchgeo import torchgeo_source as torchgeo_source
