/* version.h - the firmware's version, as the banner and every info answer give it. */
#ifndef VERSION_H
#define VERSION_H

#define FIRMWARE_VERSION "0.1.0"

#endif
