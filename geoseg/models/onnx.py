"""A trained network as an ONNX file: for other software, and for machines without torch.

The file holds the card that stands in the model file, so that it maps scenes as that does. It takes any batch and any
sides that the network takes (multiples of 32), and was run and compared before it bears its name.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geoseg.errors import InputError, ModelFileError
from geoseg.extras import extra_module
from geoseg.models.atomic import renamed_when_done
from geoseg.models.card import METADATA_KEY, ModelCard
from geoseg.models.onnx_session import first_line, open_session, run_session

logger = logging.getLogger(__name__)

WEIGHTS_KEY = "geoseg:weights_sha256"
INPUT, OUTPUT = "scene", "class scores"  # as the card's `mlm:input` and `mlm:output` name them
AXES = {0: "batch", 2: "height", 3: "width"}

TRACED = (2, 256, 384)
"""Batch, rows and columns of the example; some decoders take another way through the graph below 256 pixels."""
CHECKED = (1, 288, 256)
"""Those of the comparison: all others, so that nothing of the example can have been fixed in the graph."""
TOLERANCE = 1e-3
"""Largest difference between the two networks, as a share of the largest logit (at least 1)."""

TORCHVISION_SWIN = "torchvision.models.swin_transformer"
"""Its windows are padded by steps that the exporter does not get done with where rows and columns are free."""

LARGEST_BYTES = 2 * 10**9
"""Of weights in one file: a protocol buffers message ends at 2 GiB, and the graph needs room too."""


def export_onnx(network: nn.Module, card: ModelCard, out: Path, *, opset: int | None = None) -> Path:
    """The ONNX file written of a network and its card: under another name first, renamed when it is found right.

    Its input `scene` is float32 `(batch, bands, height, width)`, normalised as the card says; its output `class scores`
    are logits `(batch, class, height, width)`; for PAN sides are 128 and more. The
    metadata holds the card under `geoseg`, as in the model file, and the weights' SHA-256 under
    `geoseg:weights_sha256`.

    Args:
        network: The network; it is left as it is.
        card: What its model file says of it.
        out: The file to write.
        opset: Version of ONNX's operators; the exporter's own by default.

    Raises:
        InputError: The exporter is not installed.
        ModelFileError: The exporter refuses the network or the opset, or what it makes differs from the network.
        OutputError: The file cannot be written.
    """
    if card.spec.decoder == "random_forest":
        raise ModelFileError("a random_forest is no ONNX file; networks are, and so is pixel_mlp")
    twin = copy.deepcopy(network).cpu().eval()
    size = sum(tensor.nbytes for tensor in twin.state_dict().values())
    if size > LARGEST_BYTES:
        raise ModelFileError(f"the weights take {size / 1e9:.1f} GB, an ONNX file holds 2 GB; choose a smaller encoder")
    if any(type(module).__module__ == TORCHVISION_SWIN for module in twin.modules()):
        raise ModelFileError(
            "torchvision's Swin is no ONNX file at any size; a torch program has it, at the sides of the model's tiles "
            "(--torch M.pt2); encoders such as convnext_tiny and vit_... have both"
        )
    bands, parameters = len(card.bands), sum(parameter.numel() for parameter in twin.parameters())
    program = _program(twin, bands=bands, opset=opset)
    _tidy(program.model, classes=len(card.legend))
    program.model.metadata_props[METADATA_KEY] = json.dumps(card.to_dict(parameters=parameters), allow_nan=False)
    program.model.metadata_props[WEIGHTS_KEY] = weights_digest(twin)
    with renamed_when_done(Path(out), what="ONNX file") as part:
        program.save(part, external_data=False)
        check_onnx(part, twin, bands=bands)
    return Path(out)


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of the weights with their names, types and shapes, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_onnx(path: Path, network: nn.Module, *, bands: int) -> None:
    """Nothing, where the file gives what the network gives for a random image; without onnxruntime a warning.

    Raises:
        ModelFileError: It cannot be run, or gives something else.
    """
    try:
        session = open_session(path, device="cpu")
    except InputError as error:
        logger.warning("the ONNX file was not compared with the network: %s", error)
        return
    batch, rows, cols = CHECKED
    image = np.random.default_rng(0).standard_normal((batch, bands, rows, cols)).astype(np.float32)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(image)).numpy()
    found = run_session(session, image)
    if found.shape != wanted.shape:
        raise ModelFileError(f"the exported network gives {found.shape} for {image.shape}, the network {wanted.shape}")
    difference, largest = float(np.abs(found - wanted).max()), max(1.0, float(np.abs(wanted).max()))
    if not difference <= TOLERANCE * largest:  # NaN is refused too
        raise ModelFileError(
            f"the exported network's scores differ by {difference:.3g} from the network's on {image.shape}; "
            "this decoder or encoder cannot be exported at any size"
        )
    logger.info("the ONNX file gives what the network gives, within %.1g of the largest score", difference / largest)


def _program(network: nn.Module, *, bands: int, opset: int | None) -> Any:
    """The `torch.onnx.ONNXProgram` of a network.

    Raises:
        InputError: The exporter is not installed.
        ModelFileError: The exporter refuses.
    """
    extra_module("onnxscript", extra="onnx", needed_by="the export")
    batch, rows, cols = TRACED
    example = torch.zeros((batch, bands, rows, cols))
    try:
        with quiet():
            program: Any = torch.onnx.export(
                network, (example,), dynamo=True, verbose=False, opset_version=opset, external_data=False,
                input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=(AXES,),
                custom_translation_table={torch.ops.aten.adaptive_avg_pool2d.default: _adaptive_mean},
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise ModelFileError(f"the network cannot be exported to ONNX: {first_line(_root(error))}") from error
    written = program.model.opset_imports[""]
    if opset is not None and written != opset:
        raise ModelFileError(f"the network cannot be exported to opset {opset}; opset {written} would work")
    return program


def _root(error: BaseException) -> BaseException:
    """What an error came from in the end."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing of what the exporter and the libraries below it tell of their progress reaches the terminal."""
    said, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # they log errors of attempts that others follow
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _tidy(model: Any, *, classes: int) -> None:
    """Take the exporter's notes out of an `onnx_ir.Model`, which name files of this machine; name the output's axes."""
    graph = model.graph
    for part in (model, graph, *graph.all_nodes(), *graph.inputs, *graph.outputs, *graph.initializers.values()):
        part.metadata_props.clear()
    output = graph.outputs[0]
    output.shape = type(output.shape)([AXES[0], classes, AXES[2], AXES[3]])


def _adaptive_mean(planes: Any, output_size: Sequence[int]) -> Any:
    """Adaptive mean pooling in ONNX's operators, of planes of any size; the exporter's own fixes the example's size."""
    from onnxscript import opset18

    op: Any = opset18
    if tuple(output_size) == (1, 1):
        return op.ReduceMean(planes, op.Constant(value_ints=[2, 3]), keepdims=1)
    rows = _bins(op, op.Shape(planes, start=2, end=3), output_size[0])
    cols = _bins(op, op.Shape(planes, start=3, end=4), output_size[1])
    return op.MatMul(op.MatMul(rows, planes), op.Transpose(cols, perm=[1, 0]))


def _bins(op: Any, size: Any, count: int) -> Any:
    """Weights `(bin, pixel)` of adaptive pooling along an axis.

    Bin `i` of `count` covers pixels `floor(i * size / count)` to `ceil((i + 1) * size / count)`.
    """
    bins = op.Constant(value_int=count)
    start = op.Div(op.Mul(op.Constant(value_ints=list(range(count))), size), bins)
    above = op.Mul(op.Constant(value_ints=list(range(1, count + 1))), size)
    stop = op.Div(op.Add(above, op.Constant(value_int=count - 1)), bins)
    start, stop = op.Unsqueeze(start, [1]), op.Unsqueeze(stop, [1])
    pixel = op.Unsqueeze(op.Range(op.Constant(value_int=0), op.Squeeze(size), op.Constant(value_int=1)), [0])
    inside = op.And(op.GreaterOrEqual(pixel, start), op.Less(pixel, stop))
    return op.Div(op.Cast(inside, to=1), op.Cast(op.Sub(stop, start), to=1))  # to float32
