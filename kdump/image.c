// SPDX-License-Identifier: GPL-2.0-or-later
#include "image.h"

#define PAGE		4096
#define STAGE		(1 << 20)

const char *image_plan(struct image *image, const struct vmcore *vmcore,
		       const struct list *list)
{
	size_t own = sizeof(Elf64_Nhdr) + round_up(sizeof(OWNER), 4) +
		     sizeof(struct copied);
	size_t notes_at, notes_size, data;
	Elf64_Nhdr note = { sizeof(OWNER), sizeof(struct copied), NT_COPIED };
	Elf64_Ehdr header = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
			     ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_CORE,
		.e_machine = vmcore->machine,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(header),
		.e_ehsize = sizeof(header),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = list->count + 1,
	};
	Elf64_Phdr *notes;
	uint64_t offset;
	unsigned int i;
	uint8_t *at;

	memset(image, 0, sizeof(*image));
	image->room = list->count + MAX_SPLITS;
	/* Headers without a use are a gap behind the others. */
	notes_at = sizeof(header) + (image->room + 1) * sizeof(Elf64_Phdr);
	notes_size = vmcore->notes_size + list->notes_size + own;
	data = round_up(notes_at + notes_size, PAGE);
	image->header = get_memory(data);
	if (!image->header)
		return "no memory for the headers";
	memcpy(image->header, &header, sizeof(header));
	notes = (Elf64_Phdr *)(image->header + sizeof(header));
	*notes = (Elf64_Phdr){
		.p_type = PT_NOTE, .p_offset = notes_at, .p_filesz = notes_size
	};
	image->regions = notes + 1;
	image->count = list->count;
	offset = data;
	for (i = 0; i < list->count; i++) {
		Elf64_Phdr *it = &image->regions[i];

		*it = list->regions[i];
		it->p_offset = offset;
		it->p_memsz = it->p_filesz;
		/* crash knows kdump's cores, and their KASLR, by an align of 0. */
		it->p_align = 0;
		offset += it->p_filesz;
	}
	at = image->header + notes_at;
	memcpy(at, vmcore->notes, vmcore->notes_size);
	at += vmcore->notes_size;
	memcpy(at, list->notes, list->notes_size);
	at += list->notes_size;
	memcpy(at, &note, sizeof(note));
	memcpy(at + sizeof(note), OWNER, sizeof(OWNER));
	image->copied = (struct copied *)(at + own - sizeof(struct copied));
	*image->copied = (struct copied){
		.version = COPIED_VERSION,
		.regions = list->count,
		.size = offset,
		.data = data,
		.sequence = list->sequence,
	};
	return NULL;
}

/* Bytes on their way to a sink. */
struct stage {
	struct sink *sink;
	uint8_t *data;
	size_t used;
	uint64_t offset;	/* of the first one */
	uint32_t check;
};

static const char *flush(struct stage *stage)
{
	const char *problem;

	if (!stage->used)
		return NULL;
	stage->check = crc32_add(stage->check, stage->data, stage->used);
	problem = stage->sink->write(stage->sink, stage->data, stage->used,
				     stage->offset);
	stage->offset += stage->used;
	stage->used = 0;
	return problem;
}

/* How many bytes of a region to pass over, of which the one at @done cannot be read. */
static uint64_t unreadable(struct image *image, struct vmcore *vmcore,
			   const Elf64_Phdr *whole, const Elf64_Phdr *header,
			   uint64_t done)
{
	uint64_t rest = whole->p_filesz - done, address = whole->p_paddr + done;
	uint64_t next;

	if (image->failures++ >= MAX_FAILURES ||
	    (header->p_filesz && image->count == image->room))
		return rest;
	next = vmcore_next(vmcore, address) - address;
	return next < rest ? next : rest;
}

/* Bytes were read: they are the header's, or after a gap those of another one. */
static Elf64_Phdr *add_read(struct image *image, const Elf64_Phdr *whole,
			    Elf64_Phdr *header, uint64_t done, uint64_t size)
{
	if (header->p_offset + header->p_filesz != whole->p_offset + done) {
		if (header->p_filesz)
			header = &image->regions[image->count++];
		*header = *whole;
		header->p_offset += done;
		header->p_paddr += done;
		header->p_vaddr += done;
		header->p_filesz = 0;
	}
	header->p_filesz += size;
	header->p_memsz = header->p_filesz;
	return header;
}

/* What cannot be read is zeros in the file, and not in a region. */
static const char *copy_region(struct image *image, struct vmcore *vmcore,
			       Elf64_Phdr *header, struct stage *stage)
{
	const Elf64_Phdr whole = *header;
	uint64_t done = 0, bad = 0;
	const char *problem;
	size_t want, got;

	header->p_filesz = 0;
	header->p_memsz = 0;
	while (done < whole.p_filesz) {
		want = STAGE - stage->used;
		if (want > whole.p_filesz - done)
			want = whole.p_filesz - done;
		if (bad) {
			got = want < bad ? want : bad;
			memset(stage->data + stage->used, 0, got);
			image->copied->missing += got;
			bad -= got;
		} else {
			got = vmcore_read(vmcore, whole.p_paddr + done,
					  stage->data + stage->used, want);
			if (got)
				header = add_read(image, &whole, header, done,
						  got);
			if (got < want)
				bad = unreadable(image, vmcore, &whole, header,
						 done + got);
		}
		stage->used += got;
		done += got;
		if (stage->used == STAGE) {
			problem = flush(stage);
			if (problem)
				return problem;
		}
	}
	return NULL;
}

const char *image_copy(struct image *image, struct vmcore *vmcore,
		       struct sink *sink)
{
	struct stage stage = { .sink = sink, .offset = image->copied->data };
	Elf64_Ehdr *header = (Elf64_Ehdr *)image->header;
	unsigned int i, count = image->count;
	const char *problem;

	stage.data = get_memory(STAGE);
	if (!stage.data)
		return "no memory to copy with";
	problem = sink->begin(sink, image);
	for (i = 0; i < count && !problem; i++)
		problem = copy_region(image, vmcore, &image->regions[i], &stage);
	if (!problem)
		problem = flush(&stage);
	if (problem)
		return problem;
	header->e_phnum = image->count + 1;
	image->copied->data_check = stage.check;
	image->copied->header_check =
		crc32_add(0, image->header, image->copied->data);
	problem = sink->write(sink, image->header, image->copied->data, 0);
	if (problem)
		return problem;
	return sink->finish(sink, image);
}
