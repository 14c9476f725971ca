"""Source and model to finished blocks, in bounded memory; read it from the top of this list down.

- `scene`, `options`: models over a scene; the lattice, the plan, the members, the area.
- `job`, `parts`, `holding`, `plan`: one job: claimed, cut to the memory, resumed; `assemble`, `encode`: its files.
- `executors`, `processes` (`worker`, `backlog`, `spawning`), `cluster` (`cluster_task`): who makes
  the blocks; `cluster_map`: any other work on windows, by a cluster.
- `task`: what a worker is given, and the contract of predictors.
- `blocks`, `rows`, `reading`, `feed`, `lanes`: one block: pixels in, tiles predicted side by side and blended, finished
  rows out.
- `canvas` (`kernels`), `torch_arrays`, `blend`, `layers`: the sums, in memory or on a device, and what is read off.
- `predictor` (`network`, `devices`), `onnx` (`bilinear`), `ensemble`, `turns`, `halving`: networks at work;
  `fast`: the same networks, faster.
- `scale`, `memory`, `pauses`, `seams`: does the scene fit the model, what is held, who waits, do borders show.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
