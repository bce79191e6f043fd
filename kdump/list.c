// SPDX-License-Identifier: GPL-2.0-or-later
#include "list.h"

static uint32_t check_of(const void *data, size_t size)
{
	return crc32_add(0, data, size);
}

static bool is_anchor(const struct list_anchor *anchor, uint64_t address)
{
	return !memcmp(anchor->magic, LIST_MAGIC, sizeof(anchor->magic)) &&
	       anchor->address == address;
}

/*
 * Whether a list is this kernel's: it says all that the kernel says. Memory keeps
 * its content over a reboot, and KASLR places each boot differently; and any
 * process can write a list that says less. CRASHTIME comes with the death.
 */
static bool is_of_kernel(const struct vmcore *vmcore, const char *text,
			 size_t size)
{
	static const char release[] = "OSRELEASE", time[] = "CRASHTIME";
	size_t start, end, name_end, value_size;
	bool known = false;

	for (start = 0; start < vmcore->info_size; start = end + 1) {
		const char *line = vmcore->info + start, *value;

		for (end = start; end < vmcore->info_size &&
		     vmcore->info[end] && vmcore->info[end] != '\n'; end++)
			;
		for (name_end = 0; name_end < end - start &&
		     line[name_end] != '='; name_end++)
			;
		if (name_end == end - start)
			continue;
		if (name_end == sizeof(time) - 1 &&
		    !memcmp(line, time, name_end))
			continue;
		value = find_line(text, size, line, name_end, &value_size);
		if (!value || value_size != end - start - name_end - 1 ||
		    memcmp(value, line + name_end + 1, value_size))
			return false;
		if (name_end == sizeof(release) - 1 &&
		    !memcmp(line, release, name_end))
			known = true;
	}
	return known;
}

static enum list_state torn(struct list *list, const char *why)
{
	format(list->problem, sizeof(list->problem),
	       "the list at 0x%lx is torn: %s", list->address, why);
	return LIST_TORN;
}

static enum list_state foreign(struct list *list, const char *why)
{
	format(list->problem, sizeof(list->problem),
	       "the list at 0x%lx is foreign: %s", list->address, why);
	return LIST_FOREIGN;
}

static enum list_state take_regions(struct list *list, const uint8_t *data,
				    const Elf64_Ehdr *header)
{
	unsigned int i;

	list->regions = get_memory(header->e_phnum * sizeof(Elf64_Phdr));
	if (!list->regions)
		return torn(list, "no memory for its regions");
	for (i = 0; i < header->e_phnum; i++) {
		Elf64_Phdr it;

		memcpy(&it, data + header->e_phoff + i * sizeof(it), sizeof(it));
		if (it.p_type != PT_LOAD)
			continue;
		if (!it.p_filesz || it.p_paddr + it.p_filesz < it.p_paddr)
			return torn(list, "a region makes no sense");
		if (it.p_filesz > MAX_BYTES - list->bytes)
			return torn(list, "more than 1 GiB of regions");
		list->bytes += it.p_filesz;
		list->regions[list->count++] = it;
	}
	return LIST_GOOD;
}

/* Keep the notes of our own; the dead kernel has the others. */
static enum list_state take_notes(struct vmcore *vmcore, struct list *list,
				  const uint8_t *data, size_t size,
				  const Elf64_Ehdr *header)
{
	const char *info = NULL;
	size_t info_size = 0;
	struct note note;
	unsigned int i;

	list->notes = get_memory(size);
	if (!list->notes)
		return torn(list, "no memory for its notes");
	for (i = 0; i < header->e_phnum; i++) {
		uint64_t at, end;
		Elf64_Phdr it;

		memcpy(&it, data + header->e_phoff + i * sizeof(it), sizeof(it));
		if (it.p_type != PT_NOTE)
			continue;
		if (info || it.p_offset > size ||
		    it.p_filesz > size - it.p_offset)
			return torn(list, "its notes make no sense");
		at = it.p_offset;
		end = at + it.p_filesz;
		while (next_note(data + at, end - at, &note)) {
			if (is_named(&note, "VMCOREINFO")) {
				info = (const char *)note.desc;
				info_size = note.desc_size;
			} else if (is_named(&note, OWNER)) {
				/* Segments may overlap. */
				if (note.size > size - list->notes_size)
					return torn(list, "its notes make no sense");
				memcpy(list->notes + list->notes_size,
				       data + at, note.size);
				list->notes_size += note.size;
			}
			at += note.size;
		}
	}
	if (!info)
		return torn(list, "it has no VMCOREINFO");
	if (!is_of_kernel(vmcore, info, info_size))
		return foreign(list, "another kernel's VMCOREINFO");
	return LIST_GOOD;
}

static enum list_state take_description(struct vmcore *vmcore,
					struct list *list, const uint8_t *data,
					size_t size)
{
	enum list_state state;
	Elf64_Ehdr header;

	if (size < sizeof(header))
		return torn(list, "no ELF header");
	memcpy(&header, data, sizeof(header));
	if (memcmp(header.e_ident, ELFMAG, SELFMAG) ||
	    header.e_ident[EI_CLASS] != ELFCLASS64 ||
	    header.e_ident[EI_DATA] != ELFDATA2LSB ||
	    header.e_type != ET_CORE ||
	    header.e_phentsize != sizeof(Elf64_Phdr) || !header.e_phnum ||
	    header.e_phnum > MAX_REGIONS + 1 || header.e_phoff > size ||
	    header.e_phnum * sizeof(Elf64_Phdr) > size - header.e_phoff)
		return torn(list, "its ELF header makes no sense");
	if (header.e_machine != vmcore->machine)
		return foreign(list, "another architecture's");
	state = take_notes(vmcore, list, data, size, &header);
	if (state != LIST_GOOD)
		return state;
	return take_regions(list, data, &header);
}

/* Read the half that starts at @address; NULL if it is not whole. */
static uint8_t *read_half(struct vmcore *vmcore, uint64_t address,
			  const struct list_half *half)
{
	size_t used = memory_used();
	uint8_t *data = get_memory(half->size);

	if (data && vmcore_read(vmcore, address + sizeof(*half), data,
				half->size) == half->size &&
	    check_of(data, half->size) == half->check)
		return data;
	memory_back(used);
	return NULL;
}

static enum list_state load(struct vmcore *vmcore, uint64_t address,
			    struct list *list)
{
	struct list_half halves[LIST_HALVES];
	struct list_anchor anchor;
	unsigned int i, tries;

	memset(list, 0, sizeof(*list));
	list->address = address;
	if (vmcore_read(vmcore, address, &anchor, sizeof(anchor)) !=
	    sizeof(anchor) || !is_anchor(&anchor, address)) {
		format(list->problem, sizeof(list->problem),
		       "there is no list at 0x%lx", address);
		return LIST_NONE;
	}
	if (anchor.check != check_of(&anchor, offsetof(struct list_anchor, check)))
		return torn(list, "the checksum of its start is wrong");
	if (anchor.version != LIST_VERSION)
		return foreign(list, "another version's");
	if (anchor.halves != LIST_HALVES || anchor.first < sizeof(anchor) ||
	    anchor.first > MAX_LIST || anchor.size < sizeof(struct list_half) ||
	    anchor.size > (MAX_LIST - anchor.first) / LIST_HALVES)
		return torn(list, "its start makes no sense");
	for (i = 0; i < LIST_HALVES; i++) {
		struct list_half *half = &halves[i];
		uint64_t at = address + anchor.first + i * anchor.size;

		if (vmcore_read(vmcore, at, half, sizeof(*half)) != sizeof(*half) ||
		    half->own_check !=
		    check_of(half, offsetof(struct list_half, own_check)) ||
		    half->size > anchor.size - sizeof(*half))
			half->sequence = 0;
	}
	for (tries = 0; tries < LIST_HALVES; tries++) {
		struct list_half *half;
		uint8_t *data;

		i = halves[1].sequence > halves[0].sequence;
		half = &halves[i];
		if (!half->sequence)
			break;
		list->sequence = half->sequence;
		data = read_half(vmcore, address + anchor.first +
				 i * anchor.size, half);
		if (data)
			return take_description(vmcore, list, data, half->size);
		half->sequence = 0;
	}
	return torn(list, "no half of it is whole");
}

/* Of a list that is not good, only the problem is needed. */
static enum list_state look(struct vmcore *vmcore, uint64_t address,
			    struct list *list)
{
	size_t used = memory_used();
	enum list_state state = load(vmcore, address, list);

	if (state != LIST_GOOD)
		memory_back(used);
	return state;
}

enum list_state list_find(struct vmcore *vmcore, uint64_t hint,
			  uint64_t places, struct list *list)
{
	enum list_state best = LIST_NONE, state;
	size_t used = memory_used();
	struct list found;
	unsigned int i;

	memset(list, 0, sizeof(*list));
	if (hint) {
		best = look(vmcore, hint, list);
		if (best == LIST_GOOD)
			return best;
	} else {
		format(list->problem, sizeof(list->problem),
		       "there is no list in memory: nothing was marked");
	}
	for (i = 0; i < vmcore->count; i++) {
		const struct extent *it = &vmcore->extents[i];
		uint64_t at = round_up(it->address, LIST_UNIT), end;

		/* Of the last 2 MiB of the address space, nothing is a list. */
		if (at < it->address)
			continue;
		end = it->address + it->size;
		for (; at < end && end - at >= sizeof(struct list_anchor) &&
		     places; at += LIST_UNIT, places--) {
			struct list_anchor anchor;

			if (vmcore_read(vmcore, at, &anchor, sizeof(anchor)) !=
			    sizeof(anchor) || !is_anchor(&anchor, at))
				continue;
			state = load(vmcore, at, &found);
			/* There may be many: the one that is taken is read again. */
			memory_back(used);
			/* Of two good ones, the newer; of others, the better. */
			if (state < best || (state == LIST_GOOD &&
			    found.sequence > list->sequence)) {
				best = state;
				*list = found;
			}
			if (at + LIST_UNIT < at)
				break;
		}
	}
	return best == LIST_GOOD ? look(vmcore, list->address, list) : best;
}
