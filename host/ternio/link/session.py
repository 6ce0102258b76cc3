"""One open serial port with a board behind it: requests with time-outs and retries, console lines.

BoardClient adds what can be asked. Calls block; the port lives in a thread of its own, so that it
works in notebooks too.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from cbor2 import CBORError
from smp.exceptions import SMPException
from smpclient import SMPClient
from smpclient.exceptions import SMPClientException
from smpclient.generics import error as is_error
from smpclient.requests.os_management import MCUMgrParametersRead
from smpclient.transport import SMPTransportDisconnected

from ternio.errors import LinkError
from ternio.link.reasons import failure_text
from ternio.link.transport import BoardTransport

T = TypeVar("T")
Session = TypeVar("Session", bound="BoardSession")

ANSWER_TIMEOUT_S = 5.0
HELLO_TIMEOUT_S = 1.5
LINES_KEPT = 10_000
LINE_BYTES = 65_536

# What smpclient and the libraries below it raise over an answer that is not what it should be.
UNREADABLE = (SMPClientException, SMPException, CBORError, ValueError, TypeError, AssertionError)

# smpclient logs what it also raises; without a handler Python would print that as well.
for _name in ("smp", "smpclient"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class BoardSession:
    """An open port; use it as a context manager."""

    def __init__(
        self, port: str, baud: int = 115200, hello_timeout_s: float = HELLO_TIMEOUT_S
    ) -> None:
        """Opens `port` and makes sure that a board answers. Raises LinkError otherwise."""
        self.port = port
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._text = b""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._transport = BoardTransport(baud)
        self._client = SMPClient(self._transport, port, ANSWER_TIMEOUT_S)
        self._open = False
        try:
            self._wait(self._transport.connect(port, 0.0))
            self._open = True
            self._hello(hello_timeout_s)
        except BaseException:
            self.close()
            raise

    def __enter__(self: Session) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the port; the board goes on."""
        if self._open:
            self._open = False
            self._wait(self._transport.disconnect())
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # ---- the line -----------------------------------------------------------------------------

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except (TimeoutError, asyncio.TimeoutError):
            raise
        except (SMPTransportDisconnected, OSError) as error:
            raise LinkError(f"{self.port} was closed while in use: {error}") from None
        except BaseException:
            future.cancel()
            raise

    def _hello(self, timeout_s: float) -> None:
        """Ends a half-typed console line, then asks for the frame size until the board answers
        (three times).
        """
        self._write_text("\n")
        request = MCUMgrParametersRead()
        answer = self._ask(request, timeout_s, tries=3)
        self._transport.initialize(answer.buf_size)
        self._collect_text()
        self._lines.clear()

    def _ask(self, request: Any, timeout_s: float = ANSWER_TIMEOUT_S, tries: int = 1) -> Any:
        """Sends a request, again on silence up to `tries` times, and returns the answer or raises
        LinkError.

        Only requests that may be done twice without harm get more than one try.
        """
        for left in range(tries - 1, -1, -1):
            try:
                answer = self._wait(self._client.request(request, timeout_s))
                break
            except (TimeoutError, asyncio.TimeoutError):
                if not left:
                    what = type(request).__name__
                    raise LinkError(
                        f"no answer from {self.port} to {what} within {timeout_s * tries:g} s: "
                        "is a ternio board connected and not busy?"
                    ) from None
            except UNREADABLE as error:
                line = (
                    str(error).strip().splitlines()[0]
                    if str(error).strip()
                    else type(error).__name__
                )
                raise LinkError(f"{self.port} sent an answer that cannot be read: {line}") from None
        if is_error(answer):
            raise LinkError(failure_text(answer))
        return answer

    # ---- console ------------------------------------------------------------------------------

    def console(self, line: str, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        """Types a line on the console and returns the line that answers it; telemetry stays for
        `lines`.
        """
        self._collect_text()
        waiting = list(self._lines)
        self._lines.clear()
        self._write_text(line + "\n")
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self._collect_text()
            while self._lines:
                text = self._lines.popleft()
                if not text.startswith("{"):
                    self._lines.extendleft(reversed(waiting))
                    return text
                waiting.append(text)
        raise LinkError(f"no answer from {self.port} to the line {line!r} within {timeout_s:g} s")

    def lines(self, timeout_s: float = 0.0) -> Iterator[str]:
        """Console lines that arrived so far, without their ends; waits up to `timeout_s` for the
        first one.
        """
        end = time.monotonic() + timeout_s
        self._collect_text()
        while not self._lines and time.monotonic() < end:
            self._collect_text()
        while self._lines:
            yield self._lines.popleft()

    def _write_text(self, text: str) -> None:
        async def write() -> None:
            self._transport.write_text(text)

        self._wait(write())

    def _collect_text(self) -> None:
        self._text += self._wait(self._transport.read_text())
        *whole, rest = self._text.replace(b"\r", b"\n").split(b"\n")
        self._text = rest[-LINE_BYTES:]
        self._lines.extend(line.decode("utf-8", "replace") for line in whole if line)


def is_banner(line: str) -> bool:
    """True for the line that a board prints after reset."""
    return line.startswith("ternio ") and " on " in line and "help" in line
