"""An SVG drawing of the network in the style of the paper's figure 2: layers as blocks, one tower above the other."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from torch import nn

from alexnet.network.layers import Convolution, GlobalAvgPool2d, ResidualBlock, Weighted
from alexnet.network.model import AlexNet, towers_of

OBLIQUE = 0.42
"""Pixels to the right and up per pixel of a block's depth (oblique projection)."""
GAP, LABEL_HEIGHT, MARGIN = 62, 64, 34
"""Between two blocks; for the labels of a tower; at both ends."""


@dataclass(frozen=True)
class Block:
    """A layer with weights in the drawing.

    `shape`: its output, (C, H, W) or (units,). `kernel`, `stride`: of a convolution, else 0. `towers`: the number of
    parts. `crosses`: whether each part reads all parts of the layer below. `pooled`: whether pooling follows.
    `shortcut`: of a residual block, whether the identity is added to what it computes, or a projection; else None.
    `parameter_share`, `multiply_add_share`: its part of those of the network.
    """

    name: str
    shape: tuple[int, ...]
    kernel: int
    stride: int
    towers: int
    crosses: bool
    pooled: bool
    shortcut: str | None = None
    parameter_share: float = 0.0
    multiply_add_share: float = 0.0


def blocks_of(network: AlexNet, side: int) -> list[Block]:
    """Return the layers with weights for inputs of `side` pixels, with the towers of the network (section 3.5).

    A residual block is one of them, and so is an average over whole feature maps that describes an image.
    """
    towers = towers_of(network)
    shown = {*network.weighted_layers(), network.feature_layer}
    # Of a residual block, the output of its last layer.
    costs = network.costs(side)
    outputs = {cost.name.split(".")[0]: cost.output for cost in costs}
    modules = list(network.named_children())
    blocks: list[Block] = []
    for number, (name, module) in enumerate(modules):
        if name not in shown:
            continue
        kernel, stride = _kernel_and_stride(module)
        whole = not isinstance(module, nn.Conv2d) or module.groups == 1
        split = towers if name != network.output_layer else 1
        shape = outputs[name][:1] if isinstance(module, GlobalAvgPool2d) else outputs[name]
        shortcut = None
        if isinstance(module, ResidualBlock):
            shortcut = "projection" if len(module.shortcut) else "identity"
        pooled = _is_pooled(modules[number + 1 :])
        own = [cost for cost in costs if cost.name.split(".")[0] == name]
        shares = (
            sum(getattr(cost, key) for cost in own) / sum(getattr(cost, key) for cost in costs)
            for key in ("parameters", "multiply_adds")
        )
        blocks.append(
            Block(name, shape, kernel, stride, split, bool(blocks) and whole and towers > 1, pooled, shortcut, *shares)
        )
    return blocks


def _kernel_and_stride(module: nn.Module) -> tuple[int, int]:
    """Of a convolution, or the largest of a residual block; 0 for other layers."""
    if isinstance(module, ResidualBlock):
        each = [_kernel_and_stride(inner) for inner in module.body]
        return max(kernel for kernel, _ in each), max(stride for _, stride in each)
    return (int(module.kernel_size[0]), int(module.stride[0])) if isinstance(module, Convolution) else (0, 0)


def drawing(network: AlexNet, side: int) -> str:
    """Draw the network for inputs of `side` pixels, as an SVG. Each layer is a group with a `data-layer` attribute.

    Its `data-color`, 0 to 8, is the first color for the first layer and the last for the output.
    """
    blocks, towers = blocks_of(network, side), towers_of(network)
    parts: list[str] = []
    scale = _Scale.of(blocks)
    lane = LABEL_HEIGHT + max(high + deep * OBLIQUE for _, high, deep in map(scale.size, blocks))
    lane = max(lane, 146.0)  # the image with its label
    height = towers * lane + 34
    middles = [10 + lane * (tower + 0.5) for tower in range(towers)]
    x = float(MARGIN)
    parts.append(_input(x, height / 2, side))
    # The starts of the lines to the next layer, one per tower.
    ends = [(x + 34, height / 2)] * towers
    x += 34 + GAP
    for number, block in enumerate(blocks):
        width, high, deep = scale.size(block)
        color = round(8 * number / max(1, len(blocks) - 1))
        places = [height / 2] if block.towers == 1 and towers > 1 else middles
        reads_all = block.crosses or len(places) == 1 or block is blocks[0]
        lines = [
            f'<path class="{"cross" * (block.crosses and other != tower and len(places) > 1)}" '
            f'd="M{from_x:.1f} {from_y:.1f}L{x:.1f} {middle:.1f}"/>'
            for tower, middle in enumerate(places)
            for other, (from_x, from_y) in enumerate(ends)
            if reads_all or other == tower
        ]
        lines += [_shortcut(ends[0], (x + width + deep * OBLIQUE, middles[0]), high + deep * OBLIQUE)] * bool(
            block.shortcut
        )
        parts.append(f'<g class="lines">{"".join(dict.fromkeys(lines))}</g>')
        shapes = "".join(_box(x, middle, width, high, deep) for middle in places)
        labels = _labels(block, x, width, deep, high, places)
        parts.append(f'<g class="layer" data-layer="{block.name}" data-color="{color}">{shapes}{labels}</g>')
        ends = [(x + width + deep * OBLIQUE, middle) for middle in places] * (towers if len(places) == 1 else 1)
        x += width + deep * OBLIQUE + GAP
    whole = x - GAP + MARGIN
    label = escape(f"The network: {len(blocks)} layers with weights in {towers} tower{'s' * (towers > 1)}", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'viewBox="0 0 {whole:.0f} {height:.0f}">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True)
class _Scale:
    """Pixels of the drawing for each feature map (in width) and for each of its rows (in height)."""

    width: float
    height: float

    @classmethod
    def of(cls, blocks: list[Block]) -> _Scale:
        """The scale of the paper's network, smaller where the feature maps are larger or more."""
        maps = [block for block in blocks if len(block.shape) == 3]
        most = max(block.shape[0] // block.towers for block in maps)
        return cls(min(0.28, 108 / most), min(1.8, 99 / max(block.shape[1] for block in maps)))

    def size(self, block: Block) -> tuple[float, float, float]:
        """Width (number of feature maps), height and depth (side of a feature map) of a block, in pixels."""
        each = block.shape[0] // block.towers
        if len(block.shape) == 1:
            return 15, max(26.0, min(132.0, 26 + 0.052 * each)), 10
        side = block.shape[1]
        return 8 + self.width * each, max(26.0, self.height * side), max(20.0, self.height * 0.72 * side)


def _shortcut(start: tuple[float, float], end: tuple[float, float], high: float) -> str:
    """The line of a shortcut, below the block that it passes."""
    (x, y), (to_x, to_y) = start, end
    below = high / 2 + 14
    middle = (x + to_x) / 2
    return (
        f'<path class="shortcut" fill="none" d="M{x:.1f} {y:.1f}Q{middle:.1f} {y + below:.1f} {to_x:.1f} {to_y:.1f}"/>'
    )


def _box(x: float, middle: float, width: float, high: float, deep: float) -> str:
    """Front, top and right face."""
    shift, y = deep * OBLIQUE, middle - (high - deep * OBLIQUE) / 2
    back, forth = f"l{shift:.1f} {-shift:.1f}", f"l{-shift:.1f} {shift:.1f}"
    front = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{high:.1f}"/>'
    top = f'<path class="top" d="M{x:.1f} {y:.1f}{back}h{width:.1f}{forth}z"/>'
    right = f'<path class="right" d="M{x + width:.1f} {y:.1f}{back}v{high:.1f}{forth}z"/>'
    return front + top + right


def _labels(block: Block, x: float, width: float, deep: float, high: float, places: list[float]) -> str:
    """The name above, the output's shape below each block, and kernel and pooling below the last."""
    center = x + (width + deep * OBLIQUE) / 2
    half = (high + deep * OBLIQUE) / 2
    each = block.shape[0] // block.towers
    small = f"{each:,}" if len(block.shape) == 1 else f"{block.shape[1]}×{block.shape[2]}×{each}"
    lines = [f'<text class="name" x="{center:.1f}" y="{places[0] - half - 10:.1f}">{block.name}</text>']
    lines += [f'<text x="{center:.1f}" y="{middle + half + 17:.1f}">{small}</text>' for middle in places]
    notes = [f"{block.kernel}×{block.kernel}" + f", stride {block.stride}" * (block.stride > 1)] * bool(block.kernel)
    notes += ["pooling"] * block.pooled
    notes += [f"+ {block.shortcut}"] * bool(block.shortcut)
    for number, note in enumerate(notes):
        y = places[-1] + half + 33 + 14 * number
        lines.append(f'<text class="faint" x="{center:.1f}" y="{y:.1f}">{note}</text>')
    return "".join(lines)


def _input(x: float, middle: float, side: int) -> str:
    high, shift = 104.0, 26.0
    y = middle - (high - shift) / 2
    return (
        f'<g class="input-block"><rect x="{x:.1f}" y="{y:.1f}" width="8" height="{high:.1f}"/>'
        f'<path class="top" d="M{x:.1f} {y:.1f}l{shift} {-shift}h8l{-shift} {shift}z"/>'
        f'<path class="right" d="M{x + 8:.1f} {y:.1f}l{shift} {-shift}v{high:.1f}l{-shift} {shift}z"/>'
        f'<text x="{x + 17:.1f}" y="{y + high + 17:.1f}">{side}×{side}×3</text></g>'
    )


def _is_pooled(following: list[tuple[str, nn.Module]]) -> bool:
    """Whether pooling follows before the next layer with weights."""
    for _, module in following:
        if isinstance(module, Weighted | ResidualBlock):
            return False
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            return True
    return False
