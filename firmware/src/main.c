/* main.c - the firmware's loop: start storage and model, greet, then serve the console for ever. */
#include "console/console.h"
#include "link/link.h"
#include "model/model.h"
#include "port.h"
#include "storage/slots.h"

_Noreturn void firmware_main(void) {
    slots_init();
    model_start();
    console_banner();
    for (;;) {
        uint8_t bytes[32];
        size_t count = port_rx(bytes, sizeof bytes);
        link_receive(bytes, count);
        if (console_reset_asked()) port_reset();
        if (!count) port_idle();
        port_watchdog_feed();
    }
}
