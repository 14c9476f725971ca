from .cog import write_cog as write_cog
from .labels import LabelSource as LabelSource
from .labels import open_labels as open_labels
from .labels import read_legend as read_legend
from .regions import region_mask as region_mask
from .sources import Source as Source
from .sources import SourceSpec as SourceSpec
from .sources import open_source as open_source
