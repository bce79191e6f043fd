/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a core image is written. */
#ifndef KDUMP_SINKS_H
#define KDUMP_SINKS_H

#include "image.h"

struct place {
	struct sink sink;
	char name[256];		/* for messages: a device, a file */
	char final[256];
	long fd;
	uint64_t size;
	uint64_t base;		/* where the image starts */
	uint8_t *memory;	/* that is mapped instead */
};

/**
 * place_open() - open a destination
 * @spec: file:FOLDER[@FSTYPE:DEVICE], as:FILE, raw:DEVICE, memory:ADDRESS:SIZE or
 *	  console:DEVICE
 * @patience: milliseconds in which a device may appear
 *
 * Return: NULL, or what is wrong.
 */
const char *place_open(struct place *place, const char *spec,
		       unsigned long patience, const struct vmcore *vmcore);

/** place_close() - after a failure, no trace is left but an invalid image */
void place_close(struct place *place);

#endif
