"""Tones, colours, sharpness, noise and missing bands, in standard deviations of each band about its mean."""

from __future__ import annotations

import functools
import math

import torch

from geoseg.data.augment.draws import Planes, Setting, per_band, seen, sent, side_px

GAMMA_REACH = 3.0  # standard deviations either side of the mean between which tones are bent
GRAIN_LENGTH = 2**20
GRAIN_SEED = 0
LEAST_SIGMA_PX = 0.1  # below, smoothing changes nothing
LEAST_WEIGHT = 1e-3  # of valid pixels in a smoothed one, so that nothing is divided by 0


def gamma(planes: Planes, size: float, setting: Setting) -> Planes:
    """Tones bent as a film's: `u ** exponent`, `u` from 0 at 3 deviations below the mean to 1 at 3 above.

    Darker values than that are kept as they are, brighter ones follow the same curve. The exponent's logarithm is
    normal, one a patch.
    """
    image = planes["image"]
    exponent = torch.exp(size * torch.randn((len(image), 1, 1, 1), generator=setting.generator))
    low, height = (
        per_band(value) for value in (setting.mean - GAMMA_REACH * setting.std, 2 * GAMMA_REACH * setting.std)
    )
    tone = (image - low) / height
    bent = torch.where(tone > 0, tone.clamp(min=0) ** sent(exponent, planes), tone) * height + low
    return {**planes, "image": torch.where(seen(planes), bent, image)}


def blur(planes: Planes, size_px: float, setting: Setting) -> Planes:
    """Each patch smoothed by a Gaussian of its own, over valid pixels only; invalid ones become 0."""
    from kornia.filters import gaussian_blur2d

    image, usable = planes["image"], planes["valid"].unsqueeze(1)
    sigma = setting.evenly(0, size_px, len(image), 1).clamp(min=LEAST_SIGMA_PX).expand(-1, 2)
    known = torch.cat([torch.where(usable, image, 0.0), usable.float()], 1)
    smooth = gaussian_blur2d(known, 2 * math.ceil(3 * size_px) + 1, sigma, border_type="constant")
    share = usable / smooth[:, -1:].clamp(min=LEAST_WEIGHT)
    return {**planes, "image": smooth[:, :-1] * share}


def light(planes: Planes, sizes: tuple[float, float, float], setting: Setting) -> Planes:
    """`(z * factor + offset + noise) * std + mean` with `z` the normalised image, written out on the image itself.

    Factor and offset are normal, one a patch (gain) and one a patch and band (band_gain). The noise is white: each
    band of each patch gets a stretch of one fixed series of a million normal numbers, from a drawn place on. Within a
    band it is as good as drawn anew; two bands may get the same numbers, but not at the same pixels.
    """
    gain, band_gain, noise = sizes
    image = planes["image"]
    count, bands = image.shape[:2]

    def draw(size: float, per_patch: int) -> torch.Tensor:
        return size * torch.randn((count, per_patch), generator=setting.generator)

    factor = sent((1 + draw(gain, 1)) * (1 + draw(band_gain, bands)), planes)
    offset = sent(draw(gain, 1) + draw(band_gain, bands), planes)
    shift, amplitude = offset * setting.std + setting.mean * (1 - factor), (noise * setting.std).expand(count, bands)
    if "present" in planes:  # a band that is not there stays 0
        shift, amplitude = shift * planes["present"], amplitude * planes["present"]
    lit = torch.addcmul(per_band(shift), image, per_band(factor))
    if noise:
        pixels = math.prod(side_px(planes))
        series = grain(max(GRAIN_LENGTH, 2 * pixels), image.device)
        first = torch.randint(len(series) - pixels + 1, (count, bands), generator=setting.generator)
        _add_grain(lit.view(count, bands, pixels), series, first, amplitude)
    return {**planes, "image": lit}


@functools.lru_cache(maxsize=4)
def grain(length: int, device: torch.device) -> torch.Tensor:
    """The series of standard normal numbers that noise is cut from, the same on every device; do not write to it."""
    return torch.randn(length, generator=torch.Generator().manual_seed(GRAIN_SEED)).to(device)


def _add_grain(flat: torch.Tensor, series: torch.Tensor, first: torch.Tensor, amplitude: torch.Tensor) -> None:
    """Adds `amplitude` times the series from `first` on, both `(n, band)`, to `flat`, `(n, band, pixel)`, in place."""
    pixels = flat.shape[-1]
    if flat.device.type != "cpu":
        flat.addcmul_(series.unfold(0, pixels, 1)[first.to(flat.device, non_blocking=True)], amplitude[..., None])
        return
    # Plane by plane it stays in the processor's cache, and nothing is put together first.
    places, sizes = first.flatten().tolist(), amplitude.flatten().tolist()
    for plane, place, size in zip(flat.view(-1, pixels), places, sizes, strict=True):
        plane.add_(series[place : place + pixels], alpha=size)


def drop_bands(planes: Planes, chance: float, setting: Setting) -> Planes:
    """Each band of a patch hidden by chance: at its mean, which is 0 once normalised, and absent in `present`.

    Where all bands that a patch has would go, one of them stays.
    """
    image = planes["image"]
    count, bands = image.shape[:2]
    dropped = sent(setting.evenly(0, 1, count, bands) < chance, planes)
    order = sent(setting.evenly(1, 2, count, bands), planes)
    present = planes.get("present", torch.ones_like(dropped))
    lucky = torch.zeros_like(dropped).scatter_(1, (order * present).argmax(1, keepdim=True), value=True)
    nothing_left = ~(present & ~dropped).any(1, keepdim=True)
    dropped = present & dropped & ~(lucky & nothing_left)
    hidden = torch.where(per_band(dropped), per_band(setting.mean), image)
    return {**planes, "image": hidden, "present": present & ~dropped}
