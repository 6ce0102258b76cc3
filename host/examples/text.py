"""Train a ternary language model on a text, let it write, and go on with the training later.

python host/examples/text.py [FILE.txt]
"""

import sys

from ternio import data
from ternio.checkpoint import load_checkpoint, save_checkpoint
from ternio.train import TextConfig, generate, train_language_model

corpus = data.load_corpus(sys.argv[1] if len(sys.argv) > 1 else "text")
config = TextConfig(steps=100, schedule="constant")
trained = train_language_model(corpus, "text", config)
print(f"{len(trained.fit.loss)} steps: {trained.loss:.3f} nats per character")
save_checkpoint("text.ckpt", trained.checkpoint)

found = load_checkpoint("text.ckpt")
longer = TextConfig.from_dict(found.training, steps=200)
trained = train_language_model(corpus, "text", longer, resume=found)
print(f"{len(trained.fit.loss)} steps: {trained.loss:.3f} nats per character")
print(generate(trained.checkpoint.language_model, corpus.vocabulary, "The ", 200))
