"""The selection of fast and plain forms: GPU kernels that fail are replaced, and --safe forces the plain forms."""

import importlib
import types
from collections.abc import Callable, Iterator

import pytest
import torch

from alexnet.kernels import selection
from alexnet.kernels.crops import can_cut
from alexnet.kernels.pool import can_pool
from alexnet.kernels.safe import VARIABLE, is_safe_mode, safe_mode
from alexnet.kernels.selection import verified
from alexnet.kernels.update import can_update
from alexnet.network.normalization import local_response_norm, local_response_norm_reference


@pytest.fixture(autouse=True)
def nothing_verified(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(VARIABLE, raising=False)
    verified.cache_clear()
    yield
    verified.cache_clear()


def module_with(verify: Callable[[torch.device], None]) -> types.ModuleType:
    module = types.ModuleType("alexnet.kernels.gpu_crops")
    module.verify = verify
    return module


def fail(_: torch.device) -> None:
    raise RuntimeError("ptxas: unsupported toolchain\nmore text")


def differ(device: torch.device) -> None:
    torch.testing.assert_close(torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize(("verify", "reason"), [(fail, "RuntimeError: ptxas"), (differ, "AssertionError: ")])
def test_a_kernel_that_raises_or_differs_is_replaced_with_one_message(
    verify: Callable[[torch.device], None], reason: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda _: module_with(verify))
    assert verified("gpu_crops", "cuda:0") is None
    assert verified("gpu_crops", "cuda:0") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gpu_crops does not work on cuda:0 ({reason}")
    assert line.endswith("using the plain PyTorch form")


def test_a_kernel_that_does_not_load_is_replaced_with_one_message(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def missing(name: str) -> None:
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(importlib, "import_module", missing)
    assert verified("gpu_norm", "cuda:0") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "ImportError: No module named 'triton'" in line


def test_a_kernel_that_agrees_is_verified_once_per_device(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    devices: list[str] = []
    module = module_with(lambda device: devices.append(str(device)))
    monkeypatch.setattr(importlib, "import_module", lambda _: module)
    assert [verified("gpu_crops", device) for device in ("cuda:0", "cuda:0", "cuda:1")] == [module] * 3
    assert devices == ["cuda:0", "cuda:1"]
    assert capsys.readouterr().err == ""


def test_safe_forces_the_plain_form_of_every_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 16, 7, 7).contiguous(memory_format=torch.channels_last)
    images, flips = torch.zeros(2, 32, 32, 3, dtype=torch.uint8), torch.zeros(2, 3, dtype=torch.bool)

    def fast() -> list[bool]:
        return [can_pool(x), can_cut(images, 24, flips, True), can_update(x, x, x, None)]

    assert all(fast())
    monkeypatch.setenv(VARIABLE, "0")
    assert not is_safe_mode()
    with safe_mode():
        assert not any(fast())
        expected = local_response_norm_reference(x, 5, 1e-4, k=2.0, divide_by_n=False)
        assert torch.equal(local_response_norm(x, 5, 1e-4, 0.75, 2.0, divide_by_n=False), expected)


def test_no_gpu_kernel_is_used_on_the_cpu_or_across_devices() -> None:
    assert selection.gpu_kernels("gpu_crops", torch.zeros(1)) is None
    assert selection.gpu_kernels("gpu_crops", torch.zeros(1, device="meta"), torch.zeros(1)) is None
