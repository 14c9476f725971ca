"""Learning from patches without labels: the running mean of the weights teaches the network that it is the mean of.

The teacher sees a patch as it is, the student sees it changed, and is to say the same (Tarvainen and Valpola 2017, Mean
teachers are better role models, arXiv:1703.01780, section 2). Where the student's view is pasted together of several
patches, so is what the teacher said of them (French et al. 2020, arXiv:1906.01916, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from geoseg.errors import InputError
from geoseg.models.losses import surprise

Batch = Mapping[str, Tensor]
Teacher = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Logits of an image, where it is valid, and which bands it has."""


def consistency(logits: Tensor, shares: Tensor, threshold: float) -> Tensor:  # noqa: ARG001
    """Squared distance of the student's probabilities from the teacher's, `(m, row, col)` (French et al. 2020, eq. 1).

    The distance is over all classes; the threshold plays no part.
    """
    return (logits.softmax(1) - shares).square().sum(1)


def pseudo_labels(logits: Tensor, shares: Tensor, threshold: float) -> Tensor:
    """Cross-entropy against the teacher's class where it is sure of it, 0 elsewhere, `(m, row, col)`.

    Source: Sohn et al. 2020, FixMatch, arXiv:2001.07685, eq. 4, pixel by pixel.
    """
    confidence, label = shares.max(1)
    return surprise(logits, label) * (confidence >= threshold)


METHODS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "consistency": consistency,
    "pseudo_labels": pseudo_labels,
}
"""From the student's logits, the teacher's probabilities, both `(m, class, row, col)`, and a threshold to a loss."""


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads the defaults from __dict__
class SemiOptions:
    """How to learn from the scenes of `data.unlabelled`.

    Attributes:
        method: pseudo_labels: the teacher's class is the label where its probability reaches the threshold.
            consistency: the student's probabilities are to be the teacher's, everywhere.
        weight: Of this loss beside that of the labels.
        threshold: Probability from which the teacher's class counts.
        ramp: Share of the run in which the weight rises from nearly nothing.
    """

    method: str = "pseudo_labels"
    weight: float = 1.0
    threshold: float = 0.95
    ramp: float = 0.3

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"semi.method '{self.method}' is unknown; known are {', '.join(METHODS)}")
        if not 0 < self.weight < math.inf:
            raise InputError(f"semi.weight is {self.weight}: needed is a number above 0, such as 1")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"semi.threshold is {self.threshold}: needed is a probability from 0 to 1, such as 0.95")
        if not 0 <= self.ramp <= 1:
            raise InputError(f"semi.ramp is {self.ramp}: needed is a share of the run from 0 to 1")


def check_teacher(options: SemiOptions | None, *, ema_decay: float) -> None:
    """Nothing, where there is a teacher or none is needed.

    Raises:
        InputError: There is none.
    """
    if options is not None and not ema_decay:
        raise InputError("model.semi needs a teacher, the running mean of the weights: ema_decay above 0, such as 0.99")


def ramp_up(progress: float, ramp: float) -> float:
    """`exp(-5 (1 - t)^2)`, `t` from 0 to 1 over the first `ramp` of a run, then 1.

    Source: Laine and Aila 2017, Temporal Ensembling for Semi-Supervised Learning, arXiv:1610.02242, section 3; taken
    over by mean teachers.

    Args:
        progress: Share of the run that is done.
        ramp: Share in which the weight rises; 0 for none.
    """
    done = min(progress / ramp, 1.0) if ramp else 1.0
    return math.exp(-5 * (1 - done) ** 2)


def with_student(batch: Batch) -> dict[str, Tensor]:
    """The batch with the student's view of the unlabelled patches after the labelled ones, to be run as one.

    Their label is the first class: it serves to find patches whose loss is no number.

    Raises:
        InputError: There are no unlabelled patches.
    """
    if "student_image" not in batch:
        raise InputError("model.semi needs unlabelled patches beside the labelled: name scenes in data.unlabelled")
    image = torch.cat([batch["image"].float(), batch["student_image"].float()])
    valid = torch.cat([batch["valid"], batch["student_valid"]])
    label = torch.cat([batch["label"], torch.zeros_like(batch["student_valid"], dtype=batch["label"].dtype)])
    joint = {**batch, "image": image, "valid": valid, "label": label}
    if "present" in batch or "student_present" in batch:
        joint["present"] = torch.cat([_present(batch, ""), _present(batch, "student_")])
    return joint


def _present(batch: Batch, prefix: str) -> Tensor:
    image = batch[f"{prefix}image"]
    return batch.get(f"{prefix}present", torch.ones(image.shape[:2], dtype=torch.bool, device=image.device))


def semi_loss(options: SemiOptions, *, logits: Tensor, shares: Tensor, source: Tensor, valid: Tensor) -> Batch:
    """The loss of the student, and how often its teacher is sure; both are means over the pixels that count.

    Args:
        options: How to learn.
        logits: The student's, float32 `(m, class, row, col)`.
        shares: The teacher's probabilities of the patches as they were.
        source: Of which of these patches each pixel of the student's view is, `(m, row, col)`; below 0 it was hidden.
        valid: Boolean `(m, row, col)`, of the student's view. Only valid pixels that were not hidden count.

    Returns:
        `loss` and `confident`, scalars; 0 where no pixel counts.
    """
    pasted = shares.gather(0, source.clamp(min=0).unsqueeze(1).expand_as(shares))
    counts = valid & (source >= 0)
    each = torch.stack([
        METHODS[options.method](logits, pasted, options.threshold),
        (pasted.amax(1) >= options.threshold).to(logits.dtype),
    ])  # fmt: skip
    loss, confident = torch.where(counts, each, 0.0).sum((1, 2, 3)) / counts.sum().clamp(min=1)
    return {"loss": loss, "confident": confident.detach()}


def learn_unlabelled(
    options: SemiOptions, batch: Batch, logits: Tensor, teacher: Teacher, *, progress: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """What the unlabelled patches of a batch add to the loss, and figures to log.

    Args:
        options: How to learn.
        batch: `unlabelled_image`, `unlabelled_valid` and perhaps `unlabelled_present` as the teacher sees them, and
            `student_source`, `student_valid`.
        logits: What the student says of its view.
        teacher: Gets no gradient.
        progress: Share of the run that is done.

    Returns:
        The weighted loss, and `train/semi_loss` (without its weight) and `train/confident`.
    """
    with torch.no_grad():
        told = teacher(batch["unlabelled_image"], batch["unlabelled_valid"], batch.get("unlabelled_present"))
    found = semi_loss(
        options, logits=logits, shares=told.softmax(1), source=batch["student_source"], valid=batch["student_valid"]
    )
    figures = {"train/semi_loss": found["loss"].detach(), "train/confident": found["confident"]}
    return options.weight * ramp_up(progress, options.ramp) * found["loss"], figures
