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
	const char *mounted;	/* by us, for this place */
	bool numbered;		/* @final becomes another name if that is taken */
};

#define place_of(it) ((struct place *)(it))

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

/** open_folder() - FOLDER@FSTYPE:DEVICE; each folder on the way is made */
const char *open_folder(struct place *place, const char *text,
			unsigned long patience, const struct vmcore *vmcore);

/** open_named() - a name of somebody else's choice; its folder is there */
const char *open_named(struct place *place, const char *path);

/** find_device() - PARTLABEL=NAME and PARTUUID=UUID become a path */
const char *find_device(char *path, size_t room, const char *spec,
			unsigned long patience);

const char *write_at(struct sink *sink, const void *data, size_t size,
		     uint64_t offset);
const char *sync_file(struct place *place);

#endif
