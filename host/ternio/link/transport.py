"""A serial port that carries SMP frames and console text: smpclient's transport, made patient with
what else is on the line.
"""

from __future__ import annotations

import binascii
import errno
import struct

from serial import SerialException
from smp.exceptions import SMPException
from smpclient.transport import SMPTransportDisconnected
from smpclient.transport.serial import SMPSerialTransport

from ternio.errors import PortError, PortInUse

WRITE_TIMEOUT_S = 10.0


class BoardTransport(SMPSerialTransport):
    """Skips damaged frames and late answers to requests given up before; keeps the text between
    frames.

    A frame that is skipped leaves its request waiting, so that the request's own time-out decides
    what happens.
    """

    def __init__(self, baud: int = 115200) -> None:
        super().__init__(baudrate=baud, write_timeout=WRITE_TIMEOUT_S, exclusive=True)
        self._awaited = b""

    async def connect(self, address: str, timeout_s: float) -> None:
        """Opens the port at once or raises PortError with the reason; a missing port is not waited
        for.
        """
        self._reset_state()
        self._conn.port = address
        try:
            self._conn.open()
            self._conn.reset_input_buffer()
        except (SerialException, OSError, ValueError) as error:
            kind = PortInUse if "lock" in str(error) else PortError
            raise kind(open_error(address, error)) from None

    async def send(self, data: bytes) -> None:
        self._awaited = _identity(data)
        await super().send(data)

    async def receive(self) -> bytes:
        while True:
            try:
                frame = await super().receive()
            except (SMPException, binascii.Error, struct.error):
                continue
            if len(frame) >= 8 and _identity(frame) == self._awaited:
                return frame

    def write_text(self, text: str) -> None:
        """Sends console text as it is."""
        with self._serial_exception_to_disconnected():
            self._conn.write(text.encode())

    async def read_text(self) -> bytes:
        """Console text that arrived since the last call, perhaps empty."""
        try:
            return await self.read_serial()
        except OSError as error:
            raise SMPTransportDisconnected(str(error)) from error


def _identity(frame: bytes) -> bytes:
    """Group, sequence number and command: what an answer has in common with its request (bytes 4..8
    of the header).
    """
    return bytes(frame[4:8])


def open_error(port: str, error: Exception) -> str:
    """One line on why `port` could not be opened, and what to do."""
    text = str(error)
    number = getattr(error, "errno", None)
    if "lock" in text:
        return f"{port} is in use by another program: close it and try again"
    if number == errno.ENOENT or "No such file" in text or "FileNotFound" in text:
        return f"there is no port {port}: `ternio boards` lists what is there"
    if number == errno.EACCES or "ermission" in text:
        return f"no permission to open {port}: join the group `dialout` and log in again"
    return f"cannot open {port}: {text}"
