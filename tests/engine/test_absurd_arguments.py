"""Every function of te.h with NULL, zero and absurd arguments, in a program that is written from
the header and built with sanitizers: a function that is added to the header is tried as well."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from engine_harness import ENGINE, header_functions

HERE = Path(__file__).parent

# Who draws an argument, by its type, or by "function type" or "type name" where a type alone does
# not do: things are freed only once, arrays are no longer than they are said to be.
ARGUMENTS = {
    "te_ctx *": "a_context()",
    "te_ctx_free te_ctx *": "fresh_context()",
    "te_set_own_results te_ctx *": "NULL",
    "te_tensor *": "a_tensor()",
    "te_release te_tensor *": "fresh_tensor()",
    "te_optim *": "an_optimiser()",
    "te_optim_free te_optim *": "fresh_optimiser()",
    "te_tensor *const *": "some_tensors()",
    "int": "an_int()",
    "int64_t": "a_long()",
    "int64_t n": "a_count()",
    "uint64_t": "(uint64_t)a_long()",
    "double": "a_double()",
    "te_float *": "some_floats()",
    "int64_t *": "some_dimensions()",
    "uint64_t *": "some_words()",
    "uint64_t []": "some_words()",
    "int8_t *": "some_bytes()",
    "void *": "some_memory()",
    "char *": "a_name()",
    "te_release_fn": "a_release()",
    "te_chuck_settings *": "some_settings()",
    "te_guard *": "a_guard()",
}

# What becomes of a result, by its type or by its function.
RESULTS = {
    "te_ctx *": "te_ctx_free({})",
    "te_optim *": "te_optim_free({})",
    "te_tensor *": "operated(ctx, {})",
    "te_status": "answered({}, {nulls})",
    **dict.fromkeys(["te_zeros", "te_from_data", "te_from_strided", "te_retain"], "te_release({})"),
    **dict.fromkeys(["te_node_input", "te_node_output", "te_optim_param"], "(void){}"),
}


def call(result: str, name: str, arguments: list[tuple[str, str]]) -> str:
    """A block of C that draws the arguments, calls the function and looks at the answer."""
    lines = []
    for kind, own in arguments:
        drawn = next(
            ARGUMENTS[key] for key in (f"{name} {kind}", f"{kind} {own}", kind) if key in ARGUMENTS
        )
        declared = f"{kind.removesuffix(' []')} *{own}" if kind.endswith("[]") else f"{kind} {own}"
        lines.append(f"{declared} = {drawn};")
    objects = [own for kind, own in arguments if kind in ("te_ctx *", "te_tensor *", "te_optim *")]
    nulls = " || ".join(f"!{own}" for own in objects) or "0"
    passed = f"{name}({', '.join(own for _, own in arguments)})"
    if result == "void":
        lines.append(f"{passed};")
    else:
        used = RESULTS.get(name) or RESULTS.get(result, "(void){}")
        lines.append(f"{used.format(passed, nulls=nulls)};")
    return "{ " + " ".join(lines) + " }"


def test_the_header_is_read_whole():
    names = {name for _, name, _ in header_functions()}
    text = (ENGINE / "te.h").read_text()
    assert names == set(
        re.findall(r"\b(te_\w+)\((?!\))", re.sub(r"/\*.*?\*/", "", text, flags=re.S))
    )
    assert len(names) > 120


@pytest.mark.parametrize("double", [False, True])
def test_no_argument_crashes(tmp_path, double):
    calls = [call(*function) for function in header_functions()]
    cases = "\n".join(f"case {i}: {block} break;" for i, block in enumerate(calls))
    (tmp_path / "calls.h").write_text(
        f"enum {{ CALLS = {len(calls)} }};\n#define CASES \\\n"
        + cases.replace("\n", " \\\n")
        + "\n"
    )
    command = ["cc", "-std=c11", "-g", "-O1", "-fsanitize=address,undefined"]
    command += ["-fno-sanitize-recover=all", f"-I{ENGINE}", f"-I{tmp_path}", "-Wno-unused-value"]
    command += ["-DTE_DOUBLE"] * double
    program = tmp_path / "absurd"
    sources = [str(HERE / "absurd_check.c"), str(ENGINE / "engine.c")]
    subprocess.run([*command, *sources, "-lm", "-o", str(program)], check=True)
    done = subprocess.run([program, "200"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
