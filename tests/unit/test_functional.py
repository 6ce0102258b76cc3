"""Operations in Python against NumPy, and their gradients against finite differences."""

import numpy as np
import pytest

from ternio import functional as F
from ternio import manual_seed, nn
from ternio.context import Context
from ternio.errors import ModelError
from ternio.tensor import Tensor

X = np.random.default_rng(0).uniform(0.2, 2, (2, 5, 3)).astype(np.float32)
Y = np.random.default_rng(1).uniform(-2, 2, (2, 5, 3)).astype(np.float32)
INDEX = np.array([[0, 2, 1, 0, 1], [2, 2, 0, 1, 0]], np.int32)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ADVANTAGE = np.array([[1.5], [-0.7]], np.float32)
OLD = np.random.default_rng(3).uniform(-2.5, -0.2, (2, 5)).astype(np.float32)


def log_softmax(y: np.ndarray) -> np.ndarray:
    return y - np.log(np.exp(y).sum(-1, keepdims=True))


def chosen(y: np.ndarray) -> np.ndarray:
    """Log-probabilities of the tokens INDEX."""
    return np.take_along_axis(log_softmax(y), INDEX[..., None], 2)[..., 0]


def grpo(x: Tensor, y: Tensor) -> Tensor:
    """The clipped objective of GRPO (arXiv 2402.03300), from what F has."""
    ratio = (F.gather(y.log_softmax(), Tensor(INDEX)) - Tensor(OLD)).exp()
    gain = Tensor(ADVANTAGE)
    return F.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain)


def grpo_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    ratio = np.exp(chosen(y) - OLD)
    return np.minimum(ratio * ADVANTAGE, np.clip(ratio, 0.8, 1.2) * ADVANTAGE)


def dpo(x: Tensor, y: Tensor) -> Tensor:
    """The loss of DPO (arXiv 2305.18290) for the first sequence preferred to the second."""
    scores = F.gather(y.log_softmax(), Tensor(INDEX)) - Tensor(OLD)
    margin = F.mean_pool(scores[0].reshape(5, 1)) - F.mean_pool(scores[1].reshape(5, 1))
    return -(margin * 0.1).sigmoid().log()


def dpo_reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    scores = (chosen(y) - OLD).mean(-1)
    return np.log(1 + np.exp(-0.1 * (scores[:1] - scores[1:])))


CASES = {
    "grpo": (grpo, grpo_reference),
    "dpo": (dpo, dpo_reference),
    "sigmoid": (lambda x, y: F.sigmoid(y), lambda x, y: 1 / (1 + np.exp(-y))),
    "tanh": (lambda x, y: F.tanh(y), lambda x, y: np.tanh(y)),
    "exp": (lambda x, y: y.exp(), lambda x, y: np.exp(y)),
    "log": (lambda x, y: x.log(), lambda x, y: np.log(x)),
    "clamp": (lambda x, y: y.clamp(-0.5, 1.0), lambda x, y: np.clip(y, -0.5, 1.0)),
    "clamp above": (lambda x, y: y.clamp(high=1.0), lambda x, y: np.minimum(y, 1.0)),
    "minimum": (F.minimum, np.minimum),
    "geglu": (lambda x, y: F.geglu(y, x), lambda x, y: gelu(y) * x),
    "log_softmax": (lambda x, y: F.log_softmax(y), lambda x, y: log_softmax(y)),
    "cross_entropy of a mask": (
        lambda x, y: F.cross_entropy(y, Tensor(INDEX), 1, Tensor(OLD**2)),
        lambda x, y: -np.average(chosen(y), weights=OLD**2 * (INDEX != 1)),
    ),
    "narrow": (lambda x, y: x.narrow(1, 1, 3), lambda x, y: x[:, 1:4]),
    "narrow last": (lambda x, y: x.narrow(-1, 2, 1), lambda x, y: x[..., 2:]),
    "transpose": (lambda x, y: x.transpose(0, 2), lambda x, y: x.swapaxes(0, 2)),
    "cat": (
        lambda x, y: F.cat([x, y, x], dim=1),
        lambda x, y: np.concatenate([x, y, x], axis=1),
    ),
    "max_pool": (lambda x, y: F.max_pool(y), lambda x, y: y.max(axis=1)),
    "last_pool": (lambda x, y: F.last_pool(y), lambda x, y: y[:, -1]),
    "column plus row": (
        lambda x, y: x[:, :, :1] + y[:1, :1],
        lambda x, y: x[:, :, :1] + y[:1, :1],
    ),
    "smaller times larger": (lambda x, y: x[0, :, 1:2] * y, lambda x, y: x[0, :, 1:2] * y),
    "index": (lambda x, y: x[1, 1:3] * y[0, -2:], lambda x, y: x[1, 1:3] * y[0, -2:]),
    "gather": (
        lambda x, y: F.gather(y, Tensor(INDEX)),
        lambda x, y: np.take_along_axis(y, INDEX[..., None], 2)[..., 0],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradient(name):
    """d/dx of sum(w * f(x)) for random w, by central differences in float64."""
    own, reference = CASES[name]
    with Context():
        tensors = [Tensor(v, requires_grad=True) for v in (X, Y)]
        out = own(*tensors)
        expected = reference(X.astype(np.float64), Y.astype(np.float64))
        assert out.shape == expected.shape
        np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)
        w = np.random.default_rng(2).standard_normal(out.shape)
        (out * Tensor(w * out.numel())).mean().backward()
        for k, tensor in enumerate(tensors):
            gradient = np.zeros(X.shape)
            for at in np.ndindex(X.shape):
                ends = []
                for h in (1e-5, -1e-5):
                    values = [v.astype(np.float64) for v in (X, Y)]
                    values[k][at] += h
                    ends.append((w * reference(*values)).sum())
                gradient[at] = (ends[0] - ends[1]) / 2e-5
            found = np.zeros(X.shape) if tensor.grad is None else tensor.grad
            np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("padding", [0, 2, (2, 0)])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution(stride, padding):
    manual_seed(0)
    layer = nn.Conv1d(3, 4, 3, stride, padding)
    left, right = (padding, padding) if isinstance(padding, int) else padding
    rows = np.pad(X, ((0, 0), (left, right), (0, 0)))
    weight, bias = layer.weight.numpy(), layer.bias.numpy()
    starts = range(0, rows.shape[1] - 2, stride)
    expected = [np.einsum("btc,otc->bo", rows[:, s : s + 3], weight) + bias for s in starts]
    np.testing.assert_allclose(layer(Tensor(X)), np.stack(expected, 1), rtol=1e-5, atol=1e-6)
    layer.context.reset()
    assert nn.Conv1d(3, 4, 3, bias=False).bias is None


def test_dropout():
    manual_seed(0)
    layer, x = nn.Dropout(0.25), Tensor(np.ones((100, 100)), requires_grad=True)
    y = layer(x)
    values, counts = np.unique(y.numpy(), return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / 0.75], rtol=1e-6)
    assert counts[0] / 10000 == pytest.approx(0.25, abs=0.02)
    kept = y.numpy() > 0
    (y * 10000.0).mean().backward()
    np.testing.assert_allclose(x.grad, kept / 0.75, rtol=1e-5)
    layer.eval()
    assert layer(x) is x
    manual_seed(0)
    np.testing.assert_array_equal(layer.train()(x).numpy() > 0, kept)
    x.context.reset()


def test_geglu_is_a_feed_forward_layer():
    layer = nn.GEGLU(3, 8, ternary=False)
    gate, up, down = (getattr(layer, n).weight.numpy() for n in ("gate", "up", "down"))
    expected = (gelu(X @ gate.T) * (X @ up.T)) @ down.T
    np.testing.assert_allclose(layer(Tensor(X)), expected, rtol=1e-4, atol=1e-5)
    layer.context.reset()


def test_what_does_not_fit():
    x = Tensor(X)
    for call, expected in (
        (lambda: F.cat([]), "at least one"),
        (lambda: F.cat([x] * 9), "9"),
        (lambda: F.cat([x, Tensor(X[:, :, :2])]), r"\[2, 5, 2\]"),
        (lambda: x.narrow(1, 3, 3), "3"),
        (lambda: x.transpose(0, 3), "3"),
        (lambda: F.gather(x, Tensor(INDEX + 1)), "3"),
        (lambda: F.dropout(x, 1.5), "1.5"),
        (lambda: F.conv1d(x, Tensor(np.ones((4, 9, 3)))), "9"),
    ):
        with pytest.raises(ModelError, match=expected):
            call()
    with Context():
        other = Tensor(X)
    with pytest.raises(ModelError, match="tensors of two contexts"):
        F.cat([x, other])
    x.context.reset()


def test_attention_without_heads_of_keys_is_refused():
    x = Tensor.from_numpy(np.ones((1, 2, 8), np.float32))
    with pytest.raises(ModelError, match="kv_heads 0 must divide"):
        F.attention(x, x, x, 2, kv_heads=0)
