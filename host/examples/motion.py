"""Train a ternary model, pack it for a board, and run the packed model here, as the board would.

python host/examples/motion.py
"""

import numpy as np

from ternio import data, manual_seed
from ternio.checkpoint import Checkpoint
from ternio.compile import pack_checkpoint
from ternio.models import Classifier, ClassifierConfig
from ternio.runtime import Model, Session
from ternio.train import TrainConfig, evaluate, fit

train, test = data.basic_motions()
inputs = data.InputDescription.from_training(train)
manual_seed(0)
model = Classifier(ClassifierConfig(channels=6, length=100, classes=4))
fit(model, inputs, train, TrainConfig(steps=300))
print(f"trained: {evaluate(model, inputs, test).accuracy:.3f} of the test windows right")

blob = pack_checkpoint(Checkpoint(model, train.labels, inputs, "motion")).encode()
session = Session(Model.open(blob))
logits = np.stack([session.infer(window) for window in inputs.quantize(test.x)])
print(f"packed into {len(blob)} bytes: {(logits.argmax(1) == test.y).mean():.3f} right")
