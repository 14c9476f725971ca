"""What can be done to a training batch, as the YAML says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from geoseg.errors import InputError

# None of these has slots: jsonargparse reads the defaults from __dict__.


@dataclass(frozen=True, kw_only=True)
class WarpOptions:
    """Patches enlarged or reduced, rotated and moved: one affine warp. What comes in from outside is invalid.

    Attributes:
        share: Share of the patches that are warped.
        scale: Least and largest factor, drawn evenly in its logarithm. An enlarged patch is cropped at any place.
        rotate_deg: Largest angle in degrees either way, drawn evenly.
        shift: Largest move, in sides of a patch, drawn evenly for rows and columns.
    """

    share: float = 1.0
    scale: tuple[float, float] = (0.8, 1.25)
    rotate_deg: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        _check_share("warp.share", self.share)
        _check_range("warp.scale", self.scale, least=0.25, most=4.0)
        _check_between("warp.rotate_deg", self.rotate_deg, least=0, most=180)
        _check_between("warp.shift", self.shift, least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class CloudOptions:
    """Clouds of random shape, with soft edges, over some patches. Brightness is in standard deviations of a band.

    Attributes:
        share: Share of the patches that get clouds.
        kind: hole: what is under the cloud is invalid and unlabelled, as a cloud mask leaves it. haze: the cloud
            itself is seen, and what is under it keeps its label up to the opacity `opaque`.
        cover: Least and largest share of the patch under cloud, drawn evenly.
        size_px: How far apart clouds lie, in pixels; each is ragged down to a quarter of this.
        edge: Share of a cloud's area in which it thins out.
        opacity: Least and largest opacity of a cloud's core, drawn evenly; of haze.
        brightness: Least and largest value of an opaque cloud in every band, above the mean, drawn evenly; of haze.
        opaque: Opacity above which a hazed pixel loses its label.
        shadow: Largest darkness that a cloud casts beside it, drawn evenly; labels stay. 0 casts none.
    """

    share: float = 0.3
    kind: Literal["hole", "haze"] = "hole"
    cover: tuple[float, float] = (0.05, 0.4)
    size_px: float = 96.0
    edge: float = 0.6
    opacity: tuple[float, float] = (0.3, 1.0)
    brightness: tuple[float, float] = (1.5, 4.0)
    opaque: float = 0.6
    shadow: float = 0.0

    def __post_init__(self) -> None:
        for name in ("share", "edge", "opaque"):
            _check_share(f"clouds.{name}", getattr(self, name))
        for name in ("cover", "opacity"):
            _check_range(f"clouds.{name}", getattr(self, name), least=0, most=1)
        _check_range("clouds.brightness", self.brightness, least=-100, most=100)
        _check_between("clouds.size_px", self.size_px, least=4, most=4096)
        _check_between("clouds.shadow", self.shadow, least=0, most=100)
        if self.kind not in ("hole", "haze"):
            raise InputError(f"augment.clouds.kind is '{self.kind}'; known are hole, haze")


@dataclass(frozen=True, kw_only=True)
class CutoutOptions:
    """Rectangles made invalid and unlabelled.

    Attributes:
        share: Share of the patches that get rectangles.
        count: Rectangles in such a patch.
        size: Least and largest side of a rectangle, in sides of the patch, drawn evenly for rows and columns.
    """

    share: float = 0.5
    count: int = 1
    size: tuple[float, float] = (0.1, 0.4)

    def __post_init__(self) -> None:
        _check_share("cutout.share", self.share)
        _check_between("cutout.count", self.count, least=1, most=1000)
        _check_range("cutout.size", self.size, least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class CutMixOptions:
    """A rectangle of another patch of the batch pasted in, with all that is known of it.

    Attributes:
        share: Share of the patches that get one.
        area: Least and largest share of the patch that the rectangle covers, drawn evenly.
    """

    share: float = 0.5
    area: tuple[float, float] = (0.1, 0.5)

    def __post_init__(self) -> None:
        _check_share("cutmix.share", self.share)
        _check_range("cutmix.area", self.area, least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class ClassMixOptions:
    """The pixels of some classes of another patch of the batch pasted in, rare classes first.

    Attributes:
        share: Share of the patches that get some.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        _check_share("classmix.share", self.share)


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """What happens to a training batch. Sizes are in standard deviations of a band over the training pixels.

    Attributes:
        turns: Each patch in one of its eight flips and quarter turns.
        gain: Standard deviation of a factor about 1, and of an offset, drawn once a patch: brightness and contrast.
        band_gain: The same, drawn once a patch and band: colour.
        noise: Standard deviation of what is added to each pixel and band.
        gamma: Standard deviation of the logarithm of an exponent, drawn once a patch: dark against bright tones.
        blur: Largest standard deviation in pixels of a Gaussian smoothing, drawn evenly from 0 on, once a patch.
        band_dropout: Chance of each band to be hidden in a patch; one band at least stays.
        warp: Other scales, angles and places.
        clouds: Clouds, as holes or as haze, and their shadows.
        cutout: Rectangles cut out.
        cutmix: Rectangles of other patches pasted in.
        classmix: Classes of other patches pasted in.
    """

    turns: bool = True
    gain: float = 0.05
    band_gain: float = 0.05
    noise: float = 0.02
    gamma: float = 0.0
    blur: float = 0.0
    band_dropout: float = 0.0
    warp: WarpOptions | None = None
    clouds: CloudOptions | None = None
    cutout: CutoutOptions | None = None
    cutmix: CutMixOptions | None = None
    classmix: ClassMixOptions | None = None

    def __post_init__(self) -> None:
        for name in ("gain", "band_gain", "noise", "gamma"):
            _check_between(name, getattr(self, name), least=0, most=math.inf)
        _check_between("blur", self.blur, least=0, most=32)
        _check_share("band_dropout", self.band_dropout)

    @property
    def light(self) -> tuple[float, float, float] | None:
        """What changes pixel values in a straight line, `(gain, band_gain, noise)`; None where nothing does."""
        sizes = self.gain, self.band_gain, self.noise
        return sizes if any(sizes) else None


def _check_share(name: str, value: float) -> None:
    _check_between(name, value, least=0, most=1)


def _check_between(name: str, value: float, *, least: float, most: float) -> None:
    if not least <= value <= most:
        needed = f"{least:g} or more" if math.isinf(most) else f"{least:g} to {most:g}"
        raise InputError(f"augment.{name} is {value}: needed is {needed}")


def _check_range(name: str, value: tuple[float, float], *, least: float, most: float) -> None:
    if len(value) != 2 or not least <= value[0] <= value[1] <= most:
        raise InputError(
            f"augment.{name} is {list(value)}: needed are a least and a largest value between {least:g} and {most:g}"
        )
