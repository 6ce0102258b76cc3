"""The tape as a compiler reads it, ownership of results, gradients' life, errors in one line."""

from __future__ import annotations

import re

import numpy as np
import pytest
from engine_harness import ENGINE, EngineError


def zeros(e, *shape, grad=False):
    return e.tensor(np.zeros(shape), grad=grad)


# ---- Inspection ----


def test_one_node_per_operation_with_its_attributes(engine):
    e = engine
    x, w, gain = zeros(e, 2, 4, 6), zeros(e, 8, 6, grad=True), zeros(e, 6)
    normed = e.op("rmsnorm", x, gain, 1e-6)
    y = e.op("linear", normed, w, None)
    z = e.op("rope", y, 4, 1, 1e4, 3)
    assert e.lib.te_tape_length(e.ctx) == 3
    names = [e.ffi.string(e.lib.te_op_name(e.lib.te_node_op(e.ctx, i))) for i in range(3)]
    assert names == [b"rmsnorm", b"linear", b"rope"]
    assert e.lib.te_node_float(e.ctx, 0, 0) == 1e-6
    assert e.lib.te_node_input_count(e.ctx, 1) == 2
    assert e.lib.te_node_input(e.ctx, 1, 0) == normed
    assert e.lib.te_node_input(e.ctx, 1, 1) == w
    assert e.lib.te_node_output(e.ctx, 2) == z
    assert [e.lib.te_node_int(e.ctx, 2, k) for k in range(3)] == [4, 1, 3]
    assert e.lib.te_node_int_count(e.ctx, 2) == 3
    assert (e.lib.te_is_leaf(w), e.lib.te_is_leaf(y)) == (1, 0)
    assert (e.lib.te_requires_grad(normed), e.lib.te_requires_grad(z)) == (0, 1)


def test_asking_past_the_end_is_harmless(engine):
    e = engine
    assert e.lib.te_node_op(e.ctx, 5) == e.lib.TE_OP_NONE
    assert e.lib.te_node_input(e.ctx, -1, 0) == e.ffi.NULL
    assert e.lib.te_node_int(e.ctx, 0, 99) == 0
    assert e.ffi.string(e.lib.te_op_name(12345)) == b"unknown"


def test_every_operation_has_a_name_of_its_own(engine):
    names = [engine.ffi.string(engine.lib.te_op_name(i)) for i in range(engine.lib.TE_OP_COUNT)]
    assert len(set(names)) == engine.lib.TE_OP_COUNT


def test_nothing_is_recorded_when_recording_is_off(engine):
    e = engine
    w = zeros(e, 3, 3, grad=True)
    e.lib.te_set_recording(e.ctx, 0)
    y = e.op("silu", w)
    assert e.lib.te_tape_length(e.ctx) == 0
    assert e.lib.te_requires_grad(y) == 0


def test_identifiers_are_not_reused(engine):
    e = engine
    seen = {e.lib.te_tensor_id(e.op("silu", zeros(e, 2))) for _ in range(3)}
    e.reset()
    seen |= {e.lib.te_tensor_id(e.op("silu", zeros(e, 2))) for _ in range(3)}
    assert len(seen) == 6


# ---- Ownership ----


def test_a_retained_result_outlives_the_tape_and_is_not_overwritten(engine):
    e = engine
    x = e.tensor(np.full(100, 2.0))
    kept = e.lib.te_retain(e.op("scale", x, 3.0))
    for _ in range(3):
        e.reset()
        e.op("scale", x, -1.0)
    assert np.all(e.values(kept) == 6)
    assert e.lib.te_refcount(kept) == 1
    e.lib.te_release(kept)


def test_results_can_be_handed_to_the_caller(engine):
    e = engine
    e.lib.te_set_own_results(e.ctx, 1)
    result = e.op("scale", e.tensor(np.ones(4)), 3.0)
    assert e.lib.te_refcount(result) == 2
    e.lib.te_tape_reset(e.ctx)
    assert e.lib.te_refcount(result) == 1
    e.lib.te_release(result)


def test_memory_is_reused_from_step_to_step(engine):
    e = engine
    w = e.tensor(np.ones((64, 64)), grad=True)
    held = []
    for _ in range(4):
        result = e.op("bitlinear", w, w)
        e.backward(result, np.ones((64, 64)))
        e.reset()
        held.append(e.lib.te_bytes_held(e.ctx))
    assert len(set(held)) == 1


def test_memory_of_the_caller_is_used_in_place_and_given_back_once(engine):
    e = engine
    data, released = np.arange(6, dtype=np.float32), []

    @e.ffi.callback("void(void *)")
    def callback(owner):
        released.append(int(e.ffi.cast("intptr_t", owner)))

    tensor = e.lib.te_from_data(
        e.ctx, 0, 2, [2, 3], e.ffi.from_buffer(data), callback, e.ffi.cast("void *", 42)
    )
    view = e.lib.te_retain(e.op("reshape", tensor, 1, [6]))
    data[4] = 77
    assert e.values(view)[4] == 77
    e.lib.te_release(tensor)
    e.reset()
    assert released == []
    e.lib.te_release(view)
    assert released == [42]


def test_a_slice_of_the_first_dimension_shares_memory_and_keeps_it_alive(engine):
    e = engine
    x = e.check(e.lib.te_zeros(e.ctx, e.lib.TE_DTYPE_FLOAT, 2, [4, 3]))
    view = e.lib.te_retain(e.op("slice", x, 0, 1, 2))
    e.values(x)[...] = np.arange(12).reshape(4, 3)
    e.lib.te_release(x)
    e.reset()
    assert e.values(view).tolist() == [[3, 4, 5], [6, 7, 8]]
    e.lib.te_release(view)


# ---- Gradients ----


def test_gradients_of_results_are_given_up_unless_asked_for(engine):
    e = engine
    x = e.tensor(np.ones(3), grad=True)
    first, second = e.op("scale", x, 2.0), e.op("scale", x, 3.0)
    e.lib.te_retain_grad(second)
    e.backward(e.op("add", first, second), np.ones(3))
    assert e.grad(first) is None
    assert e.grad(second).tolist() == [1, 1, 1]
    assert e.grad(x).tolist() == [5, 5, 5]
    e.lib.te_zero_grad(x)
    assert e.grad(x) is None


def test_backward_can_start_from_two_results(engine):
    e = engine
    x = e.tensor(np.ones(3), grad=True)
    shared = e.op("scale", x, 2.0)
    a, b = e.op("scale", shared, 3.0), e.op("scale", shared, 5.0)
    e.backward(a, np.ones(3))
    e.backward(b, np.ones(3))
    assert e.grad(x).tolist() == [16, 16, 16]


def test_gradients_that_are_kept_are_added_up_and_passed_on_once(engine):
    e = engine
    x = e.tensor(np.ones(3), grad=True)
    shared = e.op("scale", x, 2.0)
    a, b = e.op("scale", shared, 3.0), e.op("scale", shared, 5.0)
    for tensor in (shared, a):
        e.lib.te_retain_grad(tensor)
    e.backward(a, np.ones(3))
    e.backward(b, np.ones(3))
    e.backward(shared, np.ones(3))
    assert e.grad(shared).tolist() == [9, 9, 9]
    assert e.grad(a).tolist() == [1, 1, 1]
    assert e.grad(x).tolist() == [18, 18, 18]
    e.lib.te_zero_grad(shared)
    assert e.grad(shared) is None


def test_a_backward_that_fails_for_memory_uses_up_the_tape(engine):
    """Each of its allocations fails once; a new forward pass then gives the right gradients."""
    e, lib = engine, engine.lib
    rng = np.random.default_rng(0)
    x, w = (e.tensor(rng.normal(size=s), grad=True) for s in [(6, 8), (8, 8)])

    def loss():
        hidden = e.op("bitlinear", x, w)
        shared = e.op("add", e.op("silu", hidden), e.op("softmax", hidden))
        return e.op("mse", e.op("attention", shared, hidden, shared, 2, 2, 1), shared)

    e.check(lib.te_backward(e.ctx, loss()))
    expected = [e.grad(t).copy() for t in (x, w)]
    failures, failed = 0, True
    while failed:
        e.reset()
        lib.te_ctx_trim(e.ctx)
        result = loss()
        lib.te_fail_allocation(e.ctx, failures)
        failed = lib.te_backward(e.ctx, result) != 0
        lib.te_fail_allocation(e.ctx, -1)
        failures += failed
        if failed:
            assert lib.te_last_status(e.ctx) == lib.TE_ERR_MEMORY
            lib.te_clear_error(e.ctx)
            assert all(e.grad(lib.te_node_output(e.ctx, i)) is None for i in range(6))
            with pytest.raises(EngineError, match="backward: an earlier one has used up the tape"):
                e.check(lib.te_backward(e.ctx, result))
            e.reset()
            e.check(lib.te_backward(e.ctx, loss()))
        for tensor, gradient in zip((x, w), expected, strict=True):
            np.testing.assert_array_equal(e.grad(tensor), gradient)
    assert failures > 5


# ---- Same seed, same numbers ----


def test_the_generator_repeats_and_its_state_can_be_carried(engine):
    e = engine
    e.lib.te_seed(e.ctx, 7)
    first = [e.lib.te_random_u64(e.ctx) for _ in range(4)]
    state = e.ffi.new("uint64_t[4]")
    e.lib.te_rng_state(e.ctx, state)
    more = e.lib.te_random_u64(e.ctx)
    e.lib.te_seed(e.ctx, 7)
    assert [e.lib.te_random_u64(e.ctx) for _ in range(4)] == first
    e.lib.te_seed(e.ctx, 8)
    assert e.lib.te_random_u64(e.ctx) != first[0]
    e.lib.te_rng_set_state(e.ctx, state)
    assert e.lib.te_random_u64(e.ctx) == more


def test_xoshiro_follows_its_reference(engine):
    """State 1, 2, 3, 4: the first outputs published with the Rust crate rand_xoshiro."""
    e = engine
    e.lib.te_rng_set_state(e.ctx, e.ffi.new("uint64_t[4]", [1, 2, 3, 4]))
    expected = [41943041, 58720359, 3588806011781223, 3591011842654386]
    assert [e.lib.te_random_u64(e.ctx) for _ in range(4)] == expected


def test_distributions(engine):
    e = engine
    t = zeros(e, 100, 1000)
    e.lib.te_fill_normal(t, 1.0, 2.0)
    assert e.values(t).mean() == pytest.approx(1, abs=0.03)
    assert e.values(t).std() == pytest.approx(2, abs=0.03)
    e.lib.te_init_kaiming(t, 1.0)
    bound = np.sqrt(3 / 1000)
    assert 0.99 * bound < np.abs(e.values(t)).max() <= bound
    e.lib.te_init_xavier(t, 2.0)
    bound = 2 * np.sqrt(6 / 1100)
    assert 0.99 * bound < np.abs(e.values(t)).max() <= bound


# ---- Errors ----


REFUSALS = [
    (
        "linear",
        lambda e: (zeros(e, 2, 3), zeros(e, 4, 5), None),
        r"linear: x \[2, 3\] and w \[4, 5\]",
    ),
    ("linear", lambda e: (zeros(e, 2, 3), zeros(e, 4, 3), zeros(e, 3)), r"linear: .*b \[3\]"),
    ("linear", lambda e: (None, zeros(e, 4, 3), None), "linear: x is NULL"),
    ("linear", lambda e: (e.tensor([1, 2]), zeros(e, 4, 2), None), "x must be float, got int32"),
    ("bitlinear", lambda e: (zeros(e), zeros(e, 4, 3)), r"bitlinear: x needs 1 dimensions"),
    (
        "rmsnorm",
        lambda e: (zeros(e, 2, 3), zeros(e, 4), 1e-5),
        r"rmsnorm: x \[2, 3\] and gain \[4\]",
    ),
    ("rope", lambda e: (zeros(e, 2, 6), 4, 0, 1e4, 0), "rope: head_dim 4 must be even and divide"),
    ("rope", lambda e: (zeros(e, 2, 6), 3, 0, 1e4, 0), "rope: head_dim 3 must be even"),
    ("rope", lambda e: (zeros(e, 2, 6), 2, 0, -1.0, 0), "rope: base -1 must be positive"),
    (
        "attention",
        lambda e: (zeros(e, 2, 6), zeros(e, 2, 6), zeros(e, 2, 6), 4, 4, 1),
        "attention: heads 4 must divide",
    ),
    (
        "attention",
        lambda e: (zeros(e, 3, 6), zeros(e, 2, 6), zeros(e, 2, 6), 2, 2, 1),
        "key_time >= time when causal",
    ),
    ("swiglu", lambda e: (zeros(e, 2), zeros(e, 3)), r"swiglu: a \[2\] and b \[3\]"),
    ("mean_pool", lambda e: (zeros(e, 2, 0, 3),), r"mean_pool: x \[2, 0, 3\] is empty"),
    ("add", lambda e: (zeros(e, 2, 3), zeros(e, 2)), r"add: a \[2, 3\] and b \[2\]"),
    ("reshape", lambda e: (zeros(e, 2, 3), 1, [5]), r"reshape: x \[2, 3\] has 6 elements"),
    ("reshape", lambda e: (zeros(e, 2, 3), 2, [-1, 4]), r"reshape: x \[2, 3\] has 6 elements"),
    ("embedding", lambda e: (zeros(e, 4, 3), e.tensor([0, 4])), "id 4 at position 1, 0 to 3"),
    ("embedding", lambda e: (zeros(e, 4, 3), e.tensor([-1])), "id -1 at position 0"),
    (
        "cross_entropy",
        lambda e: (zeros(e, 2, 3), e.tensor([0, 3]), -1),
        "cross_entropy: label 3 at position 1, 0 to 2 exist",
    ),
    ("cross_entropy", lambda e: (zeros(e, 2, 3), e.tensor([0]), -1), r"labels \[1\]"),
    (
        "lora",
        lambda e: (zeros(e, 2, 4), zeros(e, 2, 3), zeros(e, 2, 3), zeros(e, 3, 2), 1.0),
        "lora",
    ),
    ("mse", lambda e: (zeros(e, 0), zeros(e, 0)), "mse"),
    ("broadcast", lambda e: (zeros(e, 2, 3), 2, [2, 4]), r"broadcast: x \[2, 3\] does not go"),
    ("broadcast", lambda e: (zeros(e, 2, 3), 1, [3]), r"broadcast: x \[2, 3\] does not go"),
    ("broadcast", lambda e: (zeros(e, 1), 9, [1] * 9), "the 9 dimensions asked for"),
    ("slice", lambda e: (zeros(e, 2, 3), 1, 2, 2), r"slice: 2 elements from 2 .* of \[2, 3\]"),
    ("slice", lambda e: (zeros(e, 2, 3), 2, 0, 1), r"slice: there is no dimension 2 in \[2, 3\]"),
    ("transpose", lambda e: (zeros(e, 2, 3), 1, -1), "transpose: dimension 1 is named twice"),
    ("concat", lambda e: (2, [zeros(e, 2, 3), zeros(e, 2, 2)], 0), r"\[2, 2\] do not fit"),
    ("concat", lambda e: (9, [zeros(e, 1)] * 9, 0), "concat: 9 parts, 1 to 8"),
    ("gather", lambda e: (zeros(e, 1, 3), e.tensor([3])), "gather: index 3 at position 0, 0 to 2"),
    (
        "conv1d",
        lambda e: (zeros(e, 2, 3), zeros(e, 1, 3, 3), None, 1, 0, 0),
        "longer than the time",
    ),
    ("conv1d", lambda e: (zeros(e, 2, 3), zeros(e, 1, 1, 3), None, 0, 0, 0), "stride 0 must be"),
    ("clip", lambda e: (zeros(e, 2), 1.0, 0.0), "clip: low 1 must not exceed high 0"),
    ("dropout", lambda e: (zeros(e, 2), 1.0), "dropout: p 1 must be"),
]


@pytest.mark.parametrize(("name", "make", "text"), REFUSALS)
def test_misfits_are_named_in_one_line(engine, name, make, text):
    with pytest.raises(EngineError, match=text) as caught:
        engine.op(name, *make(engine))
    assert "\n" not in str(caught.value)
    assert engine.lib.te_tape_length(engine.ctx) == 0


def test_the_first_failure_of_a_chain_is_the_one_that_is_told(engine):
    e = engine
    bad = e.lib.te_silu(e.ctx, e.tensor([1, 2]))
    chain = e.lib.te_linear(e.ctx, zeros(e, 2, 3), zeros(e, 4, 3), e.lib.te_scale(e.ctx, bad, 2.0))
    assert chain == e.ffi.NULL
    assert e.lib.te_last_status(e.ctx) == e.lib.TE_ERR_TYPE
    with pytest.raises(EngineError, match="silu: x must be float"):
        e.check(chain)


def test_backward_needs_a_scalar_result_that_depends_on_something(engine):
    e = engine
    x, w = zeros(e, 2, 3), zeros(e, 4, 3, grad=True)
    for loss, text in [
        (w, "needs a scalar"),
        (zeros(e, 1), "not a result"),
        (e.op("mse", x, x), "no input"),
        (e.ffi.NULL, "NULL"),
    ]:
        with pytest.raises(EngineError, match=text):
            e.check(e.lib.te_backward(e.ctx, loss))
    old = e.lib.te_retain(e.op("scale", w, 1.0))
    e.reset()
    with pytest.raises(EngineError, match="not a result on the present tape"):
        e.backward(old, np.ones((4, 3)))
    e.lib.te_release(old)


@pytest.mark.parametrize("shape", [[-1], [2**40, 2**40], [1] * 9])
def test_impossible_tensors_are_refused(engine, shape):
    with pytest.raises(EngineError, match=r"tensor: .*possible"):
        engine.check(engine.lib.te_zeros(engine.ctx, 0, len(shape), shape))


def test_the_header_gives_every_status_a_text(engine):
    header = (ENGINE / "te.h").read_text()
    statuses = re.findall(r"TE_(?:OK|ERR_\w+) = (\d+)", header)
    texts = {engine.ffi.string(engine.lib.te_status_text(int(s))) for s in statuses}
    assert len(texts) == len(statuses) == 6
    assert b"unknown status" not in texts


# ---- Threads ----


def run_a_network(e):
    """Results and gradients of operations that are shared among threads, large enough for that."""
    rng = np.random.default_rng(0)
    x, w = (e.tensor(rng.normal(size=s), grad=True) for s in [(2, 150, 96), (192, 96)])
    hidden = e.op("bitlinear", e.op("rope", x, 32, 0, 1e4, 0), w)
    gate, up = (e.op("slice", hidden, -1, start, 96) for start in (0, 96))
    mixed = e.op("attention", gate, up, e.op("silu", up), 3, 3, 1)
    y = e.op("linear", e.op("swiglu", mixed, gate), w, None)
    e.backward(y, np.ones((2, 150, 192)))
    optimiser = e.lib.te_adamw(e.ctx, 0.9, 0.99, 1e-8, 0.1)
    e.lib.te_optim_add(optimiser, w, 1)
    e.lib.te_optim_step(optimiser, 0.01)
    e.lib.te_optim_free(optimiser)
    return [e.values(y).copy(), e.grad(x).copy(), e.grad(w).copy(), e.values(w).copy()]


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_results_do_not_depend_on_the_number_of_threads(engine, threads):
    alone = run_a_network(engine)
    assert engine.lib.te_set_threads(engine.ctx, threads) == 0
    assert engine.lib.te_threads(engine.ctx) == threads
    for _ in range(3):
        for one, shared in zip(alone, run_a_network(engine), strict=True):
            np.testing.assert_array_equal(one, shared)


def test_a_number_of_threads_that_is_not_possible_is_refused(engine):
    with pytest.raises(EngineError, match="threads: 0 asked for, 1 to 64 are possible"):
        engine.check(engine.lib.te_set_threads(engine.ctx, 0))
