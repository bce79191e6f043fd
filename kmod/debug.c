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
#include <linux/preempt.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include <linux/version.h>

#include <trace/events/kmem.h>

#include "table.h"

static void check_object(const void *object)
{
	unsigned long start = (unsigned long)object;
	unsigned int i;

	/* Since 6.18, memory is freed in NMI; the lock is not for that. */
	if (ZERO_OR_NULL_PTR(object) || in_nmi())
		return;
	for (i = 0; i < READ_ONCE(kmemdump_table.used); i++) {
		struct kmemdump_entry *entry = &kmemdump_table.entries[i];
		unsigned long at = READ_ONCE(entry->address);

		/* The size is looked up for what may be in the object only. */
		if (at < start || at - start >= KMALLOC_MAX_SIZE)
			continue;
		if (at - start < ksize(object))
			kmemdump_forget(start, start + ksize(object) - 1,
					"is freed");
	}
}

static void on_kfree(void *data, unsigned long ip, const void *object)
{
	check_object(object);
}

/*
 * include/trace/events/kmem.h of 5.10, 5.15 and 6.1: the cache came by its
 * name first, in 5.12.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
static void on_cache_free(void *data, unsigned long ip, const void *object,
			  const struct kmem_cache *cache)
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 12, 0)
static void on_cache_free(void *data, unsigned long ip, const void *object,
			  const char *name)
#else
static void on_cache_free(void *data, unsigned long ip, const void *object)
#endif
{
	check_object(object);
}

/* What is physically contiguous; of what is mapped otherwise, one byte. */
static u64 contiguous(const struct kmemdump_entry *entry)
{
	unsigned long at = READ_ONCE(entry->address);

	return virt_addr_valid((void *)at) ? READ_ONCE(entry->size) : 1;
}

static void on_page_free(void *data, struct page *page, unsigned int order)
{
	phys_addr_t start = page_to_phys(page);
	phys_addr_t last = start + (PAGE_SIZE << order) - 1;
	unsigned int i;

	if (in_nmi())
		return;
	for (i = 0; i < READ_ONCE(kmemdump_table.used); i++) {
		struct kmemdump_entry *entry = &kmemdump_table.entries[i];
		phys_addr_t physical = READ_ONCE(entry->physical);
		unsigned long at = READ_ONCE(entry->address);

		if (physical && physical <= last &&
		    physical + contiguous(entry) - 1 >= start)
			kmemdump_forget(at, at, "is freed");
	}
}

static struct {
	const char *name;
	void *probe;
	struct tracepoint *point;
	bool on;
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

/* Never called: the compiler compares the probes with this kernel's events. */
static void __maybe_unused check_probes(void)
{
	check_trace_callback_type_kfree(on_kfree);
	check_trace_callback_type_kmem_cache_free(on_cache_free);
	check_trace_callback_type_mm_page_free(on_page_free);
}

/**
 * kmemdump_debug_init() - begin to watch
 *
 * Return: 0, or an errno.
 */
int kmemdump_debug_init(void)
{
	size_t i;

	for_each_kernel_tracepoint(find_point, NULL);
	for (i = 0; i < ARRAY_SIZE(points); i++) {
		int err = -ENOENT;

		if (points[i].point)
			err = tracepoint_probe_register(points[i].point,
							points[i].probe, NULL);
		if (err) {
			pr_err("cannot watch %s: %d\n", points[i].name, err);
			kmemdump_debug_exit();
			return err;
		}
		points[i].on = true;
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
		if (points[i].on)
			tracepoint_probe_unregister(points[i].point,
						    points[i].probe, NULL);
	tracepoint_synchronize_unregister();
}
