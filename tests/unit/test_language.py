"""Language models: vocabularies, texts, the model, and what it writes."""

import math
import sys

import numpy as np
import pytest

import ternio
from ternio import data
from ternio.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ternio.data import Vocabulary, make_corpus
from ternio.errors import DataError, ModelError
from ternio.models import LanguageModel, LanguageModelConfig
from ternio.train import TextConfig, generate, train_language_model, validation_loss
from ternio.train.language import sample

SMALL = {"width": 16, "heads": 4, "kv_heads": 2, "layers": 1, "ffn": 16, "context": 8}


def build(vocabulary: int = 12, seed: int = 0, **changes) -> LanguageModel:
    ternio.manual_seed(seed)
    return LanguageModel(LanguageModelConfig(vocabulary, **SMALL | changes)).eval()


# ---- Vocabularies and texts ---------------------------------------------------------------------


def test_the_most_frequent_characters():
    words = Vocabulary.characters("ccc bb aa d", 4)
    assert words.alphabet == " abc"  # of b and a, twice each, and d once
    assert len(words) == 5
    assert words.encode("abcd e").tolist() == [1, 2, 3, 4, 0, 4]
    assert words.decode(words.encode("abcd e")) == "abc� �"
    assert words.tokens == (b" ", b"a", b"b", b"c", "�".encode())
    assert Vocabulary.characters("ba", 1).alphabet == "a"  # equals: the lower code point


def test_characters_of_any_script():
    text = "Grüße, 世界 🙂\n" * 3
    words = Vocabulary.characters(text)
    assert words.decode(words.encode(text)) == text
    assert words.encode("").tolist() == []
    assert Vocabulary.from_dict(words.to_dict()) == words


def test_a_sample_begins_with_what_is_known():
    assert Vocabulary.characters("b\na").opening == "\n"
    assert Vocabulary.characters("one line").opening == " "
    assert Vocabulary.characters("aaaa").opening == "a"
    assert Vocabulary("bytes").opening == "\n"


@pytest.mark.parametrize(
    ("content", "alphabet"),
    [
        ("ab " * 400, " ab"),  # one long line
        ("a" * 400, "a"),
        ("a\r\nb\r" * 100, "\nab"),
        ("\ufeffab" * 1 + "ab" * 200, "ab"),
    ],
    ids=["one line", "one character", "line ends", "byte-order mark"],
)
def test_odd_files_train(tmp_path, content, alphabet):
    path = tmp_path / "odd.txt"
    path.write_bytes(content.encode())
    corpus = data.load_corpus(path, context=8)
    assert corpus.vocabulary.alphabet == alphabet
    done = train_language_model(corpus, "odd", TextConfig(steps=3, batch=2, warmup=1), **SMALL)
    assert math.isfinite(done.loss)
    model = done.checkpoint.language_model
    assert len(generate(model, corpus.vocabulary, corpus.vocabulary.opening, 5)) == 5


def test_bytes():
    words = Vocabulary("bytes")
    ids = words.encode("é!")
    assert ids.tolist() == [0xC3, 0xA9, 0x21]
    assert ids.dtype == np.int32
    assert (len(words), words.decode(ids), words.decode(ids[:1])) == (256, "é!", "�")
    assert words.tokens[0x41] == b"A"
    assert words.encode(b"\xff\0").tolist() == [255, 0]
    for act in (Vocabulary.characters("a").encode, lambda b: make_corpus(b, "b", 1)):
        with pytest.raises(ModelError, match="vocabulary of characters: expected str, got bytes"):
            act(b"ab")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"kind": "words", "alphabet": ""}, "vocabulary of 'words'; expected characters or bytes"),
        ({"kind": "characters", "alphabet": ""}, "vocabulary of 0 characters"),
        ({"kind": "characters", "alphabet": "ba"}, "different characters in order"),
        ({"kind": "characters", "alphabet": "aa"}, "different characters in order"),
        ({"kind": "bytes", "alphabet": "a"}, "none for bytes"),
        ({"kind": "bytes"}, "vocabulary: KeyError"),
        (None, "vocabulary: TypeError"),
    ],
)
def test_vocabularies_that_cannot_be(values, expected):
    with pytest.raises(ModelError, match=expected):
        Vocabulary.from_dict(values)


def test_the_last_part_validates():
    text = "".join(chr(97 + i % 7) for i in range(1000))
    corpus = make_corpus(text, "letters", 16)
    assert (len(corpus.train), len(corpus.validation)) == (950, 50)
    ids = np.concatenate([corpus.train, corpus.validation])
    assert corpus.vocabulary.decode(ids) == text
    assert corpus.notes == ()
    same, other = make_corpus(text, "x", 16), make_corpus(text[1:] + "a", "x", 16)
    assert same.digest == corpus.digest != other.digest


def test_rare_characters_are_mentioned():
    text = "abc " * 300 + "".join(chr(0x4E00 + i) for i in range(100))
    corpus = make_corpus(text, "t", 8)
    assert corpus.notes == (
        "t: 9 of 1300 characters are outside the vocabulary of 95; they train as one",
    )


def test_texts_too_short_for_a_window():
    assert len(make_corpus("ab" * 90, "t", 8).validation) == 9
    with pytest.raises(DataError, match="t: 179 characters; at least 180 are needed for a context"):
        make_corpus(("ab" * 90)[1:], "t", 8)


def test_line_ends_and_marks_of_other_systems(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"one\r\ntwo\rthree\n" * 40)
    corpus = data.load_corpus(path, 8)
    text = corpus.vocabulary.decode(np.concatenate([corpus.train, corpus.validation]))
    assert text == "one\ntwo\nthree\n" * 40


def test_the_reference_text():
    corpus = data.load_corpus("text")
    assert len(corpus.vocabulary) == 96
    assert "the reference text of Python" in corpus.notes[0]
    count = len(corpus.train) + len(corpus.validation)
    assert count > 400_000
    if sys.version_info[:2] == (3, 11):
        assert (count, len(corpus.validation)) == (465_126, 23_256)


# ---- The model --------------------------------------------------------------------------------


def test_the_reference_model_has_the_size_it_should():
    model = LanguageModel(LanguageModelConfig(vocabulary=96))
    parameters, ternary = model.count()
    assert ternary == model.config.block_weights == 589_824
    assert parameters == ternary + 2 * 96 * 128 + (9 + 4) * 128 + 4 * 64


def test_one_node_per_operation():
    model = build()
    model.context.reset()
    model(np.zeros((2, 8), np.int32))
    ops = [node.op for node in model.context.tape()]
    model.context.reset()
    turned = ["bitlinear", "rmsnorm", "rope"]
    attention = [*turned, *turned, "bitlinear", "attention", "bitlinear"]
    feed_forward = ["bitlinear", "bitlinear", "swiglu", "bitlinear"]
    block = ["rmsnorm", *attention, "add", "rmsnorm", *feed_forward, "add"]
    assert ops == ["embedding", *block, "rmsnorm", "linear"]


def test_queries_and_keys_are_normalised():
    """A larger weight of the query projection changes nothing."""
    ids = np.random.default_rng(0).integers(0, 12, (1, 8)).astype(np.int32)
    for qk_norm in (True, False):
        model = build(ternary=False, qk_norm=qk_norm)
        before = model(ids).numpy()
        model.blocks[0].attention.q.weight.numpy()[...] *= 8
        assert np.allclose(model(ids).numpy(), before, rtol=1e-3, atol=1e-4) == qk_norm
    model.context.reset()


def test_no_token_sees_what_follows():
    model = build()
    ids = np.random.default_rng(0).integers(0, 12, (1, 8)).astype(np.int32)
    later = ids.copy()
    later[0, 5:] = (later[0, 5:] + 1) % 12
    a, b = model(ids).numpy()[0], model(later).numpy()[0]
    np.testing.assert_array_equal(a[:5], b[:5])
    assert not np.array_equal(a[5], b[5])
    short = model(ids[:, :3]).numpy()[0]
    np.testing.assert_allclose(short, a[:3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(8,), (1, 9), (1, 0), (1, 2, 3)])
def test_ids_of_a_wrong_shape(shape):
    with pytest.raises(ModelError, match=r"expected \[n, 1..8\]"):
        build()(np.zeros(shape, np.int32))


def test_ids_outside_the_vocabulary():
    with pytest.raises(ModelError, match="12"):
        build()(np.full((1, 4), 12, np.int32))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"vocabulary": 1}, "vocabulary is 1; expected a whole number in 2..1024"),
        ({"context": 1}, "context is 1"),
        ({"kv_heads": 3}, "kv_heads 3 does not divide heads 4"),
    ],
)
def test_configurations_that_cannot_be(changes, expected):
    with pytest.raises(ModelError, match=expected):
        LanguageModelConfig(**{"vocabulary": 12} | changes)


def test_checkpoints(tmp_path):
    vocabulary = Vocabulary.characters("hello world")
    model = build(len(vocabulary))
    path = tmp_path / "m.ckpt"
    save_checkpoint(path, Checkpoint(model, name="m", vocabulary=vocabulary))
    found = load_checkpoint(path)
    assert (found.kind, found.vocabulary, found.labels, found.inputs) == (
        "lm",
        vocabulary,
        (),
        None,
    )
    assert found.config == model.config
    ids = np.zeros((1, 8), np.int32)
    np.testing.assert_array_equal(found.language_model(ids).numpy(), model(ids).numpy())
    with pytest.raises(ModelError, match="m is a language model; expected a classifier"):
        _ = found.classifier
    save_checkpoint(path, Checkpoint(model))
    with pytest.raises(ModelError, match=r"m\.ckpt: the checkpoint lacks or garbles 'vocabulary'"):
        load_checkpoint(path)
    save_checkpoint(path, Checkpoint(model, vocabulary=Vocabulary("bytes")))
    with pytest.raises(ModelError, match=r"m\.ckpt: a vocabulary of 256 for 9 outputs"):
        load_checkpoint(path)


# ---- Training and writing -----------------------------------------------------------------------


def test_the_validation_loss_is_that_of_windows():
    model = build()
    ids = np.random.default_rng(0).integers(0, 12, 30).astype(np.int32)
    expected = []
    for start in (0, 8, 16):  # what is left of 30 is too short for a fourth
        logits = model(ids[None, start : start + 8]).numpy()[0].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected.append(-logs[np.arange(8), ids[start + 1 : start + 9]].mean())
    assert validation_loss(model, ids, batch=2) == pytest.approx(np.mean(expected), rel=1e-5)
    model.head.weight.fill_(0.0)
    assert validation_loss(model, ids) == pytest.approx(math.log(12), rel=1e-5)
    with pytest.raises(DataError, match="8 tokens; expected more than the context of 8"):
        validation_loss(model, ids[:8])


def test_a_rhyme_is_learnt_by_heart():
    corpus = make_corpus("abcdefgh. " * 60, "rhyme", 8)
    config = TextConfig(steps=150, batch=8, lr=2e-2, warmup=10)
    trained = train_language_model(corpus, "rhyme", config, **SMALL)
    assert trained.loss < 0.1
    assert trained.fit.validation[-1] == (150, pytest.approx(trained.loss))
    model, vocabulary = trained.checkpoint.language_model, corpus.vocabulary
    assert generate(model, vocabulary, "abc", 12, temperature=0) == "defgh. abcde"
    assert generate(model, vocabulary, "h", 4, temperature=0.2, seed=3) == ". ab"


def test_same_seed_same_text():
    model, vocabulary = build(96), data.load_corpus("text").vocabulary
    texts = [generate(model, vocabulary, "The ", 30, seed=s) for s in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert [len(t) for t in texts] == [30] * 3
    assert generate(model, vocabulary, "The ", 0) == ""
    assert not model.context.tape()
    with pytest.raises(ModelError, match="the prompt is empty"):
        generate(model, vocabulary, "")
    with pytest.raises(ModelError, match="temperature -1"):
        generate(model, vocabulary, "a", temperature=-1)


def test_a_model_that_diverged_writes_nothing(monkeypatch):
    model, vocabulary = build(96), data.load_corpus("text").vocabulary
    answers = iter([np.full(96, np.nan, np.float32)])
    monkeypatch.setattr("ternio.train.language._last_logits", lambda *_: answers)
    with pytest.raises(ModelError, match="logits are not finite: its training diverged"):
        generate(model, vocabulary, "a", 5)


def test_sampling_follows_the_probabilities():
    logits = np.log(np.float32([0.1, 0.4, 0.2, 0.3]))
    rng = np.random.default_rng(0)

    def shares(temperature: float, top_k: int) -> np.ndarray:
        drawn = [sample(logits, temperature, top_k, rng) for _ in range(20000)]
        return np.bincount(drawn, minlength=4) / len(drawn)

    np.testing.assert_allclose(shares(1.0, 0), [0.1, 0.4, 0.2, 0.3], atol=0.015)
    np.testing.assert_allclose(shares(1.0, 2), [0, 4 / 7, 0, 3 / 7], atol=0.015)
    squares = np.array([0.01, 0.16, 0.04, 0.09])
    np.testing.assert_allclose(shares(0.5, 0), squares / squares.sum(), atol=0.015)
    assert shares(0.0, 0).tolist() == [0, 1, 0, 0]
    assert sample(np.zeros(4, np.float32), 0.0, 0, rng) == 0


@pytest.mark.parametrize("temperature", [1e-30, 1e-310, 5e-324])
def test_next_to_no_temperature_takes_the_likeliest(temperature):
    rng = np.random.default_rng(0)
    logits = np.float32([-3e38, 2.0, 3.0, -1.0])
    assert {sample(logits, temperature, 0, rng) for _ in range(50)} == {2}
    equal = np.float32([1.0, 0.0, 1.0])
    assert {sample(equal, temperature, 0, rng) for _ in range(50)} == {0, 2}
