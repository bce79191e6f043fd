/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The list of regions, as it lies in the dead kernel's memory. The same is
 * written by src/kmemdump/formats/kdump_list.py, which says more.
 */
#ifndef KDUMP_LIST_H
#define KDUMP_LIST_H

#include <elf.h>

#include "vmcore.h"

#define LIST_MAGIC	"kmemdump regions"
#define LIST_VERSION	1
#define LIST_UNIT	(2UL << 20)	/* A list starts at a multiple of this. */
#define LIST_HALVES	2
#define MAX_LIST	LIST_UNIT	/* all of it; a crash kernel has little memory */
#define MAX_REGIONS	60000
#define MAX_BYTES	(1UL << 30)
#define MAX_PLACES	(1UL << 26)	/* 128 TiB of memory */

#define OWNER		"KMEMDUMP"	/* Of our notes: formats/notes.py. */

/** struct list_anchor - where a list starts; never changes */
struct list_anchor {
	char magic[16];
	uint32_t version;
	uint32_t halves;
	uint64_t address;	/* its own, physical: a copy elsewhere is no list */
	uint64_t first;		/* offset of the first half */
	uint64_t size;		/* of each half, with its header */
	uint64_t reserved;
	uint32_t check;		/* of all before */
	uint32_t zero;
};

/** struct list_half - before each copy of the description */
struct list_half {
	uint64_t sequence;	/* the larger one is newer; 0: it is being written */
	uint64_t size;		/* of the description, which follows */
	uint32_t check;		/* of the description */
	uint32_t own_check;	/* of all before */
	uint8_t padding[40];
};

_Static_assert(sizeof(struct list_anchor) == 64, "format");
_Static_assert(sizeof(struct list_half) == 64, "format");

enum list_state { LIST_GOOD, LIST_FOREIGN, LIST_TORN, LIST_NONE };

/**
 * struct list - a list that was found
 * @regions: a PT_LOAD for each region; others are left out
 * @notes: those of our own, whole
 */
struct list {
	uint64_t address;
	uint64_t sequence;
	Elf64_Phdr *regions;
	unsigned int count;
	uint64_t bytes;
	uint8_t *notes;
	size_t notes_size;
	char problem[160];
};

/**
 * list_find() - find the list of this dead kernel
 * @hint: its address, if the command line named it; or 0
 * @places: how many places to look at, MAX_PLACES
 *
 * The hint first, then each multiple of LIST_UNIT in memory.
 * Only a good one takes memory.
 */
enum list_state list_find(struct vmcore *vmcore, uint64_t hint,
			  uint64_t places, struct list *list);

#endif
