"""Pieces of other patches of the batch pasted in: image, valid, label and shares of the same pixel together."""

from __future__ import annotations

from collections.abc import Callable

import torch

from geoseg.data.augment.draws import PIXEL_PLANES, Planes, Setting, per_band, rectangles, sent
from geoseg.data.augment.options import ClassMixOptions, CutMixOptions
from geoseg.data.scene import IGNORE_INDEX

MOST_CLASSES = 256  # without chances of classes, those from this one on go together
MOST_STRETCH = 2.0  # of a pasted rectangle's sides, against a piece of the patch's own shape

Region = Callable[[Planes], torch.Tensor]


def cutmix(planes: Planes, options: CutMixOptions, setting: Setting) -> Planes:
    """A rectangle of another patch in some patches (Yun et al. 2019, arXiv:1905.04899, eq. 1).

    For a map the label is pasted along, pixel by pixel, as French et al. 2020 (arXiv:1906.01916) do.
    """

    def region(donors: Planes) -> torch.Tensor:
        count = len(donors["image"])
        side = setting.evenly(*options.area, count).sqrt()
        # No side is longer than the patch, so that the area is the one that was drawn.
        most = torch.minimum(torch.full_like(side, MOST_STRETCH), 1 / side.clamp(min=1e-6)).log()
        stretch = (most * setting.evenly(-1, 1, count)).exp()
        return rectangles(donors, side * stretch, side / stretch, setting)

    return _paste(planes, options.share, region, setting)


def classmix(planes: Planes, options: ClassMixOptions, setting: Setting) -> Planes:
    """The pixels of some classes of another patch in some patches (Olsson et al. 2021, arXiv:2007.07936, alg. 1).

    There half of a patch's classes are pasted; here each class is by its own chance, that of `Setting.rare`.
    """

    def region(donors: Planes) -> torch.Tensor:
        classes = MOST_CLASSES if setting.rare is None else len(setting.rare)
        drawn = sent(setting.evenly(0, 1, len(donors["image"]), classes), donors)
        pasted = drawn < (0.5 if setting.rare is None else setting.rare)
        label = donors["label"].long()
        of_class = pasted.gather(1, label.clamp(0, classes - 1).flatten(1)).view(label.shape)
        return of_class & (label != IGNORE_INDEX)

    return _paste(planes, options.share, region, setting)


def _paste(planes: Planes, share: float, region: Region, setting: Setting) -> Planes:
    """Some patches with the `region`, bool `(n, row, col)`, of others of the same bands, as these were before."""
    count = len(planes["image"])
    chosen, partners = setting.some_of(count, share), _partners(count, setting)
    if count < 2 or not len(chosen):
        return planes
    into, out_of = sent(chosen, planes), sent(partners[chosen], planes)
    donors = {name: planes[name].index_select(0, out_of) for name in (*PIXEL_PLANES, "present") if name in planes}
    pasted = region(donors)
    if "present" in planes:
        same = (donors["present"] == planes["present"].index_select(0, into)).all(1)
        pasted = pasted & per_band(same)
    mixed = {}
    for name in PIXEL_PLANES:
        if name in planes:
            where = pasted if planes[name].ndim == pasted.ndim else pasted.unsqueeze(1)
            piece = torch.where(where, donors[name], planes[name].index_select(0, into))
            mixed[name] = planes[name].index_copy(0, into, piece)
    return {**planes, **mixed}


def _partners(count: int, setting: Setting) -> torch.Tensor:
    """Another patch for each patch, drawn so that each is another's: the next one in a random round; on the CPU."""
    order = torch.randperm(count, generator=setting.generator)
    partners = torch.empty_like(order)
    partners[order] = order.roll(1)
    return partners
