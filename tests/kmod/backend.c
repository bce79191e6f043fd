// SPDX-License-Identifier: GPL-2.0
/*
 * A backend that reads what it holds. It, and what it works with, are memory
 * of its own, which it overwrites and frees when it goes.
 *
 *	insmod kmemdump_backend.ko forget=1
 *
 * is one whose exit function does not unregister it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/slab.h>

#include "kmemdump.h"

static bool forget;
module_param(forget, bool, 0400);
MODULE_PARM_DESC(forget, "leave the backend registered");

struct state {
	unsigned long held;
	unsigned char sum;
};

static struct state *state;

/* The memory is there: before it is taken, and until it is let go. */
static void look(const struct kmemdump_region *region)
{
	const unsigned char *bytes = (const unsigned char *)region->address;

	state->sum ^= READ_ONCE(bytes[0]) ^ READ_ONCE(bytes[region->size - 1]);
}

static int hold(struct kmemdump_backend *backend,
		const struct kmemdump_region *region)
{
	look(region);
	state->held++;
	return 0;
}

static int let_go(struct kmemdump_backend *backend,
		  const struct kmemdump_region *region)
{
	look(region);
	state->held--;
	return 0;
}

static struct kmemdump_backend *reader;

static void free_all(void)
{
	if (reader)
		kfree(reader->name);
	kfree_sensitive(reader);
	kfree(state);
}

static int __init backend_init(void)
{
	int err = -ENOMEM;

	state = kzalloc(sizeof(*state), GFP_KERNEL);
	reader = kzalloc(sizeof(*reader), GFP_KERNEL);
	if (!state || !reader)
		goto fail;
	reader->name = kstrdup("reader", GFP_KERNEL);
	reader->register_region = hold;
	reader->unregister_region = let_go;
	err = kmemdump_register_backend(reader);
	if (err)
		goto fail;
	return 0;
fail:
	free_all();
	return err;
}

static void __exit backend_exit(void)
{
	if (!forget) {
		kmemdump_unregister_backend(reader);
		WARN(state->held, "%lu regions are still held\n", state->held);
	}
	free_all();
}

module_init(backend_init);
module_exit(backend_exit);
MODULE_DESCRIPTION("A backend that reads what it holds");
MODULE_LICENSE("GPL");
