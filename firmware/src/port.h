/* port.h - what a chip family implements for the portable core: bytes in and out, time, rest,
 * reset, storage. One folder of firmware/ports each; every call comes from the main loop, never
 * from an interrupt. */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Console bytes received so far, at most `capacity`; 0 when none wait. A full receive ring holds
 * bytes back at the UART where the hardware can. */
size_t port_rx(uint8_t *out, size_t capacity);

/* Whether `byte` is among the received ones that wait. True also when no more can be received,
 * since it could not arrive then. */
bool port_rx_holds(uint8_t byte);

/* Sends all of data, waiting for room. */
void port_tx(const void *data, size_t bytes);

/* Time since start; both wrap at 2^32. */
uint32_t port_millis(void);
uint32_t port_micros(void);

/* Sleeps until a byte arrives or about a millisecond has passed. */
void port_idle(void);

/* To be called at least every 20 seconds: a board that has a watchdog starts anew when it is not.
 */
void port_watchdog_feed(void);

/* Starts the board anew as after power-up; storage keeps its content. */
_Noreturn void port_reset(void);

/* Why the last run ended when it was not asked to, in a few words; NULL after a normal start. */
const char *port_fault_text(void);

/* Bytes received but lost because nobody fetched them in time. */
uint32_t port_rx_lost(void);

/* Readable memory at a board address (flash or RAM slot). */
const uint8_t *port_map(uint32_t address);

/* Whether RAM answers at both ends of [address, address + bytes). */
bool port_ram_present(uint32_t address, uint32_t bytes);

/* Whether there is a flash that can be erased and written: false in an emulator without one. */
bool port_flash_works(void);

/* What `info` calls that storage: "flash" on a chip, "file" on the native board. */
const char *port_flash_name(void);

/* Bytes of stack never used since start; 0 when the port does not know. */
uint32_t port_stack_free(void);

/* Erases the erase units of [address, address + bytes) to 0xFF. */
bool port_flash_erase(uint32_t address, uint32_t bytes);

/* Programs bytes: 1 bits may become 0, never the reverse; true when the flash reads back as `data`.
 */
bool port_flash_program(uint32_t address, const void *data, uint32_t bytes);

/* Called by the port once the C environment, clock, console and tick are up; never returns. */
_Noreturn void firmware_main(void);

#endif
