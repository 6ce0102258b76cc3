"""A board and a chip family that ternio does not have, as boards/README.md asks for them."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from firmware_boards import blob, window

from ternio.boards import load_board
from ternio.errors import BuildError
from ternio.firmware import pio
from ternio.link.client import BoardClient
from ternio.link.flash import flash
from ternio.link.teach import teach
from ternio.paths import share_dir
from ternio.runtime import Model, Session

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.skipif(
        shutil.which("arm-none-eabi-gcc") is None or shutil.which("qemu-system-arm") is None,
        reason="needs an Arm compiler and QEMU",
    ),
]

# Another one: TI's Stellaris LM3S6965 with its PL011 UART.
LM3S = r"""/* chip.c - TI's Stellaris LM3S6965: UART0, a PL011. */
#include "board_config.h"
#include "cortexm.h"

#define RCGC1       REG(0x400FE104u)
#define RCGC2       REG(0x400FE108u)
#define GPIOA_AFSEL REG(0x40004420u)
#define GPIOA_DEN   REG(0x4000451Cu)
#define UART_DR     REG(0x4000C000u)
#define UART_FR     REG(0x4000C018u)
#define UART_IBRD   REG(0x4000C024u)
#define UART_FBRD   REG(0x4000C028u)
#define UART_LCRH   REG(0x4000C02Cu)
#define UART_CTL    REG(0x4000C030u)
#define UART_IM     REG(0x4000C038u)
#define UART_ICR    REG(0x4000C044u)
#define UART_IRQ    5u
#define RX_EMPTY    (1u << 4)
#define TX_FULL     (1u << 5)
#define BUSY        (1u << 3)
#define INT_RX      (1u << 4)

uint32_t chip_clock_start(void) {
    return BOARD_CPU_HZ;
}

void chip_uart_start(void) {
    uint32_t divisor = (8 * BOARD_CPU_HZ / BOARD_BAUD + 1) / 2; /* in 64ths */
    RCGC1 |= 1;
    RCGC2 |= 1;
    GPIOA_AFSEL |= 3;
    GPIOA_DEN |= 3;
    UART_IBRD = divisor / 64;
    UART_FBRD = divisor % 64;
    UART_LCRH = 3u << 5; /* eight bits, no FIFO */
    UART_CTL = 0x301;
    UART_IM = INT_RX;
    irq_enable(UART_IRQ);
}

bool chip_uart_take(uint8_t *byte) {
    UART_ICR = INT_RX;
    if (UART_FR & RX_EMPTY) return false;
    *byte = (uint8_t)UART_DR;
    return true;
}

void chip_uart_hold(bool hold) {
    UART_IM = hold ? 0 : INT_RX;
}

void chip_uart_put(uint8_t byte) {
    while (UART_FR & TX_FULL) {
    }
    UART_DR = byte;
}

void chip_uart_drain(void) {
    while (UART_FR & BUSY) {
    }
}
"""


def manifest(**changes) -> dict:
    """The manifest of mps2_an500 with other values in its block `ternio`."""
    base = json.loads((share_dir("boards") / "mps2_an500.json").read_text())
    base["name"] = "A board of one's own"
    base["ternio"].update(changes)
    return base


def slots(base: int, model_bytes: int, adapter_bytes: int) -> dict:
    """Two slots of each kind in a row."""
    areas = {"model": (0, model_bytes), "adapter": (2 * model_bytes, adapter_bytes)}
    return {
        kind: [{"base": f"0x{base + off + i * size:08X}", "bytes": size} for i in (0, 1)]
        for kind, (off, size) in areas.items()
    }


def does_as_here(board, tmp_path, virtual) -> None:
    """Flashes a model with the firmware around it, and over the wire another one; both infer and
    learn to the bit as in this process."""
    first, second, x = blob("first"), blob("second", seed=2), window(36).reshape(1, 12, 3)
    for how, data in (("built", first), ("sent", second)):
        path = tmp_path / "model.tern"
        path.write_bytes(data)
        done = flash(board, path, virtual=virtual)
        assert (done.how, done.info.board) == (how, board.name)
        session = Session(Model(data))
        with BoardClient(done.port) as client:
            assert np.array_equal(client.infer(x[0]).logits, session.infer(x[0]))
            log = teach(client, x, np.array([1]), 3, 0.01, 6)
            session.adapt_begin(lr=0.01, seed=6)
            assert [step.loss for step in log] == [session.adapt_step(x[0], 1) for _ in range(3)]
            client.adapter_save()
            assert client.adapter_pull() == session.adapter_bytes()
            assert np.array_equal(client.infer(x[0]).logits, session.infer(x[0]))


def from_readme(board: str) -> dict:
    """What boards/README.md changes in the block `ternio` for an emulator's machine."""
    text = (share_dir("boards") / "README.md").read_text()
    indented = re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    found = [json.loads(f"{{{lines}}}") for lines in indented if '"emulator"' in lines]
    return next(changes for changes in found if changes["emulator"]["machine"] == board)


AN385 = from_readme("mps2-an385")
# A Cortex-M33 that starts in the secure half of another map of memory (Arm DAI 0505).
AN505 = {
    "chip": "AN505",
    "core": "cortex-m33",
    "cflags": ["-mthumb", "-mcpu=cortex-m33", "-mfloat-abi=hard"],
    "clock": {"cpu_hz": 20_000_000},
    "flash": {"base": "0x10000000", "bytes": 4194304, "firmware_bytes": 131072},
    "ram": {"base": "0x38000000", "bytes": 4194304},
    "console": {"uart": "UART0", "base": "0x50200000", "irq": 32, "baud": 115200},
    "watchdog": {"base": "0x5002E000", "hz": 32000},
    "slots": slots(0x10020000, 262144, 65536),
    "ram_slots": slots(0x38200000, 262144, 65536),
    "emulator": {"kind": "qemu", "machine": "mps2-an505"},
}


def test_a_board_of_a_present_family_is_a_manifest(tmp_path, virtual):
    """MPS2 with another image. When the manifest changes, no old firmware answers for it."""
    path = tmp_path / "mps2_an385.json"
    path.write_text(json.dumps(manifest(**AN385)))
    does_as_here(load_board(path), tmp_path, virtual)
    path.write_text(json.dumps(manifest(**AN385 | {"arena_bytes": 49152})))
    again = flash(load_board(path), tmp_path / "model.tern", virtual=virtual)
    assert (again.how, again.info.arena_bytes) == ("built", 49152)


def test_another_map_of_memory_is_a_manifest(tmp_path, virtual):
    path = tmp_path / "mps2_an505.json"
    path.write_text(json.dumps(manifest(**AN505)))
    does_as_here(load_board(path), tmp_path, virtual)


@pytest.mark.parametrize(
    ("key", "words"),
    [("clock", "ternio.clock.cpu_hz"), ("console", "ternio.console.base, ternio.console.irq")],
)
def test_what_a_family_needs_of_the_manifest_is_said(key, words, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(manifest(**AN385 | {key: {"baud": 115200}})))
    with pytest.raises(BuildError, match=rf"lacks what its family asks for: {words}"):
        pio.build(load_board(path))


def test_the_family_of_the_readme(tmp_path, virtual):
    text = (share_dir("boards") / "README.md").read_text()
    (code,) = re.findall(r"^```c\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) < 150
    family = tmp_path / "ports" / "smartfusion2"
    family.mkdir(parents=True)
    (family / "chip.c").write_text(code)
    base = manifest(**from_readme("emcraft-sf2"))
    del base["ternio"]["watchdog"]
    path = tmp_path / "sf2.json"
    path.write_text(json.dumps(base))
    does_as_here(load_board(path), tmp_path, virtual)


def test_a_new_family_is_one_small_file(tmp_path, virtual):
    family = tmp_path / "ports" / "lm3s"
    family.mkdir(parents=True)
    (family / "chip.c").write_text(LM3S)
    assert len(LM3S.splitlines()) < 150
    changes = {
        "family": "lm3s",
        "chip": "LM3S6965",
        "core": "cortex-m3",
        "cflags": ["-mthumb", "-mcpu=cortex-m3"],
        "clock": {"cpu_hz": 12_500_000},
        "flash": {"base": "0x00000000", "bytes": 262144, "firmware_bytes": 131072},
        "ram": {"base": "0x20000000", "bytes": 65536},
        "arena_bytes": 16384,
        "stack_bytes": 4096,
        "console": {"uart": "UART0", "baud": 115200},
        "slots": slots(0x20000, 57344, 4096),
        "emulator": {"kind": "qemu", "machine": "lm3s6965evb"},
        "ram_slots": slots(0x20009000, 8192, 2048),
    }
    path = tmp_path / "lm3s6965.json"
    path.write_text(json.dumps(manifest(**changes)))
    does_as_here(load_board(path), tmp_path, virtual)


def test_a_family_that_is_nowhere(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(manifest(family="vax")))
    with pytest.raises(BuildError, match=r"its family vax has no folder in .*ports"):
        pio.build(load_board(path))
