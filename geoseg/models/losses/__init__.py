"""Losses that honour what is unlabelled, and shares of classes: unlabelled pixels add nothing, whatever the loss."""

from geoseg.models.losses.inputs import IGNORE_INDEX, LossInputs
from geoseg.models.losses.pixelwise import patch_losses, surprise
from geoseg.models.losses.registration import check_shift, registered
from geoseg.models.losses.total import LOSSES, SegmentationLoss, check_loss, loss_parts
from geoseg.models.losses.weights import WEIGHTINGS, class_weights

__all__ = [
    "IGNORE_INDEX",
    "LOSSES",
    "WEIGHTINGS",
    "LossInputs",
    "SegmentationLoss",
    "check_loss",
    "check_shift",
    "class_weights",
    "loss_parts",
    "patch_losses",
    "registered",
    "surprise",
]
