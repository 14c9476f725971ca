"""The dense prediction transformer, over any trunk of one stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead
from torch import Tensor, nn

from geoseg.models.networks.pyramid import Trunk


class DPT(nn.Module):
    """smp's DPT decoder over a trunk of any kind, where smp has it over timm's alone.

    Source: Ranftl, Bochkovskiy and Koltun 2021, Vision Transformers for Dense Prediction.

    Args:
        trunk: The backbone; all its maps have one stride.
        classes: Output channels.
        decoder_readout: What becomes of the class token: cat, add or ignore; without one it is ignore.
        decoder_intermediate_channels: Of each of the four levels.
        decoder_fusion_channels: Of their sum.

    Raises:
        ValueError: The trunk has a pyramid of its own.
    """

    def __init__(
        self,
        trunk: Trunk,
        *,
        classes: int,
        decoder_readout: Literal["cat", "add", "ignore"] = "cat",
        decoder_intermediate_channels: Sequence[int] = (256, 512, 1024, 1024),
        decoder_fusion_channels: int = 256,
    ) -> None:
        super().__init__()
        if not trunk.flat:
            raise ValueError(
                "its features have strides of their own; dpt needs a vision transformer (vit_..., dofa_...)"
            )
        self.encoder = TokenEncoder(trunk)
        self.decoder = DPTDecoder(
            encoder_out_channels=trunk.channels,
            encoder_output_strides=trunk.strides,
            encoder_has_prefix_tokens=trunk.prefixed,
            readout=decoder_readout if trunk.prefixed else "ignore",
            intermediate_channels=tuple(decoder_intermediate_channels),
            fusion_channels=decoder_fusion_channels,
        )
        self.segmentation_head = DPTSegmentationHead(decoder_fusion_channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits `(n, class, row, col)`; rows and columns are multiples of 32."""
        maps, prefixes = self.encoder(image)
        logits: Tensor = self.segmentation_head(self.decoder(maps, prefixes))
        return logits


class TokenEncoder(nn.Module):
    """A trunk under the name that encoders have their weights under."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.multiple, self.largest = trunk.sides.multiple, trunk.sides.largest

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """The trunk's maps and class tokens."""
        return self.trunk.maps(image)
