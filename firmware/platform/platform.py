"""PlatformIO's entry point of the local platform `ternio`: sees to SCons, the one package that
PlatformIO wants, also where its registry cannot be reached."""

from platformio.exception import UserSideException
from platformio.http import HTTPClientError
from platformio.package.manager.core import get_core_package_dir
from platformio.public import PlatformBase


class TernioPlatform(PlatformBase):
    """Takes the compiler from PATH, so it has no packages of its own."""

    def configure_project_packages(self, env, targets=None):
        """The first that PlatformIO calls here, before it looks for SCons."""
        _bring_scons()
        super().configure_project_packages(env, targets)


def _bring_scons() -> None:
    try:
        from ternio.errors import BuildError
        from ternio.firmware.platformio import ensure_platformio

        ensure_platformio()
    except ImportError:
        pass  # this PlatformIO is not of ternio's environment
    except BuildError as error:
        raise UserSideException(str(error)) from None
    try:
        get_core_package_dir("tool-scons")
    except HTTPClientError:
        raise UserSideException(
            "PlatformIO cannot fetch SCons: its registry does not answer. The `pio` of the "
            "environment that ternio is installed in does without it"
        ) from None
