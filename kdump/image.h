/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The core image: the dead kernel's notes and the regions of the list. */
#ifndef KDUMP_IMAGE_H
#define KDUMP_IMAGE_H

#include "list.h"

#define NT_COPIED	0x4b4d4438	/* formats/notes.py */
#define COPIED_VERSION	1

/** struct copied - the last note: how to know that the image is whole */
struct __attribute__((packed, aligned(4))) copied {
	uint32_t version;
	uint32_t header_check;	/* of the bytes before @data, with zeros here */
	uint32_t data_check;	/* of those from @data on */
	uint32_t regions;
	uint64_t size;		/* of the image in bytes */
	uint64_t data;		/* where the first region starts */
	uint64_t missing;	/* bytes of regions that could not be read */
	uint64_t sequence;	/* of the list */
};

_Static_assert(sizeof(struct copied) == 48, "format");

#define MAX_SPLITS	128	/* of regions, at pages that cannot be read */
#define MAX_FAILURES	4096	/* Then the rest of such a region is not tried. */

/**
 * struct image - the layout of a core image
 * @count: of regions, with what comes after a page that cannot be read
 * @room: most that @count can become
 * @failures: of reading, so far
 */
struct image {
	uint8_t *header;
	Elf64_Phdr *regions;
	unsigned int count;
	unsigned int room;
	unsigned int failures;
	struct copied *copied;
};

/**
 * struct sink - where a core image goes
 * @begin: there will be that many bytes; the regions' places are known
 * @write: some bytes at their offset; each is written once, the header last
 * @finish: all is written: make it last, and give it its name
 *
 * All return NULL, or what is wrong; then the sink leaves no image.
 */
struct sink {
	const char *(*begin)(struct sink *sink, const struct image *image);
	const char *(*write)(struct sink *sink, const void *data, size_t size,
			     uint64_t offset);
	const char *(*finish)(struct sink *sink, const struct image *image);
};

/** image_plan() - lay out the image; Return: NULL, or what is wrong */
const char *image_plan(struct image *image, const struct vmcore *vmcore,
		       const struct list *list);

/** image_copy() - write the image; Return: NULL, or what is wrong */
const char *image_copy(struct image *image, struct vmcore *vmcore,
		       struct sink *sink);

#endif
