"""The segmentation networks by name, for images of any size; importing this loads smp and timm."""

from __future__ import annotations

import segmentation_models_pytorch as smp
from torch import nn

from geoseg.models.networks import dpt, fcn
from geoseg.models.networks.any_size import AnySize


def _of_any_size(architecture: type[nn.Module], *, least: int = 1) -> type[nn.Module]:
    """The class of a network that takes any rows and columns, under the name of the one that does not."""
    own = {"__module__": __name__, "__doc__": architecture.__doc__, "least": least}
    return type(architecture.__name__, (AnySize, architecture), own)


FCN = _of_any_size(fcn.FCN)  # Long, Shelhamer and Darrell 2015
Unet = _of_any_size(smp.Unet)  # Ronneberger, Fischer and Brox 2015
UnetPlusPlus = _of_any_size(smp.UnetPlusPlus)  # Zhou et al. 2018
MAnet = _of_any_size(smp.MAnet)  # Fan et al. 2020
Linknet = _of_any_size(smp.Linknet)  # Chaurasia and Culurciello 2017
FPN = _of_any_size(smp.FPN)  # Kirillov et al. 2019, Panoptic Feature Pyramid Networks
PSPNet = _of_any_size(smp.PSPNet)  # Zhao et al. 2017
PAN = _of_any_size(smp.PAN, least=128)  # Li et al. 2018; it pools 1/16 of the image three times
DeepLabV3 = _of_any_size(smp.DeepLabV3)  # Chen et al. 2017
DeepLabV3Plus = _of_any_size(smp.DeepLabV3Plus)  # Chen et al. 2018
UPerNet = _of_any_size(smp.UPerNet)  # Xiao et al. 2018
Segformer = _of_any_size(smp.Segformer)  # Xie et al. 2021
DPT = _of_any_size(dpt.DPT)  # Ranftl, Bochkovskiy and Koltun 2021

NETWORKS: dict[str, type[nn.Module]] = {
    "unet": Unet,
    "unetplusplus": UnetPlusPlus,
    "manet": MAnet,
    "linknet": Linknet,
    "fpn": FPN,
    "pspnet": PSPNet,
    "pan": PAN,
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "upernet": UPerNet,
    "segformer": Segformer,
    "dpt": DPT,
    "fcn": FCN,
}
"""Those that have an encoder, by the names in a config."""
