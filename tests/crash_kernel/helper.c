// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a guest without Python needs for a crash kernel:
 *
 *	helper hold FILE				a huge page; prints its address
 *	helper load KERNEL INITRAMFS COMMAND-LINE	as kexec -p -s does
 */
#include <fcntl.h>
#include <linux/kexec.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE (2UL << 20)

static int hold(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	volatile char *page;
	uint64_t entry = 0;
	int map = open("/proc/self/pagemap", O_RDONLY);
	long size = sysconf(_SC_PAGESIZE);

	if (fd < 0 || ftruncate(fd, PAGE))
		return perror(path), 1;
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return perror("mmap"), 1;
	page[0] = 0;
	pread(map, &entry, 8, (uintptr_t)page / size * 8);
	printf("%#lx\n", (entry & ((1UL << 55) - 1)) * size);
	return 0;
}

static int load(char **arguments)
{
#ifdef SYS_kexec_file_load
	int kernel = open(arguments[0], O_RDONLY);
	int initramfs = open(arguments[1], O_RDONLY);

	if (!syscall(SYS_kexec_file_load, kernel, initramfs,
		     strlen(arguments[2]) + 1, arguments[2],
		     KEXEC_FILE_ON_CRASH))
		return 0;
#endif
	return perror("kexec_file_load"), 1;
}

int main(int count, char **arguments)
{
	if (count == 3 && !strcmp(arguments[1], "hold"))
		return hold(arguments[2]);
	if (count == 5 && !strcmp(arguments[1], "load"))
		return load(arguments + 2);
	return 2;
}
