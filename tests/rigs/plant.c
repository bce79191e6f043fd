// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Hold secrets in a guest, in user and kernel memory. There is no C library: the
 * program is small enough to be typed into the guest. x86-64 only.
 *
 * Each secret is SECRET-xx- and a word that argv[1] has, so that the test knows it.
 */
typedef unsigned long word;

static word call(word number, word a, word b, word c, word d, word e)
{
	word result;
	register word r10 __asm__("r10") = d;
	register word r8 __asm__("r8") = e;

	__asm__ volatile("syscall" : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

enum {
	READ, WRITE, OPEN, MMAP = 9, PIPE = 22, PAUSE = 34, SOCKET = 41, BIND = 49,
	SOCKETPAIR = 53, MKDIR = 83, MOUNT = 165, PRCTL = 157, SETUID = 105,
	ADD_KEY = 248, FORK = 57, SETHOSTNAME = 170,
};

static char secret[64];

/* Return SECRET-xx-WORD; it must be used before the next one is made. */
static char *make(const char *kind, const char *tail)
{
	char *at = secret;
	const char *head = "SECRET-";

	while (*head)
		*at++ = *head++;
	while (*kind)
		*at++ = *kind++;
	*at++ = '-';
	while (*tail)
		*at++ = *tail++;
	*at = 0;
	return secret;
}

static word length(const char *text)
{
	word n = 0;

	while (text[n])
		n++;
	return n;
}

static char address[110] = { 1, 0 };

static void plant(const char *tail)
{
	int ends[2];
	char *heap = (char *)call(MMAP, 0, 4096, 3, 0x22, -1);
	word i, file;

	make("heap", tail);
	for (i = 0; i <= length(secret); i++)
		heap[i] = secret[i];
	/* As UTF-16, too. */
	for (i = 0; i <= length(secret); i++)
		heap[512 + 2 * i] = secret[i];
	call(PIPE, (word)ends, 0, 0, 0, 0);
	make("pipe", tail);
	call(WRITE, ends[1], (word)secret, length(secret), 0, 0);
	call(SOCKETPAIR, 1, 1, 0, (word)ends, 0);
	make("sock", tail);
	call(WRITE, ends[1], (word)secret, length(secret), 0, 0);
	make("unix", tail);
	for (i = 0; secret[i]; i++)
		address[3 + i] = secret[i];
	call(BIND, call(SOCKET, 1, 1, 0, 0, 0), (word)address, 3 + i, 0, 0);
	make("dirn", tail);
	call(MKDIR, (word)secret, 0700, 0, 0, 0);
	make("file", tail);
	file = call(OPEN, (word)secret, 0102, 0600, 0, 0);
	make("page", tail);
	for (i = 0; i < 300; i++)
		call(WRITE, file, (word)secret, length(secret), 0, 0);
	make("mntd", tail);
	call(MOUNT, (word)secret, (word)"/run", (word)"tmpfs", 0, 0);
	/* Description and contents of a key. */
	heap[1024] = 0;
	make("keyd", tail);
	for (i = 0; i <= length(secret); i++)
		heap[1024 + i] = secret[i];
	make("keyc", tail);
	call(ADD_KEY, (word)"user", (word)(heap + 1024), (word)secret,
	     length(secret), (word)-4);
	call(PRCTL, 15, (word)tail, 0, 0, 0);
}

void begin(word *stack)
{
	char **arguments = (char **)(stack + 1);
	word one, two;

	plant(arguments[1]);
	__builtin_memcpy(&one, make("regs", arguments[1]) + 8, 8);
	__builtin_memcpy(&two, secret + 12, 8);
	call(SETUID, 31337, 0, 0, 0, 0);
	/* In registers, also those of vectors, while the machine dies. */
	__asm__ volatile("movq %0, %%xmm3\n movq %1, %%xmm4\n"
			 "movdqu (%2), %%xmm5\n"
			 "movq %0, %%r12\n movq %1, %%r13\n movq %0, %%rbx\n"
			 "1: pause\n jmp 1b\n"
			 : : "r"(one), "r"(two), "r"(secret) : "r12", "r13", "rbx");
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
