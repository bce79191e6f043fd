// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tries damaged lists and headers of /proc/vmcore, under AddressSanitizer.
 *
 *	build/fuzz [INPUTS [SEED]]
 *
 * Each input is a small good vmcore with a list in it, of which some bytes are
 * changed, and in most of them the checksums made right again. Whatever it
 * says, the copier may only write inside the image that it announced. Of inputs
 * without changes, but with pages that cannot be read, it must copy all else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "follow.h"
#include "image.h"

#define ADDRESS		LIST_UNIT	/* of the only extent */
#define HEADERS		4096
#define SIZE		(HEADERS + 32768)
#define REGIONS		7
#define FIRST		1024
#define HALF		4096
#define PAGE		4096

static uint8_t file[SIZE], good[SIZE];
static size_t own;	/* bytes of our own note */
static uint64_t bad;	/* a bit for each page of the file that cannot be read */

/* Blocks of their own: one byte behind is one too many. */
static void *blocks[1 << 12];
static size_t block_count;

void *get_memory(size_t size)
{
	if (block_count == ARRAY_SIZE(blocks) || size > 128UL << 20)
		return NULL;
	return blocks[block_count++] = calloc(1, size ? size : 1);
}

size_t memory_used(void)
{
	return block_count;
}

void memory_back(size_t used)
{
	while (block_count > used)
		free(blocks[--block_count]);
}

static uint64_t state;

static uint64_t random_number(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

static long read_file(struct source *source, void *data, size_t size,
		      uint64_t offset)
{
	size_t page;

	(void)source;
	if (offset >= SIZE)
		return random_number(2) ? 0 : -5;
	if (size > SIZE - offset)
		size = SIZE - offset;
	if (!random_number(64))
		size = 1 + random_number(size);	/* a short read */
	/* As /proc/vmcore: a bad page hides those before it. */
	for (page = offset / PAGE; page <= (offset + size - 1) / PAGE; page++)
		if (bad >> page & 1)
			return -14;
	memcpy(data, file + offset, size);
	return size;
}

/* The image as it is announced, and which bytes of it were written. */
static uint8_t copied_image[4 << 20];
static uint64_t announced, written;
static uint32_t image_check;

static const char *begin(struct sink *sink, const struct image *image)
{
	(void)sink;
	announced = image->copied->size;
	if (announced > sizeof(copied_image))
		return "too large for the time there is";
	written = 0;
	image_check = 0;
	return NULL;
}

static const char *put(struct sink *sink, const void *data, size_t size,
		       uint64_t offset)
{
	(void)sink;
	if (offset > announced || size > announced - offset)
		abort();
	if (offset)
		image_check = crc32_add(image_check, data, size);
	written += size;
	memcpy(copied_image + offset, data, size);
	return NULL;
}

static const char *finish(struct sink *sink, const struct image *image)
{
	const struct copied *copied = image->copied;

	(void)sink;
	if (written != announced || image_check != copied->data_check)
		abort();
	return NULL;
}

static size_t put_note(uint8_t *at, const char *name, uint32_t type,
		       const void *desc, uint32_t size)
{
	Elf64_Nhdr header = { strlen(name) + 1, size, type };
	uint8_t *start = at;

	memcpy(at, &header, sizeof(header));
	at += sizeof(header);
	memcpy(at, name, header.n_namesz);
	at += round_up(header.n_namesz, 4);
	memcpy(at, desc, size);
	return at + round_up(size, 4) - start;
}

static size_t put_elf(uint8_t *at, const Elf64_Phdr *headers,
		      unsigned int count)
{
	Elf64_Ehdr header = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
			     ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_CORE, .e_machine = EM_X86_64,
		.e_phoff = sizeof(header), .e_phentsize = sizeof(*headers),
		.e_phnum = count,
	};

	memcpy(at, &header, sizeof(header));
	memcpy(at + sizeof(header), headers, count * sizeof(*headers));
	return sizeof(header) + count * sizeof(*headers);
}

static struct list_half *half_at(unsigned int i)
{
	return (struct list_half *)(file + HEADERS + FIRST + i * HALF);
}

static void make_checks_right(void)
{
	struct list_anchor *anchor = (struct list_anchor *)(file + HEADERS);
	unsigned int i;

	for (i = 0; i < LIST_HALVES; i++) {
		struct list_half *half = half_at(i);

		if (half->size <= HALF - sizeof(*half))
			half->check = crc32_add(0, half + 1, half->size);
		half->own_check = crc32_add(0, half,
					    offsetof(struct list_half, own_check));
	}
	anchor->check = crc32_add(0, anchor, offsetof(struct list_anchor, check));
}

static void make_good(void)
{
	static const char info[] =
		"OSRELEASE=6.12.0\nBUILD-ID=ab\nPAGESIZE=4096\n"
		"SYMBOL(_stext)=ffffffff81000000\nKERNELOFFSET=0\n"
		"CRASHTIME=1700000000\n";
	uint8_t status[336] = { 1 };
	struct list_anchor anchor = {
		.version = LIST_VERSION, .halves = LIST_HALVES,
		.address = ADDRESS, .first = FIRST, .size = HALF,
	};
	Elf64_Phdr headers[REGIONS + 1] = {
		{ .p_type = PT_NOTE, .p_offset = 512 },
		{ .p_type = PT_LOAD, .p_offset = HEADERS, .p_paddr = ADDRESS,
		  .p_filesz = SIZE - HEADERS, .p_memsz = SIZE - HEADERS },
	};
	unsigned int i, half;
	size_t at = 512;

	at += put_note(file + at, "CORE", 1, status, sizeof(status));
	at += put_note(file + at, "VMCOREINFO", 0, info, sizeof(info) - 1);
	headers[0].p_filesz = at - 512;
	put_elf(file, headers, 2);
	memcpy(anchor.magic, LIST_MAGIC, sizeof(anchor.magic));
	memcpy(file + HEADERS, &anchor, sizeof(anchor));
	for (half = 0; half < LIST_HALVES; half++) {
		uint8_t *start = (uint8_t *)(half_at(half) + 1);

		headers[0].p_offset = 512;
		for (i = 1; i < ARRAY_SIZE(headers); i++)
			headers[i] = (Elf64_Phdr){
				.p_type = PT_LOAD, .p_flags = PF_R,
				.p_vaddr = ADDRESS + i * 512,
				.p_paddr = ADDRESS + 9000 + i * 512,
				.p_filesz = 100 * i, .p_memsz = 100 * i,
			};
		/* The last one has some pages. */
		headers[REGIONS].p_filesz = 20000;
		at = 512;
		at += put_note(start + at, OWNER, 0x4b4d4433, status,
			       sizeof(status));
		own = at - 512;
		at += put_note(start + at, "VMCOREINFO", 0, info,
			       sizeof(info) - 22);
		headers[0].p_filesz = at - 512;
		put_elf(start, headers, ARRAY_SIZE(headers));
		half_at(half)->sequence = half + 1;
		half_at(half)->size = at;
	}
	make_checks_right();
	memcpy(good, file, SIZE);
}

/* Of an input that is good but for bad pages: all that can be read is there. */
static void check_all(const struct list *list, const struct image *image)
{
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)copied_image;
	const Elf64_Phdr *headers = (const Elf64_Phdr *)(header + 1);
	uint64_t at, i, missing = 0, held = 0;
	unsigned int r;

	for (r = 0; r < list->count; r++)
		for (i = 0; i < list->regions[r].p_filesz; i++) {
			at = HEADERS + list->regions[r].p_paddr - ADDRESS + i;
			missing += bad >> at / PAGE & 1;
			held += !(bad >> at / PAGE & 1);
		}
	for (r = 1; r < header->e_phnum; r++) {
		const Elf64_Phdr *it = &headers[r];

		if (it->p_type != PT_LOAD || it->p_vaddr - it->p_paddr !=
		    ADDRESS - (ADDRESS + 9000))
			abort();
		for (i = 0; i < it->p_filesz; i++) {
			at = HEADERS + it->p_paddr - ADDRESS + i;
			if (bad >> at / PAGE & 1 ||
			    copied_image[it->p_offset + i] != file[at])
				abort();
		}
		held -= it->p_filesz;
	}
	if (held || missing != image->copied->missing)
		abort();
}

/* Let some segments be the same note of ours. */
static void repeat_segments(void)
{
	uint8_t *start = (uint8_t *)(half_at(random_number(LIST_HALVES)) + 1);
	Elf64_Phdr note = {
		.p_type = PT_NOTE, .p_offset = 512, .p_filesz = own,
	};
	unsigned int i = random_number(8);

	while (i--)
		memcpy(start + sizeof(Elf64_Ehdr) + i * sizeof(note), &note,
		       sizeof(note));
}

static void change(void)
{
	static const uint64_t values[] = {
		0, 1, 2, 55, 56, 64, 4096, 16384, 60001, 65535, 1UL << 20,
		(1UL << 30) - 1, 1UL << 30, 1UL << 31, 0xffffffff, 1UL << 32,
		1UL << 63, -1UL, -56UL, -4096UL, ADDRESS, ADDRESS + 16384,
	};
	uint64_t value = values[random_number(ARRAY_SIZE(values))];
	static const unsigned int starts[] = { 0, 512, HEADERS, HEADERS + FIRST,
					       HEADERS + FIRST + HALF };
	size_t at = starts[random_number(ARRAY_SIZE(starts))] +
		    random_number(random_number(2) ? 128 : 1200);

	switch (random_number(5)) {
	case 0:
		file[at] ^= 1 << random_number(8);
		break;
	case 1:
		file[at] = value;
		break;
	case 2:
		memcpy(file + (at & ~1UL), &value, 2);
		break;
	case 3:
		memcpy(file + (at & ~3UL), &value, 4);
		break;
	default:
		memcpy(file + (at & ~7UL), &value, 8);
	}
}

int main(int count, char **arguments)
{
	unsigned long inputs = count > 1 ? strtoul(arguments[1], NULL, 0) : 100000;
	unsigned long i, states[4] = { 0 }, opened = 0;
	struct sink sink = { begin, put, finish };

	state = count > 2 ? strtoul(arguments[2], NULL, 0) : 1;
	state = state * 0x9e3779b97f4a7c15 | 1;
	make_good();
	for (i = 0; i < inputs; i++) {
		struct source source = { read_file };
		enum list_state found = LIST_NONE;
		unsigned int changes = i % 16 ? 1 + random_number(6) : 0;
		struct vmcore vmcore;
		struct image image;
		struct list list;
		bool plain;

		memcpy(file, good, SIZE);
		/* Of the list's pages, none. */
		bad = i && random_number(2) ? random_number(64) << 4 : 0;
		plain = !changes;
		if (changes && !random_number(8))
			repeat_segments();
		while (changes--)
			change();
		if (random_number(4))
			make_checks_right();
		if (!vmcore_open(&vmcore, &source)) {
			opened++;
			found = list_find(&vmcore, random_number(2) ? ADDRESS : 0,
					  100, &list);
			if (found == LIST_GOOD)
				follow(&vmcore, &list);
			if (found == LIST_GOOD &&
			    !image_plan(&image, &vmcore, &list) &&
			    !image_copy(&image, &vmcore, &sink) && plain)
				check_all(&list, &image);
		}
		if (!i && found != LIST_GOOD) {
			fprintf(stderr, "the good input is not good\n");
			return 1;
		}
		states[found]++;
		memory_back(0);
	}
	printf("%lu inputs: %lu vmcores opened; lists: %lu good, %lu foreign, "
	       "%lu torn, %lu not found\n", inputs, opened, states[LIST_GOOD],
	       states[LIST_FOREIGN], states[LIST_TORN], states[LIST_NONE]);
	return 0;
}
