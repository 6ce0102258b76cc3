"""The public client smpclient, as it is, manages a ternio board: nobody needs our tool for that."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from smpclient import SMPClient
from smpclient.generics import success
from smpclient.requests.file_management import FileHashChecksum, FileStatus
from smpclient.requests.os_management import EchoWrite, MCUMgrParametersRead, ResetWrite
from smpclient.requests.shell_management import Execute
from smpclient.transport.serial import SMPSerialTransport

from ternio.link.client import BoardClient


def converse(port: str, talk) -> None:
    """Runs `talk(client)` on a connection made the way smpclient's own documentation does it."""

    async def session() -> None:
        async with SMPClient(SMPSerialTransport(), port, timeout_s=10.0) as client:
            await talk(client)

    asyncio.run(session())


def test_echo_parameters_and_shell(running):
    async def talk(client: SMPClient) -> None:
        echo = await client.request(EchoWrite(d="grüß dich"))
        assert success(echo) and echo.r == "grüß dich"
        parameters = await client.request(MCUMgrParametersRead())
        assert success(parameters) and parameters.buf_size >= 256
        info = await client.request(Execute(argv=["info"]))
        assert success(info) and info.ret == 0 and f"board={running.board} " in info.o

    converse(running.port, talk)


def test_upload_of_a_model_reset_and_download_of_its_adapter(running, blob):
    offsets = []

    async def upload(client: SMPClient) -> None:
        async for offset in client.upload_file(blob, "/model"):
            offsets.append(offset)
        status = await client.request(FileStatus(name="/model"))
        assert success(status) and status.len == len(blob)
        check = await client.request(FileHashChecksum(name="/model", type="crc32"))
        assert success(check) and check.output == zlib.crc32(blob)
        assert await client.download_file("/model") == blob

    converse(running.port, upload)
    assert offsets[-1] == len(blob)
    with BoardClient(running.port) as client:
        client.adapt_begin()
        client.adapter_save()
        adapter = client.adapter_pull()

    async def reset(client: SMPClient) -> None:
        assert success(await client.request(ResetWrite()))

    converse(running.port, reset)
    with BoardClient(running.port) as client:
        assert client.info().model == "small1"

    async def download(client: SMPClient) -> None:
        assert await client.download_file("/adapter") == adapter

    converse(running.port, download)
    assert adapter[:4] == b"TADP"


def test_a_damaged_model_is_refused_and_the_old_one_stays(running, blob):
    async def upload(client: SMPClient) -> None:
        async for _ in client.upload_file(blob, "/model"):
            pass
        damaged = blob[:200] + bytes([blob[200] ^ 4]) + blob[201:]
        with pytest.raises(Exception, match=r"\S"):
            async for _ in client.upload_file(damaged, "/model"):
                pass
        assert await client.download_file("/model") == blob

    converse(running.port, upload)
