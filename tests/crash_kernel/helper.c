// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Hold a huge page for the list, in a guest without Python, and print its address:
 *
 *	helper hold FILE
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
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

int main(int count, char **arguments)
{
	if (count == 3 && !strcmp(arguments[1], "hold"))
		return hold(arguments[2]);
	return 2;
}
