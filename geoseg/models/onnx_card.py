"""The model card of an ONNX file, read from the file's own bytes: neither torch nor onnxruntime is loaded.

An ONNX file is one protocol buffers message, `ModelProto`
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): fields one after the other, each a key, and for a field of
bytes their length. The graph with the weights is one field, which is stepped over.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from geoseg.errors import ModelFileError
from geoseg.models.card import METADATA_KEY, ModelCard, card_of_header, existing_model

ONNX_SUFFIX = ".onnx"

LEAST_PX = {"pan": 128}
"""Fewest rows and columns that a decoder's graph takes; torch pads what is smaller, and the graph does not."""

VARINT, BYTES = 0, 2  # wire types
LONGEST_VARINT = 10
IR_VERSION, MODEL_VERSION, GRAPH, METADATA = 1, 5, 7, 14  # fields of ModelProto; the first two are numbers
KEY, VALUE = 1, 2  # fields of StringStringEntryProto
LARGEST_FIELD = 100  # theirs lie far below; what has others is something else


def read_onnx_card(path: Path) -> ModelCard:
    """What a model file that `geoseg export` wrote says of itself; the network in it is not read.

    Raises:
        MissingInputError: There is no such file.
        ModelFileError: It is no ONNX file, or not one of geoseg.
    """
    path = existing_model(path, suffix=ONNX_SUFFIX, writer="geoseg export")
    header = read_metadata(path).get(METADATA_KEY)
    if header is None:
        raise ModelFileError(f"{path} is an ONNX file without geoseg's header; needed is one by geoseg export")
    return card_of_header(header, path=path)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, `metadata_props` by key.

    Raises:
        ModelFileError: It cannot be read, or is no ONNX file.
    """
    found: dict[str, str] = {}
    seen = set()
    try:
        with path.open("rb") as file:
            fields = _fields(file, path.stat().st_size, wanted=[METADATA], numbers=[IR_VERSION, MODEL_VERSION])
            for field, content in fields:
                seen.add(field)
                if field == METADATA:
                    entry = dict(_fields(io.BytesIO(content), len(content), wanted=[KEY, VALUE]))
                    found[entry.get(KEY, b"").decode()] = entry.get(VALUE, b"").decode()
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} is no ONNX model: {error}; needed is an .onnx by geoseg export") from error
    if not {IR_VERSION, GRAPH} <= seen:
        raise ModelFileError(f"{path} is no ONNX model: it holds no graph; needed is an .onnx by geoseg export")
    return found


def _fields(
    file: BinaryIO, size: int, *, wanted: Collection[int], numbers: Collection[int] = ()
) -> Iterator[tuple[int, bytes]]:
    """Number and content of each field of a message of `size` bytes; the content is empty where it is not `wanted`.

    Raises:
        ValueError: The bytes are no such message.
    """
    while (at := file.tell()) < size:
        key = _varint(file)
        field, wire = key >> 3, key & 7
        if not 0 < field <= LARGEST_FIELD or wire != (VARINT if field in numbers else BYTES):
            raise ValueError(f"its bytes make no sense at {at}")
        length = _varint(file)
        if wire == VARINT:
            yield field, b""
            continue
        stop = file.tell() + length
        if stop > size:
            raise ValueError(f"it ends in the middle, after {size} bytes")
        yield field, file.read(length) if field in wanted else b""
        file.seek(stop)


def _varint(file: BinaryIO) -> int:
    """The next number: seven bits a byte, the lowest first; the eighth bit says that more follow.

    Raises:
        ValueError: It does not end.
    """
    value = 0
    for place in range(LONGEST_VARINT):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << (7 * place)
        if byte[0] < 128:
            return value
    raise ValueError("a number in it does not end")
