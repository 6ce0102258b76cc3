"""The SMP messages that a ternio board understands beyond the standard ones: group 64
(firmware/PROTOCOL.md).

They are pydantic models in the style of the `smp` package, to be sent with smpclient's
`SMPClient.request`. Answers may gain fields in later firmware; unknown ones are ignored.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from smp import error as smperror
from smp import file_management as smpfs
from smp import message as smpmsg
from smp import shell_management as smpshell

GROUP_ID = 64


class Command(IntEnum):
    """Command numbers of group 64."""

    INFO = 0
    INFER = 1
    ADAPT_BEGIN = 2
    ADAPT_STEP = 3
    ADAPTER_SAVE = 4
    ADAPTER_RESET = 5
    TELEMETRY = 6
    PROMPT = 7
    GENERATE = 8
    FRAMES = 9


class _Success(BaseModel):
    """Ignores fields it does not know, and is never mistaken for an error answer."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_errors(cls, data: Any) -> Any:
        if isinstance(data, dict) and ("err" in data or data.get("rc")):
            raise ValueError("this is an error answer")
        return data


class Failure(BaseModel):
    """Group and number of an SMP version 2 error."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    group: int
    rc: int


class _ErrorV1(smperror.ErrorV1):
    model_config = ConfigDict(extra="ignore", frozen=True)
    rc: int


class _ErrorV2(smpmsg.Response):
    """An error of any group, perhaps with a reason in words."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    RESPONSE_TYPE = smpmsg.ResponseType.ERROR_V2
    err: Failure
    rsn: str | None = None


class _TernioErrorV1(_ErrorV1):
    _GROUP_ID = GROUP_ID


class _TernioErrorV2(_ErrorV2):
    _GROUP_ID = GROUP_ID


class _TernioErrors:
    _ErrorV1 = _TernioErrorV1
    _ErrorV2 = _TernioErrorV2


class InfoResponse(smpmsg.ReadResponse, _Success):
    """What the board and its model are; fields from `digest` on are there only with a model."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.INFO
    board: str
    firmware: str
    storage: str
    slot: str = ""
    arena: int
    model: str
    reason: str = ""
    refused: str = ""
    digest: bytes = b""
    blob_bytes: int = Field(0, alias="bytes")
    channels: int = 0
    length: int = 0
    outputs: int = 0
    labels: list[str] = []
    scale: bytes = b""
    rate_hz: float = 0.0
    infer_arena: int = 0
    adapt_arena: int = 0
    floats: int = 0
    adapter: str = "none"
    steps: int = 0
    slot_bytes: int = 0
    kind: int = 1
    position: int = 0
    as_bytes: bool = False

    @model_validator(mode="before")
    @classmethod
    def _rename_version(cls, data: Any) -> Any:
        """`version` is an attribute of every SMP message; the firmware's gets a name of its own."""
        if isinstance(data, dict) and "version" in data:
            data = {**data, "firmware": data["version"]}
            del data["version"]
        return data


class Info(smpmsg.ReadRequest, _TernioErrors):
    """Asks what the board and its model are."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.INFO
    _Response = InfoResponse


class InferResponse(smpmsg.WriteResponse, _Success):
    """Either `off` alone (the window is not complete yet) or the result."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.INFER
    off: int | None = None
    logits: bytes | None = None
    index: int | None = None
    us: int = 0


class Infer(smpmsg.WriteRequest, _TernioErrors):
    """Part of a window (or all of it); the last part runs the model."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.INFER
    _Response = InferResponse
    x: bytes | None = None
    off: int | None = None
    fmt: int | None = None


class AdaptBeginResponse(smpmsg.WriteResponse, _Success):
    """Steps done so far and the number of factors in training."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.ADAPT_BEGIN
    steps: int
    floats: int


class AdaptBegin(smpmsg.WriteRequest, _TernioErrors):
    """Starts an adaptation; what is not given has the runtime's defaults."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.ADAPT_BEGIN
    _Response = AdaptBeginResponse
    lr: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    decay: float | None = None
    clip: float | None = None
    seed: int | None = None
    sgd: bool | None = None


class AdaptStepResponse(smpmsg.WriteResponse, _Success):
    """Either `off` alone (the window is not complete yet) or the step's loss in nats."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.ADAPT_STEP
    off: int | None = None
    loss: float | None = None
    step: int | None = None
    us: int = 0


class AdaptStep(smpmsg.WriteRequest, _TernioErrors):
    """Part of a window (or all of it) with its label; the last part does one step."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.ADAPT_STEP
    _Response = AdaptStepResponse
    label: int
    x: bytes | None = None
    off: int | None = None
    fmt: int | None = None
    lr: float | None = None


class AdapterSaveResponse(smpmsg.WriteResponse, _Success):
    """What was stored, and where."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.ADAPTER_SAVE
    steps: int
    file_bytes: int = Field(alias="bytes")
    slot: str = ""


class AdapterSave(smpmsg.WriteRequest, _TernioErrors):
    """Stores the factors on the board and attaches them."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.ADAPTER_SAVE
    _Response = AdapterSaveResponse


class AdapterResetResponse(smpmsg.WriteResponse, _Success):
    """The base model is back."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.ADAPTER_RESET


class AdapterReset(smpmsg.WriteRequest, _TernioErrors):
    """Drops the running and the stored adapter."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.ADAPTER_RESET
    _Response = AdapterResetResponse


class TelemetryResponse(smpmsg.WriteResponse, _Success):
    """The state after the request."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.TELEMETRY
    on: bool


class Telemetry(smpmsg.WriteRequest, _TernioErrors):
    """Switches the JSON lines on or off."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.TELEMETRY
    _Response = TelemetryResponse
    on: bool


class PromptResponse(smpmsg.WriteResponse, _Success):
    """Tokens that the stream holds now."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.PROMPT
    position: int
    us: int = 0


class Prompt(smpmsg.WriteRequest, _TernioErrors):
    """Text (UTF-8) that a stream of tokens starts with, or with `more` goes on with."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.PROMPT
    _Response = PromptResponse
    text: bytes
    more: bool | None = None


class GenerateResponse(smpmsg.WriteResponse, _Success):
    """The tokens that follow, uint16 each, and their characters."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.GENERATE
    text: bytes
    tokens: bytes
    us: int = 0


class Generate(smpmsg.WriteRequest, _TernioErrors):
    """Asks for `n` tokens, or as many as fit a frame."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.GENERATE
    _Response = GenerateResponse
    n: int
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None


class FramesResponse(smpmsg.WriteResponse, _Success):
    """The result of the last inference that became due, or nothing."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.FRAMES
    logits: bytes | None = None
    index: int | None = None
    us: int = 0


class Frames(smpmsg.WriteRequest, _TernioErrors):
    """Whole frames of int16 for the sensor ring; `hop` starts it anew."""

    _GROUP_ID = GROUP_ID
    _COMMAND_ID = Command.FRAMES
    _Response = FramesResponse
    x: bytes | None = None
    hop: int | None = None


class _FileErrorV1(_ErrorV1):
    _GROUP_ID = 8


class _FileErrorV2(_ErrorV2):
    _GROUP_ID = 8


class FileUpload(smpfs.FileUploadRequest):
    """The standard upload with errors of any group."""

    _Response = smpfs.FileUploadResponse
    _ErrorV1 = _FileErrorV1
    _ErrorV2 = _FileErrorV2


class FileDownload(smpfs.FileDownloadRequest):
    """The standard download with errors of any group."""

    _Response = smpfs.FileDownloadResponse
    _ErrorV1 = _FileErrorV1
    _ErrorV2 = _FileErrorV2


class FileHashChecksum(smpfs.FileHashChecksumRequest):
    """The standard checksum with errors of any group."""

    _Response = smpfs.FileHashChecksumResponse
    _ErrorV1 = _FileErrorV1
    _ErrorV2 = _FileErrorV2


class _ShellErrorV1(_ErrorV1):
    _GROUP_ID = 9


class _ShellErrorV2(_ErrorV2):
    _GROUP_ID = 9


class Execute(smpshell.ExecuteRequest):
    """The standard shell command with errors of any group."""

    _Response = smpshell.ExecuteResponse
    _ErrorV1 = _ShellErrorV1
    _ErrorV2 = _ShellErrorV2
