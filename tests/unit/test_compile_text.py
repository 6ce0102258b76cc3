"""Language models: traced, packed, and writing the same text everywhere; generate and bench."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ternio._engine")

from typer.testing import CliRunner

from ternio.blob import Blob, read_blob
from ternio.blob.vocabulary import ANY_OTHER
from ternio.checkpoint import Checkpoint, save_checkpoint
from ternio.cli import app
from ternio.cli.common import visible
from ternio.cli.generate import _Console
from ternio.compile import Options, agreement, pack_checkpoint
from ternio.compile.trace import trace_stream
from ternio.context import Context
from ternio.data import Vocabulary, load_corpus
from ternio.errors import CompileError
from ternio.models import LanguageModel, LanguageModelConfig
from ternio.runtime import Model, Sampler, Session
from ternio.tensor import Tensor
from ternio.train import generate

ALPHABET = "\n abcdefghilmnoprstu"


def checkpoint_of(kind: str = "characters", report: dict | None = None, **config) -> Checkpoint:
    words = Vocabulary(kind, ALPHABET if kind == "characters" else "")
    values = {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 48, "context": 24}
    with Context(seed=4):
        model = LanguageModel(LanguageModelConfig(len(words), **{**values, **config})).eval()
    return Checkpoint(model, name="words", vocabulary=words, report=report or {})


@pytest.fixture(scope="module")
def blob() -> Blob:
    return pack_checkpoint(checkpoint_of())


@pytest.fixture
def file(blob: Blob, tmp_path: Path) -> Path:
    path = tmp_path / "words.tern"
    path.write_bytes(blob.encode())
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("ternary", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_a_board_answers_as_the_engine(ternary: bool, qk_norm: bool) -> None:
    checkpoint = checkpoint_of(ternary=ternary, qk_norm=qk_norm)
    ids = np.random.default_rng(1).integers(0, len(ALPHABET), 24).astype(np.int32)
    expected = checkpoint.language_model(ids[None]).numpy()[0]
    exact = Options(float_dtype="f32", kv="float", integer_rows=False)
    for options, far in ((exact, 2e-3), (Options(), 0.05)):
        session = Session(Model.open(pack_checkpoint(checkpoint, options).encode()))
        got = np.array([session.step(int(i)) for i in ids])
        assert np.abs(got - expected).max() < far * np.abs(expected).max()


def test_the_blob_says_what_it_is(blob: Blob) -> None:
    again = Blob.decode(blob.encode())
    assert again == blob
    assert again.io.is_stream
    assert (again.io.length, again.io.outputs, again.labels) == (24, 21, ())
    assert again.vocabulary.code_points == (*map(ord, ALPHABET), ANY_OTHER)
    model = Model.open(blob.encode())
    assert model.text(model.tokens("to boil, ten\n")) == "to boil\ufffd ten\n"
    names = {t.name for t in blob.tensors}
    assert {"embed", "head", "blocks.1.attention.k_norm"} <= names


def test_bytes_are_tokens_too() -> None:
    blob = Blob.decode(pack_checkpoint(checkpoint_of("bytes")).encode())
    assert blob.vocabulary.is_bytes
    model = Model.open(blob.encode())
    assert model.tokens("ü") == [0xC3, 0xBC]


def test_what_a_stream_cannot_do_is_said() -> None:
    class Peeking(LanguageModel):
        def forward(self, ids):
            ids = Tensor(ids, context=self.context)
            h = self.embed(ids)
            return self.head(self.norm(h) + self.embed(ids))

    with Context(seed=1):
        model = Peeking(LanguageModelConfig(20, context=4, width=8, heads=2, layers=1, ffn=8))
    with pytest.raises(CompileError, match=r"embedding .*only the one token"):
        trace_stream(model, 4)


def test_agreement_is_measured_where_the_text_is_at_hand() -> None:
    words = load_corpus("text", 2).vocabulary
    with Context(seed=4):
        config = LanguageModelConfig(len(words), 16, width=32, layers=1, heads=2, ffn=32)
        model = LanguageModel(config).eval()
    made = Checkpoint(model, name="words", vocabulary=words, report={"data": "Python reference"})
    agreed = agreement(pack_checkpoint(made), made, Options(adapt=False))
    assert agreed.count == 256
    assert agreed.same > 230
    assert 0 < agreed.difference < 0.1 * agreed.largest
    exact = Options(adapt=False, kv="float", integer_rows=False, float_dtype="f32")
    assert agreement(pack_checkpoint(made, exact), made, exact).difference == 0
    assert agreement(pack_checkpoint(checkpoint_of()), checkpoint_of(), Options()) is None


def test_pack_and_inspect_of_a_language_model(tmp_path: Path) -> None:
    path = tmp_path / "words.ckpt"
    save_checkpoint(path, checkpoint_of())
    result = run("pack", path, "--board", "netduinoplus2", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert (facts["kind"], facts["outputs"], facts["adapt_arena"]) == ("tokens", 21, 0)
    assert facts["key_bytes"] == 24 * 4 * 80
    large = json.loads(run("pack", path, "--kv", "float", "--float-rows", "--json").output)
    assert large["key_bytes"] == 24 * 4 * 16 * 4
    shown = run("inspect", path.with_suffix(".tern"), "--programs").output
    assert "context of 24 characters, vocabulary of 21" in shown
    assert "EMBEDDING  32 21" in shown
    refused = run("pack", path, "--adapt")
    assert refused.exit_code == 1
    assert "is a language model" in refused.output


def test_generate_writes_what_the_runtime_chooses(blob: Blob, file: Path) -> None:
    options = ("--model", file, "-n", 60, "--prompt", "to be", "--seed", 9, "--top-k", 8)
    facts = json.loads(run("generate", *options, "--json").output)
    session = Session(Model.open(blob.encode()))
    tokens = session.generate(session.model.tokens("to be"), Sampler(0.8, top_k=8, seed=9))
    expected = session.model.text(list(itertools.islice(tokens, 60)))
    assert facts["text"] == expected
    shown = run("generate", *options).output
    assert shown == f"to be{expected}\n"
    other = json.loads(run("generate", *options[:-4], "--seed", 10, "--json").output)
    assert other["text"] != expected


def test_the_token_of_other_characters_is_never_written(blob: Blob) -> None:
    """Nearly all tokens alike by their temperature: it would come up twenty times."""
    session = Session(Model.open(blob.encode()))
    here = session.generate([0], Sampler(50.0, seed=3))
    written = session.model.text(list(itertools.islice(here, 400)))
    trained = checkpoint_of()
    twin = generate(trained.language_model, trained.vocabulary, "a", 400, temperature=50.0)
    for text in (written, twin):
        assert len(text) == 400 and set(text) == set(ALPHABET)
    session = Session(Model.open(pack_checkpoint(checkpoint_of("bytes")).encode()))
    assert 255 in itertools.islice(session.generate([0], Sampler(50.0, seed=3)), 4000)


def test_what_generate_prints_harms_no_console() -> None:
    assert [visible(c) for c in "a\n\t\x1b\x07\x9b"] == ["a", "\n", "\t", "\\x1b", "\\x07", "\\x9b"]
    console = _Console(quiet=True)
    console(b"\xc3")
    assert console.decoder.decode(b"\xbc") == "ü"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--prompt", ""), "--prompt"),
        (("-n", 0), "--tokens"),
        (("--top-p", 2), "top_p"),
        (("--native",), "--native compares a board"),
    ],
)
def test_generate_refuses_in_one_line(file: Path, options: tuple, text: str) -> None:
    """And before it writes anything."""
    result = run("generate", "--model", file, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert text in result.stderr


def test_generate_needs_a_language_model(tmp_path: Path) -> None:
    from compile_models import Shape, pack, transformer

    path = tmp_path / "classes.tern"
    path.write_bytes(pack(transformer(Shape(length=8, layers=1))).encode())
    result = run("generate", "--model", path, "--prompt", "to be")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "takes windows of samples, not text" in result.stderr
    assert "No such file" in run("generate", "--model", tmp_path / "none").output


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_bench_measures_the_native_board(file: Path) -> None:
    result = run("bench", file, "--board", "native", "--runs", 3, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["arena_bytes"] == read_blob(file).infer_arena
    assert facts["us"] >= 0
    assert facts["most_us"] >= facts["us"]
    assert "instructions" not in facts


@pytest.mark.emulator
def test_bench_counts_instructions_in_the_emulator(file: Path) -> None:
    if not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")):
        pytest.skip("needs QEMU and the Arm toolchain")
    facts = json.loads(run("bench", file, "-b", "netduinoplus2", "--runs", 4, "--json").output)
    assert 10_000 < facts["instructions"] <= facts["most"] < 2_000_000
    assert "again" not in facts
    runs = read_blob(file).io.length
    longer = json.loads(run("bench", file, "-b", "netduinoplus2", "--runs", runs, "--json").output)
    assert longer["instructions"] <= longer["most"] < 1.1 * facts["most"]
    assert longer["again"] > 2 * longer["most"]  # half a context is read again
    assert 0 < facts["stack_bytes"] < 4096
