// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A module that is loaded, and that kills its kernel when told to:
 *
 *	echo null > /sys/module/kmemdump_lab/parameters/die
 *
 * null     dereference a NULL pointer
 * spin     this CPU spins for ever with interrupts off
 * spinall  so do all CPUs
 */
#include <linux/irqflags.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/smp.h>
#include <linux/string.h>

static int *lab_nowhere;

static noinline void lab_null(void)
{
	/* Volatile, so that the compiler cannot see the end of it. */
	*(volatile int *)lab_nowhere = 1;
}

static noinline void lab_spin(void *unused)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static noinline void lab_spin_all(void)
{
	/* Not waiting: nobody ever comes back. */
	smp_call_function(lab_spin, NULL, 0);
	lab_spin(NULL);
}

static int lab_die(const char *how, const struct kernel_param *kp)
{
	if (sysfs_streq(how, "null"))
		lab_null();
	else if (sysfs_streq(how, "spin"))
		lab_spin(NULL);
	else if (sysfs_streq(how, "spinall"))
		lab_spin_all();
	else
		return -EINVAL;
	return 0;
}

static const struct kernel_param_ops lab_die_ops = {
	.set = lab_die,
};
module_param_cb(die, &lab_die_ops, NULL, 0200);
MODULE_PARM_DESC(die, "how to die: null, spin or spinall");

static int __init lab_init(void)
{
	return 0;
}

static void __exit lab_exit(void)
{
}

module_init(lab_init);
module_exit(lab_exit);
MODULE_DESCRIPTION("Kills its kernel on purpose");
MODULE_LICENSE("GPL");
