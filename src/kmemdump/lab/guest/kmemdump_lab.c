// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A module that is loaded, and that kills its kernel when told to:
 *
 *	echo null > /sys/module/kmemdump_lab/parameters/die
 *
 * What each word does is in the table at the end.
 */
#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/preempt.h>
#include <linux/reboot.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/version.h>
#include <linux/workqueue.h>
#ifdef CONFIG_X86
#include <asm/desc.h>
#endif

static int *lab_nowhere;
static volatile int lab_sink;
static DEFINE_SPINLOCK(lab_lock);

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

static noinline void lab_spin_here(void)
{
	lab_spin(NULL);
}

static noinline void lab_spin_all(void)
{
	/* Not waiting: nobody ever comes back. */
	smp_call_function(lab_spin, NULL, 0);
	lab_spin(NULL);
}

/* One instruction that jumps to itself, in an interrupt. */
static noinline void lab_jump(void *unused)
{
#ifdef CONFIG_X86
	asm volatile("1: jmp 1b");
#else
	asm volatile("1: b 1b");
#endif
}

static noinline void lab_halt(void *unused)
{
	local_irq_disable();
	for (;;) {
#ifdef CONFIG_X86
		asm volatile("hlt");
#else
		asm volatile("wfi");
#endif
	}
}

static noinline void lab_halt_here(void)
{
	lab_halt(NULL);
}

/* On the other CPU, which most likely idles. */
static void lab_on_other_cpu(void (*function)(void *))
{
	smp_call_function(function, NULL, 0);
}

static noinline void lab_jump_idle(void)
{
	lab_on_other_cpu(lab_jump);
}

static noinline void lab_halt_idle(void)
{
	lab_on_other_cpu(lab_halt);
}

static void lab_null_ipi(void *unused)
{
	lab_null();
}

static noinline void lab_ipi(void)
{
	lab_on_other_cpu(lab_null_ipi);
}

static noinline void lab_bug(void)
{
	BUG();
}

static noinline void lab_warn(void)
{
	WARN(1, "kmemdump_lab warns\n");
}

static noinline void lab_panic(void)
{
	panic("kmemdump_lab says so");
}

static noinline void lab_bad_pointer(void)
{
	*(volatile int *)0xffffdead00001000UL = 1;
}

static noinline void lab_poison(void)
{
	struct list_head *entry = kzalloc(sizeof(*entry), GFP_KERNEL);

	if (!entry)
		return;
	entry->next = LIST_POISON1;
	entry->prev = LIST_POISON2;
	*(void *volatile *)&entry->next->prev = entry->prev;
}

static noinline void lab_execute(void)
{
	void (*volatile function)(void) = (void (*)(void))0x10;

	function();
}

static noinline int lab_recurse(int depth)
{
	volatile char room[512];

	memset((void *)room, depth, sizeof(room));
	if (depth > 0)
		lab_sink = lab_recurse(depth + 1) + room[depth & 511];
	return room[7];
}

static noinline void lab_stack(void)
{
	lab_sink = lab_recurse(1);
}

static void lab_null_timer(struct timer_list *unused)
{
	lab_null();
}

static DEFINE_TIMER(lab_timer, lab_null_timer);

static noinline void lab_start_timer(void)
{
	mod_timer(&lab_timer, jiffies + 5);
}

static void lab_null_work(struct work_struct *unused)
{
	lab_null();
}

static DECLARE_WORK(lab_work, lab_null_work);

static noinline void lab_queue_work(void)
{
	schedule_work(&lab_work);
}

static int lab_block(void *unused)
{
	set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();
	return 0;
}

static int lab_hog(void *unused)
{
	preempt_disable();
	for (;;)
		cpu_relax();
	return 0;
}

static int lab_stall(void *unused)
{
	rcu_read_lock();
	for (;;)
		cpu_relax();
	return 0;
}

static void lab_run(int (*thread)(void *), const char *name)
{
	kthread_run(thread, NULL, "%s", name);
}

static noinline void lab_hung_task(void)
{
	lab_run(lab_block, "lab_blocked");
}

static noinline void lab_soft_lockup(void)
{
	lab_run(lab_hog, "lab_hog");
}

static noinline void lab_rcu_stall(void)
{
	lab_run(lab_stall, "lab_stall");
}

static noinline void lab_deadlock(void)
{
	spin_lock_irq(&lab_lock);
	spin_lock(&lab_lock);
}

static noinline void lab_emergency(void)
{
	emergency_restart();
	barrier();	/* No tail call: it is to be seen on the stack. */
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 14, 0)
/* As thermal drivers do, to protect the hardware. */
static noinline void lab_overheat(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
	__hw_protection_trigger("kmemdump_lab", 0, HWPROT_ACT_SHUTDOWN);
#else
	hw_protection_shutdown("kmemdump_lab", 0);
#endif
}
#endif

#ifdef CONFIG_X86
static noinline void lab_divide(void)
{
	/* Both volatile: the compiler knows what 1 divided by anything is. */
	volatile int one = 1, zero = 0;

	lab_sink = one / zero;
}

static noinline void lab_invalid(void)
{
	asm volatile("ud2");
}

static noinline void lab_double_fault(void)
{
	asm volatile("mov $0, %%rsp; push %%rax" ::: "memory");
}

/* No handler for the exception, nor for those that follow. */
static noinline void lab_triple_fault(void)
{
	struct desc_ptr none = { 0, 0 };

	asm volatile("lidt %0; int3" :: "m"(none));
}

static noinline void lab_page_table(void)
{
	asm volatile("cli; mov %0, %%cr3" :: "r"(0UL) : "memory");
}
#endif

static const struct {
	const char *word;
	void (*function)(void);
} lab_ways[] = {
	{ "null", lab_null },			/* dereference a NULL pointer */
	{ "badptr", lab_bad_pointer },		/* write where nothing is mapped */
	{ "poison", lab_poison },		/* follow a list's poisoned pointer */
	{ "execute", lab_execute },		/* call a function at address 0x10 */
	{ "bug", lab_bug },
	{ "warn", lab_warn },
	{ "panic", lab_panic },
	{ "stack", lab_stack },			/* recurse for ever */
	{ "timer", lab_start_timer },		/* NULL in a timer */
	{ "work", lab_queue_work },		/* NULL in a worker */
	{ "ipi", lab_ipi },			/* NULL in an interrupt */
	{ "hung", lab_hung_task },		/* a task in state D for ever */
	{ "soft", lab_soft_lockup },		/* a task that never yields */
	{ "rcu", lab_rcu_stall },		/* the same, holding up RCU */
	{ "deadlock", lab_deadlock },		/* take a spinlock twice */
	{ "spin", lab_spin_here },		/* this CPU, with interrupts off */
	{ "spinall", lab_spin_all },		/* all CPUs */
	{ "jump", lab_jump_idle },		/* in an interrupt of an idle CPU */
	{ "halt", lab_halt_here },		/* with interrupts off */
	{ "haltidle", lab_halt_idle },		/* in an interrupt of an idle CPU */
	{ "emergency", lab_emergency },		/* emergency_restart() */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 14, 0)
	{ "overheat", lab_overheat },
#endif
#ifdef CONFIG_X86
	{ "divide", lab_divide },		/* by zero */
	{ "invalid", lab_invalid },		/* an invalid instruction */
	{ "double", lab_double_fault },
	{ "triple", lab_triple_fault },
	{ "cr3", lab_page_table },		/* no page table: a triple fault */
#endif
};

static int lab_die(const char *how, const struct kernel_param *kp)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(lab_ways); i++) {
		if (sysfs_streq(how, lab_ways[i].word)) {
			lab_ways[i].function();
			return 0;
		}
	}
	return -EINVAL;
}

static const struct kernel_param_ops lab_die_ops = {
	.set = lab_die,
};
module_param_cb(die, &lab_die_ops, NULL, 0200);
MODULE_PARM_DESC(die, "how to die: null, spin, …");

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
