"""Loss, optimisers, fresh factors and adapter files."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from device_assembler import STEP, Assembler, f32, instruction
from device_harness import Machine, aligned, backward_machine

RNG = np.random.default_rng(31)


def trainable() -> Assembler:
    """x (4 samples) plus a trained low-rank product of itself are the logits."""
    asm = Assembler(channels=1, length=4, outputs=4)
    one, zero = asm.f32([[0.001]]), asm.f32([[0.0]])
    slot = asm.adapter(4, 4, 2, bound=0.5)
    x, z, e = asm.room(4), asm.room(2), asm.room(4)
    gradient = asm.room(4)
    forward = [
        instruction("INPUT", x, asm.input, one, zero, n=(4, 1), imm=4),
        instruction("COPY", asm.logits, x, n=(4,)),
        instruction("LORA", asm.logits, x, slot, 0, z, n=(4, 4, 2), imm=f32(2.0)),
    ]
    asm.infer = forward
    asm.adapt = [
        *forward,
        instruction("CROSS_ENTROPY", gradient, asm.logits, n=(4,)),
        instruction("LORA_BWD", 0, x, slot, 0, gradient, e, n=(4, 4, 2), imm=f32(2.0)),
        instruction("OPTIMIZE"),
    ]
    return asm


WINDOW = np.int16([900, -300, 200, 500])


def forward(factors, x):
    a, b = factors[:8].reshape(2, 4), factors[8:].reshape(4, 2)
    return x + 2.0 * b @ (a @ x)


def loss_of(factors, x, label):
    logits = forward(factors.astype(float), x)
    return np.log(np.exp(logits).sum()) - logits[label]


def gradient(factors, x, label, step=1e-6):
    out = np.zeros(factors.size)
    for k in range(factors.size):
        up, down = factors.astype(float), factors.astype(float)
        up[k] += step
        down[k] -= step
        out[k] = (loss_of(up, x, label) - loss_of(down, x, label)) / (2 * step)
    return out


def splitmix_factors(seed, bound, count):
    """FORMAT.md section 4, in Python integers."""
    out, mask = [], (1 << 64) - 1
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
        out.append(((z >> 40) - (1 << 23)) * 2.0**-23 * bound)
    return np.float32(out)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_fresh_factors(library, seed):
    machine = Machine(library, trainable())
    assert machine.begin(seed=seed) == "TR_OK"
    np.testing.assert_array_equal(machine.state(0)[:8], splitmix_factors(seed, 0.5, 8))
    np.testing.assert_array_equal(machine.state(0)[8:], 0)
    assert all((machine.state(block) == 0).all() for block in (1, 2, 3))


@pytest.mark.parametrize("label", range(3))
def test_cross_entropy(library, label):
    asm = Assembler(outputs=3)
    dst, other = asm.room(3), asm.room(3)
    logits = np.float32([2.5, -1.0, 30.0])
    asm.adapter(2, 2, 1)
    asm.infer = [instruction("ZERO", dst, n=(1, 1))]
    asm.adapt = [
        instruction("CROSS_ENTROPY", dst, other, n=(3,)),
        instruction("OPTIMIZE"),
    ]
    machine = Machine(library, asm)
    machine.begin()
    machine.put(other, logits)
    status, loss = machine.step(label=label)
    p = np.exp(logits.astype(float) - 30)
    p /= p.sum()
    assert status == "TR_OK"
    np.testing.assert_allclose(loss, -np.log(p[label]), rtol=1e-6, atol=1e-9)
    p[label] -= 1
    np.testing.assert_allclose(machine.view(dst, 3), p, rtol=1e-6, atol=1e-9)


def reference_steps(factors, labels, optimizer, lr, b1, b2, eps, decay, clip):
    """The optimisers of FORMAT.md in double precision."""
    m, v = np.zeros(factors.size), np.zeros(factors.size)
    x = WINDOW * 0.001
    for t, label in enumerate(labels, 1):
        g = gradient(factors, x, label)
        norm = np.sqrt((g**2).sum())
        if clip and norm > clip:
            g *= clip / norm
        if optimizer == "adam":
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            move = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        else:
            m = b1 * m + g
            move = m
        factors = factors * (1 - lr * decay) - lr * move
    return factors


@pytest.mark.parametrize(
    ("optimizer", "lr", "b1", "decay", "clip"),
    [
        ("adam", 0.01, 0.9, 0.0, 0.0),
        ("adam", 0.02, 0.8, 0.1, 0.3),
        ("sgd", 0.1, 0.0, 0.0, 0.0),
        ("sgd", 0.1, 0.9, 0.05, 0.2),
    ],
)
def test_optimisers(library, optimizer, lr, b1, decay, clip):
    machine = Machine(library, trainable())
    kind = library.c.TR_ADAM if optimizer == "adam" else library.c.TR_SGD
    b2, eps = 0.99, 1e-6
    settings = dict(optimizer=kind, lr=lr, beta1=b1, beta2=b2, eps=eps, seed=5)
    assert machine.begin(**settings, weight_decay=decay, clip=clip) == "TR_OK"
    start, labels = machine.state(0).copy(), [0, 1, 1, 3, 2, 0]
    for label in labels:
        assert machine.step(WINDOW, label)[0] == "TR_OK"
    want = reference_steps(start, labels, optimizer, lr, b1, b2, eps, decay, clip)
    np.testing.assert_allclose(machine.state(0), want, rtol=2e-3, atol=2e-5)
    assert machine.session.steps == len(labels)


def test_learning_lowers_the_loss_and_infer_uses_the_factors(library):
    machine = Machine(library, trainable())
    before = machine.infer(WINDOW)
    machine.begin(seed=1, lr=0.03)
    np.testing.assert_array_equal(machine.infer(WINDOW), before)  # fresh B is zero
    losses = []
    for _ in range(60):
        losses.append(machine.step(WINDOW, 2)[1])
        trained = machine.infer(WINDOW)
    assert losses[-1] < 0.25 * losses[0]
    assert trained.argmax() == 2
    x = (WINDOW * np.float32(0.001)).astype(float)
    want = forward(machine.state(0).astype(float), x)
    np.testing.assert_allclose(trained, want, rtol=1e-5, atol=1e-5)
    machine.lib.c.tr_adapter_detach(machine.session)
    np.testing.assert_array_equal(machine.infer(WINDOW), before)


@pytest.mark.parametrize("optimizer", ["TR_ADAM", "TR_SGD"])
def test_a_rate_far_too_high_leaves_a_model_that_answers(library, optimizer):
    machine = Machine(library, trainable())
    machine.begin(seed=1, lr=1e30, optimizer=getattr(library.c, optimizer))
    for label in (0, 1, 2):
        machine.step(WINDOW, label)
        assert (np.abs(machine.state(0)) <= 65504).all()
        assert np.isfinite(machine.infer(WINDOW)).all()


def test_set_lr(library):
    machine = Machine(library, trainable())
    set_lr = machine.lib.c.tr_adapt_set_lr
    assert machine.lib.name(set_lr(machine.session, 0.1)) == "TR_ERR_STATE"
    machine.begin(optimizer=library.c.TR_SGD, lr=0.5, beta1=0.0, seed=1)
    assert machine.lib.name(set_lr(machine.session, 0.0)) == "TR_ERR_VALUE"
    assert machine.lib.name(set_lr(machine.session, float("nan"))) == "TR_ERR_VALUE"
    assert set_lr(machine.session, 0.25) == 0
    start = machine.state(0).copy()
    machine.step(WINDOW, 0)
    np.testing.assert_allclose(machine.state(0), start - 0.25 * machine.state(2), rtol=1e-6)


@pytest.mark.parametrize(
    "setting",
    [
        dict(lr=0.0),
        dict(lr=-1.0),
        dict(lr=float("inf")),
        dict(beta1=1.0),
        dict(beta2=float("nan")),
        dict(eps=0.0),
        dict(weight_decay=-0.1),
        dict(clip=-1.0),
    ],
)
def test_bad_settings_are_refused(library, setting):
    machine = Machine(library, trainable())
    assert machine.begin(**setting) == "TR_ERR_VALUE"
    assert machine.step(WINDOW, 0)[0] == "TR_ERR_STATE"


def test_loss_that_is_not_finite_changes_nothing(library):
    machine = Machine(library, trainable())
    machine.begin(seed=3)
    machine.step(WINDOW, 1)
    machine.state(0)[0] = 3e38
    machine.state(0)[8] = 3e38
    before = machine.bytes[machine.asm.state :].copy()
    loss = machine.session.loss
    status, reported = machine.step(WINDOW, 1)
    assert status == "TR_ERR_VALUE" and not np.isfinite(reported)
    np.testing.assert_array_equal(machine.bytes[machine.asm.state :], before)
    assert machine.session.loss == loss and machine.session.steps == 1


def attach(machine, data: bytes) -> str:
    machine.file = aligned(len(data))
    machine.file[:] = np.frombuffer(data, np.uint8)
    function = machine.lib.c.tr_adapter_attach
    return machine.lib.name(function(machine.session, machine.lib.pointer(machine.file), len(data)))


def trained_adapter(library) -> tuple[Machine, bytes]:
    machine = Machine(library, trainable())
    machine.begin(seed=9)
    for label in (0, 1, 2, 2):
        machine.step(WINDOW, label)
    return machine, machine.export()


def test_adapter_file_is_as_specified(library):
    machine, data = trained_adapter(library)
    head = struct.unpack("<4sHHII32sIIfI", data[:64])
    digest = bytes(library.ffi.buffer(machine.model.digest, 32))
    assert head[:4] == (b"TADP", 0, 1, len(data)) and head[4] == zlib.crc32(data[16:])
    assert head[5:8] == (digest, 16, 4) and head[9] == 0
    assert head[8] == machine.session.loss
    np.testing.assert_array_equal(np.frombuffer(data[64:], "f4"), machine.state(0))


def test_attached_adapter_gives_the_trained_logits(library):
    machine, data = trained_adapter(library)
    trained = machine.infer(WINDOW)
    other = Machine(library, trainable())
    base = other.infer(WINDOW)
    assert attach(other, data) == "TR_OK"
    np.testing.assert_array_equal(other.infer(WINDOW), trained)
    assert other.export() == data
    other.lib.c.tr_adapter_detach(other.session)
    np.testing.assert_array_equal(other.infer(WINDOW), base)
    assert not np.array_equal(base, trained)


def test_adaptation_goes_on_from_an_attached_adapter(library):
    machine, data = trained_adapter(library)
    assert attach(machine, data) == "TR_OK" and not machine.session.adapting
    assert machine.begin() == "TR_OK"
    np.testing.assert_array_equal(machine.state(0), np.frombuffer(data[64:], "f4"))
    machine.step(WINDOW, 0)
    assert machine.session.steps == 5


def sealed(data: bytes) -> bytes:
    return data[:12] + struct.pack("<I", zlib.crc32(data[16:])) + data[16:]


def changed(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


@pytest.mark.parametrize(
    ("offset", "new", "status"),
    [
        (0, b"TERN", "TR_ERR_MAGIC"),
        (4, b"\1", "TR_ERR_VERSION"),
        (6, b"\2", "TR_ERR_VERSION"),
        (8, b"\xff", "TR_ERR_TRUNCATED"),
        (8, b"\1", "TR_ERR_HEADER"),
        (0x10, b"\0\1\2\3", "TR_ERR_MISMATCH"),
        (0x30, b"\x0f", "TR_ERR_HEADER"),
        (0x37, b"\x80", "TR_ERR_HEADER"),
        (0x38, struct.pack("<f", np.nan), "TR_ERR_VALUE"),
        (0x3C, b"\1", "TR_ERR_HEADER"),
        (0x48, struct.pack("<f", np.inf), "TR_ERR_VALUE"),
        (0x48, struct.pack("<f", 65505.0), "TR_ERR_VALUE"),
        (0x48, struct.pack("<f", -1e38), "TR_ERR_VALUE"),
    ],
)
def test_bad_adapter_files(library, offset, new, status):
    machine, data = trained_adapter(library)
    before = machine.infer(WINDOW)
    assert attach(machine, sealed(changed(data, offset, new))) == status
    if offset >= 16:
        assert attach(machine, changed(data, offset, new)) == "TR_ERR_CHECKSUM"
    np.testing.assert_array_equal(machine.infer(WINDOW), before)


def test_truncated_adapter_files(library):
    machine, data = trained_adapter(library)
    for size in (0, 1, 63, 64, len(data) - 4):
        assert attach(machine, data[:size]) == "TR_ERR_TRUNCATED"
    assert attach(machine, data + b"\0") == "TR_ERR_HEADER"


def test_calls_out_of_order(library):
    c, ffi = library.c, library.ffi
    machine = Machine(library, trainable())
    out, used = aligned(1000), ffi.new("uint32_t *")
    export = c.tr_adapter_export(machine.session, library.pointer(out), 1000, used)
    assert library.name(export) == "TR_ERR_STATE"
    assert machine.step(WINDOW, 0)[0] == "TR_ERR_STATE"
    machine.begin()
    export = c.tr_adapter_export(machine.session, library.pointer(out), 100, used)
    assert library.name(export) == "TR_ERR_ARGUMENT"
    assert machine.step(WINDOW, 4)[0] == "TR_ERR_ARGUMENT"
    assert machine.step(np.zeros(1), 0)[0] == "TR_ERR_ARGUMENT"


def test_arena_sizes(library):
    machine = Machine(library, trainable())
    c, model, session = library.c, machine.model, machine.session
    arena = library.pointer(machine.bytes)
    init = lambda at, size: library.name(c.tr_session_init(session, model, at, size))
    assert init(arena, model.infer_arena - 1) == "TR_ERR_ARENA"
    assert init(arena + 4, model.infer_arena) == "TR_ERR_ALIGNMENT"
    assert init(arena, model.infer_arena) == "TR_OK"
    assert machine.begin() == "TR_ERR_ARENA"
    assert init(arena, model.adapt_arena) == "TR_OK"
    assert machine.begin() == "TR_OK"


def test_model_without_adapt_program(library):
    asm = trainable()
    asm.adapt = []
    machine = Machine(library, asm)
    assert machine.begin() == "TR_ERR_NO_ADAPT"
    machine.infer(WINDOW)


def test_adapt_may_run_infer_first(library):
    """The header's flag: the same steps with half the program."""
    whole, half = trainable(), trainable()
    half.adapt, half.adapt_flags = half.adapt[3:], 1
    machines = [Machine(library, whole), Machine(library, half)]
    for machine in machines:
        machine.begin(seed=4)
        for label in (0, 3, 1):
            machine.step(WINDOW, label)
    np.testing.assert_array_equal(machines[0].state(0), machines[1].state(0))
    assert machines[0].session.loss == machines[1].session.loss


def test_gradients_start_from_zero_each_step(library):
    """Rate 0.5 without momentum on a constant gradient: each step moves by the same."""
    asm = Assembler()
    slot = asm.adapter(2, 2, 1)
    x, dy, e = asm.room(2), asm.room(2), asm.room(2)
    code = [instruction("LORA_BWD", 0, x, slot, 0, dy, e, n=(2, 2, 1), imm=f32(1.0))]
    settings = dict(optimizer=library.c.TR_SGD, lr=0.5, beta1=0.0)
    machine = backward_machine(library, asm, code, [(x, [1, 2]), (dy, [3, -1])], **settings)
    for _ in range(3):
        start = machine.state(0).copy()
        z = start[0] + 2 * start[1]
        g = 3 * start[2] - start[3]
        assert machine.step()[0] == "TR_OK"
        want = start - 0.5 * np.float32([g, 2 * g, 3 * z, -z])
        np.testing.assert_allclose(machine.state(0), want, rtol=1e-5)


def test_operands_may_step_in_adapt(library):
    """LORA_BWD over rows equals the sum over rows."""
    asm = Assembler()
    slot = asm.adapter(2, 2, 1)
    x, dy, e = asm.room(6), asm.room(6), asm.room(2)
    operands = (0, x | STEP, slot, 0, dy | STEP, e)
    code = [
        instruction("LOOP", n=(3, 1)),
        instruction("LORA_BWD", *operands, n=(2, 2, 1), imm=f32(1.0)),
    ]
    xs, dys = RNG.standard_normal((3, 2)), RNG.standard_normal((3, 2))
    machine = backward_machine(library, asm, code, [(x, xs), (dy, dys)])
    a = machine.factors[:2].astype(float)
    want = (dys * (xs @ a)[:, None]).sum(0)
    np.testing.assert_allclose(machine.state(2)[2:], want, rtol=1e-5, atol=1e-6)
