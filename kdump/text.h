/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bytes, text and checksums: what a C library would have. */
#ifndef KDUMP_TEXT_H
#define KDUMP_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *left, const void *right, size_t size);
size_t strlen(const char *text);

bool same(const char *left, const char *right);
bool starts_with(const char *text, const char *start);

/**
 * format() - write text, cut where there is no room
 * @form: knows %s, %lu, %lx and %%
 *
 * Return: The length of the text, which always ends with a NUL.
 */
size_t format(char *out, size_t room, const char *form, ...)
	__attribute__((format(printf, 3, 4)));

size_t format_list(char *out, size_t room, const char *form, va_list values);

/**
 * parse_number() - read a number, decimal or with 0x
 *
 * Return: Whether all of the text is one.
 */
bool parse_number(const char *text, uint64_t *value);

/** crc32_add() - the checksum of zlib; start with 0 */
uint32_t crc32_add(uint32_t crc, const void *data, size_t size);

/**
 * get_memory() - memory that stays until memory_back()
 *
 * Return: Zeros, or NULL if there is not enough.
 */
void *get_memory(size_t size);

/** memory_used() - for memory_back() */
size_t memory_used(void);

/** memory_back() - give back what get_memory() returned since */
void memory_back(size_t used);

static inline uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

#endif
