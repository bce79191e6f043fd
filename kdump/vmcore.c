// SPDX-License-Identifier: GPL-2.0-or-later
#include "vmcore.h"

#include <elf.h>

/* What a crashed kernel says of itself may be damaged. */
#define MAX_HEADERS	65534
#define MAX_NOTES	(16 << 20)	/* 8192 CPUs have 4 MiB. */
#define PAGE		4096

bool next_note(const uint8_t *data, size_t size, struct note *note)
{
	Elf64_Nhdr header;
	uint64_t name_end, end;

	if (size < sizeof(header))
		return false;
	memcpy(&header, data, sizeof(header));
	/* Two times 32 bits do not overflow 64. */
	name_end = sizeof(header) + round_up(header.n_namesz, 4);
	end = name_end + round_up(header.n_descsz, 4);
	if (end > size)
		return false;
	note->name = (const char *)data + sizeof(header);
	note->name_size = header.n_namesz;
	note->type = header.n_type;
	note->desc = data + name_end;
	note->desc_size = header.n_descsz;
	note->size = end;
	return true;
}

bool is_named(const struct note *note, const char *name)
{
	size_t size = strlen(name);

	/* Linux counts the NUL in; not everybody does. */
	return (note->name_size == size || note->name_size == size + 1) &&
	       !memcmp(note->name, name, size);
}

const char *find_line(const char *text, size_t size, const char *name,
		      size_t name_size, size_t *value_size)
{
	size_t start, end;

	for (start = 0; start < size; start = end + 1) {
		for (end = start; end < size && text[end] && text[end] != '\n';
		     end++)
			;
		if (end - start > name_size && text[start + name_size] == '=' &&
		    !memcmp(text + start, name, name_size)) {
			*value_size = end - start - name_size - 1;
			return text + start + name_size + 1;
		}
	}
	return NULL;
}

/* All @size bytes, or false. */
static bool read_all(struct source *source, void *data, size_t size,
		     uint64_t offset)
{
	uint8_t *to = data;
	long got;

	while (size) {
		got = source->read(source, to, size, offset);
		if (got <= 0 || (size_t)got > size)
			return false;
		to += got;
		offset += got;
		size -= got;
	}
	return true;
}

static const char *read_notes(struct vmcore *vmcore, const Elf64_Phdr *headers,
			      unsigned int count)
{
	uint64_t room = 0, used = 0;
	struct note note;
	unsigned int i;

	for (i = 0; i < count; i++) {
		if (headers[i].p_type != PT_NOTE)
			continue;
		if (headers[i].p_filesz > MAX_NOTES - room)
			return "/proc/vmcore: more than 16 MiB of notes";
		room += headers[i].p_filesz;
	}
	vmcore->notes = get_memory(room ? room : 1);
	if (!vmcore->notes)
		return "no memory for the notes";
	for (i = 0; i < count; i++) {
		uint64_t at = used, end = used + headers[i].p_filesz;

		if (headers[i].p_type != PT_NOTE ||
		    !read_all(vmcore->source, vmcore->notes + at, end - at,
			      headers[i].p_offset))
			continue;
		/* Of a segment, what comes behind a broken note is lost. */
		while (next_note(vmcore->notes + at, end - at, &note)) {
			if (!note.name_size && !note.desc_size)
				break; /* Zeros at the end. */
			if (is_named(&note, "VMCOREINFO")) {
				vmcore->info = (const char *)note.desc;
				vmcore->info_size = note.desc_size;
			}
			at += note.size;
		}
		used = at;
	}
	vmcore->notes_size = used;
	if (!vmcore->info)
		return "/proc/vmcore: no VMCOREINFO in the notes";
	return NULL;
}

const char *vmcore_open(struct vmcore *vmcore, struct source *source)
{
	Elf64_Phdr *headers;
	Elf64_Ehdr header;
	unsigned int i;

	memset(vmcore, 0, sizeof(*vmcore));
	vmcore->source = source;
	if (!read_all(source, &header, sizeof(header), 0))
		return "/proc/vmcore: cannot be read: is this a crash kernel?";
	if (memcmp(header.e_ident, ELFMAG, SELFMAG) ||
	    header.e_ident[EI_CLASS] != ELFCLASS64 ||
	    header.e_ident[EI_DATA] != ELFDATA2LSB ||
	    header.e_type != ET_CORE)
		return "/proc/vmcore: is not a 64-bit ELF core";
	if (header.e_phentsize != sizeof(*headers) || !header.e_phnum ||
	    header.e_phnum > MAX_HEADERS)
		return "/proc/vmcore: its program headers make no sense";
	vmcore->machine = header.e_machine;
	headers = get_memory(header.e_phnum * sizeof(*headers));
	vmcore->extents = get_memory(header.e_phnum * sizeof(struct extent));
	if (!headers || !vmcore->extents)
		return "no memory for the program headers";
	if (!read_all(source, headers, header.e_phnum * sizeof(*headers),
		      header.e_phoff))
		return "/proc/vmcore: its program headers cannot be read";
	for (i = 0; i < header.e_phnum; i++) {
		const Elf64_Phdr *it = &headers[i];

		if (it->p_type != PT_LOAD || !it->p_filesz ||
		    it->p_paddr + it->p_filesz < it->p_paddr ||
		    it->p_offset + it->p_filesz < it->p_offset)
			continue;
		vmcore->extents[vmcore->count++] = (struct extent){
			it->p_paddr, it->p_filesz, it->p_offset
		};
	}
	if (!vmcore->count)
		return "/proc/vmcore: holds no memory";
	return read_notes(vmcore, headers, header.e_phnum);
}

static struct extent *find_extent(struct vmcore *vmcore, uint64_t address)
{
	unsigned int i;

	for (i = 0; i < vmcore->count; i++) {
		unsigned int at = (vmcore->last + i) % vmcore->count;
		struct extent *it = &vmcore->extents[at];

		if (address >= it->address && address - it->address < it->size) {
			vmcore->last = at;
			return it;
		}
	}
	return NULL;
}

size_t vmcore_read(struct vmcore *vmcore, uint64_t address, void *data,
		   size_t size)
{
	size_t done = 0;
	bool by_page = false;

	while (done < size) {
		struct extent *extent = find_extent(vmcore, address + done);
		uint64_t within, want;
		long got;

		if (!extent)
			break;
		within = address + done - extent->address;
		want = extent->size - within;
		if (want > size - done)
			want = size - done;
		/* Page by page: those beside a bad one are good. */
		if (by_page && want > PAGE - (address + done) % PAGE)
			want = PAGE - (address + done) % PAGE;
		got = vmcore->source->read(vmcore->source,
					   (uint8_t *)data + done, want,
					   extent->offset + within);
		if (got > 0 && (uint64_t)got <= want) {
			done += got;
			continue;
		}
		/* A page that fails hides those that were read before it. */
		if (by_page)
			break;
		by_page = true;
	}
	return done;
}

uint64_t vmcore_next(struct vmcore *vmcore, uint64_t address)
{
	const struct extent *it = find_extent(vmcore, address);
	uint64_t next = UINT64_MAX;
	unsigned int i;

	if (it)
		return address + PAGE - address % PAGE;
	for (i = 0; i < vmcore->count; i++) {
		it = &vmcore->extents[i];
		if (it->address > address && it->address < next)
			next = it->address;
	}
	return next;
}
