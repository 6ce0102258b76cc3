"""Tensors over the engine and the module system."""

import copy
import gc
import threading

import numpy as np
import pytest

import ternio
from ternio import functional as F
from ternio import nn
from ternio.context import Context, no_grad
from ternio.errors import ModelError
from ternio.tensor import Tensor


def test_views_share_memory_and_outlive_everything():
    with Context() as context:
        x = Tensor([[1.0, -2.0]], requires_grad=True)
        y = x.relu()
        view = y.numpy()
        x.numpy()[0, 0] = 5.0
        assert x.numpy()[0, 0] == 5.0
        (y * 3.0).reshape(2).reshape(1, 2)
        context.reset()
        del x, y
    del context
    gc.collect()
    for _ in range(20):  # would reuse the memory if it had been freed
        Tensor(np.full((1, 2), 9.0))
    np.testing.assert_array_equal(view, [[1.0, 0.0]])


def test_from_numpy_shares_and_returns_the_array():
    array = np.ones((2, 3), np.float32)
    base = np.ones(3, np.int32)
    tensors = [Tensor.from_numpy(array), Tensor.from_numpy(array), Tensor.from_numpy(base)]
    array[0, 0] = 7
    assert tensors[1].numpy()[0, 0] == 7
    assert tensors[2].dtype == np.int32
    from ternio import arrays

    assert len(arrays._lent) == 3
    del tensors
    Tensor(0.0)  # the next call frees
    assert not arrays._lent


def test_from_numpy_keeps_the_array_while_the_tape_needs_it():
    from ternio import arrays

    with Context() as context:
        w = Tensor([[2.0]], requires_grad=True)
        y = F.linear(Tensor.from_numpy(np.full((1, 1), 3.0, np.float32)), w)
        gc.collect()
        assert len(arrays._lent) == 1
        y.reshape([]).backward()
        np.testing.assert_array_equal(w.grad, [[3.0]])
        assert not arrays._lent
        assert not context.tape()


def test_backward_gives_up_what_only_the_tape_held():
    from ternio._engine import lib

    def peak(retain: bool) -> tuple[int, np.ndarray]:
        with Context() as context:
            weights = [Tensor(np.linspace(0.9, 1, 50_000), requires_grad=True) for _ in range(12)]
            y = weights[0]
            for w in weights[1:]:
                y = y * w
            y.mean().backward(retain_tape=retain)
            return lib.te_bytes_peak(context.pointer), weights[0].grad.copy()

    (kept, expected), (given_up, found) = peak(True), peak(False)
    np.testing.assert_array_equal(found, expected)
    assert given_up < 0.9 * kept


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3),
        np.zeros(2, np.int64),
        np.zeros(2, ">f4"),
        frozen(np.zeros(2, np.float32)),
        np.frombuffer(bytearray(13), np.uint8)[1:].view(np.float32),
    ],
    ids=["float64", "int64", "big-endian", "read-only", "unaligned"],
)
def test_from_numpy_refuses_what_it_cannot_share(array):
    with pytest.raises(ModelError, match="expected a writable, aligned float32 or int32"):
        Tensor.from_numpy(array)


@pytest.mark.parametrize(
    "cut",
    [lambda a: a.T, lambda a: a[1:, ::2], lambda a: a[::-1, 1:], lambda a: a[:, 1:2]],
    ids=["transposed", "every other", "reversed", "a column"],
)
def test_arrays_of_any_strides_are_shared(cut):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    part = cut(array)
    tensor = Tensor.from_numpy(part)
    assert not tensor.is_contiguous()
    assert tensor.stride() == tuple(step // 4 for step in part.strides)
    np.testing.assert_array_equal(tensor, part)
    part[...] += 100
    np.testing.assert_array_equal(tensor * 2, part * 2)
    tensor.numpy()[...] = -7
    assert np.all(part == -7) and np.sum(array == -7) == part.size


def test_views_share_memory_and_keep_their_owner_alive():
    owner = Tensor(np.arange(24).reshape(2, 3, 4) / 8, requires_grad=True)
    with no_grad():
        view = owner.transpose(0, 2).narrow(0, 1, 2)  # [2, 3, 2]
        lower = view.reshape(2, 3, 2, 1)
    expected = owner.numpy().swapaxes(0, 2)[1:3].copy()
    assert view.shape == (2, 3, 2) and not view.is_contiguous()
    owner.numpy()[0, 0, 1] = expected[0, 0, 0] = 99.0
    values = view.numpy()
    del owner, view
    gc.collect()
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(lower.contiguous(), expected[..., None])
    assert lower.contiguous().is_contiguous()
    lower.numpy()[...] = 0
    assert not values.any()


def test_a_deep_copy_of_a_module_is_its_own():
    layer = nn.Sequential(nn.Linear(3, 2), nn.BitLinear(2, 2))
    layer.layers[0].bias.requires_grad = False
    twin = copy.deepcopy(layer)
    before = {name: value.copy() for name, value in twin.state_dict().items()}
    for (name, p), q in zip(layer.named_parameters(), twin.parameters(), strict=True):
        assert type(q) is nn.Parameter and q.requires_grad == p.requires_grad, name
        p.fill_(7.0)
    for name, value in twin.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
        assert not np.any(value == 7)
    np.testing.assert_array_equal(copy.deepcopy(Tensor([1, 2])), [1, 2])


def test_gradients_flow_through_views_of_views():
    x = Tensor(np.arange(24).reshape(2, 3, 4) / 8, requires_grad=True)
    y = x.transpose(1, 2).narrow(1, 1, 2).reshape(4, 3).transpose(0, 1)
    weights = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    (y * Tensor(weights)).mean().backward()
    expected = np.zeros((2, 3, 4), np.float32)
    expected[:, :, 1:3] = (weights.T.reshape(2, 2, 3) / 12).swapaxes(1, 2)
    np.testing.assert_allclose(x.grad, expected, rtol=1e-6)


@pytest.mark.parametrize("data", [["a"], [[1, 2], [3]], 2**40, 1j])
def test_tensors_hold_numbers_only(data):
    with pytest.raises(ModelError):
        Tensor(data)


def test_operators_and_gradients():
    a = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    b = Tensor([10.0, 20.0], requires_grad=True)
    y = (2 * a - b / 4 + 1) * b
    np.testing.assert_allclose(y, (2 * a.numpy() - b.numpy() / 4 + 1) * b.numpy())
    loss = y.mean()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(float(y.numpy().mean()))
    loss.backward()
    np.testing.assert_allclose(a.grad, np.tile(b.numpy() * 2 / 4, (2, 1)))
    np.testing.assert_allclose(b.grad, (2 * a.numpy() + 1 - b.numpy() / 2).sum(axis=0) / 4)
    a.zero_grad()
    assert a.grad is None
    both = np.float32([1, 2]) * a, a * np.float32([1, 2]), 2 * a, np.float32(2) * a
    for product, factor in zip(both, ([1, 2], [1, 2], 2, 2), strict=True):
        np.testing.assert_allclose(product, a.numpy() * factor)


def test_grad_view_survives_zero_grad():
    a = Tensor([1.0, 2.0], requires_grad=True)
    (a * a).mean().backward()
    view = a.grad
    a.zero_grad()
    del a
    gc.collect()
    assert view.shape == (2,)
    assert np.isfinite(view).all()


def test_errors_name_the_operation_and_leave_the_context_usable():
    x = Tensor(np.zeros((2, 3)))
    with pytest.raises(ModelError, match="linear"):
        F.linear(x, Tensor(np.zeros((4, 5))))
    assert (x + 1).shape == (2, 3)
    with pytest.raises(ModelError, match="one element"):
        x.item()
    with pytest.raises(ModelError):
        x.backward()
    with Context(), pytest.raises(ModelError, match="two contexts"):
        F.linear(x, Tensor(np.zeros((4, 3))))


def test_no_grad_records_nothing():
    with Context() as context:
        x = Tensor([1.0], requires_grad=True)
        with ternio.no_grad():
            x.relu()
            assert not context.tape()
        x.relu()
        node = context.tape()[0]
        assert (node.op, node.inputs[0].id, node.output.shape) == ("relu", x.id, (1,))


def test_threads_have_contexts_of_their_own():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(Tensor([1.0]).context))
    thread.start()
    thread.join()
    assert seen[0] is not Tensor([1.0]).context


class Tiny(nn.Module):
    def __init__(self):
        self.first = nn.Linear(3, 4)
        self.rest = [nn.RMSNorm(4), nn.BitLinear(4, 4)]
        self.tied = self.first

    def forward(self, x):
        return self.rest[1](self.rest[0](self.tied(x)))


def test_modules_name_their_parameters():
    model = Tiny()
    names = [name for name, _ in model.named_parameters()]
    assert names == ["first.weight", "first.bias", "rest.0.weight", "rest.1.weight"]
    assert model(Tensor(np.ones((2, 3)))).shape == (2, 4)
    assert not model.eval().rest[0].training
    assert model.train().rest[1].training
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)


def test_state_dict_round_trip():
    a, b = Tiny(), Tiny()
    x = Tensor(np.ones((2, 3)))
    assert not np.array_equal(a(x), b(x))
    b.load_state_dict(a.state_dict())
    np.testing.assert_array_equal(a(x), b(x))
    state = a.state_dict()
    a.first.weight.fill_(0)
    assert state["first.weight"].any(), "a state_dict is a copy"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"first.bias": None}, "missing: first.bias"),
        ({"second.bias": np.zeros(4)}, "not in the model: second.bias"),
        ({"first.bias": np.zeros(5)}, r"first.bias: expected shape \[4\], got \[5\]"),
        ({"first.bias": np.full(4, np.nan)}, "first.bias: expected finite"),
        ({"first.bias": np.zeros(4, np.int64)}, "first.bias: expected finite floating"),
    ],
)
def test_load_state_dict_is_strict_and_all_or_nothing(change, expected):
    model = Tiny()
    before = model.state_dict()
    state = {k: v + 1 for k, v in before.items()} | change
    with pytest.raises(ModelError, match=expected):
        model.load_state_dict({k: v for k, v in state.items() if v is not None})
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_same_seed_same_parameters():
    ternio.manual_seed(5)
    a = nn.Linear(8, 8).weight.numpy().copy()
    b = nn.Linear(8, 8).weight.numpy().copy()
    ternio.manual_seed(5)
    np.testing.assert_array_equal(nn.Linear(8, 8).weight, a)
    assert not np.array_equal(a, b)
    assert np.abs(a).max() <= 1 / np.sqrt(8)


def test_bitlinear_is_what_the_paper_says():
    layer = nn.BitLinear(32, 5)
    x = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    w = layer.weight.numpy()
    gamma = np.abs(w).mean()
    trits = np.clip(np.rint(w / (gamma + 1e-5)), -1, 1)
    s = np.abs(x).max(axis=1, keepdims=True)
    expected = (np.rint(x * (127 / s)) @ trits.T) * gamma * s / 127
    np.testing.assert_allclose(layer(Tensor(x)), expected, rtol=1e-5, atol=1e-6)


def test_embedding_layer_norm_and_sequential():
    model = nn.Sequential(nn.Embedding(10, 4), nn.LayerNorm(4), F.softmax)
    y = model(Tensor([[1, 2, 1]])).numpy()
    assert y.shape == (1, 3, 4)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(y[0, 0], y[0, 2])
    with pytest.raises(ModelError, match="embedding"):
        model(Tensor([[10]]))


def test_initial_weights_have_the_spread_of_their_papers():
    for make, bound in (
        (lambda p: p.kaiming_(), np.sqrt(6 / 300)),
        (lambda p: p.kaiming_(1.0), np.sqrt(3 / 300)),
        (lambda p: p.xavier_(), np.sqrt(6 / 500)),
        (lambda p: p.xavier_(2.0), 2 * np.sqrt(6 / 500)),
    ):
        values = make(nn.Parameter(200, 300)).numpy()
        assert np.abs(values).max() == pytest.approx(bound, rel=1e-3)
        assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    with pytest.raises(ModelError):
        nn.Parameter(3).kaiming_()


@pytest.mark.parametrize(("heads", "kv_heads"), [(3, None), (4, 3), (4, 0), (0, None), (2, 4)])
def test_heads_that_do_not_divide_are_refused_at_once(heads, kv_heads):
    with pytest.raises(ModelError, match=rf"width 8 cannot have {heads} heads and"):
        nn.Attention(8, heads, kv_heads)


def test_layers_take_arguments_by_name_and_no_empty_shapes():
    x = Tensor(np.ones((2, 3), np.float32))
    layer = nn.Linear(3, 2)
    np.testing.assert_array_equal(layer(x=x).numpy(), layer(x).numpy())
    for build in (lambda: nn.Conv1d(0, 2, 3), lambda: nn.Linear(0, 2), lambda: nn.Linear(3, 2.0)):
        with pytest.raises(ModelError, match="expected dimensions above 0"):
            build()


def test_matrix_products_sums_and_transposes_are_those_of_numpy():
    a, b = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4), np.ones((4, 5), np.float32) * 0.5
    x, w = Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)
    np.testing.assert_array_equal(x @ w, a @ b)
    np.testing.assert_array_equal(w.T, b.T)
    total = (x @ w).sum()
    assert total.item() == (a @ b).sum()
    total.backward()
    np.testing.assert_allclose(x.grad, np.full_like(a, 2.5), rtol=1e-6)
    np.testing.assert_allclose(w.grad, np.repeat(a.sum((0, 1))[:, None], 5, 1), rtol=1e-6)


def test_sums_of_nothing_and_shapes_as_tuples():
    x = Tensor(np.zeros((0, 3)), requires_grad=True)
    total = x.sum()
    total.backward()
    assert total.item() == 0 and x.grad.shape == (0, 3)
    row = Tensor(np.arange(3.0))
    for wide in (row.broadcast_to(2, 3), row.broadcast_to((2, 3)), row.broadcast_to([2, 3])):
        np.testing.assert_array_equal(wide, np.tile(np.arange(3.0), (2, 1)))
    np.testing.assert_array_equal(F.sum_pool(row.broadcast_to(4, 2, 3)), [[0, 2, 4]] * 4)


def test_parameters_of_one_path_are_refused():
    class Twins(nn.Module):
        def __init__(self):
            self.parts = {"a.b": nn.Parameter(2), "a": {"b": nn.Parameter(3)}}

    with pytest.raises(ModelError, match=r"two parameters are called parts\.a\.b"):
        Twins().state_dict()


def test_products_with_vectors_are_those_of_numpy():
    a, v = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4), np.array([1, -2, 3, 0.5], np.float32)
    x, w = Tensor(a, requires_grad=True), Tensor(v, requires_grad=True)
    for ours, theirs in ((x @ w, a @ v), (w @ w, v @ v), (w @ x[1].T, v @ a[1].T)):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.shape == theirs.shape
    np.testing.assert_array_equal(x @ v, a @ v)
    np.testing.assert_array_equal(np.ones((2, 3), np.float32) @ x[0], np.ones((2, 3)) @ a[0])
    (x @ w).sum().backward()
    np.testing.assert_allclose(x.grad, np.broadcast_to(v, a.shape), rtol=1e-6)
    np.testing.assert_allclose(w.grad, a.sum((0, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    "shapes",
    [((2, 3), (2,)), ((2, 3), (2, 3)), ((3,), (2, 3, 2)), ((), (2, 2)), ((2, 2), ()), ((0,), (1,))],
    ids=str,
)
def test_products_that_do_not_fit_are_refused(shapes):
    x, y = (Tensor(np.ones(shape, np.float32)) for shape in shapes)
    with pytest.raises(
        ModelError, match=r"matmul: \[.*\] @ \[.*\] do not fit \(needs \[\.\.\., n\]"
    ):
        x @ y


@pytest.mark.parametrize("divide", [lambda x: 1 / x, lambda x: x / x, lambda x: np.ones(2) / x])
def test_there_is_no_division_by_a_tensor(divide):
    with pytest.raises(ModelError, match=r"division by a Tensor: .*log"):
        divide(Tensor([1.0, 2.0]))


def test_modules_show_what_they_are_made_of_and_may_refer_back():
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.25))
    model.layers[0].parent = model
    assert repr(model).split("\n") == [
        "Sequential()",
        "  (layers.0): Linear(weight [2, 4], bias [2])",
        "    (parent): ...",
        "  (layers.1): Dropout(p=0.25)",
    ]
    assert [name for name, _ in model.named_parameters()] == ["layers.0.weight", "layers.0.bias"]
    assert not model.eval().layers[1].training
