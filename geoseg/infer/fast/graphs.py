"""A network as a graph of its layers, and the graph made faster without another result."""

from __future__ import annotations

import copy
import operator
import sys
from collections.abc import Callable
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from geoseg.infer.fast.winograd import FastConv, can_be_fast
from geoseg.models.networks.any_size import AnySize, padded_inside

RELUS = (functional.relu, torch.relu, torch.relu_)
SUMS = (operator.add, operator.iadd, torch.add)
UNDRAWABLE = (
    fx.proxy.TraceError, TypeError, AttributeError, ValueError, RuntimeError, KeyError, IndexError, AssertionError,
)  # fmt: skip
"""What comes out of drawing a network of which there is no graph."""

IDLE = (nn.Identity, nn.Dropout, nn.Dropout2d)


class _Tracer(fx.Tracer):
    """Draws the graph of a network. A layer that decides by its input, which no graph can show, stays one node."""

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The node or nodes of a layer."""
        before, around = len(self.graph.nodes), list(self.module_stack.items())
        try:
            return super().call_module(m, forward, args, kwargs)
        except UNDRAWABLE:
            for node in reversed(list(self.graph.nodes)[before:]):
                self.graph.erase_node(node)
            self.module_stack.clear()
            self.module_stack.update(around)
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


class Padded(nn.Module):
    """The graph of the inside of a network that pads its input, and the padding around it."""

    def __init__(self, network: AnySize, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside
        self.multiple, self.least, self.largest = network.multiple, network.least, network.largest

    def forward(self, image: Tensor) -> Tensor:
        """Logits `(n, class, row, col)` of an image `(n, band, row, col)` of any rows and columns."""
        return padded_inside(self.inside, image, multiple=self.multiple, least=self.least, largest=self.largest)


def simplified(network: nn.Module, *, probe: Tensor | None) -> nn.Module:
    """A copy of a network in which batch norms are folded into the convolutions before them.

    Args:
        network: The network, in evaluation mode.
        probe: An image `(n, band, row, col)`; where it is given, the copy is for the CPU: convolutions of 3 x 3 pixels
            are done by Winograd's filtering, and weights that stay what they are lie in memory once.

    Raises:
        UNDRAWABLE: There is no graph of the network.
    """
    tracer = _Tracer()
    inside = isinstance(network, AnySize)
    if inside:
        tracer.traced_func_name = "unpadded"
    tensors = () if probe is None else chain(network.parameters(), network.buffers())
    apart = with_norms_apart(copy.deepcopy(network, {id(tensor): tensor for tensor in tensors}))
    drawn = fx.GraphModule(apart, tracer.trace(apart))
    without_idle_layers(drawn)
    graph = fuse(drawn, inplace=True, no_trace=True)
    if probe is not None:
        with_fast_convolutions(cast("fx.GraphModule", graph), _padded(network, probe) if inside else probe)
    # A module whose graph knows it is a circle: its weights would stay in memory until garbage is looked for.
    cast("fx.GraphModule", graph).graph.owning_module = None
    return Padded(network, graph) if isinstance(network, AnySize) else graph


def _padded(network: Any, probe: Tensor) -> Tensor:
    """The image that the inside of the network sees of a probe."""
    seen: list[Tensor] = []

    def look(image: Tensor) -> Tensor:
        seen.append(image)
        return image

    padded_inside(look, probe, multiple=network.multiple, least=network.least, largest=network.largest)
    return seen[0]


def with_norms_apart(network: nn.Module) -> nn.Module:
    """The network, where each of timm's layers that is a batch norm and an activation is two; changed in place."""
    timm = sys.modules.get("timm.layers.norm_act")  # which takes seconds to load; where it is not, nothing is of it
    if timm is None:
        return network
    for name, layer in list(network.named_modules()):
        if type(layer) is not timm.BatchNormAct2d:
            continue
        norm = nn.BatchNorm2d(layer.num_features, eps=layer.eps, affine=layer.affine)
        norm.load_state_dict(layer.state_dict())
        _put(network, name, nn.Sequential(norm, layer.drop, layer.act).eval())
    return network


def without_idle_layers(network: fx.GraphModule) -> None:
    """Leave out the layers that do nothing after training, in place."""
    for node in list(network.graph.nodes):
        idle = node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), IDLE)
        if idle and len(node.args) == 1 and not node.kwargs:
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)
    network.recompile()


def with_fast_convolutions(network: fx.GraphModule, probe: Tensor) -> None:
    """Put a `FastConv` in the place of each convolution that it stands for, with what lies around it, in place."""
    ShapeProp(network).propagate(probe)
    layers = dict(network.named_modules())
    for node in list(network.graph.nodes):
        layer = layers.get(node.target) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d) and can_be_fast(layer) and _is_alone(network, node):
            _replace(network, node, layer)
    network.graph.eliminate_dead_code()
    network.recompile()
    for name, layer in list(network.named_modules()):  # what lies inside of layers that are no graph
        if isinstance(layer, nn.Conv2d) and can_be_fast(layer) and not _is_within_fast(network, name):
            _put(network, name, FastConv(layer))


def _is_within_fast(network: nn.Module, name: str) -> bool:
    return isinstance(network.get_submodule(name.rpartition(".")[0]), FastConv)


def _is_alone(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether no other node calls the same layer."""
    return [other.target for other in network.graph.nodes if other.op == "call_module"].count(node.target) == 1


def _put(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, layer)


def _replace(network: fx.GraphModule, node: fx.Node, layer: nn.Conv2d) -> None:
    """Put a `FastConv` in the place of a convolution, what makes its input, and what follows it."""
    sources, doubled, size = _sources(node.args[0], layer)
    widths = [_shape(source)[1] for source in sources]
    last, plus = _added(node)
    covered = [node] if plus is None else [last, node]
    after = _only_user(last)
    relu = after is not None and _is_relu(network, after)
    if after is not None and relu:
        covered = [after, *covered]
    options = ({"size": size} if any(doubled) else {}) | ({} if plus is None else {"plus": plus})
    _put(network, str(node.target), FastConv(layer, widths=widths, doubled=doubled, relu=relu))
    with network.graph.inserting_before(covered[0]):
        fast = network.graph.create_node("call_module", str(node.target), tuple(sources), options)
    fast.meta = dict(covered[0].meta)
    covered[0].replace_all_uses_with(fast)
    for gone in covered:
        network.graph.erase_node(gone)


def _shape(node: fx.Node) -> tuple[int, ...]:
    """The shape that a node had for the probe; nothing where it gives no tensor."""
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _added(node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """The sum of a node and another image of its shape, and that image, where nothing else looks at the node."""
    after = _only_user(node)
    if after is None or after.op != "call_function" or after.target not in SUMS or len(after.args) != 2:
        return node, None
    other = after.args[1] if after.args[0] is node else after.args[0]
    if after.kwargs or not isinstance(other, fx.Node) or other is node or _shape(other) != _shape(node):
        return node, None
    return after, other


def _is_relu(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) is nn.ReLU
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in RELUS


def _sources(given: Any, layer: nn.Conv2d) -> tuple[list[fx.Node], list[bool], Any]:
    """The images that a convolution sees side by side, which of them twice as large, and then their size."""
    parts = _concatenated(given)
    widths = [_shape(part)[1] for part in parts if len(_shape(part)) == 4]
    if not parts or len(widths) < len(parts) or not can_be_fast(layer, widths):
        parts = [given]
    found, doubled, size = [], [], None
    for part in parts:
        smaller, wanted = _doubled(part)
        found.append(part if smaller is None else smaller)
        doubled.append(smaller is not None)
        size = wanted if smaller is not None else size
    return found, doubled, size


def _concatenated(node: Any) -> list[fx.Node]:
    """What a node puts side by side in channels, where it does and nothing else looks at the result; else nothing."""
    if node.op != "call_function" or node.target not in (torch.cat, torch.concat) or len(node.users) != 1:
        return []
    parts = node.args[0] if node.args else ()
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    listed = isinstance(parts, (list, tuple)) and all(isinstance(part, fx.Node) for part in parts)
    return list(parts) if listed and dim == 1 else []


def _doubled(node: fx.Node) -> tuple[fx.Node | None, Any]:
    """The image of which a node takes each pixel four times, and the node's rows and columns; else None."""
    if node.op != "call_function" or node.target is not functional.interpolate or len(node.users) != 1:
        return None, None
    names = ("input", "size", "scale_factor", "mode")
    options = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    smaller = options["input"]
    if options.get("mode", "nearest") != "nearest" or not isinstance(smaller, fx.Node):
        return None, None
    before, after = _shape(smaller), _shape(node)
    if len(before) != 4 or after[2:] != (2 * before[2], 2 * before[3]):
        return None, None
    return smaller, options.get("size")
