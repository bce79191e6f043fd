// SPDX-License-Identifier: GPL-2.0
/*
 * Debug builds watch every free of the whole kernel, and warn, with a stack
 * trace, of memory that is registered. Its mark is then taken off.
 *
 * What kfree(), kmem_cache_free() and the page allocator free is noticed, so
 * vfree() too: by the pages below. Costs a look at the table for each free.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/errno.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/tracepoint.h>

#include "table.h"

static void check_object(const void *object)
{
	unsigned long start = (unsigned long)object;
	unsigned int i;

	if (ZERO_OR_NULL_PTR(object))
		return;
	for (i = 0; i < READ_ONCE(kmemdump_table.used); i++) {
		struct kmemdump_entry *entry = &kmemdump_table.entries[i];
		unsigned long at = READ_ONCE(entry->address);

		/* The size is looked up for what may be in the object only. */
		if (at < start || at - start >= KMALLOC_MAX_SIZE)
			continue;
		if (at - start < ksize(object))
			kmemdump_forget(start, start + ksize(object), "is freed");
	}
}

/* 6.1 and 6.12: (ip, object), (ip, object, cache). */
static void on_kfree(void *data, unsigned long ip, const void *object)
{
	check_object(object);
}

static void on_cache_free(void *data, unsigned long ip, const void *object,
			  const struct kmem_cache *cache)
{
	check_object(object);
}

static void on_page_free(void *data, struct page *page, unsigned int order)
{
	phys_addr_t start = page_to_phys(page);
	phys_addr_t end = start + (PAGE_SIZE << order);
	unsigned int i;

	for (i = 0; i < READ_ONCE(kmemdump_table.used); i++) {
		struct kmemdump_entry *entry = &kmemdump_table.entries[i];
		phys_addr_t physical = READ_ONCE(entry->physical);
		unsigned long at = READ_ONCE(entry->address);

		if (physical && physical >= start && physical < end)
			kmemdump_forget(at, at + 1, "is freed");
	}
}

static struct {
	const char *name;
	void *probe;
	struct tracepoint *point;
} points[] = {
	{ .name = "kfree", .probe = on_kfree },
	{ .name = "kmem_cache_free", .probe = on_cache_free },
	{ .name = "mm_page_free", .probe = on_page_free },
};

static void find_point(struct tracepoint *point, void *data)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(points); i++)
		if (!strcmp(point->name, points[i].name))
			points[i].point = point;
}

/**
 * kmemdump_debug_init() - begin to watch
 *
 * Return: 0, or an errno.
 */
int kmemdump_debug_init(void)
{
	size_t i;
	int err = -ENOENT;

	for_each_kernel_tracepoint(find_point, NULL);
	for (i = 0; i < ARRAY_SIZE(points); i++) {
		if (points[i].point)
			err = tracepoint_probe_register(points[i].point,
							points[i].probe, NULL);
		else
			err = -ENOENT;
		if (err) {
			pr_err("cannot watch %s: %d\n", points[i].name, err);
			points[i].point = NULL;
			kmemdump_debug_exit();
			return err;
		}
	}
	pr_info("watching what is freed\n");
	return 0;
}

/**
 * kmemdump_debug_exit() - watch no longer
 */
void kmemdump_debug_exit(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(points); i++)
		if (points[i].point)
			tracepoint_probe_unregister(points[i].point,
						    points[i].probe, NULL);
	tracepoint_synchronize_unregister();
}
