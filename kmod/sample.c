// SPDX-License-Identifier: GPL-2.0
/*
 * A driver that marks its own memory: a ring of the lines that are written to
 *
 *	/sys/module/kmemdump_sample/parameters/say
 *
 * and the structure that tells where in the ring the next one goes. The ring
 * comes from vmalloc(), so that its pages are scattered in physical memory.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "kmemdump.h"

#define RING_SIZE	(4 * PAGE_SIZE)

static DEFINE_MUTEX(ring_lock);

static struct {
	u64 written;	/* bytes, ever */
	u64 size;
	char *ring;
} state = { .size = RING_SIZE };

static int ring_id, state_id;

static int say(const char *text, const struct kernel_param *kp)
{
	size_t length = strlen(text), done = 0;

	mutex_lock(&ring_lock);
	while (state.ring && done < length) {
		size_t at = state.written % RING_SIZE;
		size_t count = min_t(size_t, length - done, RING_SIZE - at);

		memcpy(state.ring + at, text + done, count);
		state.written += count;
		done += count;
	}
	mutex_unlock(&ring_lock);
	return 0;
}

static const struct kernel_param_ops say_ops = {
	.set = say,
};
module_param_cb(say, &say_ops, NULL, 0200);
MODULE_PARM_DESC(say, "text for the ring");

static void set_ring(char *ring)
{
	mutex_lock(&ring_lock);
	state.ring = ring;
	mutex_unlock(&ring_lock);
}

static int __init sample_init(void)
{
	char *ring = vzalloc(RING_SIZE);

	if (!ring)
		return -ENOMEM;
	state_id = kmemdump_register("sample_state", &state, sizeof(state));
	if (state_id < 0) {
		vfree(ring);
		return state_id;
	}
	ring_id = kmemdump_register("sample_ring", ring, RING_SIZE);
	if (ring_id < 0) {
		kmemdump_unregister(state_id);
		vfree(ring);
		return ring_id;
	}
	set_ring(ring);
	return 0;
}

static void __exit sample_exit(void)
{
	char *ring = state.ring;

	/* The parameter can be written until after this function. */
	set_ring(NULL);
	/* Before the memory goes. */
	kmemdump_unregister(ring_id);
	kmemdump_unregister(state_id);
	vfree(ring);
}

module_init(sample_init);
module_exit(sample_exit);
MODULE_DESCRIPTION("A driver that marks its own ring buffer");
MODULE_LICENSE("GPL");
