"""The peer terratorch: `tiled_inference` over the whole scene as one tensor; rasterio reads and writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from _peer_common import load_network, measure, parse, write_map
from terratorch.tasks.tiled_inference import tiled_inference


def main() -> None:
    """Measure and print."""
    options = parse(batch=16)
    network, _ = load_network(options.model)

    def map_scene(scene: Path, out: Path) -> None:
        with rasterio.open(scene) as file:
            pixels = torch.from_numpy(file.read(out_dtype=np.float32))
        with torch.inference_mode():
            scores = tiled_inference(
                network, pixels[None], crop=options.tile, stride=options.tile - options.overlap,
                batch_size=options.batch,
            )  # fmt: skip
        write_map(out, scores[0].argmax(dim=0).numpy(), like=scene)

    measure(
        map_scene, options, package="terratorch", precision="fp32",
        blends="logits, as its tasks do; 8 px of each tile's border are cut, cosine over the rest of the overlap",
        writes="class map, DEFLATE", input="raw, standardised in a module around the network",
    )  # fmt: skip


if __name__ == "__main__":
    main()
