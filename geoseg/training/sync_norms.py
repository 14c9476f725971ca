"""Batch norms over all processes of a run."""

from __future__ import annotations

from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn


class SyncNorms(TorchSyncBatchNorm):
    """Batch norms that take their statistics over all processes.

    Those of timm are an activation too, which torch's own conversion leaves out without a word.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """The model with batch norms that are synchronised; the function is the same on one device."""
        from timm.layers.norm_act import convert_sync_batchnorm

        converted: nn.Module = convert_sync_batchnorm(model)
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """The model as it is: in evaluation mode its norms are the plain ones, on a CPU too."""
        return model
