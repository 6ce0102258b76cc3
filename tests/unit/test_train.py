"""Training: the reference accuracy, reproducibility, and how it ends when something goes wrong."""

import numpy as np
import pytest

from ternio import data, lora, optim
from ternio import functional as F
from ternio.data import Dataset
from ternio.errors import DataError, ModelError
from ternio.tensor import Tensor
from ternio.train import (
    TextConfig,
    TrainConfig,
    evaluate,
    fit,
    network_input,
    train_classifier,
    train_language_model,
)
from ternio.train.progress import running_mean

SMALL = {"width": 8, "heads": 2, "layers": 1, "ffn": 8}


def waves(count: int = 40, length: int = 12, channels: int = 2, classes: int = 2) -> Dataset:
    """Sines of a frequency per class, in raw units far from 0 and 1."""
    rng = np.random.default_rng(0)
    y = np.arange(count, dtype=np.int32) % classes
    t = np.arange(length)[None, :, None]
    phase = rng.uniform(0, 6, (count, 1, channels))
    x = (
        40
        + 7 * np.sin(t * (0.4 + 0.9 * y[:, None, None]) + phase)
        + 0.1 * rng.standard_normal((count, length, channels))
    )
    labels = tuple(f"c{k}" for k in range(classes))
    names = tuple(f"ch{k}" for k in range(channels))
    return Dataset(x.astype(np.float32), y, labels, names, 0.0, "waves")


@pytest.fixture(scope="module")
def motion():
    sets = data.load("motion")
    return sets, train_classifier(sets, "motion", TrainConfig(seed=1))


def test_motion_reaches_the_reference_accuracy(motion):
    sets, trained = motion
    assert trained.evaluation.accuracy >= 0.975
    assert trained.evaluation.confusion.sum() == 40
    assert len(trained.fit.loss) == 300
    assert np.mean(trained.fit.loss[-20:]) < 0.05 < trained.fit.loss[0]
    float_twin = train_classifier(sets, "twin", TrainConfig(seed=1), ternary=False)
    assert float_twin.evaluation.accuracy >= 0.975


def test_the_other_wrist_fails_and_lora_mends_it(motion):
    sets, trained = motion
    model, inputs = trained.checkpoint.model, trained.checkpoint.inputs
    near, far = (data.other_wrist(d) for d in (sets.train, sets.test))
    first = evaluate(model, inputs, sets.test).logits
    assert evaluate(model, inputs, far).accuracy <= 0.5
    lora.add(model, rank=4, scale=2.0)
    try:
        optimizer = optim.Adam(model.parameters(), lr=5e-3)
        assert sum(p.numel() for p in optimizer.params) == 2320
        schedule = optim.LinearSchedule(optimizer, 200)
        x = network_input(inputs, near)
        rng = np.random.default_rng(0)
        for i in np.concatenate([rng.permutation(40) for _ in range(5)]):
            F.cross_entropy(model(x[i : i + 1]), Tensor(near.y[i : i + 1])).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        assert evaluate(model, inputs, far).accuracy >= 0.9
    finally:
        lora.remove(model)
    np.testing.assert_array_equal(evaluate(model, inputs, sets.test).logits, first)


def test_int8_windows_keep_the_accuracy(motion):
    sets, trained = motion
    inputs = trained.checkpoint.inputs
    coarse = data.from_int8(data.to_int8(inputs.quantize(sets.test.x)))
    logits = trained.checkpoint.model.predict(inputs.normalize(coarse))
    assert (logits.argmax(axis=1) == sets.test.y).mean() >= 0.95


def test_same_seed_same_model():
    sets = data.Prepared(waves(), waves(8))
    config = TrainConfig(steps=12, batch=8, seed=3)
    a, b = (train_classifier(sets, "m", config, **SMALL) for _ in range(2))
    assert a.fit.loss == b.fit.loss
    for name, value in a.checkpoint.model.state_dict().items():
        np.testing.assert_array_equal(value, b.checkpoint.model.state_dict()[name])
    other = train_classifier(sets, "m", TrainConfig(steps=12, batch=8, seed=4), **SMALL)
    assert other.fit.loss != a.fit.loss


def test_raw_units_are_learnt_from():
    sets = data.Prepared(waves(60), waves(20))
    trained = train_classifier(sets, "waves", TrainConfig(steps=200, shift=0.0), width=32)
    assert trained.evaluation.accuracy >= 0.9


def test_evaluation_counts_by_class():
    sets = data.Prepared(waves(9, classes=3), waves(9, classes=3))
    trained = train_classifier(sets, "m", TrainConfig(steps=1), **SMALL)
    model, inputs = trained.checkpoint.model, trained.checkpoint.inputs
    for k, p in enumerate((model.head.weight, model.head.bias)):
        p.fill_(0.0)
        if k:
            p.numpy()[2] = 1.0  # always answers class 2
    result = evaluate(model, inputs, sets.test)
    np.testing.assert_array_equal(result.confusion, [[0, 0, 3]] * 3)
    assert (result.correct, result.accuracy) == (3, pytest.approx(1 / 3))


def test_augmentation_is_small_and_can_be_switched_off():
    from ternio.train.classify import augment as _augment

    x = network_input(data.InputDescription.from_training(waves()), waves())
    rng = np.random.default_rng(0)
    off = TrainConfig(noise=0.0, gain=0.0, shift=0.0)
    np.testing.assert_array_equal(_augment(x, off, rng), x)
    noisy = _augment(x, TrainConfig(gain=0.0, shift=0.0), rng)
    assert 0.04 < (noisy - x).std() < 0.06
    shifted = _augment(x, TrainConfig(noise=0.0, gain=0.0), rng)
    moves = [
        next(s for s in range(-3, 4) if np.array_equal(np.roll(a, s, axis=0), b))
        for a, b in zip(x, shifted, strict=True)
    ]
    assert min(moves) < 0 < max(moves)


def test_a_diverging_loss_stops_with_advice():
    sets = data.Prepared(waves(), waves())
    with pytest.raises(ModelError, match=r"became (nan|infinite) at step \d+; try a lower --lr"):
        train_classifier(sets, "m", TrainConfig(lr=1e30, clip=1e30), **SMALL)


def test_ctrl_c_keeps_what_was_learnt():
    def stop(done: int, total: int, loss: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    sets = data.Prepared(waves(), waves())
    trained = train_classifier(sets, "m", TrainConfig(steps=50), progress=stop, **SMALL)
    assert trained.fit.interrupted
    assert len(trained.fit.loss) == 3
    assert not trained.checkpoint.model.context.tape()


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"noise": -1}, {"seed": -1}],
)
def test_impossible_settings(change):
    with pytest.raises(ModelError, match=f"{next(iter(change))} is"):
        TrainConfig(**change)


def test_labels_must_fit_the_model():
    trained = train_classifier(data.Prepared(waves(), waves()), "m", TrainConfig(steps=1), **SMALL)
    with pytest.raises(DataError, match="3 labels, the model has 2 outputs"):
        fit(trained.checkpoint.model, trained.checkpoint.inputs, waves(9, classes=3))


def test_chuck_learns_motion_at_least_as_fast_as_adam():
    """Steps until the mean of the last 20 losses is below 0.1; same rate, same batches."""
    sets, steps = data.load("motion"), {"adam": [], "chuck": []}
    for name, found in steps.items():
        for seed in range(3):
            config = TrainConfig(
                60, seed=seed, optimizer=name, schedule="constant", weight_decay=0.0
            )
            loss = train_classifier(sets, "m", config).fit.loss
            found.append(int(np.argmax(running_mean(loss) < 0.1)))
    assert min(steps["adam"]) > 20
    assert 20 < np.mean(steps["chuck"]) <= np.mean(steps["adam"])


@pytest.mark.slow
@pytest.mark.parametrize("ternary", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_every_seed_reaches_the_reference_accuracy(seed, ternary):
    sets = data.load("motion")
    trained = train_classifier(sets, "motion", TrainConfig(seed=seed), ternary=ternary)
    assert trained.evaluation.accuracy >= 0.975
    far = data.other_wrist(sets.test)
    model, inputs = trained.checkpoint.model, trained.checkpoint.inputs
    assert evaluate(model, inputs, far).accuracy <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("ternary", "highest"), [(True, 1.20), (False, 1.10)])
@pytest.mark.parametrize("seed", range(2))
def test_text_reaches_the_reference_loss(seed, ternary, highest):
    """600 steps of 16 x 128 characters; the figures are for the text of Python 3.11."""
    trained = train_language_model(
        data.load_corpus("text"), "text", TextConfig(seed=seed), ternary=ternary
    )
    assert trained.loss <= highest
    assert trained.fit.skipped == 0
