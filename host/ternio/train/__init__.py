"""Training: of classifiers (classify.py) and of language models (language.py), on one loop.

>>> from ternio import data, train
>>> trained = train.train_classifier(data.load("motion"), "motion")
>>> trained = train.train_language_model(data.load_corpus("text"), "text")
"""

from ..train_state import TrainState
from .classify import (
    Evaluation,
    TrainConfig,
    Trained,
    evaluate,
    fit,
    network_input,
    train_classifier,
)
from .language import (
    TextConfig,
    TrainedText,
    fit_text,
    generate,
    train_language_model,
    validation_loss,
)
from .loop import FitResult, Loop, LoopConfig, Progress
from .progress import plot_curve, plot_trace, progress_bar

__all__ = [
    "Evaluation",
    "FitResult",
    "Loop",
    "LoopConfig",
    "Progress",
    "TextConfig",
    "TrainConfig",
    "TrainState",
    "Trained",
    "TrainedText",
    "evaluate",
    "fit",
    "fit_text",
    "generate",
    "network_input",
    "plot_curve",
    "plot_trace",
    "progress_bar",
    "train_classifier",
    "train_language_model",
    "validation_loss",
]
