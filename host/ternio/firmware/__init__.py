"""Building and uploading the firmware: PlatformIO for boards, the C compiler for the native board."""
