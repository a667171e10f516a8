"""AlexNet, whole: from a folder of images to a trained, measured classifier.

import alexnet

alexnet.prepare("photographs", "data")
run = alexnet.train("data", "run")
print(alexnet.evaluate("run", "data").top1)
for prediction in alexnet.Classifier.load("run").predict(["one.jpg", "two.jpg"]):
    print(prediction.source, prediction.label, prediction.probability)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from alexnet.data.dataset import PreparedDataset
    from alexnet.data.preparation import prepare
    from alexnet.data.sources.interpretation import plan_source
    from alexnet.data.sources.registry import register_source
    from alexnet.evaluation.evaluate import Evaluation, evaluate
    from alexnet.network.model import AlexNet, variants
    from alexnet.prediction.classifier import Classifier, Prediction
    from alexnet.runs.recipe import Recipe, recipes
    from alexnet.runs.run import Run
    from alexnet.runtime.errors import AlexNetError, UsageError
    from alexnet.training.train import train
    from alexnet.weights.exporting import export
    from alexnet.weights.importing import import_weights

# Loaded when first used: `import alexnet` and `alexnet --help` do not wait for torch.
_HOMES = {
    "AlexNet": "alexnet.network.model",
    "AlexNetError": "alexnet.runtime.errors",
    "Classifier": "alexnet.prediction.classifier",
    "Evaluation": "alexnet.evaluation.evaluate",
    "Prediction": "alexnet.prediction.classifier",
    "PreparedDataset": "alexnet.data.dataset",
    "Recipe": "alexnet.runs.recipe",
    "Run": "alexnet.runs.run",
    "UsageError": "alexnet.runtime.errors",
    "evaluate": "alexnet.evaluation.evaluate",
    "export": "alexnet.weights.exporting",
    "import_weights": "alexnet.weights.importing",
    "plan_source": "alexnet.data.sources.interpretation",
    "prepare": "alexnet.data.preparation",
    "recipes": "alexnet.runs.recipe",
    "register_source": "alexnet.data.sources.registry",
    "train": "alexnet.training.train",
    "variants": "alexnet.network.model",
}

__all__ = [
    "AlexNet",
    "AlexNetError",
    "Classifier",
    "Evaluation",
    "Prediction",
    "PreparedDataset",
    "Recipe",
    "Run",
    "UsageError",
    "evaluate",
    "export",
    "import_weights",
    "plan_source",
    "prepare",
    "recipes",
    "register_source",
    "train",
    "variants",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alexnet' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
