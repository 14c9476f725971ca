"""What a network sees of an image, and the arithmetic it runs in."""

from __future__ import annotations

import torch


def normalize(
    image: torch.Tensor,
    valid: torch.Tensor,
    *,
    mean: torch.Tensor,
    std: torch.Tensor,
    present: torch.Tensor | None = None,
) -> torch.Tensor:
    """`(value - mean) / std` of each band, bands innermost; float32 `(n, band, row, col)`.

    It is 0 at invalid pixels, and in bands that a patch lacks: `present`, bool `(n, band)`, says which it has.
    """
    scaled = (image.float() - mean[:, None, None]) / std[:, None, None]
    usable = valid.unsqueeze(1)
    if present is not None:
        usable = usable & present[..., None, None]
    return torch.where(usable, scaled, 0.0).contiguous(memory_format=torch.channels_last)


def use_bf16(choice: str, device: torch.device) -> bool:
    """Whether the network runs in bfloat16; `auto` does so on a device with instructions for it.

    On CPUs with AVX512-BF16 or AMX a training step of a small U-Net takes about 0.6 of the time in float32; on others
    bfloat16 is emulated, and slower.
    """
    if choice != "auto":
        return choice == "yes"
    if device.type == "cuda":
        with torch.cuda.device(device):  # it asks the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
