"""The fully convolutional network."""

from __future__ import annotations

from typing import Any

from segmentation_models_pytorch.base import SegmentationModel
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn
from torch.nn.functional import interpolate

FINEST = 3  # the level at 1/8 of the image, where the scores are added up


class FCN(SegmentationModel):  # type: ignore[misc]  # smp has no types
    """Class scores of the encoder's last features, refined by those of its finer ones down to 1/8: FCN-8s.

    Source: Long, Shelhamer and Darrell 2015, Fully Convolutional Networks for Semantic Segmentation, section 4.2. As in
    torchvision's network of that name, the scores of the last features come from a 3 x 3 convolution of a quarter of
    their channels.

    Args:
        encoder_name: As smp knows it.
        encoder_depth: Stages of the encoder; the last one's features are at `1 / 2**encoder_depth`, at least 1/8.
        encoder_weights: As smp knows them.
        decoder_channels: Of the 3 x 3 convolution; a quarter of the last features' by default.
        dropout: Share of channels dropped before the scores of the last features.
        in_channels: Bands.
        classes: Output channels.
        kwargs: For the encoder.

    Raises:
        ValueError: The encoder has fewer stages.
    """

    def __init__(
        self,
        *,
        encoder_name: str = "resnet34",
        encoder_depth: int = 5,
        encoder_weights: str | None = None,
        decoder_channels: int | None = None,
        dropout: float = 0.1,
        in_channels: int = 3,
        classes: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if encoder_depth < FINEST:
            raise ValueError(f"encoder_depth is {encoder_depth}; needed is {FINEST} to 5")
        self.encoder = get_encoder(
            encoder_name, in_channels=in_channels, depth=encoder_depth, weights=encoder_weights, **kwargs
        )
        channels = self.encoder.out_channels[FINEST:]
        self.decoder = ScoreDecoder(channels, hidden=decoder_channels, dropout=dropout, classes=classes)
        self.segmentation_head = nn.UpsamplingBilinear2d(scale_factor=2**FINEST)
        self.classification_head = None


class ScoreDecoder(nn.Module):
    """Class scores at the finest of some levels of features, each twice as fine as the next."""

    def __init__(self, channels: list[int], *, hidden: int | None, dropout: float, classes: int) -> None:
        super().__init__()
        last = channels[-1]
        width = hidden or max(last // 4, 8)
        self.last = nn.Sequential(
            nn.Conv2d(last, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1),
        )  # fmt: skip
        self.skips = nn.ModuleList(nn.Conv2d(count, classes, 1) for count in reversed(channels[:-1]))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Scores `(n, class, row / 8, col / 8)` of features at 1, 1/2, 1/4, ... of the image."""
        scores: Tensor = self.last(features[-1])
        for skip, finer in zip(self.skips, reversed(features[FINEST:-1]), strict=True):
            scores = skip(finer) + interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False)
        return scores
