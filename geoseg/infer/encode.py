"""A finished block as files, made where the block is, and what is read back from them."""

from __future__ import annotations

import json
from pathlib import Path

from geoseg.infer.layers import NO_PERCENT
from geoseg.infer.parts import EncodedBlock
from geoseg.infer.reading import Unread
from geoseg.infer.task import FinishedBlock, SceneTask
from geoseg.io.cog import encode_part, part_tags
from geoseg.io.grids import crop

VALID_TAG = "GEOSEG_VALID_PX"
UNREAD_TAG = "GEOSEG_UNREAD"


def encode_block(task: SceneTask, finished: FinishedBlock) -> EncodedBlock:
    """A block's parts, one a layer; the class map's says how many pixels are valid and what could not be read."""
    geobox = crop(task.source.geobox, finished.block.window)
    valid_px = int((finished.layers["confidence"] != NO_PERCENT).sum())
    notes = {VALID_TAG: str(valid_px), UNREAD_TAG: json.dumps([item.to_list() for item in finished.unread])}
    files = {
        layer.name: encode_part(
            finished.layers[layer.name], geobox=geobox, nodata=layer.nodata(task.legend),
            tags=notes if layer.name == "class" else None,
        )
        for layer in task.layers
    }  # fmt: skip
    return EncodedBlock(finished.block, files)


def notes_of(part: Path) -> tuple[int, list[Unread]]:
    """What the part of a class map says: its valid pixels, and what could not be read.

    Raises:
        ReadError: The part cannot be read.
    """
    tags = part_tags(part)
    return int(tags[VALID_TAG]), [Unread.from_list(values) for values in json.loads(tags[UNREAD_TAG])]
