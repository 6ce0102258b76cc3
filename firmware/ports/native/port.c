/* port.c - the board as a process: console on a pseudo-terminal (or on stdin and stdout), flash in
 * a file.
 *
 *     ternio-native [--flash FILE] [--stdio]
 *
 * Prints "ternio native board on /dev/pts/N" and serves that port until SIGTERM; with --stdio it
 * serves stdin until its end. A reset is a re-exec that keeps terminal and flash. */
#define _GNU_SOURCE       /* posix_openpt and ptsname */
#define _XOPEN_SOURCE 700 /* pseudo-terminals */
#define _DEFAULT_SOURCE

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "board_config.h"
#include "port.h"

#define IDLE_MS 1

static char **arguments;
static int input = -1, output = -1; /* the terminal's master side, or stdin and stdout */
static int slave = -1;              /* held open so that clients may come and go */
static int flash_file = -1;
static uint8_t *flash;
static bool use_stdio;
static struct timespec started;

static _Noreturn void die(const char *what) {
    fprintf(stderr, "ternio native board: ");
    perror(what);
    exit(1);
}

/* ---- console ---- */

static void open_terminal(void) {
    struct termios mode;
    input = output = posix_openpt(O_RDWR | O_NOCTTY);
    if (input < 0 || grantpt(input) || unlockpt(input)) die("pseudo-terminal");
    const char *path = ptsname(input);
    slave = open(path, O_RDWR | O_NOCTTY);
    if (slave < 0 || tcgetattr(slave, &mode)) die("pseudo-terminal");
    mode.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    mode.c_oflag &= ~(tcflag_t)OPOST;
    mode.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    if (tcsetattr(slave, TCSANOW, &mode)) die("pseudo-terminal");
    printf("ternio native board on %s\n", path);
    fflush(stdout);
}

static uint8_t received[BOARD_RX_RING_BYTES]; /* and not taken yet */
static size_t received_bytes;
static bool ended; /* end of standard input */

static void receive(void) {
    struct pollfd wait = {input, POLLIN, 0};
    if (received_bytes == sizeof received || poll(&wait, 1, 0) <= 0) return;
    ssize_t count = read(input, received + received_bytes, sizeof received - received_bytes);
    if (count > 0) received_bytes += (size_t)count;
    ended = count <= 0 && use_stdio;
}

size_t port_rx(uint8_t *out, size_t capacity) {
    if (!received_bytes) receive();
    if (!received_bytes && ended) exit(0);
    size_t count = received_bytes < capacity ? received_bytes : capacity;
    memcpy(out, received, count);
    received_bytes -= count;
    memmove(received, received + count, received_bytes);
    return count;
}

bool port_rx_holds(uint8_t byte) {
    receive();
    return memchr(received, byte, received_bytes) || received_bytes == sizeof received;
}

void port_tx(const void *data, size_t bytes) {
    const uint8_t *next = data;
    while (bytes) {
        ssize_t count = write(output, next, bytes);
        if (count < 0 && use_stdio) exit(1);
        if (count > 0) {
            next += count;
            bytes -= (size_t)count;
        }
    }
}

void port_idle(void) {
    struct pollfd wait = {input, POLLIN, 0};
    poll(&wait, 1, use_stdio ? IDLE_MS : 1000);
}

uint32_t port_rx_lost(void) {
    return 0;
}

/* ---- time ---- */

static uint64_t elapsed_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)(now.tv_sec - started.tv_sec) * 1000000u + (uint64_t)(now.tv_nsec / 1000) -
           (uint64_t)(started.tv_nsec / 1000);
}

uint32_t port_micros(void) {
    return (uint32_t)elapsed_us();
}
uint32_t port_millis(void) {
    return (uint32_t)(elapsed_us() / 1000);
}

/* ---- flash: a file mapped into memory; writes clear bits, as in a chip ---- */

static void open_flash(const char *path) {
    if (flash_file < 0 && path) flash_file = open(path, O_RDWR | O_CREAT, 0644);
    if (flash_file < 0 && path) die(path);
    if (flash_file < 0) {
        FILE *unnamed = tmpfile();
        flash_file = unnamed ? dup(fileno(unnamed)) : -1;
    }
    if (flash_file < 0 || ftruncate(flash_file, BOARD_FLASH_BYTES)) die("flash file");
    flash = mmap(NULL, BOARD_FLASH_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, flash_file, 0);
    if (flash == MAP_FAILED) die("flash file");
}

const uint8_t *port_map(uint32_t address) {
    return flash + (address - BOARD_FLASH_BASE);
}
const char *port_flash_name(void) {
    return "file";
}
bool port_flash_works(void) {
    return true;
}

bool port_ram_present(uint32_t address, uint32_t bytes) {
    (void)address;
    (void)bytes;
    return false;
}

static bool in_flash(uint32_t address, uint32_t bytes) {
    uint32_t offset = address - BOARD_FLASH_BASE;
    return offset <= BOARD_FLASH_BYTES && bytes <= BOARD_FLASH_BYTES - offset;
}

bool port_flash_erase(uint32_t address, uint32_t bytes) {
    if (!in_flash(address, bytes)) return false;
    memset(flash + (address - BOARD_FLASH_BASE), 0xFF, bytes);
    return true;
}

bool port_flash_program(uint32_t address, const void *data, uint32_t bytes) {
    if (!in_flash(address, bytes)) return false;
    uint8_t *to = flash + (address - BOARD_FLASH_BASE);
    for (uint32_t i = 0; i < bytes; i++) to[i] &= ((const uint8_t *)data)[i];
    return !memcmp(to, data, bytes);
}

/* ---- process ---- */

const char *port_fault_text(void) {
    return NULL;
}
uint32_t port_stack_free(void) {
    return 0;
}
void port_watchdog_feed(void) {}

/* The open files travel to the next life by number. */
_Noreturn void port_reset(void) {
    char files[64];
    snprintf(files, sizeof files, "%d,%d,%d", input, slave, flash_file);
    if (use_stdio) {
        char *next[] = {arguments[0], (char *)"--stdio", (char *)"--resume", files, NULL};
        execvp(next[0], next);
    } else {
        char *next[] = {arguments[0], (char *)"--resume", files, NULL};
        execvp(next[0], next);
    }
    die("reset");
}

static void stop(int signal) {
    (void)signal;
    _exit(0);
}

int main(int argc, char **argv) {
    const char *flash_path = NULL;
    bool resumed = false;
    arguments = argv;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--stdio")) {
            use_stdio = true;
        } else if (!strcmp(argv[i], "--flash") && i + 1 < argc) {
            flash_path = argv[++i];
        } else if (!strcmp(argv[i], "--resume") && i + 1 < argc) {
            resumed = sscanf(argv[++i], "%d,%d,%d", &input, &slave, &flash_file) == 3;
        } else {
            fprintf(stderr, "usage: %s [--flash FILE] [--stdio]\n", argv[0]);
            return 2;
        }
    }
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    clock_gettime(CLOCK_MONOTONIC, &started);
    if (use_stdio) {
        input = STDIN_FILENO;
        output = STDOUT_FILENO;
    } else if (resumed) {
        output = input;
    } else {
        open_terminal();
    }
    open_flash(flash_path);
    firmware_main();
}
