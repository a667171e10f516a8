"""The network as the paper's figure 2 draws it: its layers as blocks, its towers one above the other. An SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from torch import nn

from alexnet.network.layers import Weighted
from alexnet.network.model import AlexNet, LayerCost, towers_of

FAR = 0.42
"""How far a block's depth goes to the right and up: pixels of the drawing for each of its own."""
GAP, ROOM, EDGE = 62, 64, 34
"""Between two blocks; for the words of a tower; at both ends."""


@dataclass(frozen=True)
class Block:
    """A layer in the drawing: its name, the maps (C, H, W) or units (n,) that come out, its kernels' side and stride,
    how many parts its towers have, and whether each part reads both towers below."""

    name: str
    shape: tuple[int, ...]
    kernel: int
    stride: int
    towers: int
    crosses: bool
    pooled: bool


def blocks_of(network: AlexNet, side: int) -> list[Block]:
    """The layers with weights, for images of that side; the towers are those of the network (section 3.5)."""
    towers = towers_of(network)
    blocks: list[Block] = []
    costs = network.costs(side)
    for cost in costs:
        module = cost.module
        if not isinstance(module, Weighted):
            continue
        kernel, stride = (
            (int(module.kernel_size[0]), int(module.stride[0])) if isinstance(module, nn.Conv2d) else (0, 0)
        )
        whole = not isinstance(module, nn.Conv2d) or module.groups == 1
        split = towers if cost.name != "logits" else 1
        crosses = bool(blocks) and whole and towers > 1
        blocks.append(Block(cost.name, cost.output, kernel, stride, split, crosses, _is_pooled(costs, cost)))
    return blocks


def drawing(network: AlexNet, side: int) -> str:
    """Figure 2 of this network, for images of that side. Each layer is a group with `data-layer`."""
    blocks, towers = blocks_of(network, side), towers_of(network)
    parts: list[str] = []
    lane = ROOM + max(high + deep * FAR for _, high, deep in map(_measures, blocks))
    height = towers * lane + 34
    middles = [10 + lane * (tower + 0.5) for tower in range(towers)]
    x = float(EDGE)
    parts.append(_input(x, height / 2, side))
    # Where lines to the next layer begin, for each tower.
    ends = [(x + 34, height / 2)] * towers
    x += 34 + GAP
    for block in blocks:
        width, high, deep = _measures(block)
        places = [height / 2] if block.towers == 1 and towers > 1 else middles
        all_of_them = block.crosses or len(places) == 1 or block is blocks[0]
        lines = [
            f'<path class="{"cross" * (block.crosses and other != number and len(places) > 1)}" '
            f'd="M{from_x:.1f} {from_y:.1f}L{x:.1f} {middle:.1f}"/>'
            for number, middle in enumerate(places)
            for other, (from_x, from_y) in enumerate(ends)
            if all_of_them or other == number
        ]
        parts.append(f'<g class="lines">{"".join(dict.fromkeys(lines))}</g>')
        shapes = "".join(_box(x, middle, width, high, deep) for middle in places)
        words = _words(block, x, width, deep, high, places)
        parts.append(f'<g class="layer" data-layer="{block.name}">{shapes}{words}</g>')
        ends = [(x + width + deep * FAR, middle) for middle in places] * (towers if len(places) == 1 else 1)
        x += width + deep * FAR + GAP
    whole = x - GAP + EDGE
    label = escape(f"The network: {len(blocks)} layers with weights in {towers} tower{'s' * (towers > 1)}", quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'viewBox="0 0 {whole:.0f} {height:.0f}">{"".join(parts)}</svg>'
    )


def _side(block: Block) -> int:
    return block.shape[1] if len(block.shape) == 3 else 0


def _measures(block: Block) -> tuple[float, float, float]:
    """Width, height and depth of a block: its maps to the right, its sides up and to the back."""
    each = block.shape[0] // block.towers
    if len(block.shape) == 1:
        return 15, max(26.0, min(132.0, 26 + 0.052 * each)), 10
    side = block.shape[1]
    return 8 + 0.28 * each, max(26.0, 1.8 * side), max(20.0, 1.3 * side)


def _box(x: float, middle: float, width: float, high: float, deep: float) -> str:
    """Front, top and right side."""
    far, y = deep * FAR, middle - (high - deep * FAR) / 2
    front = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{high:.1f}"/>'
    top = f'<path class="top" d="M{x:.1f} {y:.1f}l{far:.1f} {-far:.1f}h{width:.1f}l{-far:.1f} {far:.1f}z"/>'
    right = f'<path class="right" d="M{x + width:.1f} {y:.1f}l{far:.1f} {-far:.1f}v{high:.1f}l{-far:.1f} {far:.1f}z"/>'
    return front + top + right


def _words(block: Block, x: float, width: float, deep: float, high: float, places: list[float]) -> str:
    """The name above, the size of the maps and their number below each block."""
    center = x + (width + deep * FAR) / 2
    half = (high + deep * FAR) / 2
    each = block.shape[0] // block.towers
    small = f"{each:,}" if len(block.shape) == 1 else f"{block.shape[1]}×{block.shape[2]}×{each}"
    lines = [f'<text class="name" x="{center:.1f}" y="{places[0] - half - 10:.1f}">{block.name}</text>']
    lines += [f'<text x="{center:.1f}" y="{middle + half + 17:.1f}">{small}</text>' for middle in places]
    notes = [f"{block.kernel}×{block.kernel}" + f", stride {block.stride}" * (block.stride > 1)] * bool(block.kernel)
    notes += ["max pool"] * block.pooled
    for number, note in enumerate(notes):
        y = places[-1] + half + 33 + 14 * number
        lines.append(f'<text class="faint" x="{center:.1f}" y="{y:.1f}">{note}</text>')
    return "".join(lines)


def _input(x: float, middle: float, side: int) -> str:
    high, far = 104.0, 26.0
    y = middle - (high - far) / 2
    return (
        f'<g class="input"><rect x="{x:.1f}" y="{y:.1f}" width="8" height="{high:.1f}"/>'
        f'<path class="top" d="M{x:.1f} {y:.1f}l{far} {-far}h8l{-far} {far}z"/>'
        f'<path class="right" d="M{x + 8:.1f} {y:.1f}l{far} {-far}v{high:.1f}l{-far} {far}z"/>'
        f'<text x="{x + 17:.1f}" y="{y + high + 17:.1f}">{side}×{side}×3</text></g>'
    )


def _is_pooled(costs: list[LayerCost], cost: LayerCost) -> bool:
    """Whether pooling comes before the next layer with weights."""
    for other in costs[costs.index(cost) + 1 :]:
        if isinstance(other.module, Weighted):
            return False
        if isinstance(other.module, nn.MaxPool2d | nn.AvgPool2d):
            return True
    return False
