"""The peers: a textbook AlexNet, its training step and the usual loading of images, in common PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from alexnet.runtime.devices import choose_device

SIDE = 227
"""Height and width of the images of a synthetic batch."""


def peer_alexnet(*, groups: int = 1, response_normalization: bool = True) -> nn.Module:
    """The AlexNet of textbooks: no towers, `nn.LocalResponseNorm`.

    Parameters
    ----------
    groups : int
        Groups of conv2, conv4 and conv5; 2 for the towers of the paper.
    response_normalization : bool
        Whether response normalization follows conv1 and conv2.
    """

    def norm() -> list[nn.Module]:
        return [nn.LocalResponseNorm(5, 1e-4, 0.75, 2)] if response_normalization else []

    return nn.Sequential(
        *(nn.Conv2d(3, 96, 11, 4), nn.ReLU(True), *norm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, 1, 2, groups=groups), nn.ReLU(True), *norm(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, 1, 1), nn.ReLU(True)),
        *(nn.Conv2d(384, 384, 3, 1, 1, groups=groups), nn.ReLU(True)),
        *(nn.Conv2d(384, 256, 3, 1, 1, groups=groups), nn.ReLU(True), nn.MaxPool2d(3, 2)),
        nn.Flatten(),
        *(nn.Linear(9216, 4096), nn.ReLU(True), nn.Dropout()),
        *(nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout()),
        nn.Linear(4096, 1000),
    )


class TextbookTraining:
    """The training step of a textbook AlexNet: float32, eager, `torch.optim.SGD`.

    Parameters
    ----------
    batch_size : int
        Images of the synthetic batch.
    """

    def __init__(self, batch_size: int) -> None:
        self.device = choose_device()
        self.network = peer_alexnet().to(self.device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
        self.images = torch.randn(batch_size, 3, SIDE, SIDE, device=self.device)
        self.labels = torch.randint(1000, (batch_size,), device=self.device)

    def step(self) -> None:
        """Take a step, and wait for the device."""
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.network(self.images), self.labels).backward()
        self.optimizer.step()
        wait_for(self.device)


class ExpertTraining:
    """The training step of an expert: channels-last, autocast, fused `torch.optim.SGD`, and no response normalization.

    Parameters
    ----------
    batch_size : int
        Images of the synthetic batch.
    dtype : torch.dtype
        Arithmetic of autocast.
    compiled : bool
        Whether `torch.compile` compiles forward and backward pass, which needs a C++ compiler on a CPU.
    """

    def __init__(self, batch_size: int, dtype: torch.dtype, *, compiled: bool = False) -> None:
        self.device, self.dtype = choose_device(), dtype
        plain = peer_alexnet(groups=2, response_normalization=False).to(self.device)
        network = plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)
        self.network = torch.compile(network) if compiled else network
        images = torch.randn(batch_size, 3, SIDE, SIDE, device=self.device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(1000, (batch_size,), device=self.device)

    def step(self) -> None:
        """Take a step, and wait for the device."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = nn.functional.cross_entropy(self.network(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        wait_for(self.device)


def wait_for(device: torch.device) -> None:
    """Wait until all work queued on a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class CommonDataset(Dataset):
    """Images opened one by one with Pillow: shorter side of 256 pixels, random crop of 224, random horizontal flip.

    Parameters
    ----------
    files : list of Path
        The images.
    """

    side, crop_size = 256, 224  # pixels

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        self.deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files[index]) as opened:
            image = opened.convert("RGB")
        scale = self.side / min(image.size)
        width, height = (max(self.side, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (int(torch.randint(length - self.crop_size + 1, ())) for length in (width, height))
        image = image.crop((left, top, left + self.crop_size, top + self.crop_size))
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
        return (values - self.mean) / self.deviation, index % 10


def common_loader(files: list[Path], batch_size: int, workers: int) -> DataLoader:
    """The usual loader: one worker process per CPU, each image decoded and cropped when it is needed."""
    return DataLoader(
        CommonDataset(files), batch_size, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True
    )
