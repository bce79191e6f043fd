/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What could not be marked beforehand: the stack that each CPU was on, and the
 * task that it ran. Where those pointers are, the list says.
 */
#ifndef KDUMP_FOLLOW_H
#define KDUMP_FOLLOW_H

#include "list.h"

#define NT_FOLLOW	0x4b4d4439	/* src/kmemdump/formats/notes.py */
#define MAX_FOLLOWED	16384		/* ranges */

/** struct follow - a pointer to a task, as src/kmemdump/formats/followed.py packs it */
struct __attribute__((packed, aligned(4))) follow {
	uint64_t pointer;	/* physical address of the pointer */
	uint32_t size;		/* of what it points to */
	uint32_t stack;		/* offset in that of a pointer to the stack */
	uint32_t stack_size;
	uint32_t zero;
};

_Static_assert(sizeof(struct follow) == 24, "format");

/** struct tables - the dead kernel's page tables */
struct tables {
	struct vmcore *vmcore;
	uint64_t root;
	unsigned int levels;
	unsigned int shift;	/* of a page */
	unsigned int top_bits;	/* of the index into the top table */
	uint64_t mask;		/* of an address in an entry */
	uint64_t high;		/* of more bits of it, */
	unsigned int high_shift;	/* and how far to the left they go */
	uint64_t leaves;	/* a bit for each shift at which memory may be */
	bool arm;
};

/** tables_open() - false if VMCOREINFO does not say where they are */
bool tables_open(struct tables *tables, struct vmcore *vmcore);

/** translate() - false if nothing is there */
bool translate(const struct tables *tables, uint64_t virtual,
	       uint64_t *physical);

/** follow() - add regions to a list; without page tables, it stays as it is */
void follow(struct vmcore *vmcore, struct list *list);

#endif
