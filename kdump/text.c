// SPDX-License-Identifier: GPL-2.0-or-later
#include "text.h"

bool same(const char *left, const char *right)
{
	size_t size = strlen(left);

	return size == strlen(right) && !memcmp(left, right, size);
}

bool starts_with(const char *text, const char *start)
{
	while (*start)
		if (*text++ != *start++)
			return false;
	return true;
}

struct output {
	char *text;
	size_t room;
	size_t used;
};

static void put(struct output *out, char letter)
{
	if (out->used + 1 < out->room)
		out->text[out->used++] = letter;
}

static void put_number(struct output *out, unsigned long value,
		       unsigned int base)
{
	char digits[24];
	unsigned int count = 0;

	do {
		digits[count++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (count)
		put(out, digits[--count]);
}

size_t format_list(char *text, size_t room, const char *form, va_list values)
{
	struct output out = { text, room, 0 };
	const char *word;

	for (; *form; form++) {
		if (*form != '%') {
			put(&out, *form);
			continue;
		}
		form++;
		if (*form == 's') {
			for (word = va_arg(values, const char *); *word; word++)
				put(&out, *word);
		} else if (*form == 'l') {
			form++;
			put_number(&out, va_arg(values, unsigned long),
				   *form == 'x' ? 16 : 10);
		} else {
			put(&out, *form);
		}
	}
	if (room)
		text[out.used] = 0;
	return out.used;
}

size_t format(char *text, size_t room, const char *form, ...)
{
	va_list values;
	size_t size;

	va_start(values, form);
	size = format_list(text, room, form, values);
	va_end(values);
	return size;
}

bool parse_number(const char *text, uint64_t *value)
{
	unsigned int base = 10, digit;
	uint64_t sum = 0;

	if (text[0] == '0' && text[1] == 'x') {
		base = 16;
		text += 2;
	}
	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text >= '0' && *text <= '9')
			digit = *text - '0';
		else if (base == 16 && *text >= 'a' && *text <= 'f')
			digit = *text - 'a' + 10;
		else
			return false;
		if (sum > (UINT64_MAX - digit) / base)
			return false;
		sum = sum * base + digit;
	}
	*value = sum;
	return true;
}

uint32_t crc32_add(uint32_t crc, const void *data, size_t size)
{
	static uint32_t table[8][256];
	const uint8_t *byte = data;
	unsigned int i, bit, slice;

	if (!table[0][1]) {
		for (i = 0; i < 256; i++) {
			uint32_t value = i;

			for (bit = 0; bit < 8; bit++)
				value = value >> 1 ^ (value & 1 ? 0xedb88320 : 0);
			table[0][i] = value;
		}
		for (slice = 1; slice < 8; slice++)
			for (i = 0; i < 256; i++)
				table[slice][i] = table[slice - 1][i] >> 8 ^
					table[0][table[slice - 1][i] & 0xff];
	}
	crc = ~crc;
	for (; size >= 8; size -= 8, byte += 8) {
		uint32_t low, high;

		memcpy(&low, byte, 4);
		memcpy(&high, byte + 4, 4);
		low ^= crc;
		crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^
		      table[5][low >> 16 & 0xff] ^ table[4][low >> 24] ^
		      table[3][high & 0xff] ^ table[2][high >> 8 & 0xff] ^
		      table[1][high >> 16 & 0xff] ^ table[0][high >> 24];
	}
	while (size--)
		crc = crc >> 8 ^ table[0][(crc ^ *byte++) & 0xff];
	return ~crc;
}
