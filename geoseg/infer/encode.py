"""A finished block as files, made where the block is, and what is read back from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.infer.layers import NO_PERCENT
from geoseg.infer.parts import EncodedBlock
from geoseg.infer.reading import Unread
from geoseg.infer.task import FinishedBlock, SceneTask
from geoseg.io.cog import encode_part, part_tags
from geoseg.io.grids import crop

VALID_TAG = "GEOSEG_VALID_PX"
LOST_TAG = "GEOSEG_LOST_PX"
UNREAD_TAG = "GEOSEG_UNREAD"


class Notes(NamedTuple):
    """What is known of a block: its pixels with a class, those without for they could not be read, and all unread."""

    valid_px: int
    lost_px: int
    unread: list[Unread]


def encode_block(task: SceneTask, finished: FinishedBlock) -> EncodedBlock:
    """A block's parts, one a layer; the class map's carries the `Notes`."""
    geobox = crop(task.source.geobox, finished.block.window)
    valid = finished.layers["confidence"][0] != NO_PERCENT
    notes = {
        VALID_TAG: str(int(valid.sum())), LOST_TAG: str(_lost_px(finished, valid)),
        UNREAD_TAG: json.dumps([item.to_list() for item in finished.unread]),
    }  # fmt: skip
    files = {
        layer.name: encode_part(
            finished.layers[layer.name], geobox=geobox, nodata=layer.nodata(task.legend),
            tags=notes if layer.name == "class" else None,
        )
        for layer in task.layers
    }  # fmt: skip
    return EncodedBlock(finished.block, files)


def _lost_px(finished: FinishedBlock, valid: NDArray[np.bool_]) -> int:
    """Pixels of a block that could not be read of some scene, and have no class."""
    if not finished.unread:
        return 0
    window, hit = finished.block.window, np.zeros_like(valid)
    for item in finished.unread:
        row, col = item.window.row_off - window.row_off, item.window.col_off - window.col_off
        hit[row : row + item.window.rows, col : col + item.window.cols] = True
    return int((hit & ~valid).sum())


def notes_of(part: Path) -> Notes:
    """What the part of a class map says of itself.

    Raises:
        ReadError: The part cannot be read.
    """
    tags = part_tags(part)
    unread = [Unread.from_list(values) for values in json.loads(tags[UNREAD_TAG])]
    return Notes(int(tags[VALID_TAG]), int(tags[LOST_TAG]), unread)
