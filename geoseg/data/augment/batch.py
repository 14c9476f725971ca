"""Whole batches augmented on their device: any number of bands; image, mask, labels and shares in step."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import torch

from geoseg.data.augment.draws import Planes, Setting
from geoseg.data.augment.geometry import turn, warp
from geoseg.data.augment.mixing import classmix, cutmix
from geoseg.data.augment.occlusion import clouds, cutout
from geoseg.data.augment.options import AugmentOptions
from geoseg.data.augment.radiometry import blur, drop_bands, gamma, light

Step = Callable[[Planes, Any, Setting], Planes]

# What is done, in this order, each where the option of its name is on. Places first, so that pieces of other patches
# have turns of their own; then what lies over the ground; then what the sensor makes of it; noise is the last of this,
# and bands are hidden at the very end, so that they stay at their mean.
STEPS: dict[str, Step] = {
    "turns": turn,
    "warp": warp,
    "classmix": classmix,
    "cutmix": cutmix,
    "clouds": clouds,
    "cutout": cutout,
    "gamma": gamma,
    "blur": blur,
    "light": light,
    "band_dropout": drop_bands,
}


def augment_batch(
    batch: Planes,
    *,
    options: AugmentOptions,
    mean: torch.Tensor,
    std: torch.Tensor,
    generator: torch.Generator,
    rare: torch.Tensor | None = None,
) -> Planes:
    """The batch as `options` change it; its image becomes float32, in the units it came in.

    The batch that is given stays as it is; what is not changed may be shared with it. Each step has a draw of its own:
    switching one on or off changes no other. The draw is the same on every device, and nothing waits for the device.

    Args:
        batch: `image` `(n, band, row, col)`, `valid` bool and `label` integer `(n, row, col)`, IGNORE_INDEX where
            unlabelled; perhaps `soft`, shares of the classes, uint8 `(n, class, row, col)`, and `present`, bool
            `(n, band)`, False for a band that is 0 because the patch lacks it, which it stays. Anything else is handed
            on. Band dropout adds `present`.
        options: What to do.
        mean: Mean of each band, float32 `(band,)`, on the batch's device.
        std: Standard deviation of each band.
        generator: The draw, on the CPU; one number is taken.
        rare: Chance of each class to be pasted by ClassMix, float32 `(class,)`, on the batch's device; without, one
            half each.
    """
    planes = {**batch, "image": batch["image"].float()}
    seed = int(torch.randint(2**32, (1,), generator=generator))  # the generator looks at 32 bits of its seed
    for name, step in STEPS.items():
        option = getattr(options, name)
        if option:
            own = torch.Generator().manual_seed(seed ^ zlib.crc32(name.encode()))
            planes = step(planes, option, Setting(mean=mean, std=std, rare=rare, generator=own))
    return planes
