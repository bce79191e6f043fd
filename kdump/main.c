// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Copies the marked regions of a dead kernel out of /proc/vmcore.
 *
 *	kmemdump-kdump to=file:/var/crash
 *	kmemdump-kdump config=/etc/kmemdump/kdump.conf
 *	kmemdump-kdump /proc/vmcore FILE
 *
 * As process 1 it is all that a crash kernel needs: it reads its settings from
 * /kmemdump.conf and the kernel's command line, copies, and reboots. README.md
 * lists the settings.
 */
#include <linux/reboot.h>

#include "follow.h"
#include "os.h"
#include "sinks.h"

#define MAX_TO		8
#define MAX_MODULES	64
#define MAX_TEXT	8192
#define MEMORY		(256UL << 20)	/* Only what is used takes room. */

/* Exit statuses, as of the other programs of kmemdump. */
enum { DONE = 0, INCOMPLETE = 1, WRONG_USE = 2, NO_LIST = 3, NOT_WRITTEN = 4 };

struct settings {
	const char *vmcore;
	const char *to[MAX_TO];
	const char *modules[MAX_MODULES];
	unsigned int to_count;
	unsigned int module_count;
	uint64_t list;
	uint64_t timeout;	/* seconds, for all of it */
	uint64_t patience;	/* seconds, for a device */
	const char *then;	/* when the image is written */
	const char *otherwise;	/* when there is none */
	uint64_t started;	/* milliseconds: first user space, as process 1 */
};

static const char *const ends[] = { "return", "reboot", "poweroff", "halt" };

static void set_all(struct settings *settings, char *text, const char *start);

static bool set_end(const char **end, const char *word)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ends); i++)
		if (same(word, ends[i])) {
			*end = ends[i];
			return true;
		}
	return false;
}

/* A file of settings, one a line; a # starts a remark. */
static bool set_from(struct settings *settings, const char *path)
{
	char *text = get_memory(MAX_TEXT);	/* The settings point into it. */
	long size = text ? os_read_file(path, text, MAX_TEXT) : -ENOMEM;

	if (size < 0) {
		say("%s", os_problem(path, size));
		return false;
	}
	set_all(settings, text, "");
	return true;
}

static const char *set(struct settings *settings, const char *text)
{
	static char problem[200];
	bool good = true;

	if (starts_with(text, "to=") && settings->to_count < MAX_TO)
		settings->to[settings->to_count++] = text + 3;
	else if (starts_with(text, "load=") &&
		 settings->module_count < MAX_MODULES)
		settings->modules[settings->module_count++] = text + 5;
	else if (starts_with(text, "vmcore="))
		settings->vmcore = text + 7;
	else if (starts_with(text, "then="))
		good = set_end(&settings->then, text + 5);
	else if (starts_with(text, "otherwise="))
		good = set_end(&settings->otherwise, text + 10);
	else if (starts_with(text, "list="))
		good = parse_number(text + 5, &settings->list);
	else if (starts_with(text, "timeout="))
		good = parse_number(text + 8, &settings->timeout) &&
		       settings->timeout - 1 < 86400;
	else if (starts_with(text, "patience="))
		good = parse_number(text + 9, &settings->patience) &&
		       settings->patience <= 86400;
	else
		good = false;
	if (good)
		return NULL;
	format(problem, sizeof(problem), "%s: is not a setting", text);
	return problem;
}

/* Settings apart by spaces or lines; those of others have no @start. */
static void set_all(struct settings *settings, char *text, const char *start)
{
	const char *problem;
	char *end, *at;

	for (at = text; *at; at = end) {
		if (*at == '#' && !*start) {
			for (end = at; *end && *end != '\n'; end++)
				;
			continue;
		}
		if (*at == ' ' || *at == '\n' || *at == '\t') {
			end = at + 1;
			continue;
		}
		for (end = at; *end && *end != ' ' && *end != '\n' &&
		     *end != '\t'; end++)
			;
		if (*end)
			*end++ = 0;
		if (!starts_with(at, start))
			continue;
		problem = set(settings, at + strlen(start));
		if (problem)
			say("%s", problem);
	}
}

struct file {
	struct source source;
	long fd;
};

static long read_file(struct source *source, void *data, size_t size,
		      uint64_t offset)
{
	return os_read_at(((struct file *)source)->fd, data, size, offset);
}

static int copy_to(const char *spec, const struct settings *settings,
		   struct image *image, struct vmcore *vmcore)
{
	const char *problem;
	struct place place;

	problem = place_open(&place, spec, settings->patience * 1000, vmcore);
	if (!problem)
		problem = image_copy(image, vmcore, &place.sink);
	if (problem)
		say("not written: %s", problem);
	else
		say("%s: %lu bytes, %lu regions, list %lu, in %lu ms",
		    place.name, image->copied->size,
		    (unsigned long)image->copied->regions,
		    image->copied->sequence,
		    os_clock() - settings->started);
	place_close(&place);
	if (problem)
		return NOT_WRITTEN;
	if (image->copied->missing) {
		say("%lu bytes of the regions could not be read",
		    image->copied->missing);
		return INCOMPLETE;
	}
	return DONE;
}

static int copy(const struct settings *settings)
{
	struct file file = { { read_file }, -1 };
	int status = NOT_WRITTEN;
	const char *problem;
	struct vmcore vmcore;
	struct image image;
	struct list list;
	unsigned int i;

	file.fd = os_open(settings->vmcore, O_RDONLY, 0);
	if (file.fd < 0) {
		say("%s", os_problem(settings->vmcore, file.fd));
		return NO_LIST;
	}
	problem = vmcore_open(&vmcore, &file.source);
	if (problem) {
		say("%s", problem);
		return NO_LIST;
	}
	if (list_find(&vmcore, settings->list, MAX_PLACES, &list) != LIST_GOOD) {
		say("%s", list.problem);
		return NO_LIST;
	}
	follow(&vmcore, &list);
	for (i = 0; i < settings->to_count && status == NOT_WRITTEN; i++) {
		size_t used = memory_used();

		problem = image_plan(&image, &vmcore, &list);
		if (problem) {
			say("%s", problem);
			return NOT_WRITTEN;
		}
		status = copy_to(settings->to[i], settings, &image, &vmcore);
		memory_back(used);
	}
	return status;
}

/* In a child, which may hang on a device for ever. */
static int copy_in_time(const struct settings *settings)
{
	long pid = os_fork(), status;

	if (!pid)
		os_exit(copy(settings));
	if (pid < 0) {
		say("%s", os_problem("fork", pid));
		return NOT_WRITTEN;
	}
	status = os_wait(pid, settings->timeout * 1000);
	if (status == -ETIMEDOUT) {
		say("not done in %lu s: given up", settings->timeout);
		os_kill(pid);
		/* It may be gone at once, and must not be half killed. */
		os_wait(pid, 1000);
		return NOT_WRITTEN;
	}
	if (status < 0 || status & 0x7f) {
		say("the copier died");
		return NOT_WRITTEN;
	}
	return status >> 8 & 0xff;
}

static void go_on(const struct settings *settings, int status)
{
	bool written = status <= INCOMPLETE;
	const char *end = written || !settings->otherwise ? settings->then :
							    settings->otherwise;
	unsigned int how = LINUX_REBOOT_CMD_RESTART;
	long pid;

	if (same(end, "return"))
		return;
	if (same(end, "poweroff"))
		how = LINUX_REBOOT_CMD_POWER_OFF;
	else if (same(end, "halt"))
		how = LINUX_REBOOT_CMD_HALT;
	say("%s: %s", written ? "done" : "nothing written", end);
	/* Ours is on the disk; others may have written, too. */
	pid = os_fork();
	if (!pid) {
		os_sync_all();
		os_exit(0);
	}
	if (pid > 0)
		os_wait(pid, 5000);
	os_reboot(how);
}

static void be_init(struct settings *settings)
{
	static char line[8192];
	unsigned int i;
	long error;

	os_make_folder("/proc");
	os_make_folder("/sys");
	os_make_folder("/dev");
	os_mount("proc", "/proc", "proc", 0, NULL);
	os_mount("sysfs", "/sys", "sysfs", 0, NULL);
	os_mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	settings->then = "reboot";
	set_from(settings, "/kmemdump.conf");
	os_read_file("/proc/cmdline", line, sizeof(line));
	set_all(settings, line, "kmemdump.");
	for (i = 0; i < settings->module_count; i++) {
		error = os_load_module(settings->modules[i]);
		if (error)
			say("%s", os_problem(settings->modules[i], error));
	}
}

/* makedumpfile's form: the dead kernel's memory, and the name of the image. */
static const char *set_path(struct settings *settings, const char *path)
{
	static char named[260];
	static unsigned int paths;

	if (paths++ > 1 || settings->to_count == MAX_TO)
		return "expected at most two paths: /proc/vmcore FILE";
	if (paths == 1) {
		settings->vmcore = path;
		return NULL;
	}
	if (format(named, sizeof(named), "as:%s", path) == sizeof(named) - 1)
		return "the name of the image is too long";
	settings->to[settings->to_count++] = named;
	return NULL;
}

/* The kernel's stack: the number of arguments, the arguments. */
__attribute__((noreturn, used)) void start(long *stack)
{
	struct settings settings = {
		.vmcore = "/proc/vmcore", .timeout = 60, .patience = 10,
		.then = "return", .started = os_clock(),
	};
	char **arguments = (char **)(stack + 1);
	bool first = os_pid() == 1;
	const char *problem;
	int status;
	long i;

	if (!os_memory(MEMORY)) {
		say("no memory");
		os_exit(NOT_WRITTEN);
	}
	if (first)
		be_init(&settings);
	for (i = 1; !first && i < stack[0]; i++) {
		if (starts_with(arguments[i], "config=")) {
			if (!set_from(&settings, arguments[i] + 7))
				os_exit(WRONG_USE);
			continue;
		}
		problem = arguments[i][0] == '/' ?
				  set_path(&settings, arguments[i]) :
				  set(&settings, arguments[i]);
		if (problem) {
			say("%s", problem);
			os_exit(WRONG_USE);
		}
	}
	if (!settings.to_count) {
		say("nowhere to write: expected to=file:, to=as:, "
		    "to=raw:, to=memory: or to=console:");
		status = WRONG_USE;
	} else {
		status = copy_in_time(&settings);
	}
	go_on(&settings, status);
	/* Process 1 must not end: the kernel would panic, and then reboot. */
	while (first)
		os_sleep(1000);
	os_exit(status);
}
