"""A blob as a C source file: for programs that use the runtime without our firmware."""

from __future__ import annotations

import re

from .format import Blob

_BYTES_A_LINE = 24


def identifier(name: str) -> str:
    """A model's name as a C identifier. Characters beyond ASCII are written as code points, in a
    name without letters and digits all are: names of other scripts stay distinct.

    >>> identifier("my model-2"), identifier("3d"), identifier("\u624b")
    ('my_model_2', 'model_3d', 'model_u624b')
    """
    plain = re.search(r"[A-Za-z0-9]", name)
    word = "".join(f"u{ord(c):04x}" if c > "\x7f" or not plain else c for c in name)
    word = re.sub(r"\W", "_", word, flags=re.ASCII)
    return word if re.match(r"[A-Za-z]", name) else f"model_{word.lstrip('_')}"


def c_array(blob: Blob) -> str:
    """A header that defines NAME_blob, aligned as `tr_model_open` wants it, NAME_blob_bytes, the
    bytes of arena that its programs need, and a window's samples and channels."""
    data, name = blob.encode(), identifier(blob.name)
    guard = f"{name.upper()}_BLOB_H"
    lines = (data[at : at + _BYTES_A_LINE] for at in range(0, len(data), _BYTES_A_LINE))
    content = ",\n".join("    " + ", ".join(map(str, line)) for line in lines)
    return f"""/* {name}_blob - a ternio model, digest {blob.digest.hex()[:16]}.
 *
 *   TERNIO_ALIGNED static uint8_t arena[{name.upper()}_INFER_ARENA];
 *   tr_model_open(&model, {name}_blob, {name}_blob_bytes);
 *   tr_session_init(&session, &model, arena, sizeof arena);
 */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifndef TERNIO_ALIGNED
#if defined(_MSC_VER)
#define TERNIO_ALIGNED __declspec(align(16))
#else
#define TERNIO_ALIGNED __attribute__((aligned(16)))
#endif
#endif

enum {{
    {name.upper()}_LENGTH = {blob.io.length}, /* samples of a window, or tokens of a context */
    {name.upper()}_CHANNELS = {blob.io.channels},
    {name.upper()}_INFER_ARENA = {blob.infer_arena}, /* bytes */
    {name.upper()}_ADAPT_ARENA = {blob.adapt_arena},
}};

static const uint32_t {name}_blob_bytes = {len(data)};
TERNIO_ALIGNED static const uint8_t {name}_blob[{len(data)}] = {{
{content},
}};

#endif
"""
