"""A trained network as a program of `torch.export`: a graph that torch runs without the network's own code.

It takes any batch and any rows and columns that are multiples of 32, from 64 on (256 for PAN, which pools them away),
and was run and compared before it bears its name. The card that stands in the model file travels inside it.
"""

from __future__ import annotations

import copy
import io
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch._export.error import ExportError
from torch.export import Dim

from geoseg.errors import ModelFileError
from geoseg.models.atomic import renamed_when_done
from geoseg.models.card import ModelCard
from geoseg.models.onnx import TOLERANCE, quiet
from geoseg.models.onnx_session import first_line
from geoseg.models.program_card import CARD_FILE

TRACED = (2, 256, 384)
"""Batch, rows and columns of the example: so large that nothing in a network shrinks to a single pixel."""
CHECKED = (1, 512, 320)
"""Those of the comparison: all others."""

UNIT, LEAST, MOST = 32, 64, 32 * 4096
"""Rows and columns of a program: multiples of the first, from the second to the third."""

FIXED_SIDES = (
    "timm.models.swin_transformer.SwinTransformerStage",
    "torchvision.models.swin_transformer.SwinTransformerBlock",
    "torchvision.models.swin_transformer.SwinTransformerBlockV2",
)
"""Modules that torch does not get done with where rows and columns are free: their windows are padded to sevens."""

REFUSED = (RuntimeError, ValueError, TypeError, AssertionError, ExportError, TorchDynamoException)
"""How torch says that it cannot make a graph of a network."""

logger = logging.getLogger(__name__)


def export_torch(network: nn.Module, card: ModelCard, out: Path) -> Path:
    """The program written of a network and its card: under another name first, renamed when it is found right.

    `torch.export.load(out).module()` takes float32 `(batch, bands, height, width)`, normalised as the card says, and
    gives logits `(batch, class, height, width)`. With `extra_files={"geoseg.json": ""}` it tells the card, as JSON.

    Args:
        network: The network; it is left as it is.
        card: What its model file says of it.
        out: The file to write, .pt2.

    Raises:
        ModelFileError: torch refuses the network, or what it makes differs from the network.
        OutputError: The file cannot be written.
    """
    if card.spec.decoder == "random_forest":
        raise ModelFileError("a random_forest is no torch program; networks are, and so is pixel_mlp")
    twin = copy.deepcopy(network).cpu().eval()
    bands, parameters = len(card.bands), sum(parameter.numel() for parameter in twin.parameters())
    side = card.tile_px if _has_fixed_sides(twin) else None
    if side is not None:
        logger.warning("rows and columns of the program are %d: this encoder cannot be exported at any size", side)
    program = _program(twin, example=(TRACED[0], bands, *((side, side) if side else TRACED[1:])), free=side is None)
    header = json.dumps(card.to_dict(parameters=parameters), allow_nan=False)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={CARD_FILE: header})
    check_program(content, twin, shape=(CHECKED[0], bands, *((side, side) if side else CHECKED[1:])))
    with renamed_when_done(Path(out), what="torch program") as part:
        part.write_bytes(content.getbuffer())
    return Path(out)


def check_program(content: io.BytesIO, network: nn.Module, *, shape: tuple[int, ...]) -> None:
    """Nothing, where a saved program gives what the network gives for a random image of a shape.

    Raises:
        ModelFileError: It gives something else, or does not take such an image.
    """
    content.seek(0)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            found, wanted = torch.export.load(content).module()(image), network(image)
    except REFUSED as error:
        raise ModelFileError(f"the exported network does not take {tuple(image.shape)}: {first_line(error)}") from error
    if found.shape != wanted.shape:
        raise ModelFileError(
            f"the exported network gives {tuple(found.shape)} for {tuple(image.shape)}, the network "
            f"{tuple(wanted.shape)}"
        )
    difference, largest = float((found - wanted).abs().max()), max(1.0, float(wanted.abs().max()))
    if not difference <= TOLERANCE * largest:  # NaN is refused too
        raise ModelFileError(
            f"the exported network's scores differ by {difference:.3g} from the network's on {tuple(image.shape)}; "
            "this decoder or encoder cannot be exported at any size"
        )
    logger.info("the program gives what the network gives, within %.1g of the largest score", difference / largest)


def _has_fixed_sides(network: nn.Module) -> bool:
    names = {f"{type(module).__module__}.{type(module).__name__}" for module in network.modules()}
    return bool(names & set(FIXED_SIDES))


def _program(network: nn.Module, *, example: tuple[int, ...], free: bool) -> Any:
    """The `ExportedProgram` of a network, traced with an image of the shape `example`.

    Args:
        network: The network.
        example: `(batch, band, row, col)`.
        free: Whether rows and columns are free; the batch always is.

    Raises:
        ModelFileError: torch refuses.
    """
    axes: dict[int, Any] = {0: Dim.DYNAMIC}
    if free:
        axes |= {
            axis: UNIT * Dim(name, min=LEAST // UNIT, max=MOST // UNIT) for axis, name in ((2, "rows"), (3, "cols"))
        }
    try:
        with quiet():
            return torch.export.export(network, (torch.zeros(example),), dynamic_shapes=(axes,))
    except REFUSED as error:
        raise ModelFileError(f"the network cannot be exported as a torch program: {first_line(error)}") from error
