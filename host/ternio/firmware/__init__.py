"""Building and uploading the firmware: PlatformIO for boards, a C compiler for the native board."""
