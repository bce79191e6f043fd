/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The table as it lies in memory, where others read it without a lock: the
 * agent by way of /proc/kcore, a host in its VM's memory, firmware's dump.
 * They find it as the exported symbol kmemdump_table of the module kmemdump.
 */
#ifndef KMEMDUMP_TABLE_H
#define KMEMDUMP_TABLE_H

#include <linux/build_bug.h>
#include <linux/types.h>

#include "kmemdump.h"

#define KMEMDUMP_MAGIC		"KMEMDUMP"
#define KMEMDUMP_VERSION	1

/**
 * struct kmemdump_entry - a row of the table
 * @id: 0 for an empty row
 * @held: whether a backend in the kernel holds the region
 * @address: kernel virtual address
 * @size: size in bytes
 * @name: padded with NUL
 * @physical: physical address of the first byte; 0 if it is not known
 * @check: of all words before; wrong while the row changes
 */
struct kmemdump_entry {
	u32 id;
	u32 held;
	u64 address;
	u64 size;
	char name[KMEMDUMP_NAME_LEN];
	u64 physical;
	u64 check;
};

/**
 * struct kmemdump_table - all of it
 * @magic: KMEMDUMP_MAGIC, without a NUL
 * @version: KMEMDUMP_VERSION
 * @entry_size: size of a row in bytes
 * @capacity: rows that there are
 * @used: rows that were ever used; behind them all are empty
 * @reserved: 0
 * @entries: the rows, none across the border of a page
 */
struct kmemdump_table {
	u8 magic[8];
	u32 version;
	u32 entry_size;
	u32 capacity;
	u32 used;
	u64 reserved[5];
	struct kmemdump_entry entries[KMEMDUMP_CAPACITY];
};

static_assert(sizeof(struct kmemdump_entry) == 64);
static_assert(offsetof(struct kmemdump_table, entries) == 64);

extern struct kmemdump_table kmemdump_table;

#ifdef KMEMDUMP_DEBUG
int kmemdump_debug_init(void);
void kmemdump_debug_exit(void);
#else
static inline int kmemdump_debug_init(void)
{
	return 0;
}

static inline void kmemdump_debug_exit(void)
{
}
#endif

unsigned int kmemdump_forget(unsigned long start, unsigned long last,
			     const char *why);

#endif /* KMEMDUMP_TABLE_H */
