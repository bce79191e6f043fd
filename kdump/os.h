/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Linux without a C library. What fails returns a negative errno. */
#ifndef KDUMP_OS_H
#define KDUMP_OS_H

#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "text.h"

long sys6(long number, long a, long b, long c, long d, long e, long f);

#define sys(number, a, b, c, d) \
	sys6(number, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

long os_open(const char *path, int flags, int mode);
long os_close(long fd);
long os_read(long fd, void *data, size_t size);
long os_read_at(long fd, void *data, size_t size, uint64_t offset);
long os_write(long fd, const void *data, size_t size);
long os_write_at(long fd, const void *data, size_t size, uint64_t offset);
long os_sync(long fd);
void os_sync_all(void);
long os_map(long fd, size_t size, uint64_t offset);	/* shared, to write */
long os_size(long fd, uint64_t *size);	/* of a file or block device */
long os_mount(const char *device, const char *place, const char *type,
	      unsigned long flags, const char *data);
long os_unmount(const char *place);
long os_make_folder(const char *path);	/* 0 if it is there */
long os_rename(const char *from, const char *to, unsigned int flags);
long os_unlink(const char *path);
long os_fork(void);
long os_pid(void);
void os_exit(int status) __attribute__((noreturn));
void os_sleep(unsigned long milliseconds);
uint64_t os_clock(void);		/* milliseconds since the start */
long os_load_module(const char *path);

/** os_wait() - wait for a child; -ETIMEDOUT, or its wait status */
long os_wait(long pid, unsigned long milliseconds);
void os_kill(long pid);
long os_reboot(unsigned int how);

/** os_read_file() - a small file; always terminated; Return: its size */
long os_read_file(const char *path, char *text, size_t room);

/**
 * os_each_name() - call @each with the names in a folder, until it is true
 */
bool os_each_name(const char *folder, bool (*each)(const char *, void *),
		  void *context);

/** os_memory() - all memory that get_memory() has; false if there is none */
bool os_memory(size_t size);

/** say() - a line of ours on standard error, which is process 1's console */
void say(const char *form, ...) __attribute__((format(printf, 1, 2)));

/** os_problem() - "WHAT: why", in a buffer that the next call uses again */
const char *os_problem(const char *what, long error);

#endif
