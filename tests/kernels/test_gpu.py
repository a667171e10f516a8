"""The Triton kernels, on a GPU if there is one, else in Triton's interpreter: each against the plain formula."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

NORMS = """
import torch
from alexnet.kernels import gpu_norm
from alexnet.kernels.norm import Norm
from alexnet.network.normalization import local_response_norm_reference, spatial_response_norm_reference
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
norms = [Norm("maps", 5, 0.3, 2.0, 2), Norm("maps", 3, 0.1, 1.0, 1, True), Norm("space", 3, 0.1, 1.0)]
for layout in (torch.channels_last, torch.contiguous_format):
    for norm in norms:
        for dtype, tolerance in ((torch.float32, 5e-6), (torch.bfloat16, 2**-7)):  # the interpreter truncates
            x, grad = (torch.randn(2, 6, 5, 4, device=device).to(dtype) for _ in range(2))
            x, grad = (tensor.contiguous(memory_format=layout) for tensor in (x, grad))
            true = x.double().requires_grad_()
            a = true.relu() if norm.relu else true
            if norm.across == "maps":
                y = local_response_norm_reference(
                    a, norm.size, norm.alpha, k=norm.k, divide_by_n=False, groups=norm.groups
                )
            else:
                y = spatial_response_norm_reference(a, norm.size, norm.alpha * norm.size**2)
            y.backward(grad.double())
            found = gpu_norm.forward(x, norm), gpu_norm.backward(x, grad, norm)
            for result, expected in zip(found, (y, true.grad)):
                assert result.dtype == dtype and result.is_contiguous(memory_format=layout)
                torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
"""

UPDATE = """
import torch
from alexnet.kernels import gpu_update
device = "cuda" if torch.cuda.is_available() else "cpu"
for shape in ((7,), (5000,), (96, 3, 11, 11)):
    for half in (False, True):
        weight, velocity, gradient = (torch.randn(shape, device=device) for _ in range(3))
        gradient = gradient.bfloat16() if half else gradient
        copy = torch.zeros_like(weight, dtype=torch.bfloat16) if half else None
        expected_velocity = 0.9 * velocity.double() - 0.5 * weight.double() - 0.01 * gradient.double()
        expected = weight.double() + expected_velocity
        gpu_update.update(weight, velocity, gradient, copy, 0.9, 0.5, 0.01)
        torch.testing.assert_close(velocity.double(), expected_velocity, rtol=0, atol=2e-6)
        torch.testing.assert_close(weight.double(), expected, rtol=0, atol=2e-6)
        if half:
            torch.testing.assert_close(copy.float(), weight, rtol=2**-7, atol=0)  # the interpreter truncates
"""

CROPS = """
import itertools
import numpy as np, torch
import alexnet.data.augmentation as of_augment
from alexnet.data.augmentation import Preprocessing
from alexnet.kernels import gpu_crops
from alexnet.kernels import crops
from alexnet.runs.recipe import recipes
from alexnet.training.input_pipeline import augmentation_pipeline
device = "cuda" if torch.cuda.is_available() else "cpu"
size, crop_size = 53, 37
rng = np.random.default_rng(0)
images = torch.from_numpy(rng.integers(0, 256, (9, size, size, 3), dtype=np.uint8)).to(device)
mean = torch.from_numpy(rng.uniform(0, 255, (size, size, 3)).astype(np.float32))
for flip, of_center in itertools.product(("none", "horizontal", "square"), (False, True)):
    preprocess = Preprocessing(mean, crop_size, 1 / 60, mean_of_center=of_center)
    changes = {"crop_size": crop_size, "brightness": 0.2, "flip": flip, "color_jitter_unit": "std"}
    recipe = recipes()["paper"].override(changes)
    augment = augmentation_pipeline(recipe, preprocess, np.eye(3), np.array([900.0, 90.0, 9.0]))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2**-7)):
        found = []
        for kernels in (None, gpu_crops):
            of_augment.can_cut = lambda *_: kernels is not None
            crops.gpu_kernels = lambda *_: kernels
            found.append(augment(images, torch.Generator().manual_seed(0), dtype=dtype))
        assert found[0].dtype == found[1].dtype == dtype
        assert found[0].shape == found[1].shape == (9, 3, crop_size, crop_size)
        torch.testing.assert_close(*found, rtol=tolerance, atol=tolerance)
"""

COMPILED = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from alexnet.kernels import gpu_norm, gpu_update
from alexnet.kernels import gpu_crops
kernels = [
    (gpu_norm._maps_forward_kernel, {"tower": 48, "half": 2, "relu": True}),
    (gpu_norm._maps_backward_kernel, {"tower": 48, "half": 2, "relu": True}),
    *((kernel, {"half": 1, "relu": True})
      for kernel in (gpu_norm._space_forward_kernel, gpu_norm._space_cross_kernel, gpu_norm._space_backward_kernel)),
    (gpu_update._update_kernel, {"copies": True}),
    (gpu_crops._cut_kernel, {"turn_mean": True}),
]
special = {"where_pointer": "*i32", "image_pointer": "*u8", "mean_pointer": "*fp32", "number_pointer": "*fp32",
           "weight_pointer": "*fp32", "velocity_pointer": "*fp32", "cross_pointer": "*fp32"}
numbers = dict.fromkeys(("alpha", "k", "momentum", "decay", "lr"), "fp32")
for kernel, fixed in kernels:
    for form in sys.argv[1:]:
        half, wide = "half" in form, "wide" in form
        constants = {**fixed, "block": 1024, "wide": wide}
        def kind(name):
            values = "*bf16" if half else "*fp32"
            return special.get(name, values) if name.endswith("pointer") else numbers.get(name, "i32")
        signature = {name: "constexpr" if name in constants else kind(name) for name in kernel.arg_names}
        source = ASTSource(
            fn=kernel,
            signature=signature,
            constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
        )
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
"""


VERIFIED = """
import torch
from alexnet.kernels import gpu_crops, gpu_norm, gpu_update
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
for module in (gpu_crops, gpu_norm, gpu_update):
    module.verify(device)

def wrong(function):
    def changed(*arguments, **options):
        result = function(*arguments, **options)
        (arguments[0] if result is None else result).add_(1)
        return result
    return changed

def wrong_crop(function):
    def changed(images, mean, where, numbers, out, turn_mean):
        function(images, mean, where, numbers, out, turn_mean)
        out[0, 0, 0] += 1
    return changed

cases = [(gpu_crops, "cut", wrong_crop), (gpu_norm, "backward", wrong), (gpu_update, "update", wrong)]
for module, name, spoil in cases:
    setattr(module, name, spoil(getattr(module, name)))
    try:
        module.verify(device)
    except AssertionError:
        continue
    raise SystemExit(f"{module.__name__} does not notice a wrong result")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_they_are_the_formulas() -> None:
    """All in one process: the start of Triton takes longer than most of them."""
    run("".join((NORMS, UPDATE, CROPS, VERIFIED)), **({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}))


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize(
    "forms", [["half wide"], pytest.param(["single", "single wide", "half"], marks=pytest.mark.long)]
)
def test_they_compile_for_an_h100(forms, tmp_path) -> None:
    """To its machine code, which takes no GPU."""
    run(COMPILED, *forms, TRITON_CACHE_DIR=str(tmp_path))


def run(program: str, *arguments: str, **environment: str) -> None:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
