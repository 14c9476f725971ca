"""Trunks of timm and torchvision: vision transformers, networks that skip the fine levels, torchvision's Swin."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from geoseg.models.networks.pyramid import LEVELS, Trunk, grid_of, spread, stride_of
from geoseg.models.networks.timm_facts import made, sides_of, timm_strides

BLOCKS = len(LEVELS)  # of a transformer, how many give a map


def timm_trunk(name: str, *, bands: int, pretrained: bool = False, options: Mapping[str, Any] | None = None) -> Trunk:
    """The trunk of a timm model without a pyramid.

    Args:
        name: Of the model, without smp's prefix.
        bands: Of the image.
        pretrained: Whether timm loads its weights.
        options: Further arguments of the model.

    Raises:
        ValueError: Its features cannot be used.
    """
    strides = timm_strides(name)
    if not strides:
        raise ValueError("it gives no features")
    if len(set(strides)) > 1:
        return TimmStages(name, bands=bands, pretrained=pretrained, options=options or {})
    return TimmTokens(name, bands=bands, pretrained=pretrained, options=options or {})


class TimmTokens(Trunk):
    """The maps of four evenly spread blocks of a vision transformer.

    Positions are interpolated to the image's size, by timm. The blocks' outputs are taken before the final norm.
    """

    def __init__(self, name: str, *, bands: int, pretrained: bool, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.sides = sides_of(name, options, bands=bands)
        given = {**self.sides.options, **options}
        model = made(name, in_chans=bands, num_classes=0, pretrained=pretrained, **given)
        info = model.feature_info
        taken = spread(BLOCKS, len(info))
        self.taken = sorted(set(taken))
        self.order = tuple(self.taken.index(index) for index in taken)
        if hasattr(model, "prune_intermediate_layers"):
            model.prune_intermediate_layers(self.taken, prune_norm=True, prune_head=True)
        self.patch = int(info[-1]["reduction"])
        self.strides = (stride_of(self.patch),) * BLOCKS
        self.channels = tuple(int(info[index]["num_chs"]) for index in taken)
        with_tokens = "return_prefix_tokens" in inspect.signature(model.forward_intermediates).parameters
        self.prefixed = with_tokens and bool(getattr(model, "num_prefix_tokens", 0))
        self.model = model

    @property
    def core(self) -> nn.Module:
        """Timm's model."""
        core: nn.Module = self.model
        return core

    def maps(self, image: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """The maps, and the class token beside each where the model has one."""
        inner = grid_of(image, patch=self.patch, stride=self.strides[0])
        tokens = {"return_prefix_tokens": True} if self.prefixed else {}
        found = self.model.forward_intermediates(inner, indices=self.taken, intermediates_only=True, **tokens)
        if not self.prefixed:
            return [found[place] for place in self.order], [None] * BLOCKS
        return [found[place][0] for place in self.order], [found[place][1] for place in self.order]


class TimmStages(Trunk):
    """The maps of a hierarchical model of timm that lacks fine levels, or has further ones."""

    def __init__(self, name: str, *, bands: int, pretrained: bool, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.sides = sides_of(name, options, bands=bands)
        given = {**self.sides.options, **options}
        model = made(name, in_chans=bands, features_only=True, pretrained=pretrained, **given)
        self.strides = tuple(model.feature_info.reduction())
        self.channels = tuple(model.feature_info.channels())
        self.model = model
        self.last_axis = getattr(self.model, "output_fmt", None) == "NHWC"
        if any(stride & (stride - 1) for stride in self.strides) or list(self.strides) != sorted(self.strides):
            raise ValueError(f"its features lie at strides {', '.join(map(str, self.strides))}, which are no doublings")

    @property
    def core(self) -> nn.Module:
        """Timm's model."""
        core: nn.Module = self.model
        return core

    def maps(self, image: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """The maps; there are no class tokens."""
        found = [part.permute(0, 3, 1, 2) if self.last_axis else part for part in self.model(image)]
        return found, [None] * len(found)


SWINS: dict[str, dict[str, Any]] = {
    f"swin_{version}{size}": {
        "embed_dim": width,
        "depths": [2, 2, deep, 2],
        "num_heads": [heads * 2**stage for stage in range(4)],
        "window_size": [window, window],
        "stochastic_depth_prob": dropped,
    }
    for version, window in (("", 7), ("v2_", 8))
    for size, width, deep, heads, dropped in (("t", 96, 6, 3, 0.2), ("s", 96, 18, 3, 0.3), ("b", 128, 18, 4, 0.5))
}
"""torchvision's Swin transformers: the layout that torchgeo's weights of these names have."""


class Swin(Trunk):
    """The four stages of a Swin transformer of torchvision (Liu et al. 2021, and 2022 for v2).

    It shifts its windows or not by the image's size, so that no graph of it is right for images of any size, and it
    refuses to be exported.
    """

    def __init__(self, name: str, *, bands: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        library: Any = import_module("torchvision.models.swin_transformer")
        second = "_v2_" in name
        block = library.SwinTransformerBlockV2 if second else library.SwinTransformerBlock
        merging = library.PatchMergingV2 if second else library.PatchMerging
        given = {**SWINS[name], **options}
        whole = library.SwinTransformer([4, 4], **given, num_classes=1, block=block, downsample_layer=merging)
        self.features = whole.features
        stem = self.features[0][0]
        if bands != stem.in_channels:
            self.features[0][0] = nn.Conv2d(bands, stem.out_channels, stem.kernel_size, stride=stem.stride)
        stages = len(given["depths"])
        self.strides = tuple(4 * 2**stage for stage in range(stages))
        self.channels = tuple(given["embed_dim"] * 2**stage for stage in range(stages))

    def maps(self, image: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """The maps after each stage; there are no class tokens."""
        found = []
        for place, part in enumerate(self.features):
            image = part(image)
            if place % 2:  # the odd ones are the stages, those between merge patches
                found.append(image.permute(0, 3, 1, 2))
        return found, [None] * len(found)
