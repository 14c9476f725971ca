"""Augmentation of whole batches on their device: any number of bands, labels and mask in step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from geoseg.errors import InputError


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads the defaults from __dict__
class AugmentOptions:
    """What happens to a training batch. Sizes are in standard deviations of a band over the training pixels.

    Attributes:
        turns: Each patch in one of its eight flips and quarter turns.
        gain: Standard deviation of a factor about 1, and of an offset, drawn once a patch: brightness and contrast.
        band_gain: The same, drawn once a patch and band: colour.
        noise: Standard deviation of what is added to each pixel and band.
    """

    turns: bool = True
    gain: float = 0.05
    band_gain: float = 0.05
    noise: float = 0.02

    def __post_init__(self) -> None:
        for name in ("gain", "band_gain", "noise"):
            if getattr(self, name) < 0:
                raise InputError(f"augment.{name} is {getattr(self, name)}: needed is 0 or more")


def augment_batch(
    batch: dict[str, torch.Tensor],
    *,
    options: AugmentOptions,
    mean: torch.Tensor,
    std: torch.Tensor,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """The batch turned, flipped and jittered; its image becomes float32, in the units it came in.

    Args:
        batch: `image` `(n, band, row, col)`, `valid` and `label` `(n, row, col)`.
        options: What to do.
        mean: Mean of each band, float32 `(band,)`, on the batch's device.
        std: Standard deviation of each band.
        generator: The draw; on the CPU, so that a batch is the same on every device, but for the noise.
    """
    image = batch["image"].float()
    planes = {**batch, "image": image}
    if options.turns:
        planes = turn_batch(planes, torch.randint(8, (len(image),), generator=generator))
    jittered = _jitter(planes["image"], options, mean, std, generator)
    return {**planes, "image": jittered}


def turn_batch(planes: dict[str, torch.Tensor], turns: torch.Tensor) -> dict[str, torch.Tensor]:
    """All planes of patch `k` turned by `turns[k] % 4` quarters, and then mirrored where `turns[k]` is 4 and more."""
    turned = {name: torch.empty_like(plane) for name, plane in planes.items()}
    for name, plane in planes.items():
        for k, turn in enumerate(turns.tolist()):
            view = torch.rot90(plane[k], turn % 4, (-2, -1))
            turned[name][k] = view.flip(-1) if turn >= 4 else view
    return turned


def _jitter(
    image: torch.Tensor, options: AugmentOptions, mean: torch.Tensor, std: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """`(z * factor + offset + noise) * std + mean` with `z` the normalised image, written out on the image itself."""
    count, bands = image.shape[:2]

    def draw(size: float, per_band: int) -> torch.Tensor:
        return size * torch.randn((count, per_band), generator=generator)

    factor = (1 + draw(options.gain, 1)) * (1 + draw(options.band_gain, bands))
    offset = draw(options.gain, 1) + draw(options.band_gain, bands)
    factor, offset = factor.to(image.device), offset.to(image.device)
    shift = offset * std + mean * (1 - factor)
    out = torch.addcmul(shift[..., None, None], image, factor[..., None, None])
    if options.noise:
        local = generator if image.device.type == "cpu" else _on_device(generator, image.device)
        grain = torch.randn(image.shape, generator=local, device=image.device)
        out.addcmul_(grain, (options.noise * std)[None, :, None, None])
    return out


def _on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.Generator(device).manual_seed(seed)
