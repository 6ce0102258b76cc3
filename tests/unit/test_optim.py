"""Optimisers against NumPy, the schedule, and state that resumes to the bit."""

import itertools
import math

import numpy as np
import pytest

from ternio import nn, optim
from ternio.errors import ModelError
from ternio.tensor import Tensor


def quadratic(*params: nn.Parameter) -> None:
    """Gradients of the sum over parameters of mean((p - 3)^2)."""
    loss = None
    for p in params:
        d = p - 3.0
        term = (d * d).mean()
        loss = term if loss is None else loss + term
    loss.backward()


def test_adamw_matches_numpy_and_spares_vectors_from_decay():
    matrix, vector = nn.Parameter(2, 2).fill_(1.0), nn.Parameter(4).fill_(1.0)
    optimizer = optim.AdamW([matrix, vector], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    expected = {"matrix": 1.0, "vector": 1.0}
    m = dict.fromkeys(expected, 0.0)
    v = dict.fromkeys(expected, 0.0)
    for t in range(1, 6):
        quadratic(matrix, vector)
        optimizer.step()
        optimizer.zero_grad()
        for name, decay in (("matrix", 0.5), ("vector", 0.0)):
            p = expected[name]
            g = 2 * (p - 3) / 4
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.99 * v[name] + 0.01 * g * g
            step = m[name] / (1 - 0.9**t) / (math.sqrt(v[name] / (1 - 0.99**t)) + 1e-8)
            expected[name] = p - 0.1 * decay * p - 0.1 * step
    np.testing.assert_allclose(matrix, np.full((2, 2), expected["matrix"]), rtol=1e-5)
    np.testing.assert_allclose(vector, np.full(4, expected["vector"]), rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.5),
        lambda p: optim.SGD(p, lr=0.2, momentum=0.5),
        lambda p: optim.Adam(p, lr=0.3),
        lambda p: optim.Chuck(p, lr=0.3, freeze_steps=0),
    ],
    ids=["sgd", "momentum", "adam", "chuck"],
)
def test_optimisers_descend(make):
    p = nn.Parameter(3)
    optimizer = make([p])
    for _ in range(100):
        quadratic(p)
        optimizer.step()
        optimizer.zero_grad()
    np.testing.assert_allclose(p, np.full(3, 3.0), atol=0.1)


def test_clip_grad_norm():
    a, b = nn.Parameter(2), nn.Parameter(1)
    optimizer = optim.SGD([a, b])
    quadratic(a, b)
    before = np.concatenate([a.grad, b.grad])
    norm = optim.clip_grad_norm_(optimizer, 1.0)
    assert norm == pytest.approx(np.linalg.norm(before), rel=1e-6)
    np.testing.assert_allclose(np.concatenate([a.grad, b.grad]), before / norm, rtol=1e-5)
    assert optim.clip_grad_norm_(optimizer, 5.0) == pytest.approx(1.0, rel=1e-5)


def test_cosine_schedule():
    optimizer = optim.SGD([nn.Parameter(1)], lr=2.0)
    schedule = optim.CosineSchedule(optimizer, total=12, warmup=2, floor=0.2)
    rates = []
    for _ in range(13):
        rates.append(optimizer.lr)
        schedule.step()
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[7] == pytest.approx(1.1)
    assert rates[12] == pytest.approx(0.2)
    assert all(a >= b for a, b in itertools.pairwise(rates[2:]))


def rates(kind: str, steps: int, lr: float = 2.0, **options) -> list[float]:
    optimizer = optim.SGD([nn.Parameter(1)], lr=lr)
    schedule = optim.SCHEDULES[kind](optimizer, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.lr)
        schedule.step()
    return seen


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [1, 2, 2, 2, 2, 2, 2, 2, 2]),
        ("linear", [1, 2, 2, 1.7, 1.4, 1.1, 0.8, 0.5, 0.5]),
        ("step", [1, 2, 2, 2, 2, 0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_schedules(kind, expected):
    more = {"gamma": 0.1, "parts": 2} if kind == "step" else {}
    found = rates(kind, 9, total=7, warmup=2, floor=0.5, **more)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_step_schedule_falls_at_each_third():
    np.testing.assert_allclose(rates("step", 6, total=6), [2, 2, 0.2, 0.2, 0.02, 0.02])


@pytest.mark.parametrize("kind", optim.SCHEDULES)
def test_a_schedule_goes_on_where_it_was(kind):
    optimizer = optim.SGD([nn.Parameter(1)], lr=2.0)
    schedule = optim.SCHEDULES[kind](optimizer, total=20, warmup=3, floor=0.1)
    schedule.go_to(11)
    assert optimizer.lr == rates(kind, 12, total=20, warmup=3, floor=0.1)[11]


def test_state_resumes_to_the_bit():
    def run(steps, p, optimizer):
        for _ in range(steps):
            quadratic(p)
            optimizer.step()
            optimizer.zero_grad()

    p = nn.Parameter(5).uniform_(-1, 1)
    start = p.numpy().copy()
    optimizer = optim.AdamW([p], lr=0.05)
    run(4, p, optimizer)
    middle, state = p.numpy().copy(), optimizer.state_dict()
    run(4, p, optimizer)

    q = nn.Parameter(5)
    q.numpy()[...] = middle
    again = optim.AdamW([q], lr=1.0)
    again.load_state_dict(state)
    run(4, q, again)
    np.testing.assert_array_equal(p, q)
    assert not np.array_equal(p, start)
    with pytest.raises(ModelError, match="another optimiser or another model"):
        optim.SGD([q], momentum=0.9).load_state_dict(state)


def test_a_state_may_be_plain_lists():
    p = nn.Parameter(2).fill_(1.0)
    optimizer = optim.AdamW([p])
    optimizer.load_state_dict({"0.0": [0, 1], "1.0": [0.5, 1], "steps": 3, "lr": 0.25})
    state = optimizer.state_dict()
    assert (state["steps"], state["lr"], optimizer.lr) == (3, 0.25, 0.25)
    np.testing.assert_array_equal([state["0.0"], state["1.0"]], [[0, 1], [0.5, 1]])


@pytest.mark.parametrize("kind", [optim.AdamW, optim.Chuck])
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"lr": np.nan}, "lr: expected a finite number"),
        ({"lr": "0.1"}, "lr: expected a finite number"),
        ({"lr": [[1], [2, 3]]}, "lr: expected an array of numbers"),
        ({"steps": 1.5}, "1.5 steps; expected a whole number"),
        ({"steps": -1}, "-1 steps"),
        ({"steps": 2**62}, "steps; expected a whole number"),
        ({"steps": [1]}, "steps: expected a finite number"),
        ({"1.0": np.full(3, 1e300)}, r"1\.0: expected finite"),
        ({"0.0": [0, np.inf, 0]}, r"0\.0: expected finite"),
        ({"0.0": ["a", "b", "c"]}, r"0\.0: expected finite"),
        ({"0.0": [0, 1]}, r"0\.0: expected shape \[3\]"),
        ({"1.0": [0, -1e-9, 0]}, r"1\.0: expected a second moment"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_state_that_cannot_be(kind, wrong, expected):
    p = nn.Parameter(3).fill_(1.0)
    optimizer = kind([p], lr=0.1)
    quadratic(p)
    optimizer.step()
    before = optimizer.state_dict()
    moved = {name: value + value for name, value in before.items() if name != "levels"}
    with pytest.raises(ModelError, match=expected):
        optimizer.load_state_dict(before | moved | wrong)
    for name, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_levels_that_cannot_be_change_nothing():
    optimizer = optim.Chuck([nn.Parameter(3)], lr=0.1)
    before = optimizer.state_dict()
    garbled = np.full(len(before["levels"]), 2**64 - 1, dtype=np.uint64)
    infinite = [before["levels"].copy() for _ in before["levels"]]
    for i, levels in enumerate(infinite):
        levels[i] = np.array(np.nan).view(np.uint64)  # far beyond any count, too
    for levels in (garbled, garbled.astype(float), [-1], "levels", *infinite):
        with pytest.raises(ModelError):
            optimizer.load_state_dict(before | {"steps": np.array(7), "levels": levels})
    assert optimizer.state_dict()["steps"] == 0


def loss_seen(optimizer: optim.Chuck, losses: list[float]) -> None:
    for loss in losses:
        quadratic(*optimizer.params)
        optimizer.observe(loss)
        optimizer.step()
        optimizer.zero_grad()


def test_chuck_tells_what_it_sees():
    far, near = nn.Parameter(3).fill_(9.0), nn.Parameter(3).fill_(3.0)
    optimizer = optim.Chuck([far, near], lr=1e-4, loss_decay=0.0, damp=0.9)
    loss_seen(optimizer, [1.1**i for i in range(30)])
    trace = optimizer.trace()
    assert trace["mean"] == pytest.approx(1.1**29)
    assert trace["lambda"] == pytest.approx(0.3)  # rising: as low as it goes
    assert trace["trend"] > 0.02 and trace["noise"] == 0 and trace["scale"] == 1
    assert [optimizer.trace(i)["frozen"] for i in (0, 1)] == [0, 1]
    assert optimizer.trace(0)["mean"] == pytest.approx(2 * 6 / 3**0.5, rel=1e-2)
    pushed = optim.Chuck([nn.Parameter(3)], lr=1e-4, loss_decay=0.0)
    loss_seen(pushed, [0.9**i for i in range(40)])
    assert 1 < pushed.trace()["lambda"] <= 2
    assert optimizer.trace(-1) == optimizer.trace(1) != optimizer.trace(0)
    for there_is_none in (2, -3):
        with pytest.raises(ModelError, match=f"trace of parameter {there_is_none}; there are 2"):
            optimizer.trace(there_is_none)
    with pytest.raises(ModelError, match="chuck: damp = 'a': expected a number"):
        optim.Chuck([far], damp="a")
    with pytest.raises(ModelError, match=r"chuck: window = 4\.5: expected a whole number"):
        optim.Chuck([far], window=4.5)
    with pytest.raises(ModelError, match="chuck: there is no setting 'windows'"):
        optim.Chuck([far], windows=3)
    with pytest.raises(ModelError, match="window 2 must be 4 to 64"):
        optim.Chuck([far], window=2)


def test_chuck_resumes_to_the_bit():
    """Noise included: it is drawn from the context's generator."""
    losses = [1.0] * 14 + [1.2, 1.3, 1.1, 1.0, 0.9, 0.8]
    p, q = nn.Parameter(5).fill_(1.0), nn.Parameter(5)
    optimizer = optim.Chuck([p], lr=0.05)
    loss_seen(optimizer, losses)
    assert optimizer.trace()["noise"] > 0
    q.numpy()[...] = p.numpy()
    state, generator = optimizer.state_dict(), p.context.generator_state
    loss_seen(optimizer, losses)
    again = optim.Chuck([q], lr=1.0)
    again.load_state_dict(state)
    p.context.generator_state = generator
    loss_seen(again, losses)
    np.testing.assert_array_equal(p, q)
    assert again.trace() == optimizer.trace()
    for other in (optim.Chuck([q, p]), optim.AdamW([q])):
        with pytest.raises(ModelError, match="belongs to another optimiser or another model"):
            other.load_state_dict(state)


def test_frozen_parameters_are_left_out():
    p = nn.Parameter(2)
    p.requires_grad = False
    with pytest.raises(ModelError, match="no parameter that requires a gradient"):
        optim.SGD([p])
    assert not Tensor([1.0]).requires_grad
