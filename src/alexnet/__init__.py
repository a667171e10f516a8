"""AlexNet, whole: from a folder of images to a trained, measured classifier.

import alexnet

alexnet.prepare("photographs", "data")
run = alexnet.train("data", "run")
print(alexnet.evaluate("run", "data").accuracy)
for prediction in alexnet.Classifier.load("run").predict(["one.jpg", "two.jpg"]):
    print(prediction.source, prediction.label, prediction.probability)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from alexnet.baselines.baseline import fit_baseline
    from alexnet.data.augmentation import Augmentation, register_augmentation
    from alexnet.data.dataset import PreparedDataset
    from alexnet.data.preparation import prepare
    from alexnet.data.sources.planning import plan_source
    from alexnet.data.sources.registry import register_source
    from alexnet.evaluation.evaluate import Evaluation, evaluate
    from alexnet.evaluation.metrics import register_metric
    from alexnet.network.model import AlexNet
    from alexnet.network.variants import Variant, get_variant, list_variants, register_variant
    from alexnet.prediction.classifier import Classifier, Prediction
    from alexnet.runs.recipe import Recipe, recipes
    from alexnet.runs.run import Run
    from alexnet.runtime.errors import AlexNetError, UsageError
    from alexnet.training.train import train
    from alexnet.weights.exporting import export
    from alexnet.weights.formats import register_weight_format
    from alexnet.weights.importing import import_weights

# Loaded when first used: `import alexnet` and `alexnet --help` do not wait for torch.
_HOMES = {
    "AlexNet": "alexnet.network.model",
    "AlexNetError": "alexnet.runtime.errors",
    "Augmentation": "alexnet.data.augmentation",
    "Classifier": "alexnet.prediction.classifier",
    "Evaluation": "alexnet.evaluation.evaluate",
    "Prediction": "alexnet.prediction.classifier",
    "PreparedDataset": "alexnet.data.dataset",
    "Recipe": "alexnet.runs.recipe",
    "Run": "alexnet.runs.run",
    "UsageError": "alexnet.runtime.errors",
    "Variant": "alexnet.network.variants",
    "evaluate": "alexnet.evaluation.evaluate",
    "export": "alexnet.weights.exporting",
    "fit_baseline": "alexnet.baselines.baseline",
    "get_variant": "alexnet.network.variants",
    "import_weights": "alexnet.weights.importing",
    "list_variants": "alexnet.network.variants",
    "plan_source": "alexnet.data.sources.planning",
    "prepare": "alexnet.data.preparation",
    "recipes": "alexnet.runs.recipe",
    "register_augmentation": "alexnet.data.augmentation",
    "register_metric": "alexnet.evaluation.metrics",
    "register_source": "alexnet.data.sources.registry",
    "register_variant": "alexnet.network.variants",
    "register_weight_format": "alexnet.weights.formats",
    "train": "alexnet.training.train",
}

__all__ = [
    "AlexNet",
    "AlexNetError",
    "Augmentation",
    "Classifier",
    "Evaluation",
    "Prediction",
    "PreparedDataset",
    "Recipe",
    "Run",
    "UsageError",
    "Variant",
    "evaluate",
    "export",
    "fit_baseline",
    "get_variant",
    "import_weights",
    "list_variants",
    "plan_source",
    "prepare",
    "recipes",
    "register_augmentation",
    "register_metric",
    "register_source",
    "register_variant",
    "register_weight_format",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
