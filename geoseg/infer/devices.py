"""Devices that a network runs on, and the arithmetic that each is good at."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from geoseg.errors import InputError

logger = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16", "fp16"]

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Arithmetic of half the bits."""

LARGEST_BATCH_PX = {"cpu": 512**2, "cuda": 64 * 512**2}
"""Kinds of devices that are served, and pixels in one forward pass, at most, where the user does not say."""


def find_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first GPU, else the CPU.

    Raises:
        InputError: The name is unknown, or the device is not there.
    """
    if name == "auto":
        found = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if found.type == "cuda" and not is_built_for(found):
            logger.warning("%s; the CPU is used", _unserved(found))
            return torch.device("cpu")
        return found
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device '{name}' is unknown; known are auto, cpu, cuda, cuda:0, cuda:1, ...") from error
    if device.type not in LARGEST_BATCH_PX:
        raise InputError(f"device '{name}' is not served; known are auto, cpu, cuda, cuda:0, cuda:1, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{name}' is not there: {torch.cuda.device_count()} GPUs found; use --device cpu")
    if device.type == "cuda" and not is_built_for(device):
        raise InputError(f"{_unserved(device)}; use --device cpu, or a torch that is built for it")
    return device


def is_built_for(device: torch.device) -> bool:
    """Whether this torch has code for a GPU.

    Code of `sm_86` is for 8.6 and what follows within 8; of `compute_90` it is made on the spot, for 9.0 and all later.
    """
    if torch.version.hip is not None:
        return True
    major, minor = torch.cuda.get_device_capability(device)
    built = [name.partition("_") for name in torch.cuda.get_arch_list()]
    codes = [(kind, *divmod(int("".join(filter(str.isdigit, number))), 10)) for kind, _, number in built]
    return not codes or any(
        (major, minor) >= (its_major, its_minor) and (kind == "compute" or its_major == major)
        for kind, its_major, its_minor in codes
    )


def _unserved(device: torch.device) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    built = ", ".join(torch.cuda.get_arch_list())
    return f"{torch.cuda.get_device_name(device)} is of generation sm_{major}{minor}, and torch is built for {built}"


def find_precision(wanted: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """The arithmetic to use: `auto` is bf16 where the device computes with it, and fp32 elsewhere.

    For a network it may turn out to be slower than fp32, see `outruns_bf16` in `network`.

    Raises:
        InputError: The name is unknown, or the device has no such arithmetic.
    """
    if wanted not in ("auto", "fp32", *HALF):
        raise InputError(f"precision '{wanted}' is unknown; known are auto, fp32, bf16, fp16")
    if wanted == "fp16" and device.type != "cuda":
        raise InputError(f"precision fp16 is for GPUs, the device is {device}; choose bf16 or fp32")
    if wanted == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return wanted


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies matrices of bf16 in hardware; elsewhere bf16 is slower than fp32."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # it asks the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return has_bf16_tiles(device) or _cpu_says("_is_avx512_bf16_supported")


def has_bf16_tiles(device: torch.device) -> bool:
    """Whether bf16 is many times as fast as fp32: on GPUs, and by the tiles of some processors, not by vectors."""
    return device.type != "cpu" or _cpu_says("_is_amx_tile_supported")


def _cpu_says(name: str) -> bool:
    check = getattr(torch.cpu, name, None)
    return check is not None and bool(check())
