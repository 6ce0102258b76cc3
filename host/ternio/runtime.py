"""The device runtime in Python: runs and adapts a blob exactly as a board does, bit for bit.

>>> model = Model.open("motion.tern")
>>> session = Session(model)
>>> logits = session.infer(model.quantize(window))
>>> model.labels[int(logits.argmax())]
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence

import numpy as np
import numpy.typing as npt

from ternio._runtime import ffi, lib
from ternio.errors import BlobError, DataError, RuntimeFault, TernioError

_ALIGNMENT = 16
_OPTIMIZERS = {"adam": lib.TR_ADAM, "sgd": lib.TR_SGD}


def status_text(status: int) -> str:
    """The runtime's one line about a status."""
    return ffi.string(lib.tr_status_text(status)).decode()


def _raise_unless_ok(status: int, what: str, error: type[TernioError]) -> None:
    if status != lib.TR_OK:
        raise error(f"{what}: {status_text(status)}")


def _aligned(data: bytes | int) -> np.ndarray:
    """Bytes at a 16-byte boundary: a copy of `data`, or that many zeros."""
    size = data if isinstance(data, int) else len(data)
    room = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    view = room[start : start + size]
    if not isinstance(data, int):
        view[:] = np.frombuffer(data, np.uint8)
    return view


class Model:
    """A checked blob. Make one with `Model.open`.

    Attributes:
        name: the model's name.
        kind: "window", or "tokens" for a language model.
        labels: one per output; () of a language model, which has a vocabulary.
        digest: SHA-256 that identifies the model, 32 bytes.
        channels, length: shape of the input window, `length` rows of `channels` samples. Of a
            language model 1 and its context.
        outputs: number of logits.
        choices: how many of them a text is written in: not the last one where its token stands
            for any character outside of the vocabulary.
        sample_rate_hz: 0.0 when unknown.
        input_scale: [channels] float32, raw units per integer step.
        infer_work, adapt_work: work of one run of each program, in about multiply-accumulates.
        infer_arena, adapt_arena: bytes of memory; `adapt_arena` is 0 without an adapt program.
        adapter_floats: trainable numbers of an adapter; 0 when the model has no adapters.
        adapter_file_bytes: size of an adapter file.
    """

    def __init__(self, blob: bytes, what: str = "blob") -> None:
        self._blob = _aligned(blob)
        self._c = ffi.new("tr_model *")
        # the C struct points into the array: both live as long as this object
        start = ffi.cast("const void *", self._blob.ctypes.data)
        _raise_unless_ok(lib.tr_model_open(self._c, start, len(blob)), what, BlobError)
        self.name = ffi.string(self._c.name).decode()
        self.digest = bytes(ffi.buffer(self._c.digest, 32))
        self.channels: int = self._c.channels
        self.length: int = self._c.length
        self.outputs: int = self._c.outputs
        self.sample_rate_hz: float = self._c.sample_rate_hz
        self.choices = self.outputs - (lib.tr_model_character(self._c, self.outputs - 1) < 0)
        self.kind = "tokens" if self._c.kind == lib.TR_TOKENS else "window"
        scales = 0 if self.kind == "tokens" else self.channels
        scale = ffi.buffer(self._c.input_scale, 4 * scales) if scales else b""
        self.input_scale = np.frombuffer(scale, np.float32).copy()
        self.infer_work: int = self._c.infer_work
        self.adapt_work: int = self._c.adapt_work
        self.infer_arena: int = self._c.infer_arena
        self.adapt_arena: int = self._c.adapt_arena
        self.adapter_floats: int = self._c.adapter_floats
        self.adapter_file_bytes: int = lib.tr_adapter_bytes(self._c)
        labels = 0 if self.kind == "tokens" else self.outputs
        self.labels = tuple(
            ffi.string(lib.tr_model_label(self._c, k)).decode() for k in range(labels)
        )

    @classmethod
    def open(cls, source: str | os.PathLike[str] | bytes) -> Model:
        """Checks a blob given as a path or as bytes.

        Raises:
            BlobError: it is damaged, of another version, or not a blob.
        """
        if isinstance(source, bytes | bytearray | memoryview):
            return cls(bytes(source))
        try:
            with open(source, "rb") as file:
                return cls(file.read(), os.fspath(source))
        except OSError as error:
            raise BlobError(f"{os.fspath(source)}: {error.strerror}") from error

    def channel_names(self) -> tuple[str, ...]:
        """What the channels were called in the training data; () where the blob does not say."""
        from .blob.meta import channel_names

        return channel_names(lambda start, count: self._blob[start : start + count].tobytes())

    @property
    def can_adapt(self) -> bool:
        """Whether the blob has an adapt program."""
        return self.adapt_arena > 0

    def tokens(self, text: str) -> list[int]:
        """Tokens of a text, in a language model's vocabulary.

        Raises:
            DataError: the model has no vocabulary, or one without a token for a character.
        """
        if self.kind != "tokens":
            raise DataError(f"model {self.name} takes windows of samples, not text")
        by_bytes = lib.tr_model_bytes(self._c)
        units = text.encode() if by_bytes else [ord(c) for c in text]
        tokens = [lib.tr_model_token(self._c, unit) for unit in units]
        for unit, token in zip(units, tokens, strict=True):
            if token < 0:
                raise DataError(f"the vocabulary of {self.name} has no {chr(unit)!r}")
        return tokens

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens; what is no character of the vocabulary, or no UTF-8, is U+FFFD."""
        units = [lib.tr_model_character(self._c, int(token)) for token in tokens]
        if lib.tr_model_bytes(self._c):
            return bytes(unit for unit in units if unit >= 0).decode(errors="replace")
        return "".join(chr(unit) if unit >= 0 else "\N{REPLACEMENT CHARACTER}" for unit in units)

    def quantize(self, window: npt.ArrayLike) -> np.ndarray:
        """Raw samples [length, channels] as the int16 that the model expects, saturated.

        Raises:
            DataError: another shape, or values that are not finite.
        """
        raw = np.asarray(window, np.float64)
        if raw.shape != (self.length, self.channels):
            raise DataError(
                f"a window of {self.length} x {self.channels} samples is expected, not {raw.shape}"
            )
        if not np.isfinite(raw).all():
            raise DataError("the window has values that are not finite; fill or drop them first")
        steps = np.rint(raw / self.input_scale.astype(np.float64))
        return np.clip(steps, -32767, 32767).astype(np.int16)

    def check_adapter(self, data: bytes) -> None:
        """Raises BlobError when `data` is not an adapter file for this model."""
        file = _aligned(data)
        status = lib.tr_adapter_check(self._c, ffi.cast("void *", file.ctypes.data), len(data))
        _raise_unless_ok(status, "adapter", BlobError)


class Session:
    """A model at work in its own arena, with at most one adapter attached.

    Args:
        model: the model; it is kept alive.
        arena_bytes: size of the arena; by default what the model needs for everything it can do.

    Raises:
        RuntimeFault: the arena is too small.
    """

    def __init__(self, model: Model, arena_bytes: int | None = None) -> None:
        self.model = model
        if arena_bytes is None:
            arena_bytes = max(model.infer_arena, model.adapt_arena)
        self._arena = _aligned(arena_bytes)
        self._adapter: np.ndarray | None = None
        self._c = ffi.new("tr_session *")
        start = ffi.cast("void *", self._arena.ctypes.data)
        status = lib.tr_session_init(self._c, model._c, start, arena_bytes)
        _raise_unless_ok(status, f"an arena of {arena_bytes} bytes", RuntimeFault)

    @property
    def steps(self) -> int:
        """Adaptation steps behind the factors in use."""
        return self._c.steps

    @property
    def loss(self) -> float:
        """Loss of the last adaptation step, in nats."""
        return self._c.loss

    @property
    def adapting(self) -> bool:
        """Whether an adaptation is running."""
        return bool(self._c.adapting)

    @property
    def has_adapter(self) -> bool:
        """Whether factors, attached or in training, take part in `infer`."""
        return self._c.factors != ffi.NULL

    def _window(self, x: npt.ArrayLike) -> np.ndarray:
        window = np.asarray(x)
        if window.dtype == np.int8:
            window = window.astype(np.int16) * 256
        if window.dtype != np.int16:
            raise DataError(f"a window is int16 or int8 (see Model.quantize), not {window.dtype}")
        expected = self.model.length * self.model.channels
        if window.size != expected:
            raise DataError(
                f"a window has {self.model.length} x {self.model.channels} = {expected} samples, "
                f"not {window.size}"
            )
        return np.ascontiguousarray(window).reshape(-1)

    def infer(self, x: npt.ArrayLike) -> np.ndarray:
        """Logits [outputs] float32 of a window [length, channels] int16 (or int8: upper bytes)."""
        window = self._window(x)
        logits = ffi.new("const float **")
        start = ffi.cast("const int16_t *", window.ctypes.data)
        status = lib.tr_infer(self._c, start, window.size, logits)
        _raise_unless_ok(status, "infer", RuntimeFault)
        return np.frombuffer(ffi.buffer(logits[0], 4 * self.model.outputs), np.float32).copy()

    @property
    def position(self) -> int:
        """Tokens that the stream of a language model holds, 0 .. model.length."""
        return self._c.position

    def reset_stream(self) -> None:
        """Starts the stream of a language model again, at position 0."""
        lib.tr_stream_reset(self._c)

    def step(self, token: int) -> np.ndarray:
        """Takes one token; logits [outputs] float32 of the one that follows it.

        Raises:
            RuntimeFault: the context is full, or the model takes windows.
        """
        if not 0 <= token < self.model.outputs:
            raise DataError(f"token {token} is not in 0 .. {self.model.outputs - 1}")
        logits = ffi.new("const float **")
        _raise_unless_ok(lib.tr_step(self._c, int(token), logits), "step", RuntimeFault)
        return np.frombuffer(ffi.buffer(logits[0], 4 * self.model.outputs), np.float32).copy()

    def generate(
        self, prompt: Sequence[int], sampler: Sampler | None = None
    ) -> Generator[int, None, None]:
        """Tokens that follow `prompt` (at least one token), without end.

        A stream starts anew with the prompt. Where the context is full, it starts again with the
        last half of it, as a board does.

        Args:
            sampler: how to choose; by default the likeliest token.
        """
        sampler = sampler or Sampler(temperature=0.0)
        self.reset_stream()
        kept: list[int] = []
        pending = list(prompt)
        if not pending:
            raise DataError("a prompt of at least one token is expected")
        while True:
            for token in pending:
                if self.position == self.model.length:
                    kept = kept[-(self.model.length // 2) :]
                    self.reset_stream()
                    for old in kept:
                        self.step(old)
                logits = self.step(token)
                kept.append(token)
            pending = [sampler(logits[: self.model.choices])]
            yield pending[0]

    def adapt_begin(
        self,
        optimizer: str = "adam",
        lr: float = 5e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Starts adaptation, from the attached adapter or from fresh factors.

        Args:
            optimizer: "adam", or "sgd" whose momentum is `betas[0]`.
            lr: learning rate.
            betas, eps: of Adam.
            weight_decay: decoupled.
            clip: largest norm of the gradient; 0: no clipping.
            seed: of fresh factors.

        Raises:
            RuntimeFault: the model has no adapt program, the arena is too small, or a setting
                is out of range.
        """
        if optimizer not in _OPTIMIZERS:
            raise RuntimeFault(f"optimizer {optimizer!r} is not one of {', '.join(_OPTIMIZERS)}")
        config = ffi.new("tr_adapt_config *")
        config.optimizer = _OPTIMIZERS[optimizer]
        config.lr, config.eps = lr, eps
        config.beta1, config.beta2 = betas
        config.weight_decay, config.clip = weight_decay, clip
        config.seed = seed & 0xFFFFFFFFFFFFFFFF
        _raise_unless_ok(lib.tr_adapt_begin(self._c, config), "adaptation", RuntimeFault)
        self._adapter = None

    def adapt_step(self, x: npt.ArrayLike, label: int) -> float:
        """Learns from one window; returns its cross-entropy in nats before the step."""
        if not 0 <= label < self.model.outputs:
            raise DataError(f"label {label} is not in 0 .. {self.model.outputs - 1}")
        window = self._window(x)
        loss = ffi.new("float *")
        start = ffi.cast("const int16_t *", window.ctypes.data)
        status = lib.tr_adapt_step(self._c, start, window.size, int(label), loss)
        _raise_unless_ok(status, "adaptation step", RuntimeFault)
        return loss[0]

    def set_lr(self, lr: float) -> None:
        """Changes the learning rate between steps."""
        _raise_unless_ok(lib.tr_adapt_set_lr(self._c, lr), f"learning rate {lr}", RuntimeFault)

    def adapter_bytes(self) -> bytes:
        """The factors in use as an adapter file."""
        out = bytearray(self.model.adapter_file_bytes)
        used = ffi.new("uint32_t *")
        status = lib.tr_adapter_export(self._c, ffi.from_buffer(out), len(out), used)
        _raise_unless_ok(status, "adapter export", RuntimeFault)
        return bytes(out[: used[0]])

    def attach(self, adapter: bytes) -> None:
        """Uses an adapter file; ends a running adaptation.

        Raises:
            BlobError: it is damaged, or belongs to another model. What was attached stays.
        """
        file = _aligned(adapter)
        start = ffi.cast("const void *", file.ctypes.data)
        status = lib.tr_adapter_attach(self._c, start, len(adapter))
        _raise_unless_ok(status, "adapter", BlobError)
        self._adapter = file

    def detach(self) -> None:
        """Back to the base model; factors that were not saved are forgotten."""
        lib.tr_adapter_detach(self._c)
        self._adapter = None


class Sampler:
    """Chooses tokens from logits; the same settings and seed choose the same ones everywhere.

    Args:
        temperature: of the softmax; 0 takes the likeliest token.
        top_k: keep the k likeliest; 0: all.
        top_p: then keep the fewest whose probabilities reach p; 1: all.
        seed: of the random numbers.
    """

    def __init__(
        self, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0
    ) -> None:
        highest, lowest = 3.4e38, 1e-45  # of the runtime's floats
        if not 0 <= temperature <= highest or not lowest <= top_p <= 1 or not 0 <= top_k < 1 << 32:
            raise DataError(
                f"temperature {temperature}, top_k {top_k}, top_p {top_p}: expected temperature "
                "0 to 3.4e38, top_k 0 (all) to 4294967295, and 0 < top_p <= 1"
            )
        self._c = ffi.new("tr_sampler *")
        self._c.temperature, self._c.top_k, self._c.top_p = temperature, top_k, top_p
        self._c.state = seed & 0xFFFFFFFFFFFFFFFF

    def __call__(self, logits: npt.ArrayLike) -> int:
        """The chosen token of logits [outputs]."""
        values = np.ascontiguousarray(logits, np.float32)
        weights = np.empty(values.size, np.uint32)
        return lib.tr_sample(
            self._c,
            ffi.cast("const float *", values.ctypes.data),
            values.size,
            ffi.cast("uint32_t *", weights.ctypes.data),
        )


def classify(logits: npt.ArrayLike) -> tuple[int, np.ndarray]:
    """The index of the largest logit (the lowest on a tie) and the softmax, as on a board."""
    values = np.ascontiguousarray(logits, np.float32)
    probabilities = np.empty_like(values)
    best = lib.tr_classify(
        ffi.cast("const float *", values.ctypes.data),
        values.size,
        ffi.cast("float *", probabilities.ctypes.data),
    )
    return int(best), probabilities
