// SPDX-License-Identifier: GPL-2.0-or-later
#include "follow.h"

#define PAGE		4096
#define STACK		(16UL << 10)	/* of a task or an interrupt, most often */
#define MAX_SIZE	(256UL << 10)
#define IMAGE_MAP	0xffffffff80000000	/* x86_64: __START_KERNEL_map */
#define NT_STATUS	1

/* Offsets in elf_prstatus of the stack pointer, behind 112 bytes. */
#define X86_SP		(112 + 19 * 8)
#define ARM_SP		(112 + 31 * 8)

static bool line(const struct vmcore *vmcore, const char *name, uint64_t *value)
{
	size_t size;
	const char *text = find_line(vmcore->info, vmcore->info_size, name,
				     strlen(name), &size);
	bool negative = text && *text == '-';
	char copy[32] = "0x";
	char *digits = starts_with(name, "SYMBOL") ? copy + 2 : copy;

	if (!text || size < 1u + negative || size + 3 > sizeof(copy))
		return false;
	/* SYMBOL(…) is hexadecimal without 0x, NUMBER(…) may be negative. */
	memcpy(digits, text + negative, size - negative);
	digits[size - negative] = 0;
	if (!parse_number(copy, value))
		return false;
	if (negative)
		*value = -*value;
	return true;
}

static bool open_x86(struct tables *tables)
{
	uint64_t root, base, five = 0, encrypted = 0;

	if (!line(tables->vmcore, "SYMBOL(swapper_pg_dir)", &root) ||
	    !line(tables->vmcore, "NUMBER(phys_base)", &base))
		return false;
	line(tables->vmcore, "NUMBER(pgtable_l5_enabled)", &five);
	line(tables->vmcore, "NUMBER(sme_mask)", &encrypted);
	tables->root = root - IMAGE_MAP + base;
	tables->levels = five ? 5 : 4;
	tables->shift = 12;
	tables->top_bits = 9;
	tables->mask = 0x000ffffffffff000 & ~encrypted;
	tables->leaves = 1UL << 12 | 1UL << 21 | 1UL << 30;
	return true;
}

/*
 * Arm DDI 0487, VMSAv8-64: the shifts of blocks, and how addresses of 52 bits have
 * their top elsewhere in the entry. src/kmemdump/arch/aarch64.py does the same.
 */
static bool open_arm(struct tables *tables)
{
	uint64_t root, offset, page, configured, actual, hole, bits;
	unsigned int per_level, rest;

	if (!line(tables->vmcore, "SYMBOL(swapper_pg_dir)", &root) ||
	    !line(tables->vmcore, "NUMBER(kimage_voffset)", &offset) ||
	    !line(tables->vmcore, "NUMBER(VA_BITS)", &configured) ||
	    !line(tables->vmcore, "PAGESIZE", &page))
		return false;
	actual = configured;
	if (line(tables->vmcore, "NUMBER(TCR_EL1_T1SZ)", &hole))
		actual = 64 - hole;
	if (configured < 36 || configured > 52 || actual < 36 || actual > 52)
		return false;
	/*
	 * With 64 KiB swapper_pg_dir is as the kernel was configured, whatever the CPU
	 * can: Linux c812026c54cf. With others there are fewer levels: 0dd4f60a2c76.
	 */
	bits = page == 65536 ? configured : actual;
	if (page == 4096) {
		tables->shift = 12;
		tables->leaves = 1UL << 12 | 1UL << 21 | 1UL << 30;
	} else if (page == 16384) {
		tables->shift = 14;
		tables->leaves = 1UL << 14 | 1UL << 25;
	} else if (page == 65536) {
		tables->shift = 16;
		tables->leaves = 1UL << 16 | 1UL << 29 | 1UL << 42;
	} else {
		return false;
	}
	tables->mask = (1UL << 48) - (1UL << tables->shift);
	if (tables->shift == 16) {
		tables->high = 0xf000;
		tables->high_shift = 36;
	} else if (bits == 52) {
		tables->mask |= 3UL << 48;
		tables->high = 0x300;
		tables->high_shift = 42;
		tables->leaves |= page == 4096 ? 1UL << 39 : 1UL << 36;
	}
	per_level = tables->shift - 3;
	rest = bits - tables->shift;
	tables->levels = (rest + per_level - 1) / per_level;
	tables->top_bits = rest - (tables->levels - 1) * per_level;
	tables->root = root - offset;
	tables->arm = true;
	return true;
}

bool tables_open(struct tables *tables, struct vmcore *vmcore)
{
	memset(tables, 0, sizeof(*tables));
	tables->vmcore = vmcore;
	if (vmcore->machine == EM_X86_64)
		return open_x86(tables);
	return vmcore->machine == EM_AARCH64 && open_arm(tables);
}

bool translate(const struct tables *tables, uint64_t virtual,
	       uint64_t *physical)
{
	unsigned int per_level = tables->shift - 3, level;
	uint64_t table = tables->root, entry, within;

	for (level = tables->levels; level; level--) {
		unsigned int low = tables->shift + (level - 1) * per_level;
		unsigned int bits = level == tables->levels ? tables->top_bits :
							     per_level;
		uint64_t index = virtual >> low & ((1UL << bits) - 1);
		bool leaf;

		if (vmcore_read(tables->vmcore, table + index * 8, &entry, 8) !=
		    8 || !(entry & 1))
			return false;
		if (level == 1)
			leaf = true;
		else
			leaf = tables->arm ? !(entry & 2) : entry & 0x80;
		table = (entry & tables->mask) |
			(entry & tables->high) << tables->high_shift;
		if (!leaf)
			continue;
		/* Elsewhere a block is reserved: the table is corrupt. */
		if (!(tables->leaves >> low & 1))
			return false;
		if (tables->arm && level == 1 && !(entry & 2))
			return false;
		within = (1UL << low) - 1;
		*physical = (table & ~within) | (virtual & within);
		return true;
	}
	return false;
}

struct added {
	struct tables tables;
	struct list *list;
	unsigned int room;
};

/* Whether a page is in the list already, under the same virtual address. */
static bool is_listed(const struct list *list, uint64_t virtual,
		      uint64_t physical)
{
	unsigned int i;

	for (i = 0; i < list->count; i++) {
		const Elf64_Phdr *it = &list->regions[i];

		if (physical >= it->p_paddr && it->p_filesz >= PAGE &&
		    physical - it->p_paddr <= it->p_filesz - PAGE &&
		    it->p_vaddr - it->p_paddr == virtual - physical)
			return true;
	}
	return false;
}

/* A range of virtual memory, as far as it is there. */
static void add(struct added *added, uint64_t virtual, uint64_t size)
{
	struct list *list = added->list;
	uint64_t end, at, physical;
	Elf64_Phdr *last = NULL;

	if (virtual >> 63 == 0 || size > MAX_SIZE || virtual + size < virtual)
		return;
	at = virtual & -(uint64_t)PAGE;
	end = round_up(virtual + size, PAGE);
	for (; at < end; at += PAGE) {
		if (!translate(&added->tables, at, &physical) ||
		    is_listed(list, at, physical)) {
			last = NULL;
			continue;
		}
		if (last && last->p_paddr + last->p_filesz == physical) {
			last->p_filesz += PAGE;
		} else {
			if (!added->room || list->bytes > MAX_BYTES - PAGE)
				return;
			added->room--;
			last = &list->regions[list->count++];
			*last = (Elf64_Phdr){
				.p_type = PT_LOAD,
				.p_flags = PF_R | PF_W,
				.p_vaddr = at,
				.p_paddr = physical,
				.p_filesz = PAGE,
			};
		}
		list->bytes += PAGE;
	}
}

/* The current stack of each CPU. */
static void add_stacks(struct added *added, const struct vmcore *vmcore)
{
	size_t where = added->tables.arm ? ARM_SP : X86_SP, at = 0;
	uint64_t unit = STACK, pointer;
	struct note note;

	if (1UL << added->tables.shift > unit)
		unit = 1UL << added->tables.shift;
	for (; next_note(vmcore->notes + at, vmcore->notes_size - at, &note);
	     at += note.size) {
		if (note.type != NT_STATUS || !is_named(&note, "CORE") ||
		    note.desc_size < where + 8)
			continue;
		memcpy(&pointer, note.desc + where, 8);
		add(added, pointer & -unit, unit);
	}
}

/* The current task of each CPU, and all of its stack. */
static void add_task(struct added *added, struct vmcore *vmcore,
		     const struct follow *it)
{
	uint64_t task, stack, physical;

	if (it->size > MAX_SIZE || it->stack > it->size - 8 || it->size < 8 ||
	    vmcore_read(vmcore, it->pointer, &task, 8) != 8)
		return;
	add(added, task, it->size);
	if (task + it->stack >= task &&
	    translate(&added->tables, task + it->stack, &physical) &&
	    vmcore_read(vmcore, physical, &stack, 8) == 8)
		add(added, stack, it->stack_size);
}

void follow(struct vmcore *vmcore, struct list *list)
{
	struct added added = { .list = list, .room = MAX_FOLLOWED };
	Elf64_Phdr *regions = list->regions;
	struct note note;
	struct follow it;
	size_t at, i;

	if (!tables_open(&added.tables, vmcore) ||
	    list->count > 65000 - MAX_FOLLOWED)
		return;
	list->regions = get_memory((list->count + MAX_FOLLOWED) *
				   sizeof(*regions));
	if (!list->regions) {
		list->regions = regions;
		return;
	}
	memcpy(list->regions, regions, list->count * sizeof(*regions));
	add_stacks(&added, vmcore);
	for (at = 0; next_note(list->notes + at, list->notes_size - at, &note);
	     at += note.size) {
		if (note.type != NT_FOLLOW)
			continue;
		for (i = 0; i + sizeof(it) <= note.desc_size; i += sizeof(it)) {
			memcpy(&it, note.desc + i, sizeof(it));
			add_task(&added, vmcore, &it);
		}
	}
}
