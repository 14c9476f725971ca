"""Names that other packages give an encoder's tensors, turned into those of timm, which builds it here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

EFFICIENTNET = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
}  # fmt: skip
"""Layers of efficientnet_pytorch outside its blocks."""

BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand", "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
"""Layers of its blocks."""

FLAT_BLOCK = {**BLOCK, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Layers of a block that does not expand: timm numbers what is there."""

OWN_BLOCK = re.compile(r"(?P<before>.*?)_blocks\.(?P<block>\d+)\.(?P<layer>_[a-z0-9_]+)\.(?P<rest>\w+)")
TIMM_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.")


def in_timms_names(tensors: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Tensors of a file under the names that timm has for them, where the file is of another package that is known.

    Known is efficientnet_pytorch, with its variants such as efficientnet_lite_pytorch: it counts all blocks through,
    timm counts them within their stage.

    Args:
        tensors: Of the file, by name.
        expected: The encoder's own names.
    """
    blocks = sorted({(int(found[1]), int(found[2])) for name in expected if (found := TIMM_BLOCK.match(name))})
    if not blocks or not any(OWN_BLOCK.match(name) for name in tensors):
        return dict(tensors)
    expanding = {
        found["block"] for name in tensors if (found := OWN_BLOCK.match(name)) and found["layer"] == "_expand_conv"
    }

    def renamed(name: str) -> str:
        found = OWN_BLOCK.fullmatch(name)
        if found is None:
            layer, _, rest = name.rpartition(".")
            before, dot, last = layer.rpartition(".")
            return f"{before}{dot}{EFFICIENTNET.get(last, last)}.{rest}"
        place = int(found["block"])
        layers = BLOCK if found["block"] in expanding else FLAT_BLOCK
        if place >= len(blocks) or found["layer"] not in layers:
            return name
        stage, number = blocks[place]
        return f"{found['before']}blocks.{stage}.{number}.{layers[found['layer']]}.{found['rest']}"

    return {renamed(name): tensor for name, tensor in tensors.items()}
