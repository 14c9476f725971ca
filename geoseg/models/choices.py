"""Options of a task that can only be some words or numbers."""

from __future__ import annotations

import math

from geoseg.errors import InputError
from geoseg.models.losses import WEIGHTINGS
from geoseg.models.optim import SCHEDULES
from geoseg.models.pretrained.scaling import unit_scale


def check_choices(*, class_weights: str, schedule: str, bf16: str, unit: str | None) -> None:
    """Nothing, where each word is known.

    Raises:
        InputError: One is not.
    """
    if unit not in (None, "none"):
        unit_scale(str(unit))
    choices = (
        ("class_weights", class_weights, tuple(WEIGHTINGS)),
        ("schedule", schedule, tuple(SCHEDULES)),
        ("bf16", bf16, ("auto", "yes", "no")),
    )
    for name, value, known in choices:
        if value not in known:
            raise InputError(f"model.{name} '{value}' is unknown; known are {', '.join(known)}")


def check_shares(*, warmup: float, ema_decay: float, layer_decay: float) -> None:
    """Nothing, where each share is one that a run can use.

    Raises:
        InputError: One is not.
    """
    if not 0 < warmup < 1 or not 0 <= ema_decay < 1:
        raise InputError(f"warmup is {warmup}, ema_decay {ema_decay}: needed are shares between 0 and 1")
    if not 0 < layer_decay <= 1:
        raise InputError(f"layer_decay is {layer_decay}: needed is above 0 to 1, such as 0.75")


def check_sizes(*, lr: float, weight_decay: float, class_weight_cap: float) -> None:
    """Nothing, where each number is one that a run can use.

    Raises:
        InputError: One is not.
    """
    if not 0 < lr < math.inf:
        raise InputError(f"lr is {lr}: needed is a number above 0")
    if not 0 <= weight_decay < math.inf:
        raise InputError(f"weight_decay is {weight_decay}: needed is 0 or more")
    if not class_weight_cap >= 1:
        raise InputError(f"class_weight_cap is {class_weight_cap}: needed is 1 or more, times the most common class")
