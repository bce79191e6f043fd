// SPDX-License-Identifier: GPL-2.0-or-later
#include "os.h"

#include <linux/fs.h>
#include <linux/mman.h>
#include <linux/mount.h>
#include <linux/reboot.h>
#include <linux/time.h>
#include <linux/types.h>
#include <linux/wait.h>

#define SIGCHLD	17
#define SIGKILL	9
#define AT	AT_FDCWD

#if defined(__x86_64__)
asm(".globl _start\n"
    "_start:\n"
    "	xor %ebp, %ebp\n"
    "	mov %rsp, %rdi\n"
    "	and $-16, %rsp\n"
    "	call start\n"
    "	hlt\n");

long sys6(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d;
	register long r8 asm("r8") = e;
	register long r9 asm("r9") = f;
	long result;

	asm volatile("syscall" : "=a"(result)
		     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8),
		       "r"(r9)
		     : "rcx", "r11", "memory");
	return result;
}
#elif defined(__aarch64__)
asm(".globl _start\n"
    "_start:\n"
    "	mov x29, #0\n"
    "	mov x30, #0\n"
    "	mov x0, sp\n"
    "	and sp, x0, #-16\n"
    "	bl start\n"
    "	brk #0\n");

long sys6(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 asm("x8") = number;
	register long x0 asm("x0") = a;
	register long x1 asm("x1") = b;
	register long x2 asm("x2") = c;
	register long x3 asm("x3") = d;
	register long x4 asm("x4") = e;
	register long x5 asm("x5") = f;

	asm volatile("svc #0" : "+r"(x0)
		     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
		     : "memory");
	return x0;
}
#else
#error "which registers hold the arguments of a system call?"
#endif

/* The compiler calls these four, too; it must not make them call themselves. */
void *memcpy(void *to, const void *from, size_t size)
{
	return memmove(to, from, size);
}

__attribute__((optimize("no-tree-loop-distribute-patterns")))
void *memmove(void *to, const void *from, size_t size)
{
	uint8_t *left = to;
	const uint8_t *right = from;

	if (left < right || left >= right + size) {
		for (; size >= 8; size -= 8, left += 8, right += 8) {
			uint64_t word;

			__builtin_memcpy(&word, right, 8);
			__builtin_memcpy(left, &word, 8);
		}
		while (size--)
			*left++ = *right++;
	} else {
		while (size--)
			left[size] = right[size];
	}
	return to;
}

__attribute__((optimize("no-tree-loop-distribute-patterns")))
void *memset(void *to, int byte, size_t size)
{
	uint8_t *left = to;

	while (size--)
		*left++ = byte;
	return to;
}

int memcmp(const void *left, const void *right, size_t size)
{
	const uint8_t *a = left, *b = right;

	for (; size; size--, a++, b++)
		if (*a != *b)
			return *a - *b;
	return 0;
}

__attribute__((optimize("no-tree-loop-distribute-patterns")))
size_t strlen(const char *text)
{
	size_t size = 0;

	while (text[size])
		size++;
	return size;
}

long os_open(const char *path, int flags, int mode)
{
	return sys(__NR_openat, AT, path, flags | O_CLOEXEC, mode);
}

long os_close(long fd)
{
	return sys(__NR_close, fd, 0, 0, 0);
}

long os_read(long fd, void *data, size_t size)
{
	return sys(__NR_read, fd, data, size, 0);
}

long os_read_at(long fd, void *data, size_t size, uint64_t offset)
{
	return sys(__NR_pread64, fd, data, size, offset);
}

static long write_all(long number, long fd, const void *data, size_t size,
		      uint64_t offset)
{
	const uint8_t *from = data;
	long put;

	while (size) {
		put = sys(number, fd, from, size, offset);
		if (put == -EINTR || put == -EAGAIN)
			continue;
		if (put < 0)
			return put;
		if (!put)
			return -EIO;
		from += put;
		size -= put;
		offset += put;
	}
	return 0;
}

long os_write(long fd, const void *data, size_t size)
{
	return write_all(__NR_write, fd, data, size, 0);
}

long os_write_at(long fd, const void *data, size_t size, uint64_t offset)
{
	return write_all(__NR_pwrite64, fd, data, size, offset);
}

long os_sync(long fd)
{
	return sys(__NR_fsync, fd, 0, 0, 0);
}

void os_sync_all(void)
{
	sys(__NR_sync, 0, 0, 0, 0);
}

long os_map(long fd, size_t size, uint64_t offset)
{
	return sys6(__NR_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		    offset);
}

long os_size(long fd, uint64_t *size)
{
	long end;

	if (!sys(__NR_ioctl, fd, BLKGETSIZE64, size, 0))
		return 0;
	end = sys(__NR_lseek, fd, 0, SEEK_END, 0);
	if (end < 0)
		return end;
	*size = end;
	return 0;
}

long os_mount(const char *device, const char *place, const char *type,
	      unsigned long flags, const char *data)
{
	return sys6(__NR_mount, (long)device, (long)place, (long)type, flags,
		    (long)data, 0);
}

long os_unmount(const char *place)
{
	return sys(__NR_umount2, place, 0, 0, 0);
}

long os_make_folder(const char *path)
{
	long error = sys(__NR_mkdirat, AT, path, 0755, 0);

	return error == -EEXIST ? 0 : error;
}

long os_rename(const char *from, const char *to, unsigned int flags)
{
	return sys6(__NR_renameat2, AT, (long)from, AT, (long)to, flags, 0);
}

long os_unlink(const char *path)
{
	return sys(__NR_unlinkat, AT, path, 0, 0);
}

long os_fork(void)
{
	return sys6(__NR_clone, SIGCHLD, 0, 0, 0, 0, 0);
}

long os_pid(void)
{
	return sys(__NR_getpid, 0, 0, 0, 0);
}

void os_exit(int status)
{
	for (;;)
		sys(__NR_exit_group, status, 0, 0, 0);
}

void os_sleep(unsigned long milliseconds)
{
	struct __kernel_timespec time = {
		milliseconds / 1000, milliseconds % 1000 * 1000000
	};

	sys(__NR_nanosleep, &time, 0, 0, 0);
}

uint64_t os_clock(void)
{
	struct __kernel_timespec time = { 0, 0 };

	sys(__NR_clock_gettime, CLOCK_BOOTTIME, &time, 0, 0);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

long os_load_module(const char *path)
{
	long fd = os_open(path, O_RDONLY, 0), error;

	if (fd < 0)
		return fd;
	error = sys(__NR_finit_module, fd, "", 0, 0);
	os_close(fd);
	return error == -EEXIST ? 0 : error;
}

long os_wait(long pid, unsigned long milliseconds)
{
	uint64_t end = os_clock() + milliseconds;
	int status = 0;
	long got;

	for (;;) {
		/* -1 for all: process 1 has the orphans, too. */
		got = sys(__NR_wait4, -1, &status, WNOHANG, 0);
		if (got == pid)
			return status;
		if (got < 0 && got != -EINTR)
			return got;
		if (os_clock() >= end)
			return -ETIMEDOUT;
		if (got <= 0)
			os_sleep(5);
	}
}

void os_kill(long pid)
{
	sys(__NR_kill, pid, SIGKILL, 0, 0);
}

long os_reboot(unsigned int how)
{
	return sys(__NR_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, how,
		   0);
}

long os_read_file(const char *path, char *text, size_t room)
{
	long fd = os_open(path, O_RDONLY, 0), got;
	size_t size = 0;

	text[0] = 0;
	if (fd < 0)
		return fd;
	while (size < room - 1) {
		got = os_read(fd, text + size, room - 1 - size);
		if (got <= 0)
			break;
		size += got;
	}
	os_close(fd);
	text[size] = 0;
	return size;
}

struct entry {
	uint64_t inode;
	int64_t offset;
	uint16_t size;
	uint8_t type;
	char name[];
};

bool os_each_name(const char *folder, bool (*each)(const char *, void *),
		  void *context)
{
	long fd = os_open(folder, O_RDONLY | O_DIRECTORY, 0), got, at;
	static char data[4096] __attribute__((aligned(8)));
	bool found = false;

	if (fd < 0)
		return false;
	while (!found &&
	       (got = sys(__NR_getdents64, fd, data, sizeof(data), 0)) > 0) {
		for (at = 0; at < got && !found;) {
			struct entry *entry = (struct entry *)(data + at);

			at += entry->size;
			if (entry->name[0] != '.')
				found = each(entry->name, context);
		}
	}
	os_close(fd);
	return found;
}

static uint8_t *memory;
static size_t memory_size, memory_at;

bool os_memory(size_t size)
{
	long got = sys6(__NR_mmap, 0, size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (got < 0 && got > -4096)
		return false;
	memory = (uint8_t *)got;
	memory_size = size;
	return true;
}

void *get_memory(size_t size)
{
	void *found = memory + memory_at;

	if (size > memory_size - memory_at)
		return NULL;
	memory_at += round_up(size, 64);
	if (memory_at > memory_size)
		memory_at = memory_size;
	return found;
}

size_t memory_used(void)
{
	return memory_at;
}

void memory_back(size_t used)
{
	memset(memory + used, 0, memory_at - used);
	memory_at = used;
}

void say(const char *form, ...)
{
	char line[400];
	va_list values;
	size_t size;

	size = format(line, sizeof(line) - 1, "kmemdump: ");
	va_start(values, form);
	size += format_list(line + size, sizeof(line) - 1 - size, form, values);
	va_end(values);
	line[size] = '\n';
	os_write(2, line, size + 1);
}

const char *os_problem(const char *what, long error)
{
	static const struct {
		int number;
		const char *text;
	} known[] = {
		{ EACCES, "permission denied" },
		{ EBUSY, "in use" },
		{ EINVAL, "not accepted" },
		{ EIO, "input or output error" },
		{ ENODEV, "the kernel does not know it" },
		{ ENOENT, "does not exist" },
		{ ENOSPC, "no space left" },
		{ ENXIO, "no such device" },
		{ EPERM, "not allowed" },
		{ EROFS, "read-only" },
	};
	static char text[300];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].number == -error) {
			format(text, sizeof(text), "%s: %s", what,
			       known[i].text);
			return text;
		}
	format(text, sizeof(text), "%s: error %lu", what, -error);
	return text;
}
