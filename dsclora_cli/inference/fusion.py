"""Rewrite the graph of a network's forward pass for oneDNN's fused convolutions on CPUs; start with `fuse`.

Every rewriting is exact algebra, so results differ from those of the network by float rounding alone:

- a factor after a convolution goes into the weights; an activation or a sum after a convolution goes into the loop over
  the output (post-operations of oneDNN, used by torch.compile too);
- a 1x1 convolution of a concatenation becomes a sum of convolutions, and absorbs convolutions with no other reader;
- elementwise operations and sums write over an operand with no later reader;
- weights are packed once into the layout of the fused convolution.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

Node = Any
"""An `fx.Node`, or any other argument of a node."""

_OPERATORS = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")
_PROBE = 16  # pixels a side of the picture that shapes are read from
_PACKED_FOR = 256  # pixels a side of the tiles that weights are packed for
_ACTIVATIONS: dict[object, str] = {F.silu: "swish", F.relu: "relu", nn.SiLU: "swish", nn.ReLU: "relu"}
_IN_PLACE: dict[object, str] = {
    operator.add: "add_",
    operator.sub: "sub_",
    operator.mul: "mul_",
    torch.sigmoid: "sigmoid_",
}
_COMMUTES = (operator.add, operator.mul)


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether `fuse` works for a device and dtype; PyTorch lacks the operators on ARM and in some builds."""
    built = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, each) for each in _OPERATORS)  # type: ignore[no-untyped-call]
    return built and device.type == "cpu" and dtype is torch.float32


def fuse(network: nn.Module) -> nn.Module:
    """Return a faster module with the same results in float32 on the CPU; `network` stays unchanged.

    Args:
        network: Maps `(N, 3, H, W)` to `(N, 3, scale*H, scale*W)`, with a forward pass that torch.fx can trace.

    Returns:
        A module with the same input and output shapes.
    """
    # Inside a `Sequential` the network is called with `x` alone. Traced as the root, its optional argument `features`
    # would become an input of the graph.
    traced = fx.symbolic_trace(nn.Sequential(copy.deepcopy(network)).eval())
    with torch.inference_mode():
        _Shapes(traced).run(torch.zeros(1, 3, _PROBE, _PROBE))
        for rewrite in (_open_convolutions, _split_concatenations, _scale, _activate, _add, _overwrite):
            rewrite(traced)
            traced.graph.eliminate_dead_code()
        for layer in traced.modules():
            if isinstance(layer, Convolution):
                layer.pack()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


class Convolution(nn.Module):
    """A convolution of stride 1 that keeps the size, with an activation or the sum with another map fused in.

    Attributes:
        weight: `(out, in, k, k)`, in float64 until `pack`, so that factors are folded in without rounding.
        bias: `(out,)` or None, in float64 until `pack`.
        activation: Name of an oneDNN post-operation; "none" for no activation.
        overwrites: Whether the sum is written into the memory of the other map.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.activation = "none"
        self.overwrites = False
        self._padding = [size // 2 for size in weight.shape[2:]]

    def scale(self, factor: float) -> None:
        """Multiply all future results by `factor`."""
        self.weight = self.weight * factor
        self.bias = None if self.bias is None else self.bias * factor

    def pack(self) -> None:
        """Round to float32 in oneDNN's own layout; afterwards only `forward` can read the weights."""
        size = [1, self.weight.shape[1], _PACKED_FOR, _PACKED_FOR]
        weight = self.weight.float().contiguous(memory_format=torch.channels_last)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, self._padding, [1, 1], [1, 1], 1, size)
        self.bias = None if self.bias is None else self.bias.float()

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Return `(N, out, H, W)` for `(N, in, H, W)`, plus `other`, a map `(N, out, H, W)`, where given."""
        around = (self.weight, self.bias, self._padding, [1, 1], [1, 1], 1)
        added: tuple[Any, ...] = ("add", None, None, [], None)
        if other is None:
            result: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *around, self.activation, [], "")
        elif self.overwrites:
            result = torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *around, *added)
        else:
            result = torch.ops.mkldnn._convolution_pointwise.binary(x, other, *around, *added)
        return result


class _Shapes(fx.Interpreter):
    """An interpreter that notes result shapes in the `meta` of nodes, without computing convolutions."""

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - a tensor, or anything else that a network computes with
        """Run a node and note the shape of the result; see `Interpreter`."""
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else ()
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        """Call a module, or skip a convolution with a known result shape; see `Interpreter`."""
        layer = self.fetch_attr(target)
        if isinstance(layer, nn.Conv2d) and _is_plain(layer):
            count, _, height, width = args[0].shape
            return torch.zeros(count, layer.out_channels, height, width)
        return super().call_module(target, args, kwargs)


def _is_plain(layer: nn.Conv2d) -> bool:
    """Return whether a convolution has stride 1, no dilation, one group, and padding that keeps the size."""
    same = tuple(size // 2 for size in layer.kernel_size)
    return (layer.stride, layer.dilation, layer.groups, layer.padding) == ((1, 1), (1, 1), 1, same)


def _nodes(traced: fx.GraphModule) -> Iterator[tuple[Node, nn.Module | None]]:
    """Return the current nodes with the modules they call; the graph may change during the iteration."""
    return ((node, _layer(node)) for node in list(traced.graph.nodes))


def _layer(node: Node) -> nn.Module | None:
    """Return the module that a node calls; None for a node that calls no module."""
    traced = node.graph.owning_module
    return traced.get_submodule(str(node.target)) if traced and node.op == "call_module" else None


def _open(node: Node) -> Convolution | None:
    """Return the convolution of a node; None if something is fused to it already or several nodes read it."""
    if not isinstance(node, fx.Node) or len(node.args) != 1 or len(node.users) != 1:
        return None
    layer = _layer(node)
    return layer if isinstance(layer, Convolution) and layer.activation == "none" else None


def _insert(before: Node, layer: Convolution, *arguments: Node) -> Node:
    """Insert a node that calls a new layer, and copy the shape of the node `before`."""
    traced = before.graph.owning_module
    name = f"fused_{sum(1 for _ in traced.children())}"
    traced.add_module(name, layer)
    with before.graph.inserting_before(before):
        node = before.graph.call_module(name, arguments)
    node.meta["shape"] = before.meta["shape"]
    return node


def _open_convolutions(traced: fx.GraphModule) -> None:
    """Replace every plain `nn.Conv2d` by a `Convolution`."""
    for node, layer in _nodes(traced):
        if isinstance(layer, nn.Conv2d) and _is_plain(layer):
            bias = None if layer.bias is None else layer.bias.double()
            node.replace_all_uses_with(_insert(node, Convolution(layer.weight.double(), bias), *node.args))


def _split_concatenations(traced: fx.GraphModule) -> None:
    """Replace a 1x1 convolution of a concatenation by a sum, with convolutions of single maps folded in."""
    for node, layer in _nodes(traced):
        if not isinstance(layer, Convolution) or layer.weight.shape[2:] != (1, 1) or not _is_joined(node.args[0]):
            continue
        maps = node.args[0].args[0]
        weights = torch.split(layer.weight, [each.meta["shape"][1] for each in maps], 1)
        total: list[Node] = []
        for each, weight in zip(maps, weights, strict=True):
            inner = _open(each)
            if inner:
                # A convolution and then a matrix `(out, in)` on the channels are a single convolution.
                matrix = weight[:, :, 0, 0]
                bias = None if inner.bias is None else matrix @ inner.bias
                part = Convolution(torch.einsum("om,mihw->oihw", matrix, inner.weight), bias)
            else:
                part = Convolution(weight, None)
            if not total and layer.bias is not None:  # the bias of the sum is added once
                part.bias = layer.bias if part.bias is None else part.bias + layer.bias
            total = [_insert(node, part, each.args[0] if inner else each, *total)]
        node.replace_all_uses_with(total[0])


def _is_joined(node: Node) -> bool:
    """Return whether a node is a concatenation of channels with exactly one reader."""
    if not isinstance(node, fx.Node) or node.target is not torch.cat or len(node.users) != 1:
        return False
    return node.args[1:] == (1,) or node.kwargs == {"dim": 1}


def _scale(traced: fx.GraphModule) -> None:
    """Fold factors after convolutions into the weights."""
    for node, _ in _nodes(traced):
        if node.target is operator.mul and isinstance(node.args[1], int | float) and (inner := _open(node.args[0])):
            inner.scale(node.args[1])
            node.replace_all_uses_with(node.args[0])


def _activate(traced: fx.GraphModule) -> None:
    """Fuse activations into the convolutions before them."""
    for node, layer in _nodes(traced):
        kind = _ACTIVATIONS.get(node.target) or _ACTIVATIONS.get(type(layer))
        if kind and (inner := _open(node.args[0])):
            inner.activation = kind
            node.replace_all_uses_with(node.args[0])


def _add(traced: fx.GraphModule) -> None:
    """Fuse sums into convolutions, where the other map is computed before the convolution."""
    order = {node: place for place, node in enumerate(traced.graph.nodes)}
    for node, _ in _nodes(traced):
        if node.target is not operator.add:
            continue
        for one, other in (node.args, node.args[::-1]):
            if _open(one) and _same_shape(one, other) and order[other] < order[one]:
                one.args = (*one.args, other)
                node.replace_all_uses_with(one)
                break


def _same_shape(one: Node, other: Node) -> bool:
    return isinstance(one, fx.Node) and isinstance(other, fx.Node) and one.meta["shape"] == other.meta["shape"]


def _overwrite(traced: fx.GraphModule) -> None:
    """Let elementwise operations and sums write over an operand with no later reader."""
    last = {operand: node for node in traced.graph.nodes for operand in node.all_input_nodes}
    for node, layer in _nodes(traced):
        if isinstance(layer, Convolution):
            added = node.args[1:]
            layer.overwrites = added not in ((), node.args[:1]) and _may_overwrite(added[0], node, last)
            continue
        for arguments in (node.args, node.args[::-1]) if node.target in _COMMUTES else (node.args,):
            if node.target in _IN_PLACE and _may_overwrite(arguments[0], node, last):
                node.op, node.target, node.args = "call_method", _IN_PLACE[node.target], arguments
                break


def _may_overwrite(operand: Node, node: Node, last: dict[Node, Node]) -> bool:
    """Return whether an operand owns memory (no input, weight or view) of the right size, with no later reader."""
    if not _same_shape(operand, node) or last[operand] is not node:
        return False
    own = operand.op == "call_method" and operand.target in _IN_PLACE.values()
    return own or operand.target in _IN_PLACE or isinstance(_layer(operand), Convolution)
