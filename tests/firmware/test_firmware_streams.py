"""Token streams and sensor frames: what a board generates and infers is what this process does."""

from __future__ import annotations

import itertools

import cbor2
import numpy as np
import pytest
from firmware_boards import VOCABULARY, Console, blob, language, window
from test_firmware_hostile import frame, message

from ternio.data.vocabulary import REST
from ternio.errors import LinkError
from ternio.link.client import BoardClient
from ternio.runtime import Model, Sampler, Session

PROMPT = "In the be"


def expected(prompt: str, count: int, **sampler) -> list[int]:
    """Tokens that the runtime generates here."""
    ids = [int(i) for i in VOCABULARY.encode(prompt)]
    tokens = Session(Model(language())).generate(ids, Sampler(**sampler))
    return list(itertools.islice(tokens, count))


def escaped(tokens: list[int]) -> str:
    """Tokens as the console writes them."""
    text = VOCABULARY.decode(np.array(tokens, np.int32))
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def ask(console: Console, op: int, command: int, body: dict) -> dict:
    """A command of group 64 without the client: its answer's map."""
    console.send(frame(message(op, 64, command, cbor2.dumps(body))))
    return cbor2.loads(console.answer()[8:])


@pytest.fixture
def speaking(client, running):
    """The console of a board with a language model."""
    client.upload_model(language())
    console = Console.open(running.port)
    yield console
    console.close()


def test_console_generates_the_same_text(speaking):
    assert "vocabulary=40 context=16 position=0" in speaking.ask("info")
    greedy = expected(PROMPT, 40, temperature=0.0)
    assert speaking.ask(f"generate 40 prompt {PROMPT}") == escaped(greedy)
    settings = {"temperature": 0.75, "top_k": 12, "top_p": 0.9, "seed": 5}
    line = " ".join(f"{name} {value}" for name, value in settings.items())
    tokens = expected(PROMPT, 60, **settings)
    assert speaking.ask(f"generate 25 {line} prompt {PROMPT}") == escaped(tokens[:25])
    line = line.removesuffix(" seed 5")
    assert speaking.ask(f"generate 35 {line}") == escaped(tokens[25:])
    assert speaking.ask("generate 30 prompt \\n") == escaped(expected("\n", 30, temperature=0.0))


def test_the_token_of_other_characters_is_never_written(speaking):
    """Nearly all tokens alike by their temperature: it would come up ten times."""
    hot = {"temperature": 50.0, "seed": 3}
    text = speaking.ask("generate 400 temperature 50 seed 3 prompt a")
    assert text == escaped(expected("a", 400, **hot)) and REST not in text
    assert len(set(text)) > 30


def test_refusals_of_a_language_model(speaking, client):
    assert speaking.ask("generate") == "error: generate N: N is a number from 1 on"
    assert speaking.ask("generate 5 warmth 1") == "error: not a setting and its value: warmth"
    assert speaking.ask("generate 5 top_k").startswith("error: not a setting and its value")
    assert speaking.ask("generate 5 prompt") == "error: prompt: the text is missing"
    for line in ("infer", "labels", "put 0 1", "frame 1 2 3", "every 2", "adapt 0"):
        assert speaking.ask(line).startswith("error: "), line
    about = client.info()
    assert (about.model, about.outputs, about.labels) == ("text", 40, ())
    assert about.is_stream and about.position == 0
    with pytest.raises(LinkError, match="group 64, code 19"):
        client.infer(window(16))
    client.upload_model(blob("windows"))
    assert speaking.ask("generate 5").startswith("error: ")


def test_frames_generate_the_same_text(speaking):
    tokens = expected(PROMPT, 30, temperature=1.0, seed=2**40 + 3)
    assert ask(speaking, 2, 7, {"text": PROMPT[:4].encode()})["position"] == 4
    answer = ask(speaking, 2, 7, {"text": PROMPT[4:].encode(), "more": True})
    assert answer["position"] == len(PROMPT)
    got, text = [], b""
    while len(got) < 30:
        seed = {} if got else {"seed": 2**40 + 3}
        answer = ask(speaking, 2, 8, {"n": 7, "temperature": 1.0, **seed})
        got += np.frombuffer(answer["tokens"], "<u2").tolist()
        text += answer["text"]
    assert got[:30] == tokens
    assert text.decode() == VOCABULARY.decode(np.array(got, np.int32))
    assert ask(speaking, 0, 0, {})["kind"] == 2
    assert len(ask(speaking, 2, 8, {"n": 5000})["tokens"]) > 2 * 40


def test_the_client_generates(client):
    client.upload_model(language())
    long = "It is " * 50  # more than a frame of any board, and than the context
    assert 8 <= client.prompt(long) <= 16
    tokens = expected(long, 20, temperature=0.8, top_p=0.95, seed=9)
    parts = list(client.generate(20, temperature=0.8, top_p=0.95, seed=9))
    assert b"".join(parts).decode() == VOCABULARY.decode(np.array(tokens, np.int32))
    assert len(parts) == 3
    client.upload_model(blob("windows"))
    with pytest.raises(LinkError, match="group 64, code 19"):
        client.prompt("A")


def test_sensor_frames(client: BoardClient, running):
    data, hop = blob("sensor"), 5
    session = Session(Model(data))
    samples = window(30 * 3, seed=3).reshape(30, 3)
    client.upload_model(data)
    console = Console.open(running.port)
    assert console.ask(f"every {hop}") == "ok"
    assert console.ask("every 13").startswith("error: longer than the window")
    for end in range(1, 31):
        said = console.ask("frame " + " ".join(map(str, samples[end - 1])))
        if end < 12 or (end - 12) % hop:
            assert said == f"ok {3 * min(end, 12)}"
            continue
        logits = session.infer(samples[end - 12 : end].reshape(-1))
        best = client.info().labels[int(np.argmax(logits))].replace(" ", "-")
        assert said.startswith(f"class={best} ")
    assert ask(console, 2, 9, {"hop": 12}) == {}
    answer = ask(console, 2, 9, {"x": samples[:12].astype("<i2").tobytes()})
    assert answer["logits"] == session.infer(samples[:12].reshape(-1)).tobytes()
    assert ask(console, 2, 9, {"x": b"12345"})["err"] == {"group": 64, "rc": 65}
    assert console.ask("frame 1 2").startswith("error: frame N N ...: one number")
    console.close()
