// SPDX-License-Identifier: GPL-2.0
/* Marks memory that is freed once the module is loaded. */
#include <linux/module.h>

#include "kmemdump.h"

static char early[2 * PAGE_SIZE] __initdata = "early";

static int __init early_init(void)
{
	int id = kmemdump_register("early", early, sizeof(early));

	return id < 0 ? id : 0;
}

static void __exit early_exit(void)
{
}

module_init(early_init);
module_exit(early_exit);
MODULE_DESCRIPTION("Marks memory of its init function");
MODULE_LICENSE("GPL");
