"""How to predict, and what a trained model can do, whatever its file's format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from geoseg.infer.executors import Crew
from geoseg.infer.task import Predictor
from geoseg.io.regions import RegionSpec

if TYPE_CHECKING:
    from geoseg.models.card import ModelCard

DEFAULT_MEMORY_BYTES = 4 * 10**9


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How to predict.

    Attributes:
        tile_px: The largest tile's side, in the model's pixels; None takes the model's.
        overlap_px: Pixels that neighbouring tiles share, in the model's pixels; None takes the model's, and `auto`
            derives it from the network's measured receptive field.
        blend: A name in `BLENDS`.
        batch: Tiles in one forward pass; None finds the fastest that fits.
        memory_bytes: The memory to stay within, of all processes on this machine together.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        compiled: Whether the network is compiled first.
        tta: Test-time augmentation, a name in `TURNS`.
        native: Whether to keep the scene's own pixels where the model was trained on larger or smaller ones.
        layers: Names in `LAYERS` beside the class map and the confidence.
        rule: A name in `RULES`: what a pixel takes that lies in several scenes.
        area: Where a map is wanted, as for `io.region_mask`.
        on_error: `stop` at pixels that cannot be read, or make them `nodata`.
        crew: Who does the work.
        seams: Whether to look for tile borders in the finished map.
        inputs: Files that no output may replace, beside those of the scene.
        overwrite: Whether existing outputs and another job's parts may be replaced.
    """

    tile_px: int | None = None
    overlap_px: int | Literal["auto"] | None = None
    blend: str = "hann"
    batch: int | None = None
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compiled: bool = False
    tta: str = "none"
    native: bool = False
    layers: tuple[str, ...] = ()
    rule: str = "first"
    area: RegionSpec = None
    on_error: str = "stop"
    crew: Crew = field(default_factory=Crew)
    seams: bool = False
    inputs: tuple[str, ...] = ()
    overwrite: bool = False


class TrainedModel(Protocol):
    """A model file that was read, of any format."""

    @property
    def card(self) -> ModelCard:
        """What the file says of the model."""

    @property
    def digest(self) -> str:
        """What changes when the model does."""

    def predictor(self, options: PredictOptions) -> Predictor:
        """The network at work."""

    def measured_overlap(self, *, tile_px: int) -> int:
        """The overlap that follows from the network's receptive field."""
