// SPDX-License-Identifier: GPL-2.0
/*
 * A part of the module kmemdump in tests only: writing to the parameter "last"
 * marks the last bytes of the address space and has them forgotten.
 */
#include <linux/module.h>

#include "table.h"

static int forget_last(const char *text, const struct kernel_param *kp)
{
	unsigned long start = -4096UL;
	int id = kmemdump_register("last", (void *)start, 4096);
	int below = kmemdump_forget(start - 64, start - 1, "is not meant");
	int found = kmemdump_forget(-64UL, -1UL, "is meant");

	if (found)
		pr_info("forgot the last bytes\n");
	else
		kmemdump_unregister(id);
	WARN(id < 0 || below || found != 1, "id %d, forgotten %d and %d\n", id,
	     below, found);
	return 0;
}

static const struct kernel_param_ops last_ops = { .set = forget_last };
module_param_cb(last, &last_ops, NULL, 0200);
