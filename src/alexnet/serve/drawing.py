"""The network as the paper's figure 2 draws it: its layers as blocks, its towers one above the other. An SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from torch import nn

from alexnet.model import AlexNet, LayerCost
from alexnet.show.kernels import towers_of

FAR = 0.42
"""How far a block's depth goes to the right and up: pixels of the drawing for each of its side."""
TALL = 0.62  # of the drawing, for a pixel of a map's side
GAP = 46
TOP, EDGE = 26, 14


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
    """The layers with weights, for pictures of that side; the towers are those of the network (section 3.5)."""
    towers = towers_of(network)
    blocks: list[Block] = []
    costs = network.costs(side)
    for cost in costs:
        module = cost.module
        if not isinstance(module, nn.Conv2d | nn.Linear):
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
    """Figure 2 of this network, for pictures of that side. Each layer is a group with `data-layer`."""
    blocks, towers = blocks_of(network, side), towers_of(network)
    parts: list[str] = []
    tall, lane = TALL * side, TALL * _side(blocks[0]) + FAR * 30 + 70
    height = TOP + towers * lane + 24
    middles = [TOP + 24 + lane * (tower + 0.5) for tower in range(towers)]
    x = EDGE + 4.0
    parts.append(_input(x, height / 2, tall, side))
    # Where lines to the next layer begin, for each tower.
    ends = [(x + 34, height / 2)] * towers
    x += 34 + GAP
    for block in blocks:
        width, high, deep = _measures(block)
        places = [height / 2] if block.towers == 1 and towers > 1 else middles
        all_of_them = block.crosses or len(places) == 1 or block is blocks[0]
        lines = [
            f'<path class="{"cross" * (block.crosses and other != number)}" '
            f'd="M{from_x:.1f} {from_y:.1f}L{x:.1f} {middle:.1f}"/>'
            for number, middle in enumerate(places)
            for other, (from_x, from_y) in enumerate(ends)
            if all_of_them or other == number
        ]
        parts.append(f'<g class="lines">{"".join(dict.fromkeys(lines))}</g>')
        shapes = "".join(_box(x, middle, width, high, deep, block) for middle in places)
        words = _words(block, x, width, deep, high, places)
        parts.append(f'<g class="layer" data-layer="{block.name}">{shapes}{words}</g>')
        ends = [(x + width + deep * FAR / 2, middle) for middle in places] * (towers if len(places) == 1 else 1)
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
    return 7 + 0.26 * each, max(24.0, 1.75 * side), max(16.0, 1.15 * side)


def _box(x: float, middle: float, width: float, high: float, deep: float, block: Block) -> str:
    """Front, top and right side."""
    far, y = deep * FAR, middle - high / 2
    front = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{high:.1f}"/>'
    top = f'<path class="top" d="M{x:.1f} {y:.1f}l{far:.1f} {-far:.1f}h{width:.1f}l{-far:.1f} {far:.1f}z"/>'
    right = f'<path class="right" d="M{x + width:.1f} {y:.1f}l{far:.1f} {-far:.1f}v{high:.1f}l{-far:.1f} {far:.1f}z"/>'
    kernel = ""
    if block.kernel and block.name != "conv1":
        size = min(high * 0.5, 1.75 * block.kernel * 1.4)
        kernel = (
            f'<rect class="kernel" x="{x + width * 0.22:.1f}" y="{middle - size / 2:.1f}" '
            f'width="{min(size, width * 0.56):.1f}" height="{size:.1f}"/>'
        )
    return front + top + right + kernel


def _words(block: Block, x: float, width: float, deep: float, high: float, places: list[float]) -> str:
    """The name above, the number of maps or units and their size below each block."""
    centre = x + (width + deep * FAR) / 2
    each = block.shape[0] // block.towers
    small = f"{each:,}" if len(block.shape) == 1 else f"{block.shape[1]}×{block.shape[2]}×{each}"
    lines = [f'<text class="name" x="{centre:.1f}" y="{places[0] - high / 2 - deep * FAR - 9:.1f}">{block.name}</text>']
    lines += [f'<text x="{centre:.1f}" y="{middle + high / 2 + 15:.1f}">{small}</text>' for middle in places]
    if block.pooled:
        lines.append(f'<text class="faint" x="{centre:.1f}" y="{places[-1] + high / 2 + 29:.1f}">max pool</text>')
    return "".join(lines)


def _input(x: float, middle: float, tall: float, side: int) -> str:
    high = tall * 0.72
    y = middle - high / 2
    return (
        f'<g class="input"><rect x="{x:.1f}" y="{y:.1f}" width="8" height="{high:.1f}"/>'
        f'<path class="top" d="M{x:.1f} {y:.1f}l26 -26h8l-26 26z"/>'
        f'<path class="right" d="M{x + 8:.1f} {y:.1f}l26 -26v{high:.1f}l-26 26z"/>'
        f'<text x="{x + 17:.1f}" y="{y + high + 15:.1f}">{side}×{side}×3</text></g>'
    )


def _is_pooled(costs: list[LayerCost], cost: LayerCost) -> bool:
    """Whether pooling comes before the next layer with weights."""
    for other in costs[costs.index(cost) + 1 :]:
        if isinstance(other.module, nn.Conv2d | nn.Linear):
            return False
        if isinstance(other.module, nn.MaxPool2d):
            return True
    return False
