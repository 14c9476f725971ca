"""The peer geoai: `semantic_inference_on_geotiff`, which reads, predicts, blends and writes by itself."""

from __future__ import annotations

from pathlib import Path

import torch
from _peer_common import load_network, measure, parse
from geoai.train import semantic_inference_on_geotiff

DIVIDES_BY = 255.0
"""What geoai divides pixels by, whatever their type."""


def main() -> None:
    """Measure and print."""
    options = parse(batch=4)
    network, spec = load_network(options.model, divided_by=DIVIDES_BY)

    def map_scene(scene: Path, out: Path) -> None:
        semantic_inference_on_geotiff(
            network, str(scene), str(out), window_size=options.tile, overlap=options.overlap, batch_size=options.batch,
            num_channels=spec["bands"], num_classes=spec["classes"], device=torch.device("cpu"), quiet=True,
        )  # fmt: skip

    measure(
        map_scene, options, package="geoai-py", precision="fp32", blends="probabilities, linear",
        writes="class map, uncompressed", input="divided by 255, undone in a module around the network",
    )  # fmt: skip


if __name__ == "__main__":
    main()
