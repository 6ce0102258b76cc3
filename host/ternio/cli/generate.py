"""`ternio generate`: a language model writes, on a board or on this computer."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import SEED, BoardOption, JsonOption, PortOption, emit, example, say, shown

if TYPE_CHECKING:
    from ternio.link.client import BoardClient

Write = Callable[[str, int, dict[str, Any]], Iterator[bytes]]
"""Prompt, number of tokens, settings of the sampler -> the bytes of the text, a few at a time. A
prompt that it does not take is refused by the call, not by the first bytes."""


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("generate", epilog=example('ternio generate --prompt "The " --seed 7'))(generate)


def generate(
    board: BoardOption = None,
    port: PortOption = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Run this blob here, without a board.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", "-n", help="How many to write.")] = 200,
    prompt: Annotated[str, typer.Option("--prompt", help="What the text goes on from.")] = "\n",
    temperature: Annotated[
        float, typer.Option("--temperature", help="0: always the likeliest token.")
    ] = 0.8,
    top_k: Annotated[
        int, typer.Option("--top-k", help="Choose among the k likeliest; 0: all.")
    ] = 0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Choose among the fewest that reach p; 1: all.")
    ] = 1.0,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Same seed, same text, everywhere.", **SEED),
    ] = 0,
    native: Annotated[
        bool, typer.Option("--native", help="Run the board's blob here as well; must be equal.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Writes text with a language model. The same model, prompt, settings and seed give the same
    text on every board and on this computer.

    Control characters other than line breaks and tabs are written out, escape as \\x1b, on a
    terminal as in a file; --json has the text as it is.
    """
    from ternio.errors import DataError, RuntimeFault

    if not prompt or tokens < 1:
        raise DataError("--prompt is not to be empty, --tokens at least 1")
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    _check(settings)
    start, text = time.perf_counter(), b""
    with _writer(board, port, model) as (write, twin):
        here = twin() if native else None
        pieces = write(prompt, tokens, settings)
        show = _Console(quiet=as_json)
        show(prompt.encode())
        for piece in pieces:
            text += piece
            show(piece)
        show.end()
        if here is not None and b"".join(here(prompt, tokens, settings)) != text:
            raise RuntimeFault("the board's text differs from what its blob writes here")
    seconds = time.perf_counter() - start
    if as_json:
        about = {"prompt": prompt, "text": text.decode(errors="replace"), "tokens": tokens}
        emit({**about, **settings, "seconds": round(seconds, 3), "equals_native": native or None})
    elif native:
        say("native: the same text")


def _check(settings: dict[str, Any]) -> None:
    """Raises DataError for settings that a sampler does not take."""
    from ternio.runtime import Sampler

    Sampler(**settings)


@contextmanager
def _writer(
    board: str | None, port: str | None, model: Path | None
) -> Iterator[tuple[Write, Callable[[], Write]]]:
    """What writes, and how to get its twin on this computer."""
    from ternio.errors import BlobError, DataError, LinkError

    from .common import connect
    from .machine import require_model

    def no_twin() -> Write:
        raise LinkError("--native compares a board with this computer: leave --model out")

    if model is not None:
        try:
            blob = model.read_bytes()
        except OSError as error:
            raise BlobError(f"{model}: {error.strerror}") from None
        yield local_writer(blob, str(model)), no_twin
        return
    with connect(board, port) as client:
        info = require_model(client, text=True)
        if not info.is_stream:
            raise DataError(f"{info.model} on {info.board} is no language model: use ternio infer")
        yield _board_writer(client), lambda: local_writer(client.download("/model"))


def _board_writer(client: BoardClient) -> Write:
    def write(prompt: str, tokens: int, settings: dict[str, Any]) -> Iterator[bytes]:
        client.prompt(prompt)
        return client.generate(tokens, **settings)

    return write


def local_writer(blob: bytes, name: str = "blob") -> Write:
    """What writes with a blob on this computer. `name` is what errors call it."""
    from ternio.blob import Blob
    from ternio.runtime import Model, Sampler, Session

    model, vocabulary = Model(blob, name), Blob.decode(blob).vocabulary

    def write(prompt: str, tokens: int, settings: dict[str, Any]) -> Iterator[bytes]:
        source = Session(model).generate(model.tokens(prompt), Sampler(**settings))
        return (written(token) for token in islice(source, tokens))

    def written(token: int) -> bytes:
        is_byte = vocabulary is not None and vocabulary.is_bytes
        return bytes([token]) if is_byte else model.text([token]).encode()

    return write


class _Console:
    """Shows bytes of UTF-8 as they come, what would move the cursor or ring the bell made
    visible."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __call__(self, piece: bytes, final: bool = False) -> None:
        text = self.decoder.decode(piece, final)
        if text and not self.quiet:
            typer.echo(shown(text), nl=False)

    def end(self) -> None:
        """The line's end."""
        self(b"", final=True)
        if not self.quiet:
            typer.echo()
