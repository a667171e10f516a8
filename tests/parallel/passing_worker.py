"""The script that `torchrun` starts in test_passing.py: two processes, each of which waits for the other."""

import sys
import time
from pathlib import Path

import torch

from alexnet.parallel.collectives import Group, part
from alexnet.parallel.passing import PassingOn
from alexnet.parallel.sharding import Block

FOLDER = Path(sys.argv[1])


def wait_for(name: str) -> None:
    """Until the other process says so, and not within any exchange."""
    end = time.monotonic() + 30
    while not (FOLDER / name).exists():
        assert time.monotonic() < end, f"the other process never came to {name}"
        time.sleep(0.01)


def main() -> None:
    group = Group.join(torch.device("cpu"), 60)
    rank = group.rank
    blocks = [
        Block(slice(0, 3), slice(0, 1 + rank), (1, 2)),
        Block(slice(3, 5), slice(1 + rank, 2 + rank), (1, 1)),
    ]
    own = torch.tensor([[0.0], [3.0]] if rank == 0 else [[1.0], [2.0], [4.0]])
    passing = PassingOn(own, blocks, group, "fc6")
    found = [passing.receive(0)]
    if rank == 0:
        wait_for("second block arrived")  # at the other, before this process asks for it
    found.append(passing.receive(1))
    if rank == 1:
        (FOLDER / "second block arrived").touch()
        wait_for("first block given back")  # by the other, before this process does
    passing.send_back(0, found[0] * 10)
    if rank == 0:
        (FOLDER / "first block given back").touch()
    passing.send_back(1, found[1] * 10)
    gradient = passing.finish()
    assert torch.cat(found).flatten().tolist() == [0, 1, 2, 3, 4]
    assert gradient.tolist() == (own * 20).tolist()  # the sum of both gradients
    group.leave()
    part()


if __name__ == "__main__":
    main()
