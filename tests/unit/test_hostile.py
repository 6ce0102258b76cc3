"""What does not fit is answered by one exception of one line; nothing crashes or is guessed."""

import gc
import math

import numpy as np
import pytest

from ternio import functional as F
from ternio import nn, optim
from ternio.context import Context, current_context, manual_seed
from ternio.errors import ModelError, TernioError
from ternio.tensor import Tensor


def of(*shape: int) -> Tensor:
    return Tensor(np.zeros(shape, np.float32))


def after_backward() -> None:
    loss = Tensor([1.0], requires_grad=True).mean()
    loss.backward()
    loss.backward()


REFUSALS = {
    "None": (lambda: Tensor(None), "got object"),
    "a string": (lambda: Tensor("abc"), "got <U3"),
    "too large an integer": (lambda: Tensor(2**31), "32-bit int values, got int64"),
    "the smallest int64": (lambda: Tensor(np.array([-(2**63)])), "got int64"),
    "too large a float": (lambda: Tensor(1e300), "beyond the range of float32"),
    "nine dimensions": (lambda: of(*[1] * 9), "9 dimensions asked for, 0 to 8"),
    "a list of tensors": (lambda: Tensor([object(), 1.0]), "got object"),
    "huge": (lambda: nn.Parameter(2**20, 2**20), "more than 2\\^36 elements"),
    "huge and overflowing": (lambda: of(1).reshape(2**62, 2**62), "1 elements, which do not fill"),
    "beyond 64 bits": (lambda: of(1).reshape(2**64), r"reshape\(.*too big"),
    "a float as a size": (lambda: of(2).reshape(2.0), r"reshape\(.*integer"),
    "two open sizes": (lambda: of(4).reshape(-1, -1), "do not fill"),
    "a negative size": (lambda: of(4).reshape(-2, -2), "do not fill"),
    "an open size of nothing": (lambda: of(0, 3).reshape(0, -1), "0 elements"),
    "a negative start": (lambda: of(3).narrow(0, -1, 1), "1 elements from -1"),
    "a start beyond 64 bits": (lambda: of(3).narrow(0, 2**64, 1), r"slice\(.*too big"),
    "an overflowing end": (lambda: of(3).narrow(0, 2**62, 2**62), "are not in dimension 0"),
    "a missing dimension": (lambda: of(3).narrow(-2, 0, 1), "no dimension -2 in"),
    "a scalar turned": (lambda: of().transpose(0, 1), r"no dimension 0 in \[\]"),
    "the item of many": (lambda: of(2).item(), "expected one element"),
    "the truth of many": (lambda: bool(of(2)), "expected one element"),
    "plus None": (lambda: of(2) + None, "got object"),
    "plus a string": (lambda: of(2) + "a", "got <U1"),
    "floats plus integers": (lambda: of(2) + Tensor([1, 2]), "b must be float, got int32"),
    "a step": (lambda: of(4)[::2], "a step of 2"),
    "a mask as an index": (lambda: of(4)[[0, 1]], "got list"),
    "an array for a tensor": (lambda: F.linear(of(1, 2), np.zeros((3, 2))), "wrap it: Tensor"),
    "an array into a layer": (lambda: nn.Linear(2, 3)(np.zeros((1, 2))), "wrap it: Tensor"),
    "text into a layer": (lambda: nn.Linear(2, 3)("a"), "at least one Tensor|linear"),
    "no input": (lambda: F.linear(None, of(2, 2)), "linear: x is NULL"),
    "the mean of nothing": (lambda: of(0).mean(), "empty"),
    "heads of nothing": (lambda: F.attention(of(2, 0), of(2, 0), of(2, 0), 1), "heads 1 must"),
    "no heads": (lambda: F.attention(of(2, 4), of(2, 4), of(2, 4), 0), "heads 0 must"),
    "a negative epsilon": (lambda: F.rms_norm(of(2), of(2), -1), "eps -1 must not be negative"),
    "a NaN epsilon": (lambda: F.layer_norm(of(2), of(2), None, math.nan), "eps nan"),
    "a huge padding": (lambda: F.conv1d(of(2, 1), of(1, 1, 1), padding=2**60), "below 2\\^31"),
    "a huge stride": (lambda: F.conv1d(of(2, 1), of(1, 1, 1), stride=2**62), "below 2\\^31"),
    "a label outside": (lambda: F.cross_entropy(of(1, 3), Tensor([3])), "label 3 at position 0"),
    "labels as floats": (lambda: F.cross_entropy(of(1, 3), of(1)), "labels must be int32"),
    "a negative mask": (
        lambda: F.cross_entropy(of(1, 3), Tensor([0]), mask=Tensor([-1.0])),
        "mask -1 at position 0",
    ),
    "a mask with gradient": (
        lambda: F.cross_entropy(of(1, 3), Tensor([0]), mask=nn.Parameter(1)),
        "the mask gets no gradient",
    ),
    "too large an ignore_index": (
        lambda: F.cross_entropy(of(1, 3), Tensor([0]), ignore_index=2**70),
        "too big",
    ),
    "cat of numbers": (lambda: F.cat([of(1), 1]), "tensors only"),
    "backward of a leaf": (lambda: nn.Parameter(1).backward(), "not a result"),
    "backward twice": (after_backward, "not a result on the present tape"),
    "beta of 1": (lambda: optim.AdamW([nn.Parameter(1)], betas=(1.0, 1.0)), "must be in 0..1"),
    "a negative epsilon of Adam": (lambda: optim.Adam([nn.Parameter(1)], eps=-1), "eps -1"),
    "a negative rate": (lambda: optim.SGD([nn.Parameter(1)], lr=-0.1), "optimiser: lr -0.1"),
    "a rate of NaN": (lambda: optim.Chuck([nn.Parameter(1)], lr=math.nan), "optimiser: lr nan"),
    "NaN for Chuck": (lambda: optim.Chuck([nn.Parameter(1)], eps=math.nan), "eps nan"),
    "numbers as parameters": (lambda: optim.SGD([1, 2]), "expected parameters"),
    "a layer of no width": (lambda: nn.Linear(0, 3), "expected dimensions above 0"),
    "a layer of half a width": (lambda: nn.BitLinear(2.5, 3), "expected dimensions above 0"),
    "a negative seed": (lambda: manual_seed(-1), "seed -1: expected"),
    "a fraction as a seed": (lambda: Context(1.5), "seed 1.5: expected"),
    "a loss scale of NaN": (lambda: optim.StepGuard(math.nan), "loss scale nan"),
}


@pytest.mark.parametrize(("act", "text"), REFUSALS.values(), ids=REFUSALS)
def test_misuse_is_refused_in_one_line(act, text):
    with pytest.raises(TernioError, match=text) as caught:
        act()
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(Tensor([1.0]) + 1.0, [2.0])  # the next call is not concerned
    current_context().reset()


def test_one_parameter_twice_is_refused():
    p = nn.Parameter(2)
    with pytest.raises(ModelError, match="the parameter was added before"):
        optim.SGD([p, p])


@pytest.mark.parametrize("state", [np.zeros(3, np.uint64), np.zeros(4, np.uint64)])
def test_a_generator_state_is_four_numbers_not_all_zero(state):
    context = Context()
    with pytest.raises(ModelError, match="expected 4 numbers"):
        context.generator_state = state


@pytest.mark.parametrize("key", [3, -4, (0, 0, 0), (..., ...)])
def test_indices_out_of_range_are_index_errors(key):
    with pytest.raises(IndexError):
        of(3, 2)[key]


@pytest.mark.parametrize(
    "key",
    [1, -1, slice(1, None), slice(-2, 9), (..., 1), (0, ..., -1), (slice(None), 2), (), (1, 0, 2),
     slice(2, 1), (slice(0, 1), slice(1, 3), 0)],
    ids=str,
)  # fmt: skip
def test_indices_are_those_of_numpy(key):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    x = Tensor(array)
    np.testing.assert_array_equal(x[key], array[key])
    assert x[key].shape == array[key].shape
    if array[key].size:
        x[key].numpy()[...] = -1  # a view
        array[key] = -1
        np.testing.assert_array_equal(x, array)
    assert [row.shape for row in x] == [(3, 4)] * 2


@pytest.mark.parametrize(
    "key", [np.array([0, 1]), (np.array([0, 1]), ...), True, np.True_, [0, 1], None, 1.0], ids=str
)
def test_other_indices_are_refused(key):
    with pytest.raises(ModelError, match=r"index: expected an integer, a slice or \.\.\."):
        of(2, 3)[key]


@pytest.mark.parametrize(
    "make",
    [
        lambda: of(0, 3) * 2.0,
        lambda: F.linear(of(0, 3), of(4, 3)),
        lambda: F.bitlinear(of(0, 3), of(4, 3)),
        lambda: F.embedding(Tensor(np.zeros(0, np.int32)), of(4, 3)),
        lambda: of(0, 4).log_softmax(),
        lambda: F.rms_norm(of(0, 3), of(3)),
        lambda: F.cat([of(0, 3), of(0, 3)]),
        lambda: of(3, 4).narrow(0, 1, 0).transpose(0, 1).reshape(2, 2, 0),
        lambda: of(2, 3)[2:].silu(),
    ],
)
def test_nothing_in_gives_nothing_out(make):
    assert make().numel() == 0


def test_values_that_are_no_numbers_pass_through():
    x = Tensor([[math.nan, 1.0], [math.inf, 1.0]])
    w = Tensor([[1.0, 1.0]])
    assert np.isnan(F.bitlinear(x, w).numpy()).all()
    assert np.isnan(F.linear(x, w).numpy()[0, 0]) and np.isinf(F.linear(x, w).numpy()[1, 0])
    assert math.isnan(F.cross_entropy(x, Tensor([0, 1])).item())
    assert F.cross_entropy(x, Tensor([-1, -1]), ignore_index=-1).item() == 0


def test_what_a_freed_context_made_stays():
    context = Context()
    p = nn.Parameter(3, context=context)
    optimizer = optim.Adam([p.fill_(2.0)], lr=0.5)
    (p * p).mean().backward()
    values, view, gradient = p.numpy(), p[1:], p.grad
    del context, p
    gc.collect()
    optimizer.step()
    assert values.tolist() == [1.5] * 3 and view.numpy().tolist() == [1.5] * 2
    del optimizer, view
    gc.collect()
    np.testing.assert_allclose(gradient, 4 / 3)


def test_backward_without_a_parameter_is_no_silence():
    x = Tensor(np.ones(3, np.float32))
    with pytest.raises(ModelError, match="no parameter took part"):
        (x * x).mean().backward()


def test_norms_to_clip_to_are_above_zero():
    optimiser = optim.AdamW([nn.Parameter(2, 2)])
    for norm in (-1.0, 0.0, float("nan")):
        with pytest.raises(ModelError, match="clip_grad_norm_"):
            optim.clip_grad_norm_(optimiser, norm)
        with pytest.raises(ModelError, match="guard_update: clipped to a norm of"):
            optim.StepGuard().update(optimiser, 1.0, clip=norm)
    for function in (optim.clip_grad_norm_, optim.scale_grad_):
        with pytest.raises(ModelError, match="expected the optimiser of the parameters"):
            function(optimiser.params, 1.0)


def test_iteration_is_that_of_rows():
    x = Tensor(np.arange(6, dtype=np.float32).reshape(3, 2))
    assert [row.numpy().tolist() for row in x] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(TypeError):
        list(Tensor(1.0))


@pytest.mark.parametrize(
    "settings", [{"noise": float("nan")}, {"window": 16.5}, {"window": "x"}], ids=str
)
def test_settings_of_chuck(settings):
    with pytest.raises(ModelError, match="chuck"):
        optim.Chuck([nn.Parameter(2, 2)], **settings)


def test_states_of_optimisers_are_checked():
    optimiser = optim.AdamW([nn.Parameter(2, 2)])
    state = optimiser.state_dict()
    bad = {**state, "0.0": np.full((2, 2), np.nan, np.float32)}
    rates = [{**state, "lr": np.array(lr)} for lr in (-1e-3, math.nan, math.inf)]
    for wrong in (bad, {**state, "steps": np.array(-5)}, *rates):
        with pytest.raises(ModelError, match="optimiser state"):
            optimiser.load_state_dict(wrong)
    assert optimiser.lr == 1e-3
    optimiser.load_state_dict({**state, "lr": np.array(0.0)})  # where a schedule ends
    assert optimiser.lr == 0


def test_sizes_that_do_not_divide():
    with pytest.raises(ModelError, match="width 10 cannot have 4 heads"):
        nn.Attention(10, 4)
    x, w = Tensor(np.ones((1, 5, 2), np.float32)), Tensor(np.ones((3, 3, 2), np.float32))
    with pytest.raises(ModelError, match="conv1d"):
        F.conv1d(x, w, padding="same")
    assert F.conv1d(x, w, padding=np.int64(1)).shape == (1, 5, 3)
