/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The dead kernel's memory, as /proc/vmcore shows it to the crash kernel. */
#ifndef KDUMP_VMCORE_H
#define KDUMP_VMCORE_H

#include "text.h"

/**
 * struct source - bytes by their offset
 * @read: like pread(2): bytes read, 0 at the end, or a negative errno
 */
struct source {
	long (*read)(struct source *source, void *data, size_t size,
		     uint64_t offset);
};

/** struct extent - physical memory, and its place in the source */
struct extent {
	uint64_t address;
	uint64_t size;
	uint64_t offset;
};

/**
 * struct vmcore - the dead kernel
 * @machine: ELF e_machine
 * @extents: its memory, in the order of the program headers
 * @notes: all whole notes: NT_PRSTATUS of each CPU, VMCOREINFO
 * @info: the text of VMCOREINFO; not terminated
 */
struct vmcore {
	struct source *source;
	uint16_t machine;
	unsigned int count;
	unsigned int last;
	struct extent *extents;
	uint8_t *notes;
	size_t notes_size;
	const char *info;
	size_t info_size;
};

/**
 * struct note - an ELF note
 * @name: not terminated
 * @size: of the whole note, padded, in bytes
 */
struct note {
	const char *name;
	uint32_t name_size;
	uint32_t type;
	const uint8_t *desc;
	uint32_t desc_size;
	size_t size;
};

/** next_note() - read the note at the start of @data; false if none is whole */
bool next_note(const uint8_t *data, size_t size, struct note *note);
bool is_named(const struct note *note, const char *name);

/** find_line() - of lines NAME=value, a name's value; not terminated, or NULL */
const char *find_line(const char *text, size_t size, const char *name,
		      size_t name_size, size_t *value_size);

/** vmcore_open() - read headers and notes; Return: NULL, or what is wrong */
const char *vmcore_open(struct vmcore *vmcore, struct source *source);

/**
 * vmcore_read() - read physical memory
 *
 * Return: How many bytes from @address on can be read, at most @size.
 */
size_t vmcore_read(struct vmcore *vmcore, uint64_t address, void *data,
		   size_t size);

/**
 * vmcore_next() - where memory may be readable again
 * @address: cannot be read
 *
 * Return: The next page; where there is no memory, the next one that is; UINT64_MAX
 * if there is none.
 */
uint64_t vmcore_next(struct vmcore *vmcore, uint64_t address);

#endif
