#include "port.h"
_Noreturn void firmware_main(void) {
    port_tx("hello\r\n", 7);
    for (;;) { uint8_t b[16]; size_t n = port_rx(b, 16); if (n) port_tx(b, n); else port_idle(); }
}
