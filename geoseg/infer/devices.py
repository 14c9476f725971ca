"""Devices that a network runs on, and the arithmetic that each is good at."""

from __future__ import annotations

from typing import Literal

import torch

from geoseg.errors import InputError

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
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device '{name}' is unknown; known are auto, cpu, cuda, cuda:0, cuda:1, ...") from error
    if device.type not in LARGEST_BATCH_PX:
        raise InputError(f"device '{name}' is not served; known are auto, cpu, cuda, cuda:0, cuda:1, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{name}' is not there: {torch.cuda.device_count()} GPUs found; use --device cpu")
    return device


def find_precision(wanted: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """The arithmetic to use: `auto` is bf16 where the device computes with it, and fp32 elsewhere.

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
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(check is not None and check() for check in checks)
