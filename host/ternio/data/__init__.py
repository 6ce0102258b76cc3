"""Labelled sensor data: reading .csv, .npz and .ts, preparing it, and the reference data set.

>>> from ternio import data
>>> sets = data.load("gestures.csv")            # training and test set
>>> inputs = data.InputDescription.from_training(sets.train)
"""

from .dataset import Dataset, RawDataset
from .inputs import InputDescription, from_int8, quantize_window, to_int8
from .load import basic_motions, load, other_wrist, read
from .prepare import Prepared, prepare

__all__ = [
    "Dataset",
    "InputDescription",
    "Prepared",
    "RawDataset",
    "basic_motions",
    "from_int8",
    "load",
    "other_wrist",
    "prepare",
    "quantize_window",
    "read",
    "to_int8",
]
