"""The training loop: what goes on to the bit, what is skipped, what stops early."""

import dataclasses
import json
import math

import numpy as np
import pytest

from ternio import data, manual_seed, nn, optim
from ternio import functional as F
from ternio.checkpoint import load_checkpoint, save_checkpoint
from ternio.errors import DataError, ModelError
from ternio.models import Classifier, ClassifierConfig
from ternio.tensor import Tensor
from ternio.train import TextConfig, TrainConfig, progress, train_classifier, train_language_model
from ternio.train.batches import Batches, TextWindows
from ternio.train.classify import HELD_OUT, hold_out, mean_loss
from ternio.train.loop import MOST_SKIPPED, Loop, LoopConfig
from ternio.train.progress import running_mean
from ternio.train_state import TrainState

SMALL = {"width": 8, "heads": 2, "layers": 1, "ffn": 8}
X = np.random.default_rng(0).standard_normal((6, 4, 2)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1, 2], np.int32)


def build(seed: int = 0, **changes) -> Classifier:
    manual_seed(seed)
    return Classifier(ClassifierConfig(2, 4, 3, **{"patch": 1, **SMALL, **changes}))


def drawing(model: Classifier, factors=None):
    """Loss of all six examples; the n-th one times factors[n]."""
    calls = iter(factors or [])

    def draw(rng: np.random.Generator) -> Tensor:
        noise = 0.1 * rng.standard_normal(X.shape).astype(np.float32)
        loss = F.cross_entropy(model(X + noise), Tensor(Y, context=model.context))
        return loss * next(calls, 1.0)

    return draw


def equal(a, b) -> None:
    for name, value in a.state_dict().items():
        np.testing.assert_array_equal(value, b.state_dict()[name])


def stop_after(count: int):
    def progress(done: int, total: int, loss: float) -> None:
        if done == count:
            raise KeyboardInterrupt

    return progress


def corpus(length: int = 900):
    rng = np.random.default_rng(0)
    return data.make_corpus("".join(rng.choice(list("abc "), length)), "noise", 8)


TEXT = TextConfig(steps=20, batch=4, warmup=3, evaluate_every=4, seed=5)


@pytest.mark.parametrize(("at", "optimizer"), [(1, "adamw"), (10, "chuck"), (19, "adam")])
def test_a_language_model_goes_on_to_the_bit(tmp_path, at, optimizer):
    """20 steps = `at` steps, a file, and the rest; the engine's generator included."""
    path, settings = tmp_path / "m.ckpt", dataclasses.replace(TEXT, optimizer=optimizer)
    straight = train_language_model(corpus(), "m", settings, **SMALL, context=8)
    left = straight.checkpoint.model.context.generator_state
    half = train_language_model(corpus(), "m", settings, stop_after(at), **SMALL, context=8)
    assert half.fit.interrupted and len(half.fit.loss) == at
    save_checkpoint(path, half.checkpoint)
    manual_seed(99)
    found = load_checkpoint(path)
    config = TextConfig.from_dict(found.training)
    assert config == settings
    rest = train_language_model(corpus(), "m", config, resume=found)
    assert rest.fit.loss == straight.fit.loss
    assert rest.fit.validation == straight.fit.validation
    assert [s for s, _ in rest.fit.validation] == [4, 8, 12, 16, 20]
    equal(rest.checkpoint.model, straight.checkpoint.model)
    np.testing.assert_array_equal(rest.checkpoint.model.context.generator_state, left)
    with pytest.raises(DataError, match="noise: not the text that this training began with"):
        train_language_model(corpus(901), "m", config, resume=found)


@pytest.mark.parametrize("at", [2, 7])
def test_a_classifier_goes_on_to_the_bit(tmp_path, at):
    """With passes that end amid a batch, augmentation, patience and a model that was better."""
    train, test = data.basic_motions()
    train = dataclasses.replace(train, x=train.x[::2], y=train.y[::2])
    sets = data.Prepared(train, test)
    config = TrainConfig(
        steps=20, batch=7, accumulate=2, patience=30, evaluate_every=2, schedule="step"
    )
    path = tmp_path / "m.ckpt"
    straight = train_classifier(sets, "m", config, **SMALL)
    half = train_classifier(sets, "m", config, stop_after(at), **SMALL)
    save_checkpoint(path, half.checkpoint)
    found = load_checkpoint(path)
    rest = train_classifier(sets, "m", TrainConfig.from_dict(found.training), resume=found)
    assert rest.fit.loss == straight.fit.loss
    assert rest.fit.validation == straight.fit.validation
    assert rest.fit.best_step == straight.fit.best_step > 0
    equal(rest.checkpoint.model, straight.checkpoint.model)
    for name, value in straight.fit.state.parameters.items():
        np.testing.assert_array_equal(rest.fit.state.parameters[name], value)


def test_a_training_goes_on_past_its_end():
    config = LoopConfig(steps=10, schedule="constant", warmup=2)
    longer = dataclasses.replace(config, steps=20)
    straight, twice = build(), build()
    Loop(straight, longer, drawing(straight)).run()
    state = Loop(twice, config, drawing(twice)).run().state
    with pytest.raises(ModelError, match="10 of 10 steps are done; a higher --steps trains on"):
        Loop(twice, config, drawing(twice), state=state)
    result = Loop(twice, longer, drawing(twice), state=state).run()
    assert len(result.loss) == 20
    equal(straight, twice)


def test_accumulated_passes_make_one_update():
    """Gradients of two halves of a batch, averaged, are those of the batch."""
    whole, halves = build(ternary=False), build(ternary=False)
    parts = [slice(0, 3), slice(3, 6)]

    def draw_part(rng: np.random.Generator) -> Tensor:
        part = parts[0]
        parts.reverse()
        return F.cross_entropy(halves(X[part]), Tensor(Y[part], context=halves.context))

    def draw_whole(rng: np.random.Generator) -> Tensor:
        return F.cross_entropy(whole(X), Tensor(Y, context=whole.context))

    a = Loop(whole, LoopConfig(steps=5, lr=1e-2), draw_whole).run()
    b = Loop(halves, LoopConfig(steps=5, lr=1e-2, accumulate=2), draw_part).run()
    np.testing.assert_allclose(b.loss, a.loss, rtol=1e-4)
    for name, value in whole.state_dict().items():
        np.testing.assert_allclose(halves.state_dict()[name], value, rtol=0, atol=1e-4)


def test_an_update_that_is_not_finite_is_left_out():
    model, loss = build(), []
    before = []

    def progress(done: int, total: int, value: float) -> None:
        loss.append(value)
        before.append(model.state_dict())

    factors = [1.0, float("nan"), float("inf"), 1.0]
    result = Loop(model, LoopConfig(steps=4), drawing(model, factors), progress=progress).run()
    assert result.skipped == 2
    assert np.isfinite(loss).tolist() == [True, False, False, True]
    for name, value in before[0].items():
        np.testing.assert_array_equal(before[2][name], value)
        assert np.isfinite(before[3][name]).all()
    assert any((before[3][n] != v).any() for n, v in before[2].items())
    assert model.context.tape() == []


def test_training_gives_up_when_nothing_is_finite():
    model = build()
    factors = [1.0, *[float("nan")] * 50]
    with pytest.raises(ModelError, match=f"loss became nan at step {MOST_SKIPPED + 2}; try a low"):
        Loop(model, LoopConfig(steps=60), drawing(model, factors)).run()


def test_a_training_that_diverges_at_its_end_is_an_error():
    """Fewer updates are left out than make training give up, but what remains is of no use."""
    model = build()
    with pytest.raises(ModelError, match="diverged: the validation loss became nan at step 3; try"):
        trained_on(model, [math.nan], 9)
    assert not model.training
    with pytest.raises(ModelError, match=r"diverged: \S+ is not finite at step 1; try a lower"):
        Loop(model, LoopConfig(steps=1, lr=1e39), drawing(model)).run()


def test_an_overflowing_gradient_lowers_the_loss_scale():
    """At 2^126 they overflow; the scale falls until they do not, and training goes on."""
    scaled = build()
    loop = Loop(scaled, LoopConfig(steps=100, loss_scale=2.0**126), drawing(scaled, [16.0] * 100))
    result = loop.run()
    assert 0 < result.skipped < 90
    assert loop.guard.scale == 2.0 ** (126 - result.skipped)
    assert np.isfinite(result.loss[-10:]).all() and not np.isfinite(result.loss[0])
    assert result.loss[-1] < result.loss[result.skipped]


def test_a_loss_scale_changes_no_bit():
    plain, again = build(), build()
    a = Loop(plain, LoopConfig(steps=5), drawing(plain)).run()
    b = Loop(again, LoopConfig(steps=5, loss_scale=2.0**10), drawing(again)).run()
    assert a.loss == b.loss
    equal(plain, again)


def test_the_loss_scale_comes_back():
    parameter = nn.Parameter(1)
    optimizer, guard, seen = optim.SGD([parameter]), optim.StepGuard(8.0, patience=3), []
    for finite in (True, False, False, True, True, True, True, True, True, True, True):
        assert guard.update(optimizer, 1.0 if finite else math.nan) == finite
        seen.append(guard.scale)
    assert seen == [8, 4, 2, 2, 2, 4, 4, 4, 8, 8, 8]
    for _ in range(80):
        guard.update(optimizer, math.inf)
    assert guard.scale == optim.StepGuard.LOWEST
    assert guard.skipped == 82 and guard.in_a_row == 80 - 3


def test_patience_keeps_the_best_model():
    model = build()
    losses = iter([3.0, 2.0, 2.5, 2.0, 2.2, 9.9])
    states = []

    def validate() -> float:
        assert not model.training
        states.append(model.state_dict())
        return next(losses)

    config = LoopConfig(steps=60, evaluate_every=3, patience=3)
    result = Loop(model, config, drawing(model), validate=validate).run()
    assert [s for s, _ in result.validation] == [3, 6, 9, 12, 15]
    assert (result.stopped, result.best_step, len(result.loss)) == (True, 6, 15)
    for name, value in states[1].items():
        np.testing.assert_array_equal(model.state_dict()[name], value)
        np.testing.assert_array_equal(result.state.parameters[name], states[4][name])


def trained_on(model, losses, steps, state=None, **settings):
    """Trains with these validation losses, one every three steps."""
    config = LoopConfig(steps=steps, evaluate_every=3, schedule="constant", **settings)
    left = iter(losses)
    return Loop(model, config, drawing(model), validate=lambda: next(left), state=state).run()


def test_without_patience_a_training_that_goes_on_keeps_its_last_weights():
    """Not those that validated best before: they would throw away all that followed."""
    stopped, straight = build(), build()
    trained_on(straight, [9.0] * 6, 18)
    state = trained_on(stopped, [2.0, 3.0, 3.0], 18, patience=2).state
    assert (state.best_step, len(state.loss)) == (3, 9)
    result = trained_on(stopped, [9.0] * 3, 18, state, patience=0)
    assert (result.best_step, len(result.loss), result.stopped) == (0, 18, False)
    assert (result.state.best_step, result.state.parameters) == (0, None)
    equal(stopped, straight)


def test_patience_that_begins_with_a_resumption_counts_from_there():
    model = build()
    state = trained_on(model, [5.0, 4.0, 3.0], 9).state
    before = model.state_dict()
    result = trained_on(model, [3.5, 2.0, 2.5, 2.5], 30, state, patience=2)
    assert (len(result.loss), result.best_step, result.stopped) == (21, 15, True)
    # What it had at the resumption is the first to compare with, and is kept when all get worse.
    worse = build()
    state = trained_on(worse, [5.0, 4.0, 3.0], 9).state
    result = trained_on(worse, [3.5, 3.1], 30, state, patience=2)
    assert (len(result.loss), result.best_step) == (15, 9)
    for name, value in before.items():
        np.testing.assert_array_equal(worse.state_dict()[name], value)


def test_a_training_that_stopped_early_says_so():
    model = build()
    state = trained_on(model, [2.0, 3.0, 3.0], 18, patience=2).state
    advice = "early at step 9: a patience of 2 .* at step 3; a --patience above 2, or --patience 0"
    with pytest.raises(ModelError, match=advice):
        trained_on(model, [], 60, state, patience=2)
    result = trained_on(model, [3.0], 60, state, patience=3)
    assert (len(result.loss), result.best_step, result.stopped) == (12, 3, True)


def test_examples_set_aside_are_a_part_of_each_class():
    train, _ = data.basic_motions()
    kept, aside = hold_out(train, seed=1)
    assert np.bincount(aside.y).tolist() == [round(HELD_OUT * 10)] * 4
    together = np.concatenate([kept.x, aside.x]).reshape(40, -1)
    assert {w.tobytes() for w in together} == {w.tobytes() for w in train.x.reshape(40, -1)}
    lone = dataclasses.replace(train, x=train.x[9:], y=train.y[9:])
    with pytest.raises(DataError, match="has one example: too few"):
        hold_out(lone, seed=0)


def test_mean_loss_is_the_cross_entropy():
    logits = np.random.default_rng(0).normal(0, 9, (6, 3)).astype(np.float32)
    own = F.cross_entropy(Tensor(logits), Tensor(Y)).item()
    assert mean_loss(logits, Y) == pytest.approx(own, rel=1e-6)


def test_every_example_once_a_pass():
    batches, rng = Batches(10, 4), np.random.default_rng(0)
    drawn = [batches.draw(rng) for _ in range(6)]
    assert [len(b) for b in drawn] == [4, 4, 2] * 2
    assert sorted(np.concatenate(drawn[:3])) == list(range(10))
    few = Batches(9, 4)  # one that remains is less than half a batch
    assert [len(few.draw(rng)) for _ in range(4)] == [4, 4, 4, 4]
    assert [len(Batches(3, 20).draw(rng)) for _ in range(2)] == [3, 3]


@pytest.mark.parametrize("tokens", [9, 10, 16, 17, 18, 24, 25, 1000])
def test_every_token_once_a_pass(tokens):
    windows, rng = TextWindows(tokens, 8, 1), np.random.default_rng(0)
    count, firsts = len(windows.state["order"]), set()
    assert count >= 1
    for _ in range(30):
        starts = np.sort(np.concatenate([windows.draw(rng) for _ in range(count)]))
        assert (np.diff(starts) == 8).all()
        assert starts[0] >= 0 and starts[-1] + 8 < tokens
        firsts.add(int(starts[0]))
    if tokens > 24:
        assert len(firsts) == 8  # cut at every place in turn


def test_settings_as_json():
    config = TrainConfig(steps=7, betas=(0.8, 0.9), noise=0.2)
    values = json.loads(json.dumps(config.to_dict()))
    assert TrainConfig.from_dict(values) == config
    assert TrainConfig.from_dict(values, steps=9) == dataclasses.replace(config, steps=9)
    with pytest.raises(ModelError, match="'dropout' is unknown"):
        TrainConfig.from_dict(values | {"dropout": 1})
    with pytest.raises(ModelError, match="training settings"):
        TrainConfig.from_dict(values | {"steps": "many"})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"schedule": "exponential"}, "schedule 'exponential'; expected one of cosine, linear"),
        ({"optimizer": "muon"}, "optimizer 'muon'; expected one of adamw, adam, chuck"),
        ({"betas": (0.9, 1.0)}, r"betas are \(0.9, 1.0\)"),
        ({"accumulate": 0}, "accumulate is 0; expected at least 1"),
        ({"floor": 2.0}, r"floor is 2.0; expected a number in 0..1"),
        ({"patience": -1}, "patience is -1"),
    ],
)
def test_impossible_settings(change, expected):
    with pytest.raises(ModelError, match=expected):
        LoopConfig(**change)


def test_states_that_do_not_fit():
    model = build()
    state = Loop(model, LoopConfig(steps=2), drawing(model)).run().state
    about, arrays = state.to_file()
    again = TrainState.from_file(json.loads(json.dumps(about)), arrays)
    assert again.generator == state.generator
    for change in ({"generator": {}}, {"generator": {"bit_generator": "MT19937"}}):
        bad = TrainState.from_file(about | change, arrays)
        with pytest.raises(ModelError, match="generator is garbled"):
            Loop(build(), LoopConfig(steps=4), drawing(model), state=bad)
    with pytest.raises(ModelError, match="training state: "):
        TrainState.from_file(about, {k: v for k, v in arrays.items() if k != "loss"})
    with pytest.raises(ModelError, match="generator is garbled"):
        TrainState.from_file(about, arrays | {"engine_generator": np.zeros(3)})
    with pytest.raises(ModelError, match="no validation at the best step"):
        TrainState.from_file(about | {"has_parameters": True, "best_step": 7}, arrays)
    other = build(width=16)
    with pytest.raises(ModelError, match="optimiser state"):
        Loop(other, LoopConfig(steps=4), drawing(other), state=state)
    with pytest.raises(ModelError, match="another kind of data"):
        order = {"order": np.arange(3)}
        Loop(build(), LoopConfig(steps=4), drawing(model), order=order, state=state)


def test_the_mean_of_a_curve_leaves_gaps_out():
    np.testing.assert_allclose(running_mean([1.0, 3.0, np.nan, 5.0], 2), [1, 2, 3, 5])
    assert np.isnan(running_mean([np.nan, 1.0])[0])


def test_a_line_now_and_then_where_there_is_no_terminal(monkeypatch, capsys):
    seconds = iter([0.0, 0.0, 2.0, 4.0, 11.0, 12.0, 30.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with progress.progress_bar("training") as update:
        for done in (1, 2, 22, 23, 60):
            update(done, 100, 0.5)
    assert capsys.readouterr().err.splitlines() == [
        "training: 22/100  loss 0.5000  2.0 steps/s  0:00:39 left",
        "training: 60/100  loss 0.5000  2.0 steps/s  0:00:20 left",
    ]


def test_what_chuck_did_can_be_plotted(tmp_path):
    trace = [{"lambda": 1 + step / 10, "noise": 0.0} for step in range(5)]
    progress.plot_trace(tmp_path / "trace.svg", trace)
    assert "<svg" in (tmp_path / "trace.svg").read_text()
    with pytest.raises(DataError, match="the trace is empty"):
        progress.plot_trace(tmp_path / "trace.svg", [])
    with pytest.raises(DataError, match=r"\.png"):
        progress.plot_trace(tmp_path / "trace.txt", trace)
