"""PlatformIO's entry point of the local platform `ternio`: nothing to fetch or to configure."""

from platformio.public import PlatformBase


class TernioPlatform(PlatformBase):
    """Takes the compiler from PATH, so it has no packages of its own."""
