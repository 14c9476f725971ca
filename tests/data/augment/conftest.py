"""Batches whose pixels tell the patch and place they came from, and what belongs to that place."""

from __future__ import annotations

import pytest
import torch

from geoseg.data.augment import AugmentOptions, augment_batch
from geoseg.data.scene import IGNORE_INDEX

CLASSES = 5
STILL = {"turns": False, "gain": 0.0, "band_gain": 0.0, "noise": 0.0}
OFFSET = 100_000  # between the bands of one pixel; exact in float32, as are the places


class Places:
    """Every pixel of every plane follows from its code: patch, row and column in one number."""

    @staticmethod
    def valid(code: torch.Tensor) -> torch.Tensor:
        return (code * 7919) % 11 > 1

    @staticmethod
    def label(code: torch.Tensor) -> torch.Tensor:
        known = Places.valid(code) & ((code * 104_729) % 13 > 1)
        return torch.where(known, (code * 31) % 97 % CLASSES, IGNORE_INDEX)

    @staticmethod
    def soft(code: torch.Tensor) -> torch.Tensor:
        shares = torch.stack([(code * (k + 3)) % 251 for k in range(CLASSES)], 1)
        return (shares * (Places.label(code) != IGNORE_INDEX).unsqueeze(1)).to(torch.uint8)

    @staticmethod
    def batch(count: int, *, bands: int = 3, side: tuple[int, int] = (16, 16), soft: bool = True):
        code = torch.arange(count * side[0] * side[1]).reshape(count, *side)
        image = torch.stack([code + OFFSET * band for band in range(bands)], 1).to(torch.int32)
        planes = {"image": image, "valid": Places.valid(code), "label": Places.label(code)}
        return {**planes, "soft": Places.soft(code)} if soft else planes

    @staticmethod
    def code(planes) -> torch.Tensor:
        """Where each pixel came from, once every plane has been found to say the same."""
        code = planes["image"][:, 0].long()
        for band in range(planes["image"].shape[1]):
            assert torch.equal(planes["image"][:, band].long(), code + OFFSET * band)
        assert torch.equal(planes["valid"], Places.valid(code))
        assert torch.equal(planes["label"], Places.label(code))
        if "soft" in planes:
            assert torch.equal(planes["soft"], Places.soft(code))
        return code


@pytest.fixture(scope="session")
def places():
    return Places


@pytest.fixture(scope="session")
def augment():
    """A function that augments with nothing on but the options it is given; mean 50, deviation 20 in every band."""

    def run(batch, *, seed: int = 0, rare=None, **options):
        bands = batch["image"].shape[1]
        return augment_batch(
            batch, options=AugmentOptions(**{**STILL, **options}), mean=torch.full((bands,), 50.0),
            std=torch.full((bands,), 20.0), generator=torch.Generator().manual_seed(seed), rare=rare,
        )  # fmt: skip

    return run
