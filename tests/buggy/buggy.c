// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A driver with a bug in each of its functions. The word that is written to
 *
 *	/sys/module/buggy/parameters/die
 *
 * or given to insmod leads to one of them. No two bugs share a function, and what they
 * call of each other is not to blame: each should make a group of its own.
 */
#include <linux/bottom_half.h>
#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

struct buggy_node {
	struct buggy_node *next;
	int value;
};

static int *buggy_nowhere;
static volatile int buggy_sink;
static volatile size_t buggy_size = 64;
static char buggy_name[16];
static DEFINE_SPINLOCK(buggy_lock);
static DEFINE_MUTEX(buggy_mutex);
static DECLARE_RWSEM(buggy_semaphore);

static noinline void buggy_store_null(void)
{
	*(volatile int *)buggy_nowhere = 1;
}

static noinline void buggy_timer_expired(struct timer_list *unused)
{
	*(volatile int *)(buggy_nowhere + 1) = 2;
}

static DEFINE_TIMER(buggy_timer, buggy_timer_expired);

static noinline void buggy_start_timer(void)
{
	mod_timer(&buggy_timer, jiffies + 2);
}

static noinline void buggy_do_work(struct work_struct *unused)
{
	buggy_sink = *(volatile int *)(buggy_nowhere + 2);
}

static DECLARE_WORK(buggy_work, buggy_do_work);

static noinline void buggy_queue_work(void)
{
	schedule_work(&buggy_work);
}

static noinline void buggy_handle_ipi(void *unused)
{
	*(volatile int *)(buggy_nowhere + 3) = 3;
}

static noinline void buggy_send_ipi(void)
{
	smp_call_function(buggy_handle_ipi, NULL, 0);
}

static noinline void buggy_call_hook(void)
{
	void (*volatile hook)(void) = NULL;

	hook();
	barrier();	/* No tail call: it is to be on the stack. */
}

static noinline void buggy_follow_pointer(void)
{
	struct buggy_node *volatile node = (void *)0xdead4ead00001000UL;

	buggy_sink = node->value;
}

static noinline void buggy_fill_table(void)
{
	volatile char *table = vmalloc(PAGE_SIZE);
	int i;

	for (i = 0; table && i < 4 * PAGE_SIZE; i++)
		table[i] = 1;
}

/* A cache that is checked, whatever the command line says. */
static struct kmem_cache *buggy_cache(void)
{
	return kmem_cache_create("buggy_node", sizeof(struct buggy_node), 0,
				 SLAB_POISON | SLAB_RED_ZONE |
				 SLAB_CONSISTENCY_CHECKS, NULL);
}

static noinline void buggy_read_freed(void)
{
	struct kmem_cache *cache = buggy_cache();
	struct buggy_node *volatile node = kmem_cache_zalloc(cache, GFP_KERNEL);

	kmem_cache_free(cache, node);
	buggy_sink = node->next->value;
}

static noinline void buggy_free_twice(void)
{
	struct kmem_cache *cache = buggy_cache();
	void *volatile node = kmem_cache_zalloc(cache, GFP_KERNEL);

	kmem_cache_free(cache, node);
	kmem_cache_free(cache, node);
	barrier();
}

static noinline void buggy_check_state(void)
{
	BUG_ON(buggy_size == 64);
}

static noinline void buggy_warn_state(void)
{
	WARN(buggy_size == 64, "buggy: state is %zu\n", buggy_size);
}

static noinline void buggy_give_up(void)
{
	panic("buggy: controller %d is gone", current->pid);
}

static noinline void buggy_unlink_twice(void)
{
	static LIST_HEAD(head);
	struct list_head *entry = kzalloc(sizeof(*entry), GFP_KERNEL);

	list_add(entry, &head);
	list_del(entry);
	list_del(entry);
}

static noinline void buggy_take_reference(void)
{
	static refcount_t count = REFCOUNT_INIT(0);

	refcount_inc(&count);
	barrier();
}

static noinline void buggy_copy_out(void)
{
	/* Volatile: the compiler would find it, and only warn. */
	void *volatile object = kzalloc(32, GFP_KERNEL);

	buggy_sink = copy_to_user((void __user *)PAGE_SIZE, object, buggy_size);
}

static noinline void buggy_store_name(const char *name)
{
	memcpy(buggy_name, name, buggy_size);
	barrier();
}

static noinline void buggy_rename(void)
{
	static char name[64] = "a name that is too long";

	buggy_store_name(name);
}

static noinline int buggy_descend(int depth)
{
	volatile char room[512];

	memset((void *)room, depth, sizeof(room));
	if (depth > 0)
		buggy_sink = buggy_descend(depth + 1) + room[depth & 511];
	return room[7];
}

static noinline void buggy_search(void)
{
	buggy_sink = buggy_descend(1);
}

static noinline void buggy_smash_frame(void)
{
	volatile char frame[16];
	volatile int i;

	for (i = 0; i < 32; i++)
		frame[i] = i;
	buggy_sink = frame[3];
}

static noinline void buggy_sleep_in_bh(void)
{
	local_bh_disable();
	msleep(10);
	local_bh_enable();
}

static int buggy_keep_mutex(void *unused)
{
	mutex_lock(&buggy_mutex);
	for (;;)
		schedule_timeout_interruptible(HZ);
	return 0;
}

static noinline void buggy_wait_for_mutex(void)
{
	mutex_lock(&buggy_mutex);
	mutex_unlock(&buggy_mutex);
}

static int buggy_want_mutex(void *unused)
{
	buggy_wait_for_mutex();
	return 0;
}

static int buggy_keep_semaphore(void *unused)
{
	down_write(&buggy_semaphore);
	buggy_wait_for_mutex();
	up_write(&buggy_semaphore);
	return 0;
}

static noinline void buggy_wait_for_semaphore(void)
{
	down_read(&buggy_semaphore);
	up_read(&buggy_semaphore);
}

static int buggy_want_semaphore(void *unused)
{
	buggy_wait_for_semaphore();
	return 0;
}

static void buggy_run(int (*thread)(void *), const char *name)
{
	kthread_run(thread, NULL, "%s", name);
}

static noinline void buggy_start_waiting(void)
{
	buggy_run(buggy_keep_mutex, "buggy_owner");
	while (!mutex_is_locked(&buggy_mutex))
		msleep(1);
	buggy_run(buggy_want_mutex, "buggy_waiter");
}

/* The third waits for the second, which waits for the first, which sleeps. */
static noinline void buggy_start_chain(void)
{
	buggy_run(buggy_keep_mutex, "buggy_first");
	while (!mutex_is_locked(&buggy_mutex))
		msleep(1);
	buggy_run(buggy_keep_semaphore, "buggy_second");
	while (!rwsem_is_locked(&buggy_semaphore))
		msleep(1);
	buggy_run(buggy_want_semaphore, "buggy_third");
}

static noinline void buggy_step(int i)
{
	buggy_sink += i;
}

static noinline void buggy_other_step(int i)
{
	udelay(i & 7);
}

/* Wherever it is interrupted, it is this function that does not end. */
static noinline void buggy_never_yields(void)
{
	int i;

	preempt_disable();
	for (i = 0;; i++) {
		buggy_step(i);
		buggy_other_step(i);
		cpu_relax();
	}
}

static int buggy_thread(void *unused)
{
	buggy_never_yields();
	return 0;
}

static noinline void buggy_start_hog(void)
{
	buggy_run(buggy_thread, "buggy_hog");
}

static int buggy_hold_rcu(void *unused)
{
	rcu_read_lock();
	preempt_disable();
	for (;;)
		cpu_relax();
	return 0;
}

static noinline void buggy_start_reader(void)
{
	buggy_run(buggy_hold_rcu, "buggy_reader");
}

static noinline void buggy_poll_device(void)
{
	local_irq_disable();
	for (;;)
		udelay(1);
}

static noinline void buggy_spin_in_ipi(void *unused)
{
	for (;;)
		cpu_relax();
}

static noinline void buggy_send_endless_ipi(void)
{
	smp_call_function(buggy_spin_in_ipi, NULL, 0);
}

static noinline void buggy_lock_twice(void)
{
	spin_lock_irq(&buggy_lock);
	spin_lock(&buggy_lock);
	barrier();	/* As above. */
}

#ifdef CONFIG_X86
static noinline void buggy_divide(void)
{
	volatile int one = 1, zero = 0;

	buggy_sink = one / zero;
}
#endif

static const struct {
	const char *word;
	void (*function)(void);
} buggy_bugs[] = {
	{ "null-task", buggy_store_null },
	{ "null-timer", buggy_start_timer },
	{ "null-work", buggy_queue_work },
	{ "null-ipi", buggy_send_ipi },
	{ "null-call", buggy_call_hook },
	{ "pointer", buggy_follow_pointer },
	{ "vmalloc", buggy_fill_table },
	{ "use-after-free", buggy_read_freed },
	{ "double-free", buggy_free_twice },
	{ "bug", buggy_check_state },
	{ "warn", buggy_warn_state },
	{ "panic", buggy_give_up },
	{ "list", buggy_unlink_twice },
	{ "refcount", buggy_take_reference },
	{ "usercopy", buggy_copy_out },
	{ "fortify", buggy_rename },
	{ "stack-overflow", buggy_search },
	{ "stack-smash", buggy_smash_frame },
	{ "atomic", buggy_sleep_in_bh },
	{ "hung", buggy_start_waiting },
	{ "chain", buggy_start_chain },
	{ "soft", buggy_start_hog },
	{ "rcu", buggy_start_reader },
	{ "spin", buggy_poll_device },
	{ "spin-ipi", buggy_send_endless_ipi },
	{ "deadlock", buggy_lock_twice },
#ifdef CONFIG_X86
	{ "divide", buggy_divide },
#endif
};

static int buggy_die(const char *how, const struct kernel_param *unused)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(buggy_bugs); i++) {
		if (sysfs_streq(how, buggy_bugs[i].word)) {
			buggy_bugs[i].function();
			return 0;
		}
	}
	return -EINVAL;
}

static const struct kernel_param_ops buggy_die_ops = {
	.set = buggy_die,
};
module_param_cb(die, &buggy_die_ops, NULL, 0200);
MODULE_PARM_DESC(die, "which bug to run into");

static int __init buggy_init(void)
{
	return 0;
}

static void __exit buggy_exit(void)
{
}

module_init(buggy_init);
module_exit(buggy_exit);
MODULE_DESCRIPTION("A bug in each function");
MODULE_LICENSE("GPL");
