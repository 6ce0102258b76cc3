"""The one family of exceptions that ternio raises.

Each text says in one line what was expected, what came and what to do.
"""

from __future__ import annotations


class TernioError(Exception):
    """Base of all errors that ternio raises on purpose.

    The command line prints its text as one line and ends with `exit_code`.
    """

    exit_code = 1


class DataError(TernioError):
    """A data file or an example that cannot be used as it is."""


class ModelError(TernioError):
    """A model, a shape or a checkpoint that does not fit."""


class OutOfMemory(TernioError, MemoryError):
    """The engine got no memory; what it had made for the call is given back."""


class BlobError(TernioError):
    """A blob or an adapter file that is damaged, of another version, or not what it says it is."""


class CompileError(TernioError):
    """A model that cannot be turned into programs for a board, or does not fit it."""


class FitError(CompileError):
    """A model that is too large for a board, part by part in bytes."""

    exit_code = 2


class RuntimeFault(TernioError):
    """The device runtime refused a call; the text is the runtime's own."""


class BoardError(TernioError):
    """A board that is not known, or not there."""


class BuildError(TernioError):
    """The firmware could not be built or uploaded."""


class LinkError(TernioError):
    """The serial link to a board failed or answered with an error."""


class PortError(LinkError):
    """The serial port cannot be opened."""


class PortInUse(PortError):
    """Another program holds the serial port."""
