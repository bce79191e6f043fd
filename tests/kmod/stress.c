// SPDX-License-Identifier: GPL-2.0
/*
 * Puts the module kmemdump to the test: what each function returns, when it is
 * loaded, and many threads that register and unregister, from then on. What
 * each of them marks says its own name, so that a reader can tell a torn row.
 *
 *	echo kfree > /sys/module/kmemdump_stress/parameters/free
 *
 * frees memory that is marked: kfree, slab, pages or vfree.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "table.h"

#define THREADS 16
#define READERS 2
#define TEXT 64

static struct task_struct *threads[THREADS + READERS];
static char texts[THREADS][TEXT];
static atomic_long_t rounds;
static int leave;
static char forgotten[TEXT];
module_param(leave, int, 0600);
MODULE_PARM_DESC(leave, "forget to unregister a variable of the module");

static int get_rounds(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_read(&rounds));
}

static const struct kernel_param_ops rounds_ops = {
	.get = get_rounds,
};
module_param_cb(rounds, &rounds_ops, NULL, 0400);

static int run(void *data)
{
	char *text = data;
	char name[KMEMDUMP_NAME_LEN];
	int i = 0;

	while (!kthread_should_stop()) {
		int id;

		snprintf(name, sizeof(name), "%s_%d", text, ++i % 100);
		/* With interrupts off now and then: any context will do. */
		if (i % 2)
			local_irq_disable();
		id = kmemdump_register(name, text, TEXT);
		if (WARN_ON(id < KMEMDUMP_FIRST_ID))
			id = 0;
		if (id)
			WARN_ON(kmemdump_unregister(id));
		if (i % 2)
			local_irq_enable();
		atomic_long_inc(&rounds);
		if (i % 64 == 0)
			usleep_range(100, 200);
	}
	return 0;
}

/* FNV-1a over the words before it, as table.h says. */
static bool is_whole(const struct kmemdump_entry *entry)
{
	const u64 *words = (const u64 *)entry;
	u64 hash = 0xcbf29ce484222325ULL;
	int i;

	for (i = 0; i < 7; i++)
		hash = (hash ^ words[i]) * 0x100000001b3ULL;
	return hash == entry->check;
}

/* As others do from outside: without the lock. */
static int read_table(void *data)
{
	while (!kthread_should_stop()) {
		unsigned int i;

		for (i = 0; i < READ_ONCE(kmemdump_table.used); i++) {
			struct kmemdump_entry *row = &kmemdump_table.entries[i];
			struct kmemdump_entry entry = *row;
			const char *text = (const char *)entry.address;
			int thread;

			if (!is_whole(&entry) ||
			    sscanf(entry.name, "thread_%d_", &thread) != 1)
				continue;
			WARN(thread < 0 || thread >= THREADS ||
			     entry.size != TEXT || text != texts[thread],
			     "row %u is torn: %.24s\n", i, entry.name);
		}
		usleep_range(100, 200);
	}
	return 0;
}

static unsigned int held;
static bool refuses;

/* Interrupts come in between two calls: they answer what they are asked. */
static struct irq_work asked;
static int asked_cpu = -1;
static unsigned int in_a_row;
static atomic_t in_interrupt;

static void answer(struct irq_work *work)
{
	int id;

	asked_cpu = -1;
	id = kmemdump_register("in_interrupt", &in_interrupt,
			       sizeof(in_interrupt));
	if (!WARN_ON(id < 0))
		WARN_ON(kmemdump_unregister(id));
	atomic_inc(&in_interrupt);
}

static void ask(void)
{
	if (in_hardirq())
		return; /* For the region of answer(). */
	if (asked_cpu == smp_processor_id())
		in_a_row++;
	else if (asked_cpu < 0 && irq_work_queue(&asked))
		asked_cpu = smp_processor_id();
}

static int hold_asking(struct kmemdump_backend *backend,
		       const struct kmemdump_region *region)
{
	ask();
	return 0;
}

static int let_go_asking(struct kmemdump_backend *backend,
			 const struct kmemdump_region *region)
{
	ask();
	return 0;
}

static struct kmemdump_backend asking = {
	.name = "asking",
	.register_region = hold_asking,
	.unregister_region = let_go_asking,
};

static int hold(struct kmemdump_backend *backend,
		const struct kmemdump_region *region)
{
	if (refuses)
		return -ENOSPC;
	held++;
	return 0;
}

static int let_go(struct kmemdump_backend *backend,
		  const struct kmemdump_region *region)
{
	if (refuses)
		return -EBUSY;
	held--;
	return 0;
}

static struct kmemdump_backend first = {
	.name = "first",
	.register_region = hold,
	.unregister_region = let_go,
};

static struct kmemdump_backend second = {
	.name = "second",
	.register_region = hold,
	.unregister_region = let_go,
};

#define EXPECT(wanted, expression)					\
	do {								\
		long found = (expression);				\
									\
		if (found != (wanted)) {				\
			pr_err("%s is %ld, expected %ld\n",		\
			       #expression, found, (long)(wanted));	\
			return -EINVAL;					\
		}							\
	} while (0)

/* A backend is called with breaks, however full the table is. */
static int check_breaks(int regions)
{
	int err;

	init_irq_work(&asked, answer);
	migrate_disable(); /* It is one CPU's interrupts that count. */
	err = kmemdump_register_backend(&asking);
	if (!err)
		err = kmemdump_unregister_backend(&asking);
	migrate_enable();
	irq_work_sync(&asked);
	WARN(in_a_row, "interrupts were off for %u calls more\n", in_a_row);
	EXPECT(0, err);
	EXPECT(0, in_a_row);
	EXPECT(true, atomic_read(&in_interrupt) >= 2 * regions);
	return 0;
}

static int check_all(void)
{
	static char a[8], b[8];
	static struct kmemdump_backend none = { .name = "none" };
	static int ids[KMEMDUMP_CAPACITY];
	static char many[KMEMDUMP_CAPACITY + 1];
	int id, i;

	EXPECT(-EINVAL, kmemdump_register(NULL, a, 8));
	EXPECT(-EINVAL, kmemdump_register("", a, 8));
	EXPECT(-EINVAL, kmemdump_register("a", NULL, 8));
	EXPECT(-EINVAL, kmemdump_register("a", a, 0));
	EXPECT(-EINVAL, kmemdump_register("a", (void *)-4L, 8));
	EXPECT(-EINVAL, kmemdump_register_id(2, "a", a, 8));
	EXPECT(77, kmemdump_register_id(77, "a", a, 8));
	EXPECT(-EALREADY, kmemdump_register_id(77, "b", b, 8));
	EXPECT(-EEXIST, kmemdump_register("again", a, 8));
	EXPECT(-EINVAL, kmemdump_register_backend(&none));
	EXPECT(-ENOENT, kmemdump_unregister_backend(&first));

	/* What was there before the backend is handed to it. */
	EXPECT(0, kmemdump_register_backend(&first));
	EXPECT(-EALREADY, kmemdump_register_backend(&first));
	EXPECT(1, held);
	/* A refused region is registered, and held when there is room. */
	refuses = true;
	id = kmemdump_register("b", b, 8);
	EXPECT(true, id >= KMEMDUMP_FIRST_ID);
	EXPECT(1, held);
	EXPECT(-EBUSY, kmemdump_unregister(77));
	refuses = false;
	EXPECT(0, kmemdump_unregister(77));
	/* In a work item. */
	for (i = 0; i < 1000 && !READ_ONCE(held); i++)
		msleep(20);
	EXPECT(1, held);
	/* Another one takes over. */
	EXPECT(0, kmemdump_register_backend(&second));
	EXPECT(1, held);
	EXPECT(-ENOENT, kmemdump_unregister_backend(&first));
	EXPECT(0, kmemdump_unregister_backend(&second));
	EXPECT(0, held);
	EXPECT(0, kmemdump_unregister(id));
	EXPECT(-ENOENT, kmemdump_unregister(id));

	/* Full, and empty again. */
	for (i = 0; i < KMEMDUMP_CAPACITY; i++) {
		ids[i] = kmemdump_register("many", &many[i], 1);
		if (ids[i] < 0)
			break;
	}
	EXPECT(-ENOSPC, kmemdump_register("more", &many[KMEMDUMP_CAPACITY], 1));
	/* There is a row left for the interrupt. */
	EXPECT(0, kmemdump_unregister(ids[--i]));
	EXPECT(0, check_breaks(i));
	while (i--)
		EXPECT(0, kmemdump_unregister(ids[i]));
	return 0;
}

static int free_marked(const char *what, const struct kernel_param *kp)
{
	struct kmem_cache *cache;
	void *memory;

	if (sysfs_streq(what, "kfree")) {
		memory = kmalloc(256, GFP_KERNEL);
		/* Not at its start: some drivers mark a member. */
		kmemdump_register("in_kmalloc", memory + 64, 64);
		kfree(memory);
	} else if (sysfs_streq(what, "pages")) {
		memory = (void *)__get_free_pages(GFP_KERNEL, 2);
		kmemdump_register("in_pages", memory + PAGE_SIZE, 64);
		free_pages((unsigned long)memory, 2);
	} else if (sysfs_streq(what, "vfree")) {
		memory = vmalloc(3 * PAGE_SIZE);
		kmemdump_register("in_vmalloc", memory, 3 * PAGE_SIZE);
		vfree(memory);
	} else if (sysfs_streq(what, "slab")) {
		cache = kmem_cache_create("kmemdump_stress", 192, 0, 0, NULL);
		memory = kmem_cache_alloc(cache, GFP_KERNEL);
		kmemdump_register("in_slab", memory, 192);
		kmem_cache_free(cache, memory);
		kmem_cache_destroy(cache);
	} else {
		return -EINVAL;
	}
	return 0;
}

static const struct kernel_param_ops free_ops = {
	.set = free_marked,
};
module_param_cb(free, &free_ops, NULL, 0200);

static void stop(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(threads); i++)
		if (!IS_ERR_OR_NULL(threads[i]))
			kthread_stop(threads[i]);
}

static int __init stress_init(void)
{
	int i, err = check_all();

	if (err)
		return err;
	if (leave && kmemdump_register("forgotten", forgotten, TEXT) < 0)
		return -EINVAL;
	for (i = 0; i < THREADS; i++)
		snprintf(texts[i], TEXT, "thread_%d", i);
	for (i = 0; i < ARRAY_SIZE(threads); i++) {
		threads[i] = i < THREADS ?
			kthread_run(run, texts[i], "stress/%d", i) :
			kthread_run(read_table, NULL, "read/%d", i - THREADS);
		if (IS_ERR(threads[i])) {
			stop();
			return PTR_ERR(threads[i]);
		}
	}
	return 0;
}

static void __exit stress_exit(void)
{
	stop();
}

module_init(stress_init);
module_exit(stress_exit);
MODULE_DESCRIPTION("Puts the module kmemdump to the test");
MODULE_LICENSE("GPL");
