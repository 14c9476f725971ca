"""Blending on a torch device, so that only finished layers cross the bus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.infer.canvas import NO_NUMBER, channel_dtype

_TYPES = {np.uint8: torch.uint8, np.uint16: torch.uint16}


@dataclass(frozen=True, slots=True)
class TorchArrays:
    """Arrays of torch on one device: sums are float32 `(class, row, col)`."""

    device: torch.device

    def zeros(self, classes: int, rows: int, cols: int) -> Tensor:
        """Sums of nothing yet."""
        return torch.zeros((classes, rows, cols), dtype=torch.float32, device=self.device)

    def to_device(self, array: NDArray[Any]) -> Tensor:
        """The array on the device."""
        return torch.from_numpy(array).to(self.device)

    def add(self, sums: Tensor, tile: Tensor, weights: tuple[Tensor, Tensor], *, col_off: int, logits: bool) -> None:
        """Add a tile `(class, row, col)`."""
        left, right = max(col_off, 0), min(col_off + tile.shape[2], sums.shape[2])
        if left >= right:
            return
        shares = tile.float().contiguous().softmax(dim=0) if logits else tile
        weighted = shares * (weights[0][:, None] * weights[1][None, :])
        sums[:, : tile.shape[1], left:right] += weighted[:, :, left - col_off : right - col_off]

    def roll(self, sums: Tensor, rows: int) -> None:
        """Move the rows up."""
        keep = sums.shape[1] - rows
        sums[:, :keep] = sums[:, rows:].clone()  # the two may overlap
        sums[:, keep:] = 0

    def top(self, sums: Tensor, rows: int) -> Tensor:
        """The first rows."""
        return sums[:, :rows]

    def combine(self, scores: Sequence[Tensor], valid: Sequence[NDArray[np.bool_]], *, rule: str) -> Tensor:
        """One out of several."""
        usable = [self.to_device(np.ascontiguousarray(where)) for where in valid]
        out = torch.zeros_like(scores[0])
        if rule == "mean":
            for part, where in zip(scores, usable, strict=True):
                out += torch.where(where, part, 0.0)
            return out / torch.stack(usable).sum(dim=0).clamp(min=1)
        most = torch.full(out.shape[1:], -1.0, device=self.device)
        for part, where in zip(scores, usable, strict=True):
            high = torch.where(where, part.amax(dim=0), -1.0)
            better = (high > most) | high.isnan()
            out, most = torch.where(better, part, out), torch.where(better, high, most)
        return out

    def measure(self, scores: Tensor, layers: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Layers of scores `(class, row, col)`."""
        small = channel_dtype(len(scores))
        high, channel = scores.max(dim=0)
        found = {"class": _host(channel, small), "confidence": _percent(high)}
        if {"second", "margin"} & set(layers):
            low, other = scores.scatter(0, channel[None], -1.0).max(dim=0)
            other = channel if len(scores) == 1 else other
            found |= {"second": _host(other, small), "margin": _percent(high - low.clamp(min=0))}
        if "entropy" in layers:
            total = -torch.xlogy(scores, scores).sum(dim=0)
            found["entropy"] = _percent(total / math.log(max(len(scores), 2)))
        if "probabilities" in layers:
            found["probabilities"] = _percent(scores)
        if "level" in layers:
            found["level"] = _host((high.nan_to_num() * 255).round().clamp(0, 255), np.uint8)
        return {name: found[name].reshape(-1, *scores.shape[1:]) for name in layers}


def _host(array: Tensor, dtype: type[np.generic]) -> NDArray[Any]:
    return array.to(_TYPES[dtype]).cpu().numpy()


def _percent(shares: Tensor) -> NDArray[np.uint8]:
    whole = (shares * 100).round().clamp(0, 100)
    return _host(torch.where(shares.isnan(), float(NO_NUMBER), whole), np.uint8)
