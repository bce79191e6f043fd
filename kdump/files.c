// SPDX-License-Identifier: GPL-2.0-or-later
/* A file: beside its place, synced, renamed. */
#include <linux/fs.h>

#include "os.h"
#include "sinks.h"

#define MOUNTED	"/mnt"
#define ENDING	".elf"
#define MAX_FOLDER	196	/* with what follows it in struct place */
#define MAX_SAME	1000	/* files of one time; places.py knows three digits */

static const char *file_begin(struct sink *sink, const struct image *image)
{
	struct place *place = place_of(sink);

	(void)image;
	os_unlink(place->name);
	place->fd = os_open(place->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW,
			    0600);
	return place->fd < 0 ? os_problem(place->name, place->fd) : NULL;
}

/* The folder's entry, too. */
static const char *sync_folder(const char *path)
{
	char folder[256];
	size_t size = format(folder, sizeof(folder), "%s", path);
	long fd, error;

	while (size > 1 && folder[--size] != '/')
		;
	folder[size] = 0;
	fd = os_open(folder, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return os_problem(path, fd);
	error = os_sync(fd);
	os_close(fd);
	return error && error != -EINVAL ? os_problem(path, error) : NULL;
}

/* Not over what is there, also where a file system cannot promise that. */
static long rename_new(const char *from, const char *to)
{
	long error = os_rename(from, to, RENAME_NOREPLACE), fd;

	if (error != -EINVAL && error != -ENOSYS)
		return error;
	fd = os_open(to, O_PATH | O_NOFOLLOW, 0);
	if (fd >= 0) {
		os_close(fd);
		return -EEXIST;
	}
	return fd == -ENOENT ? os_rename(from, to, 0) : fd;
}

/* Two deaths may have one time, on a board without a clock. */
static const char *rename_in_folder(struct place *place)
{
	size_t stem = strlen(place->final) - strlen(ENDING);
	static char text[300];
	unsigned long i;
	long error;

	for (i = 0; i < MAX_SAME; i++) {
		if (i)
			format(place->final + stem, sizeof(place->final) - stem,
			       "-%lu" ENDING, i);
		error = rename_new(place->name, place->final);
		if (error != -EEXIST)
			return error ? os_problem(place->final, error) : NULL;
	}
	format(text, sizeof(text), "%s: there are %lu of this time already",
	       place->final, i);
	return text;
}

static const char *file_finish(struct sink *sink, const struct image *image)
{
	struct place *place = place_of(sink);
	const char *problem = sync_file(place);
	long error;

	(void)image;
	if (problem)
		return problem;
	if (place->numbered) {
		problem = rename_in_folder(place);
		if (problem)
			return problem;
	} else {
		error = os_rename(place->name, place->final, 0);
		if (error)
			return os_problem(place->final, error);
	}
	format(place->name, sizeof(place->name), "%s", place->final);
	return sync_folder(place->final);
}

static uint64_t crash_time(const struct vmcore *vmcore)
{
	static const char name[] = "\nCRASHTIME=";
	size_t i, size = sizeof(name) - 1;
	uint64_t seconds = 0;

	for (i = 0; i + size < vmcore->info_size; i++) {
		if (memcmp(vmcore->info + i, name, size))
			continue;
		for (i += size; i < vmcore->info_size &&
		     vmcore->info[i] >= '0' && vmcore->info[i] <= '9'; i++)
			seconds = seconds * 10 + vmcore->info[i] - '0';
		break;
	}
	return seconds;
}

const char *open_folder(struct place *place, const char *text,
			unsigned long patience, const struct vmcore *vmcore)
{
	char *at, *type = NULL, *device = NULL, spec[MAX_FOLDER], path[256];
	const char *problem, *root = "";
	long error;

	if (strlen(text) >= sizeof(spec))
		return "file: the path is too long";
	format(spec, sizeof(spec), "%s", text);
	for (at = spec; *at; at++) {
		if (*at == '@' && !type) {
			*at = 0;
			type = at + 1;
		} else if (*at == ':' && type && !device) {
			*at = 0;
			device = at + 1;
		}
	}
	if (*spec != '/' || (type && !device))
		return "file: expected file:FOLDER or file:FOLDER@FSTYPE:DEVICE";
	if (device) {
		problem = find_device(path, sizeof(path), device, patience);
		if (problem)
			return problem;
		os_make_folder(MOUNTED);
		error = os_mount(path, MOUNTED, type, 0, NULL);
		if (error)
			return os_problem(path, error);
		place->mounted = MOUNTED;
		root = MOUNTED;
	}
	format(path, sizeof(path), "%s%s/", root, spec);
	for (at = path + strlen(root) + 1; *at; at++) {
		if (*at != '/')
			continue;
		*at = 0;
		error = os_make_folder(path);
		if (error)
			return os_problem(path, error);
		*at = '/';
	}
	format(place->name, sizeof(place->name), "%s.kmemdump-%lu.part", path,
	       crash_time(vmcore));
	format(place->final, sizeof(place->final), "%skmemdump-%lu" ENDING, path,
	       crash_time(vmcore));
	place->numbered = true;
	place->sink = (struct sink){ file_begin, write_at, file_finish };
	return NULL;
}

const char *open_named(struct place *place, const char *path)
{
	if (*path != '/' || strlen(path) > sizeof(place->name) - 6)
		return "as: expected as:FILE, its whole path";
	format(place->name, sizeof(place->name), "%s.part", path);
	format(place->final, sizeof(place->final), "%s", path);
	place->sink = (struct sink){ file_begin, write_at, file_finish };
	return NULL;
}
