// SPDX-License-Identifier: GPL-2.0
/*
 * Lets half a second pass between a module's exit function and the removal of
 * its parameters, so that they are written meanwhile.
 */
#include <linux/delay.h>
#include <linux/module.h>

static int wait(struct notifier_block *block, unsigned long action, void *data)
{
	if (action == MODULE_STATE_GOING)
		msleep(500);
	return NOTIFY_OK;
}

static struct notifier_block block = { .notifier_call = wait };

static int __init slow_init(void)
{
	return register_module_notifier(&block);
}

static void __exit slow_exit(void)
{
	unregister_module_notifier(&block);
}

module_init(slow_init);
module_exit(slow_exit);
MODULE_DESCRIPTION("Makes modules go slowly");
MODULE_LICENSE("GPL");
