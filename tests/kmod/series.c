// SPDX-License-Identifier: GPL-2.0
/*
 * The tables of kernels that carry the kmemdump or meminspect series, under
 * their names and with their layouts: of RFC v1, of RFC v2 and v3, and of
 * meminspect. Each has a text of its own.
 */
#include <linux/idr.h>
#include <linux/module.h>

#define SLOTS 201

struct zone_v1 {
	int id;
	void *zone;
	size_t size;
	bool registered;
	char handle[8];
};

struct zone_v2 {
	unsigned int id;
	void *zone;
	size_t size;
};

struct entry {
	unsigned int id;
	void *va;
	phys_addr_t pa;
	size_t size;
	unsigned int type;
};

static char text_v1[] = "marked by RFC v1";
static char text_v2[] = "marked by RFC v2";
static char text_dynamic[] = "marked by meminspect";
static char text_static[] = "marked in .inspect_table";

DEFINE_IDR(kmemdump_idr);
EXPORT_SYMBOL_GPL(kmemdump_idr);

struct zone_v2 kmemdump_zones[SLOTS] = {
	[7] = { .id = 7, .zone = text_v2, .size = sizeof(text_v2) },
};
EXPORT_SYMBOL_GPL(kmemdump_zones);

struct entry inspect_entries[SLOTS] = {
	[44] = { .id = 44, .va = text_dynamic, .size = sizeof(text_dynamic) },
};
EXPORT_SYMBOL_GPL(inspect_entries);

const struct entry __inspect_table[] = {
	{ .id = 11, .va = text_static, .size = sizeof(text_static) },
};
EXPORT_SYMBOL_GPL(__inspect_table);

/* As the linker script of the series defines it. */
extern const struct entry __inspect_table_end[];
asm(".globl __inspect_table_end");
asm(".set __inspect_table_end, __inspect_table + 40");
EXPORT_SYMBOL_GPL(__inspect_table_end);

static struct zone_v1 zone = {
	.zone = text_v1,
	.size = sizeof(text_v1),
	.handle = "text_v1",
};

static int __init series_init(void)
{
	static_assert(sizeof(struct entry) == 40);
	zone.id = idr_alloc(&kmemdump_idr, &zone, 0, 512, GFP_KERNEL);
	return zone.id < 0 ? zone.id : 0;
}

static void __exit series_exit(void)
{
	idr_destroy(&kmemdump_idr);
}

module_init(series_init);
module_exit(series_exit);
MODULE_DESCRIPTION("Tables as in the kmemdump series");
MODULE_LICENSE("GPL");
