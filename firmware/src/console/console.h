/* console.h - the text commands of PROTOCOL.md: one line in, one line out. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stdbool.h>

#include "text.h"

/* The line printed after a start. */
void console_banner(void);

/* Runs one command line (changed in place) and writes its answer, without line end. False when it
 * begins with "error: ". */
bool console_run(char *line, struct text *answer);

/* Runs a line typed on the console: answers there, with CR LF. */
void console_line(char *line);

/* Refuses a line that was longer than the protocol allows. */
void console_line_too_long(void);

/* Whether a reset was asked for; the main loop does it once everything is answered. */
bool console_reset_asked(void);

/* Asks for that reset. */
void console_ask_reset(void);

#endif
