"""onnxruntime, loaded when it is needed: a network of an ONNX file on a device, its refusals in one line. No torch."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import InputError, ModelFileError
from geoseg.extras import extra_module

if TYPE_CHECKING:
    from numpy.typing import NDArray

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
ONLY_FATAL = 4
"""The severity below which onnxruntime writes nothing to the terminal; what goes wrong is raised."""

NO_MEMORY = ("bad_alloc", "Failed to allocate", "out of memory", "smaller than requested bytes")
"""How onnxruntime says that a device's memory is spent; it has no exception of its own for it."""


def runtime() -> Any:
    """The module `onnxruntime`.

    Raises:
        InputError: It is not installed.
    """
    return extra_module("onnxruntime", extra="onnx", needed_by="an .onnx model")


def open_session(model: Path | bytes, *, device: str = "auto", threads: int | None = None) -> Any:
    """An `onnxruntime.InferenceSession` of a model file or of its content.

    Args:
        model: The file, or the bytes in it.
        device: `auto`, `cpu`, `cuda` or `cuda:1`; `auto` is the first GPU where onnxruntime can use it.
        threads: Threads within one operator; None leaves it to onnxruntime.

    Raises:
        InputError: onnxruntime or the device is not there, or there are to be less than one thread.
        ModelFileError: onnxruntime cannot load the model.
    """
    ort = runtime()
    if threads is not None and threads < 1:
        raise InputError(f"threads of {threads}: needed is 1 or more; leave it out for one a core")
    providers = _providers(ort.get_available_providers(), device)
    options = ort.SessionOptions()
    options.log_severity_level = ONLY_FATAL
    options.intra_op_num_threads = threads or 0
    said = io.StringIO()  # it prints where a GPU's libraries are missing, and goes on without them
    try:
        with contextlib.redirect_stdout(said):
            if providers[0][0] == CUDA:
                ort.preload_dlls()
            session = ort.InferenceSession(
                str(model) if isinstance(model, Path) else model, options, providers=providers
            )
    except _refusals() as error:
        named = model if isinstance(model, Path) else "the ONNX model"
        raise ModelFileError(f"{named} cannot be loaded by onnxruntime: {first_line(error)}") from error
    if device.startswith("cuda") and CUDA not in session.get_providers():
        raise InputError(f"device '{device}' cannot be used by onnxruntime; check the CUDA libraries, or --device cpu")
    return session


def device_of(session: Any, *, device: str) -> str:
    """Where a session that was opened for `device` runs: `cpu`, `cuda` or `cuda:1`."""
    if CUDA not in session.get_providers():
        return "cpu"
    return device if device.startswith("cuda") else "cuda"


def run_session(session: Any, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's logits `(tile, class, row, col)` of an image `(tile, band, row, col)`, both float32.

    Raises:
        MemoryError: The device's memory does not hold the batch.
        ModelFileError: The network does not take the image.
    """
    try:
        found = session.run(None, {session.get_inputs()[0].name: image})[0]
    except _refusals() as error:
        if any(words in str(error) for words in NO_MEMORY):
            raise MemoryError(first_line(error)) from error
        raise ModelFileError(
            f"the ONNX model refuses an image of {image.shape} (tile, band, row, col): {first_line(error)}"
        ) from error
    return np.asarray(found, np.float32)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 200 characters."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def _providers(available: list[str], device: str) -> list[tuple[str, dict[str, Any]]]:
    """Execution providers for a device, with their options, the best first."""
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise InputError(f"device '{device}' is unknown; known are auto, cpu, cuda, cuda:0, cuda:1, ...")
    if kind == "cuda" and CUDA not in available:
        raise InputError(
            f"device '{device}' needs an onnxruntime built for CUDA, this one has {', '.join(available)}; "
            "install onnxruntime-gpu in its place, or use --device cpu"
        )
    cpu: list[tuple[str, dict[str, Any]]] = [(CPU, {})]
    if kind == "cpu" or CUDA not in available:
        return cpu
    return [(CUDA, {"device_id": int(number or 0)}), *cpu]


def _refusals() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; its exceptions have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile")
    return tuple(getattr(state, name) for name in (*names, "NotImplemented", "RuntimeException"))
