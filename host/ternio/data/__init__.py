"""Labelled sensor data: reading .csv, .npz and .ts, preparing it; texts; the reference data sets.

>>> from ternio import data
>>> sets = data.load("gestures.csv")            # training and test set
>>> inputs = data.InputDescription.from_training(sets.train)
"""

from .corpus import REFERENCE_TEXT, Corpus, load_corpus, make_corpus, reference_text
from .dataset import Dataset, RawDataset
from .inputs import InputDescription, from_int8, quantize_window, to_int8
from .load import basic_motions, channel_means, load, other_wrist, read, scale_about
from .prepare import Prepared, prepare
from .vocabulary import KINDS as VOCABULARIES
from .vocabulary import Vocabulary
from .windows import cut

__all__ = [
    "REFERENCE_TEXT",
    "VOCABULARIES",
    "Corpus",
    "Dataset",
    "InputDescription",
    "Prepared",
    "RawDataset",
    "Vocabulary",
    "basic_motions",
    "channel_means",
    "cut",
    "from_int8",
    "load",
    "load_corpus",
    "make_corpus",
    "other_wrist",
    "prepare",
    "quantize_window",
    "read",
    "reference_text",
    "scale_about",
    "to_int8",
]
