// SPDX-License-Identifier: GPL-2.0-or-later
#include "sinks.h"

#include "os.h"

#define BLOCK	4096

/* The image of a firmware's partition: src/kmemdump/formats/rawdump.py. */
#define RAW_MAGIC	"Raw_Dmp!"
#define RAW_VERSION	0x1000
#define RAW_VALID	1
#define RAW_FLUSHED	8
#define RAW_CONTEXT	2
#define RAW_MEMORY	1

struct __attribute__((packed)) raw_header {
	char magic[8];
	uint32_t version;
	uint32_t flags;
	uint64_t unused[2];
	uint32_t trigger;
	uint64_t size;
	uint64_t needed;
	uint32_t count;
};

struct __attribute__((packed)) raw_section {
	uint32_t flags;
	uint32_t version;
	uint32_t type;
	uint64_t offset;
	uint64_t size;
	uint64_t information[2];
	char name[20];
};

static const char *put_at(struct place *place, const void *data, size_t size,
			  uint64_t offset)
{
	long error = 0;

	if (place->memory)
		memcpy(place->memory + offset, data, size);
	else
		error = os_write_at(place->fd, data, size, offset);
	return error ? os_problem(place->name, error) : NULL;
}

const char *write_at(struct sink *sink, const void *data, size_t size,
		     uint64_t offset)
{
	struct place *place = place_of(sink);

	return put_at(place, data, size, place->base + offset);
}

const char *sync_file(struct place *place)
{
	/* Memory is mapped uncached. */
	long error = place->memory ? 0 : os_sync(place->fd);

	return error ? os_problem(place->name, error) : NULL;
}

/* A partition, or memory: not valid before all is on the disk. */

static void fill_raw(struct raw_header *header, const struct place *place,
		     const struct image *image, uint32_t flags)
{
	*header = (struct raw_header){
		.version = RAW_VERSION,
		.flags = flags,
		.size = place->base + image->copied->size,
		.needed = place->base + image->copied->size,
		.count = image->count + 1,
	};
	memcpy(header->magic, RAW_MAGIC, sizeof(header->magic));
}

static const char *raw_put(struct place *place, const void *data, size_t size)
{
	const char *problem = put_at(place, data, size, 0);

	return problem ? problem : sync_file(place);
}

static const char *raw_begin(struct sink *sink, const struct image *image)
{
	struct place *place = place_of(sink);
	struct raw_header header;

	place->base = round_up(sizeof(header) + (image->room + 1) *
			       sizeof(struct raw_section), BLOCK);
	if (image->copied->size > place->size ||
	    place->base > place->size - image->copied->size)
		return os_problem(place->name, -ENOSPC);
	fill_raw(&header, place, image, 0);
	return raw_put(place, &header, sizeof(header));
}

static const char *raw_finish(struct sink *sink, const struct image *image)
{
	struct place *place = place_of(sink);
	struct raw_header *header;
	struct raw_section *section;
	const char *problem = sync_file(place);
	unsigned int i;

	if (problem)
		return problem;
	header = get_memory(place->base);
	if (!header)
		return "no memory for the table of sections";
	fill_raw(header, place, image, 0);
	section = (struct raw_section *)(header + 1);
	*section = (struct raw_section){
		.flags = RAW_VALID,
		.version = RAW_VERSION,
		.type = RAW_CONTEXT,
		.offset = place->base,
		.size = image->copied->data,
	};
	format(section->name, sizeof(section->name), "md_KELF.BIN");
	for (i = 0; i < image->count; i++) {
		const Elf64_Phdr *it = &image->regions[i];

		section++;
		*section = (struct raw_section){
			.flags = RAW_VALID,
			.version = RAW_VERSION,
			.type = RAW_MEMORY,
			.offset = place->base + it->p_offset,
			.size = it->p_filesz,
			.information = { it->p_paddr },
		};
		format(section->name, sizeof(section->name), "md_R%lu.BIN",
		       (unsigned long)i);
	}
	problem = raw_put(place, header, place->base);
	if (problem)
		return problem;
	header->flags = RAW_VALID | RAW_FLUSHED;
	return raw_put(place, header, 512); /* A sector: all of it, or nothing. */
}

/* A console: lines with their own checksums, between those of others. */

#define LINE	768

static const char digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static size_t encode(char *out, const uint8_t *data, size_t size)
{
	char *start = out;

	for (; size; data += 3) {
		uint32_t word = data[0] << 16 | (size > 1 ? data[1] : 0) << 8 |
				(size > 2 ? data[2] : 0);

		*out++ = digits[word >> 18];
		*out++ = digits[word >> 12 & 63];
		*out++ = size > 1 ? digits[word >> 6 & 63] : '=';
		*out++ = size > 2 ? digits[word & 63] : '=';
		size -= size > 3 ? 3 : size;
	}
	*out = 0;
	return out - start;
}

static const char *put_line(struct place *place, const char *word, uint64_t at,
			    const char *text)
{
	static char line[LINE / 3 * 4 + 100];
	size_t size = format(line, sizeof(line), "\n@kmemdump %s %lx %s ", word,
			     at, text);
	long error;

	size += format(line + size, sizeof(line) - size, "%lx@\n",
		       (unsigned long)crc32_add(0, line + 1, size - 1));
	error = os_write(place->fd, line, size);
	return error ? os_problem(place->name, error) : NULL;
}

static const char *console_begin(struct sink *sink, const struct image *image)
{
	return put_line(place_of(sink), "begin", image->copied->size, "-");
}

static const char *console_write(struct sink *sink, const void *data,
				 size_t size, uint64_t offset)
{
	static char text[LINE / 3 * 4 + 4];
	const uint8_t *from = data;
	const char *problem = NULL;

	while (size && !problem) {
		size_t part = size < LINE ? size : LINE;

		encode(text, from, part);
		problem = put_line(place_of(sink), "data", offset, text);
		from += part;
		size -= part;
		offset += part;
	}
	return problem;
}

static const char *console_finish(struct sink *sink, const struct image *image)
{
	const char *problem = put_line(place_of(sink), "end",
				       image->copied->size, "-");

	/* Until the last character is out; not every device has that. */
	if (!problem)
		sys(__NR_ioctl, place_of(sink)->fd, 0x5409 /* TCSBRK */, 1, 0);
	return problem;
}

/* Devices */

struct wanted {
	const char *line;	/* of uevent: PARTNAME=kmemdump */
	char *device;
	size_t room;
};

/* Linux drivers/base/core.c: lines KEY=value; DEVNAME is below /dev. */
static bool has_line(const char *name, void *context)
{
	struct wanted *wanted = context;
	static char text[4096];
	char path[300], *line, *end, *device = NULL;
	bool found = false;

	format(path, sizeof(path), "/sys/class/block/%s/uevent", name);
	if (os_read_file(path, text, sizeof(text)) <= 0)
		return false;
	for (line = text; *line; line = end) {
		for (end = line; *end && *end != '\n'; end++)
			;
		if (*end)
			*end++ = 0;
		if (starts_with(line, "DEVNAME="))
			device = line + 8;
		found |= same(line, wanted->line);
	}
	if (found && device)
		format(wanted->device, wanted->room, "/dev/%s", device);
	return found && device;
}

const char *find_device(char *path, size_t room, const char *spec,
			unsigned long patience)
{
	uint64_t end = os_clock() + patience;
	char line[256];
	struct wanted wanted = { line, path, room };
	long fd;

	if (starts_with(spec, "PARTLABEL="))
		format(line, sizeof(line), "PARTNAME=%s", spec + 10);
	else
		format(line, sizeof(line), "%s", spec);
	for (;;) {
		if (spec[0] == '/') {
			format(path, room, "%s", spec);
			fd = os_open(path, O_RDONLY | O_NONBLOCK, 0);
			if (fd >= 0) {
				os_close(fd);
				return NULL;
			}
		} else if (os_each_name("/sys/class/block", has_line,
					&wanted)) {
			return NULL;
		}
		if (os_clock() >= end)
			return os_problem(spec, -ENOENT);
		os_sleep(20);
	}
}

static const char *open_partition(struct place *place)
{
	char magic[8];
	long error;

	place->fd = os_open(place->name, O_RDWR, 0);
	if (place->fd < 0)
		return os_problem(place->name, place->fd);
	error = os_size(place->fd, &place->size);
	if (error)
		return os_problem(place->name, error);
	if (os_read_at(place->fd, magic, 8, 0) != 8 ||
	    memcmp(magic, RAW_MAGIC, 8)) {
		static char text[300];

		format(text, sizeof(text), "%s: is not prepared for dumps "
		       "(kmemdump mark --prepare), and may hold data",
		       place->name);
		return text;
	}
	place->sink = (struct sink){ raw_begin, write_at, raw_finish };
	return NULL;
}

/*
 * ADDRESS:SIZE, memory that the dead kernel did not use and a reset does not clear.
 * Whatever it held is gone then, so nothing in it is looked at.
 */
static const char *open_memory(struct place *place, char *spec)
{
	static const char device[] = "/dev/mem";
	uint64_t address = 0, size = 0;
	char *at = spec;
	long map;

	while (*at && *at != ':')
		at++;
	if (*at)
		*at++ = 0;
	if (!parse_number(spec, &address) || !parse_number(at, &size) ||
	    !size || (address | size) % BLOCK || address + size < address)
		return "memory: expected memory:ADDRESS:SIZE, in whole pages";
	format(place->name, sizeof(place->name), "memory at 0x%lx", address);
	/* Uncached: a reset loses what caches hold (Linux phys_mem_access_prot()). */
	place->fd = os_open(device, O_RDWR | O_SYNC, 0);
	if (place->fd < 0)
		return os_problem(device, place->fd);
	map = os_map(place->fd, size, address);
	if (map < 0 && map > -BLOCK)
		return os_problem(place->name, map);
	place->memory = (uint8_t *)map;
	place->size = size;
	place->sink = (struct sink){ raw_begin, write_at, raw_finish };
	return NULL;
}

const char *place_open(struct place *place, const char *spec,
		       unsigned long patience, const struct vmcore *vmcore)
{
	const char *problem;
	char copy[256];

	memset(place, 0, sizeof(*place));
	place->fd = -1;
	if (starts_with(spec, "file:"))
		return open_folder(place, spec + 5, patience, vmcore);
	if (starts_with(spec, "memory:")) {
		format(copy, sizeof(copy), "%s", spec + 7);
		return open_memory(place, copy);
	}
	if (starts_with(spec, "as:"))
		return open_named(place, spec + 3);
	if (starts_with(spec, "raw:")) {
		problem = find_device(place->name, sizeof(place->name),
				      spec + 4, patience);
		return problem ? problem : open_partition(place);
	}
	if (!starts_with(spec, "console:"))
		return "to: expected file:, as:, raw:, memory: or console:";
	problem = find_device(place->name, sizeof(place->name), spec + 8,
			      patience);
	if (problem)
		return problem;
	place->fd = os_open(place->name, O_WRONLY | O_NOCTTY, 0);
	if (place->fd < 0)
		return os_problem(place->name, place->fd);
	place->sink = (struct sink){ console_begin, console_write,
				     console_finish };
	return NULL;
}

void place_close(struct place *place)
{
	if (place->fd >= 0)
		os_close(place->fd);
	if (place->final[0] && !same(place->name, place->final))
		os_unlink(place->name);
	if (place->mounted)
		os_unmount(place->mounted);
}
