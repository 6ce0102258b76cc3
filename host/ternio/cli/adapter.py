"""`ternio adapter`: save, pull, push, reset on the board; merge into a blob on this computer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    BoardOption,
    JsonOption,
    PortOption,
    connect,
    emit,
    example,
    progress,
    say,
    write_file,
)

if TYPE_CHECKING:
    from ternio.link.client import BoardClient


def register(app: typer.Typer) -> None:
    """Adds the group to the command line."""
    group = typer.Typer(no_args_is_help=True, help="Keep, fetch, send, drop or merge an adapter.")
    for command, line in EXAMPLES.items():
        group.command(command.__name__, epilog=example(line))(command)
    app.add_typer(group, name="adapter")


def save(board: BoardOption = None, port: PortOption = None, as_json: JsonOption = False) -> None:
    """Stores the adapter in training on the board."""
    with connect(board, port) as client:
        _require_adapter(client)
        saved = client.adapter_save()
    if as_json:
        emit({"steps": saved.steps, "bytes": saved.file_bytes, "slot": saved.slot})
    else:
        say(f"stored {saved.file_bytes} bytes after {saved.steps} steps in slot {saved.slot}")


def pull(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path(
        "adapter.tadp"
    ),
    board: BoardOption = None,
    port: PortOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetches the board's adapter into a file."""
    with connect(board, port) as client:
        _require_adapter(client)
        data = client.adapter_pull()
    write_file(output, data)
    if as_json:
        emit({"file": str(output), "bytes": len(data)})
    else:
        say(f"wrote {output}: {len(data)} bytes")


def _require_adapter(client: BoardClient) -> None:
    """Raises LinkError where the board has no adapter."""
    from ternio.errors import LinkError

    from .machine import require_model

    info = require_model(client)
    if info.adapter == "none":
        raise LinkError(
            f"{info.board} has no adapter, {info.model} answers as it was packed: "
            "`ternio adapt DATA` trains one, `ternio adapter push FILE` sends one"
        )


def push(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Adapter file.")],
    board: BoardOption = None,
    port: PortOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sends an adapter file; the board checks, stores and attaches it."""
    from ternio.blob import AdapterFile
    from ternio.errors import BlobError

    data = read_file(file, "adapter")
    try:
        AdapterFile.decode(data)
    except BlobError as error:
        raise BlobError(f"{file}: {error}") from None
    with connect(board, port) as client, progress("sending") as tell:
        client.adapter_push(data, tell)
        info = client.info()
    if as_json:
        emit({"bytes": len(data), "steps": info.steps, "adapter": info.adapter})
    else:
        say(f"sent {file}: {len(data)} bytes, {info.steps} steps, {info.adapter} on {info.board}")


def reset(board: BoardOption = None, port: PortOption = None, as_json: JsonOption = False) -> None:
    """Drops the board's adapter: the base model answers again."""
    with connect(board, port) as client:
        client.adapter_reset()
        info = client.info()
    if as_json:
        emit({"adapter": info.adapter})
    else:
        say(f"{info.board}: no adapter, {info.model} answers as it was packed")


def merge(
    blob: Annotated[
        Path, typer.Argument(metavar="BLOB", help="The blob the adapter was trained on.")
    ],
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Adapter file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Blob to write.")],
    as_json: JsonOption = False,
) -> None:
    """Bakes an adapter into a blob, which then answers the same without it."""
    from ternio.blob import merge_adapter
    from ternio.errors import BlobError
    from ternio.files import require_apart
    from ternio.runtime import Model

    require_apart(output, blob=blob, adapter=adapter)
    data, factors = read_file(blob, "blob"), read_file(adapter, "adapter")
    Model(data, str(blob))
    try:
        merged = merge_adapter(data, factors)
    except BlobError as error:
        raise BlobError(f"{adapter} for {blob}: {error}") from None
    write_file(output, merged)
    if as_json:
        emit({"file": str(output), "bytes": len(merged)})
    else:
        say(f"wrote {output}: {len(merged)} bytes")


def read_file(path: Path, what: str) -> bytes:
    """The bytes of a file, or one clear line."""
    from ternio.errors import BlobError

    try:
        data = path.read_bytes()
    except OSError as error:
        raise BlobError(f"cannot read the {what} {path}: {error.strerror}") from None
    if not data:
        raise BlobError(f"the {what} {path} is empty")
    return data


EXAMPLES = {
    save: "ternio adapter save",
    pull: "ternio adapter pull -o wrist.tadp",
    push: "ternio adapter push wrist.tadp",
    reset: "ternio adapter reset",
    merge: "ternio adapter merge model.tern wrist.tadp -o other.tern",
}
