"""`ternio monitor`: what a board infers and learns, live; JSON lines for scripts."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from .common import BoardOption, PortOption, connect, example, json_text, shown
from .data_options import examples_for, refuse_options, takes_data

HISTORY = 12
BAR_CELLS = 30


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("monitor", epilog=example("ternio monitor --feed motion"))(monitor)


@takes_data(part="test")
def monitor(
    board: BoardOption = None,
    port: PortOption = None,
    feed: Annotated[
        str | None,
        typer.Option("--feed", help="Send this data's windows to the board, round and round."),
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", min=0.0, help="Seconds between them.")
    ] = 0.5,
    count: Annotated[
        int, typer.Option("--count", min=0, help="End after so many events; 0: never.")
    ] = 0,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, help="End after this time; 0: never.")
    ] = 0,
    how: Any = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the board's JSON lines as they come.")
    ] = False,
) -> None:
    """Shows inferences and adaptation live; Ctrl-C ends it."""
    if not feed:
        refuse_options(how, "--feed")
    with connect(board, port) as client:
        info = client.info()
        windows = examples_for(feed, info, client.channel_names, how).windows if feed else None
        client.telemetry(True)
        events = _events(client, windows, interval, seconds)
        try:
            if as_json or not sys.stdout.isatty():
                _print_lines(events, count, as_json)
            else:
                _draw(events, count, info, client.port)
        except KeyboardInterrupt:
            pass
        finally:
            client.telemetry(False)


def _events(client, windows, interval, seconds) -> Iterator[dict[str, Any] | None]:
    """Telemetry as it comes; None about ten times a second, so that the caller can redraw."""
    start = due = time.monotonic()
    sent = 0
    while not seconds or time.monotonic() - start < seconds:
        if windows is not None and time.monotonic() >= due:
            client.infer(windows[sent % len(windows)])
            sent += 1
            due = max(due + interval, time.monotonic())
        for line in client.lines(timeout_s=0.1):
            event = parse_event(line)
            if event is not None:
                yield event
        yield None


def parse_event(line: str) -> dict[str, Any] | None:
    """A telemetry line as a dictionary; None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _print_lines(events: Iterator[dict[str, Any] | None], count: int, as_json: bool) -> None:
    seen = 0
    for event in events:
        if event is None:
            continue
        text = json_text(event) if as_json else shown(describe(event))
        print(text, flush=True)
        seen += 1
        if count and seen >= count:
            return


def describe(event: dict[str, Any]) -> str:
    """One line of words for an event."""
    kind = event.get("event")
    if kind == "infer":
        return f"infer  {event.get('class')}  p {event.get('p', 0):.4f}  {event.get('us')} us"
    if kind == "adapt":
        return (
            f"adapt  step {event.get('step')}  loss {event.get('loss', 0):.4f}  "
            f"{event.get('label')}  {event.get('us')} us"
        )
    rest = ", ".join(f"{k} {v}" for k, v in event.items() if k != "event")
    return f"{kind}  {rest}"


def _draw(events: Iterator[dict[str, Any] | None], count: int, info, port: str) -> None:
    from rich.live import Live

    state = _State(info, port)
    with Live(state.render(), refresh_per_second=8) as live:
        for event in events:
            if event is not None:
                state.take(event)
            live.update(state.render())
            if count and state.seen >= count:
                return


class _State:
    """What the live view shows: the last inference as bars, the last events, the loss."""

    def __init__(self, info, port: str) -> None:
        self.info, self.port = info, port
        self.seen = 0
        self.events: deque[str] = deque(maxlen=HISTORY)
        self.counts: dict[str, int] = dict.fromkeys(info.labels, 0)
        self.losses: deque[float] = deque(maxlen=60)
        self.last: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Notes one event."""
        self.seen += 1
        self.events.appendleft(shown(describe(event)))
        if event["event"] == "infer":
            self.last = event
            name = str(event.get("class"))
            self.counts[name] = self.counts.get(name, 0) + 1
        elif event["event"] == "adapt":
            self.losses.append(float(event.get("loss", 0)))

    def render(self) -> Any:
        """The picture as a rich renderable."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        total = max(1, sum(self.counts.values()))
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, count in self.counts.items():
            winner = name == self.last.get("class")
            cells = round(BAR_CELLS * count / total)
            p = f"p {self.last.get('p', 0):.4f}  {self.last.get('us')} us" if winner else ""
            style = "bold green" if winner else ""
            table.add_row(
                Text(shown(name), style), Text("█" * cells, style), f"{count}", Text(p, style)
            )
        parts: list[Any] = [table]
        if self.losses:
            parts.append(Text(f"loss {self.losses[-1]:.4f}  {sparkline(self.losses)}"))
        parts.append(Text("\n".join(self.events) or "waiting for events", "dim"))
        title = f"{self.info.board} on {self.port}: {self.info.model or 'no model'}"
        return Panel(Group(*parts), title=Text(shown(title)), subtitle="Ctrl-C ends")


def sparkline(values) -> str:
    """Values as eighth blocks, the largest one full."""
    top = max(values) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * max(0.0, v) / top))] for v in values)
