"""`ternio boards`: which boards there are, which run now, and stopping the virtual ones."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import JsonOption, board_name, emit, example, note, say, show_table


def register(app: typer.Typer) -> None:
    """Adds the group to the command line."""
    group = typer.Typer(invoke_without_command=True, epilog=example("ternio boards --scan"))
    group.callback()(list_boards)
    group.command("stop", epilog=example("ternio boards stop netduinoplus2"))(stop)
    app.add_typer(group, name="boards")


def list_boards(
    ctx: typer.Context,
    scan: Annotated[bool, typer.Option("--scan", help="Ask on the serial ports as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Lists the boards that ternio knows and those that run."""
    if ctx.invoked_subcommand:
        ctx.obj = as_json  # `boards --json stop` is `boards stop --json`
        return
    from ternio.boards import board_names, load_board
    from ternio.link.find import ask_if_free, serial_ports
    from ternio.link.virtual import VirtualBoards

    boards = [load_board(name) for name in board_names()]
    running = [
        {
            "name": v.name,
            "board": v.board,
            "port": v.port,
            "pid": v.pid,
            "model": _model(ask_if_free(v.port)),
        }
        for v in VirtualBoards().running()
    ]
    for port in serial_ports() if scan else []:
        info = ask_if_free(port)
        if info is not None:
            running.append({"name": "", "board": info.board, "port": port, "model": _model(info)})
    if as_json:
        known = [
            {
                "name": b.name,
                "title": b.title,
                "chip": b.chip,
                "core": b.core,
                "flash_bytes": b.flash.bytes,
                "ram_bytes": b.ram.bytes,
                "arena_bytes": b.arena_bytes,
                "emulator": b.emulator.get("kind", ""),
                "verified": b.verified,
            }
            for b in boards
        ]
        emit({"boards": known, "running": running})
        return
    _print_table(boards, running)
    if not scan and not running:
        note("no virtual board runs; --scan asks on the serial ports as well")


def _print_table(boards: list, running: list[dict]) -> None:
    from rich.table import Table

    table = Table("board", "chip", "core", box=None, pad_edge=False)
    for title in ("flash", "RAM", "arena"):
        table.add_column(title, justify="right")
    table.add_column("verified")
    for b in boards:
        sizes = (f"{size // 1024} K" for size in (b.flash.bytes, b.ram.bytes, b.arena_bytes))
        table.add_row(b.name, b.chip, b.core, *sizes, b.verified.partition(";")[0])
    show_table(table)
    for item in running:
        what = f"virtual board {item['name']}" if item["name"] else item["board"]
        say(f"running: {what} on {item['port']}, {item['model']}")


def _model(info) -> str:
    if info is None:
        return "busy or silent"
    return f"model {info.model}" if info.model else f"no model ({info.reason})"


def stop(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Virtual boards, by name or manifest file; all when none is named.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Stops virtual boards."""
    from ternio.errors import BoardError
    from ternio.link.virtual import VirtualBoards

    virtual = VirtualBoards()
    running = [board.name for board in virtual.running()]
    chosen = [board_name(name) for name in names or running]
    for name in chosen:
        if name not in running:
            there = f"running are {', '.join(running)}" if running else "none runs"
            raise BoardError(f"no virtual board {name} runs: {there}")
    stopped = [name for name in dict.fromkeys(chosen) if virtual.stop(name)]
    if as_json or ctx.obj:
        emit({"stopped": stopped})
        return
    say(f"stopped {', '.join(stopped)}" if stopped else "no virtual board runs")
