"""A graph and what is known about its input and classes, made into a blob."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..blob import ternary
from ..blob.check import check_program
from ..blob.format import KIND_TOKENS, Adapter, Blob, InputOutput, align16, init_bound
from ..blob.vocabulary import ANY_OTHER, Vocabulary
from ..errors import CompileError
from .graph import Graph
from .program import Normalisation, plan_both, plan_infer, state_bytes, without_slots
from .scope import Layout, fits_int8_keys
from .weights import Quantizer, TensorPool

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint

DEFAULT_TARGETS = ("q", "v", "head")
KEYS = ("auto", "float", "int8")


@dataclass(frozen=True)
class Options:
    """What the user may choose: adapter slots, form of float weights, a board's arena in bytes, how
    keys and values are held.

    `kv`: "float", "int8", or "auto": int8 where the attention fits it. `integer_rows`: what lies
    between ternary layers in integers. Neither depends on the board, so that a model gives the same
    logits everywhere. `merge_rows`: ternary weights in layout WD, for cores with the DSP
    extension; other cores read it slowly.
    """

    adapt: bool = True
    rank: int = 4
    scale: float = 2.0
    targets: tuple[str, ...] = DEFAULT_TARGETS
    float_dtype: str = "i8"
    arena_limit: int | None = None
    kv: str = "auto"
    integer_rows: bool = True
    merge_rows: bool = False
    quantizer: Quantizer = ternary.quantize


@dataclass(frozen=True)
class Description:
    """Input and classes of a model of windows; only name, vocabulary and meta of one of tokens.

    A raw value x becomes the integer round(x / input_scale[c]) on its way to the board, which gives
    gain[c] * integer + shift[c] to the model. `patch`: samples per row of the first layer, for
    information.
    """

    name: str
    labels: tuple[str, ...] = ()
    input_scale: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    gain: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    shift: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    rate_hz: float = 0.0
    patch: int = 1
    meta: dict[str, Any] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None

    def normalisation(self) -> Normalisation:
        gain, shift = (np.asarray(x, np.float32) for x in (self.gain, self.shift))
        scale = np.asarray(self.input_scale, np.float32)
        if not (np.isfinite([gain, shift, scale]).all() and (scale > 0).all()):
            raise CompileError("scale, gain or shift of an input channel is not usable")
        return Normalisation(gain, shift)


def pack_graph(graph: Graph, about: Description, options: Options | None = None) -> Blob:
    """The blob of a model; raises CompileError where the model cannot run on a board."""
    options = options or Options()
    _check(graph, about, options)
    if options.adapt:
        graph = graph.with_slots(options.targets, options.rank, options.scale)
    else:
        graph = without_slots(graph)
    blobs = []
    for layout in _layouts(graph, options):
        blobs.append(_packed(graph, about, options, layout))
        if options.arena_limit is None or blobs[-1].infer_arena <= options.arena_limit:
            return blobs[-1]
    return min(blobs, key=lambda blob: blob.infer_arena)


def _layouts(graph: Graph, options: Options) -> Iterator[Layout]:
    """Layouts to try, the fastest first; all give the same logits."""
    keys = {"float": False, "int8": True, "auto": fits_int8_keys(graph)}[options.kv]
    layout = Layout(keys, options.integer_rows)
    yield layout
    if not options.adapt:  # `adapt` needs the layers whole, and weights twice are too much
        yield replace(layout, split_gates=True)


def _packed(graph: Graph, about: Description, options: Options, layout: Layout) -> Blob:
    norm = about.normalisation()
    pool = TensorPool(graph, options.float_dtype, options.quantizer)
    input_scale = 0 if graph.stream else pool.constant("input.scale", about.input_scale).index
    adapters = _adapters(graph)
    floats = sum(x.floats for x in adapters)
    adapt, state, adapt_arena = None, 0, 0
    if not options.adapt:
        infer = plan_infer(graph, pool, norm, layout)
    else:
        room = options.arena_limit and options.arena_limit - state_bytes(floats)
        infer, adapt = plan_both(graph, pool, norm, room, layout)
        state = max(align16(adapt.bytes), align16(infer.bytes))
        adapt_arena = state + state_bytes(floats)
    io = InputOutput(
        channels=graph.channels,
        length=graph.length,
        rate_hz=about.rate_hz,
        outputs=graph.nodes[graph.output].width,
        input_scale=input_scale,
        patch=about.patch,
    )
    blob = Blob(
        name=about.name,
        io=replace(io, kind=KIND_TOKENS) if graph.stream else io,
        labels=about.labels,
        tensors=tuple(pool.tensors),
        adapters=adapters,
        infer=infer.encode(),
        adapt=adapt and adapt.encode(state),
        infer_arena=align16(infer.bytes),
        adapt_arena=adapt_arena,
        meta=about.meta,
        vocabulary=about.vocabulary,
    )
    if options.merge_rows:
        blob = _with_merged_rows(blob)
    for program, what in ((blob.infer, "INFR"), (blob.adapt, "ADPT")):
        if program is not None:
            check_program(blob, program, what)
    return blob


def _with_merged_rows(blob: Blob) -> Blob:
    """The blob with its ternary weights in layout WD."""
    tensors = (t.merged_rows() if t.dtype == "T2" else t for t in blob.tensors)
    return replace(blob, tensors=tuple(tensors))


def pack_checkpoint(checkpoint: Checkpoint, options: Options | None = None) -> Blob:
    """The blob of a trained model.

    Args:
        checkpoint: as `ternio.checkpoint.load_checkpoint` gives it.
        options: by default LoRA slots of rank 4 on q, v and head, float weights as I8.

    Raises:
        CompileError: an operation that boards cannot run, or an option that does not fit.

    Example:
        >>> blob = pack_checkpoint(load_checkpoint("motion.ckpt"))    # doctest: +SKIP
        >>> open("motion.tern", "wb").write(blob.encode())            # doctest: +SKIP
    """
    from .. import __version__
    from .trace import engine_quantizer, trace

    options = replace(options or Options(), quantizer=engine_quantizer)
    made_by = {"model": checkpoint.config.to_dict(), "created_by": f"ternio {__version__}"}
    if checkpoint.report:
        made_by["report"] = checkpoint.report
    if checkpoint.kind == "lm":
        return _pack_language_model(checkpoint, options, made_by)
    inputs, model = checkpoint.inputs, checkpoint.classifier
    graph = trace(model, len(inputs.channels), inputs.length)
    about = Description(
        name=checkpoint.name,
        labels=checkpoint.labels,
        input_scale=inputs.input_scale,
        gain=inputs.gain,
        shift=inputs.shift,
        rate_hz=inputs.rate_hz,
        patch=model.config.patch,
        meta={**made_by, "channels": list(inputs.channels)},
    )
    return pack_graph(graph, about, options)


def _pack_language_model(checkpoint: Checkpoint, options: Options, meta: dict[str, Any]) -> Blob:
    from .trace import trace_stream

    model = checkpoint.language_model
    graph = trace_stream(model, model.config.context)
    about = Description(checkpoint.name, vocabulary=vocabulary_of(checkpoint), meta=meta)
    return pack_graph(graph, about, replace(options, adapt=False))


def vocabulary_of(checkpoint: Checkpoint) -> Vocabulary:
    """The vocabulary of a language model as a blob carries it."""
    words = checkpoint.vocabulary
    if words is None:
        raise CompileError(f"{checkpoint.name} has no vocabulary; train it with this ternio")
    if words.kind == "bytes":
        return Vocabulary()
    return Vocabulary((*map(ord, words.alphabet), ANY_OTHER))


def _check(graph: Graph, about: Description, options: Options) -> None:
    outputs = graph.nodes[graph.output].width
    words = len(about.vocabulary or ()) if graph.stream else len(about.labels)
    if words != outputs:
        what = "tokens of the vocabulary" if graph.stream else "labels"
        raise CompileError(f"{words} {what} for {outputs} outputs of the model")
    if not 2 <= outputs <= 1024:
        raise CompileError(f"{outputs} outputs; a blob can have 2 to 1024")
    if graph.stream and options.adapt:
        raise CompileError("a board cannot adapt a model of tokens; pack it without")
    if options.kv not in KEYS:
        raise CompileError(f"keys and values as {options.kv!r}: one of {', '.join(KEYS)} expected")
    if options.kv == "int8" and not fits_int8_keys(graph):
        raise CompileError(
            "int8 keys and values need attention with heads of at most 256 over at most 512 rows"
        )
    if not graph.stream and len(about.input_scale) != graph.channels:
        raise CompileError(f"{len(about.input_scale)} input scales for {graph.channels} channels")
    if not 1 <= options.rank <= 64:
        raise CompileError(f"adapter rank {options.rank}: 1 to 64 expected")
    if not 0 < len(about.name.encode()) < 32:
        raise CompileError(f"model name {about.name!r}: 1 to 31 bytes expected; see --name")
    widest = max(node.width for node in graph.nodes)
    if max(widest, graph.time) > 65535:
        raise CompileError(f"a width of {widest} or {graph.time} rows: at most 65535 expected")


def _adapters(graph: Graph) -> tuple[Adapter, ...]:
    adapters, position = [], 0
    for number, lora in graph.slots():
        node = graph.nodes[number]
        inputs, outputs = graph.nodes[node.inputs[0]].width, node.width
        a, b = position, position + lora.rank * inputs
        position = b + lora.rank * outputs
        name = node.label.removesuffix(".weight")
        scale, bound = float(np.float32(lora.scale)), init_bound(inputs)
        adapters.append(Adapter(name, inputs, outputs, lora.rank, scale, bound, a, b))
    return tuple(adapters)
