// SPDX-License-Identifier: GPL-2.0
/*
 * The registry: what is marked, and the one backend that holds it.
 *
 * Semantics are those of kmemdump outside the kernel: regions that are
 * registered before there is a backend wait for it, a new backend takes over
 * from the old one, and a backend that goes leaves its regions for the next.
 * What a backend refuses is registered nevertheless, and offered again whenever
 * a region goes or another backend comes.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bug.h>
#include <linux/cache.h>
#include <linux/errno.h>
#include <linux/export.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include "table.h"

#define FNV_OFFSET	0xcbf29ce484222325ULL
#define FNV_PRIME	0x100000001b3ULL

struct kmemdump_table kmemdump_table __aligned(PAGE_SIZE) = {
	.magic = KMEMDUMP_MAGIC,
	.version = KMEMDUMP_VERSION,
	.entry_size = sizeof(struct kmemdump_entry),
	.capacity = KMEMDUMP_CAPACITY,
};
EXPORT_SYMBOL_GPL(kmemdump_table);

/* One backend comes or goes at a time; taken before kmemdump_lock. */
static DEFINE_MUTEX(kmemdump_backend_mutex);
/*
 * Guards the table and the backend. Raw: PREEMPT_RT must not sleep for it. Held
 * for one call of the backend, never for one after the other.
 */
static DEFINE_RAW_SPINLOCK(kmemdump_lock);
static struct kmemdump_backend *kmemdump_backend;
/* What it said of itself: a module that goes may have freed both. */
static struct kmemdump_backend kmemdump_operations;
static char kmemdump_backend_name[32];
/* The backend lets go of its regions, and gets none. */
static bool kmemdump_leaving;
/* The backend refused some. */
static bool kmemdump_waiting;
static u32 kmemdump_next_id = KMEMDUMP_FIRST_ID;

static void offer_again(struct work_struct *work);
static DECLARE_WORK(kmemdump_offer_work, offer_again);

static u64 entry_check(const struct kmemdump_entry *entry)
{
	const u64 *words = (const u64 *)entry;
	u64 hash = FNV_OFFSET;
	size_t i;

	for (i = 0; i < offsetof(struct kmemdump_entry, check) / 8; i++)
		hash = (hash ^ words[i]) * FNV_PRIME;
	return hash;
}

/* Whoever reads meanwhile sees a wrong check, and takes the row for none. */
static void store_entry(struct kmemdump_entry *entry,
			const struct kmemdump_entry *value)
{
	WRITE_ONCE(entry->check, ~entry->check);
	smp_wmb(); /* The check is wrong before anything changes, */
	memcpy(entry, value, offsetof(struct kmemdump_entry, check));
	smp_wmb(); /* and right when everything has. */
	WRITE_ONCE(entry->check, entry_check(value));
}

static void set_held(struct kmemdump_entry *entry, bool held)
{
	struct kmemdump_entry value = *entry;

	value.held = held;
	store_entry(entry, &value);
}

static struct kmemdump_region to_region(const struct kmemdump_entry *entry)
{
	struct kmemdump_region region = {
		.id = entry->id,
		.address = entry->address,
		.size = entry->size,
	};

	memcpy(region.name, entry->name, sizeof(region.name));
	return region;
}

static struct kmemdump_entry *find_id(u32 id)
{
	unsigned int i;

	for (i = 0; i < kmemdump_table.used; i++)
		if (kmemdump_table.entries[i].id == id)
			return &kmemdump_table.entries[i];
	return NULL;
}

/* Last address; what is registered does not wrap around. */
static u64 last_of(const struct kmemdump_entry *entry)
{
	return entry->address + entry->size - 1;
}

static void offer(struct kmemdump_entry *entry)
{
	struct kmemdump_region region = to_region(entry);

	if (!kmemdump_backend || kmemdump_leaving || entry->held)
		return;
	if (kmemdump_operations.register_region(kmemdump_backend, &region))
		kmemdump_waiting = true;
	else
		set_held(entry, true);
}

/* Interrupts and others come in between two calls of the backend. */
static void offer_all(void)
{
	unsigned long flags;
	unsigned int i;

	for (i = 0; i < READ_ONCE(kmemdump_table.used); i++) {
		raw_spin_lock_irqsave(&kmemdump_lock, flags);
		if (kmemdump_table.entries[i].id)
			offer(&kmemdump_table.entries[i]);
		raw_spin_unlock_irqrestore(&kmemdump_lock, flags);
		cond_resched();
	}
}

static void offer_again(struct work_struct *work)
{
	WRITE_ONCE(kmemdump_waiting, false);
	offer_all();
}

static int take_off(struct kmemdump_entry *entry)
{
	struct kmemdump_region region = to_region(entry);
	int err = 0;

	if (!entry->held)
		return 0;
	if (kmemdump_backend)
		err = kmemdump_operations.unregister_region(kmemdump_backend,
							    &region);
	if (!err)
		set_held(entry, false);
	return err;
}

/*
 * Whatever the old backend says: it must not keep the next from coming.
 * @call is false for a backend that is not there to be called any more.
 */
static void drop_backend(bool call)
{
	unsigned long flags;
	unsigned int i;

	lockdep_assert_held(&kmemdump_backend_mutex);
	raw_spin_lock_irqsave(&kmemdump_lock, flags);
	kmemdump_leaving = true;
	if (!call)
		kmemdump_backend = NULL;
	raw_spin_unlock_irqrestore(&kmemdump_lock, flags);

	for (i = 0; i < READ_ONCE(kmemdump_table.used); i++) {
		struct kmemdump_entry *entry = &kmemdump_table.entries[i];

		raw_spin_lock_irqsave(&kmemdump_lock, flags);
		if (entry->id && take_off(entry))
			set_held(entry, false);
		raw_spin_unlock_irqrestore(&kmemdump_lock, flags);
		cond_resched();
	}

	raw_spin_lock_irqsave(&kmemdump_lock, flags);
	kmemdump_backend = NULL;
	kmemdump_leaving = false;
	raw_spin_unlock_irqrestore(&kmemdump_lock, flags);
}

static void empty_entry(struct kmemdump_entry *entry)
{
	static const struct kmemdump_entry empty;

	store_entry(entry, &empty);
}

/* Not the lowest free one: an id of an old dump is not taken for a new one. */
static u32 new_id(void)
{
	u32 id;

	do {
		id = kmemdump_next_id++;
		if (kmemdump_next_id > INT_MAX)
			kmemdump_next_id = KMEMDUMP_FIRST_ID;
	} while (find_id(id));
	return id;
}

static struct kmemdump_entry *free_entry(void)
{
	struct kmemdump_entry *entry = find_id(0);

	if (entry)
		return entry;
	if (kmemdump_table.used == KMEMDUMP_CAPACITY)
		return NULL;
	entry = &kmemdump_table.entries[kmemdump_table.used];
	empty_entry(entry);
	smp_wmb(); /* The row is empty before it counts. */
	WRITE_ONCE(kmemdump_table.used, kmemdump_table.used + 1);
	return entry;
}

static bool is_marked(unsigned long address, size_t size)
{
	unsigned int i;

	for (i = 0; i < kmemdump_table.used; i++) {
		const struct kmemdump_entry *entry = &kmemdump_table.entries[i];

		if (entry->id && entry->address == address &&
		    entry->size == size)
			return true;
	}
	return false;
}

/* For who cannot walk page tables. More than a page may be scattered. */
static u64 to_physical(const void *address)
{
	struct page *page;

	if (virt_addr_valid(address))
		return virt_to_phys((void *)address);
	if (!is_vmalloc_addr(address))
		return 0;
	page = vmalloc_to_page(address);
	return page ? page_to_phys(page) + offset_in_page(address) : 0;
}

static int do_register(u32 id, const char *name, const void *address,
		       size_t size)
{
	struct kmemdump_entry value = {
		.id = id,
		.address = (unsigned long)address,
		.size = size,
	};
	struct kmemdump_entry *entry;
	unsigned long flags;
	int ret;

	if (!name || !*name || !size || !address ||
	    value.address + size - 1 < value.address)
		return -EINVAL;
	strscpy(value.name, name, sizeof(value.name));
	value.physical = to_physical(address);

	raw_spin_lock_irqsave(&kmemdump_lock, flags);
	if (is_marked(value.address, size)) {
		ret = -EEXIST;
		goto out;
	}
	if (id && find_id(id)) {
		ret = -EALREADY;
		goto out;
	}
	entry = free_entry();
	if (!entry) {
		ret = -ENOSPC;
		goto out;
	}
	if (!id)
		value.id = new_id();
	store_entry(entry, &value);
	offer(entry);
	ret = value.id;
out:
	raw_spin_unlock_irqrestore(&kmemdump_lock, flags);
	return ret;
}

/**
 * kmemdump_register() - mark memory
 * @name: for people; what is too long is cut
 * @address: any kernel virtual address: of an image, of kmalloc(), of vmalloc()
 * @size: in bytes
 *
 * Whether a backend takes it is another matter: it is marked either way.
 *
 * Context: Any but NMI. Takes a raw spinlock, with interrupts off.
 * Return: The id of the region, or a negative errno: -EINVAL for no name, no
 * size, or a range that makes no sense, -EEXIST if exactly this range is
 * marked, -ENOSPC if the table is full.
 */
int kmemdump_register(const char *name, const void *address, size_t size)
{
	return do_register(0, name, address, size);
}
EXPORT_SYMBOL_GPL(kmemdump_register);

/**
 * kmemdump_register_id() - mark memory, with an id of one's own
 * @id: KMEMDUMP_FIRST_ID to INT_MAX
 * @name: as for kmemdump_register()
 * @address: likewise
 * @size: likewise
 *
 * Context: Any but NMI. Takes a raw spinlock, with interrupts off.
 * Return: @id, or a negative errno: as kmemdump_register(), and -EALREADY if
 * the id is taken.
 */
int kmemdump_register_id(u32 id, const char *name, const void *address,
			 size_t size)
{
	if (id < KMEMDUMP_FIRST_ID || id > INT_MAX)
		return -EINVAL;
	return do_register(id, name, address, size);
}
EXPORT_SYMBOL_GPL(kmemdump_register_id);

/**
 * kmemdump_unregister() - take a mark off
 * @id: what kmemdump_register() returned
 *
 * Afterwards nobody is told of the memory any more, and it may be freed. (Who
 * is reading the table at this moment may still read what is there then.) What
 * the backend had no room for is offered to it again, in a work item.
 *
 * Context: Any but NMI. Takes a raw spinlock, with interrupts off.
 * Return: 0, -ENOENT if there is no such region, or what the backend says that
 * does not let it go; then the region stays marked.
 */
int kmemdump_unregister(u32 id)
{
	struct kmemdump_entry *entry;
	unsigned long flags;
	bool waiting;
	int ret = -ENOENT;

	raw_spin_lock_irqsave(&kmemdump_lock, flags);
	entry = id ? find_id(id) : NULL;
	if (entry) {
		ret = take_off(entry);
		if (!ret)
			empty_entry(entry);
	}
	waiting = !ret && kmemdump_waiting && kmemdump_backend;
	raw_spin_unlock_irqrestore(&kmemdump_lock, flags);
	if (waiting)
		schedule_work(&kmemdump_offer_work);
	return ret;
}
EXPORT_SYMBOL_GPL(kmemdump_unregister);

/**
 * kmemdump_register_backend_owner() - hand all regions to a backend
 * @backend: stays the caller's, until it is unregistered
 * @owner: the module with the backend's functions
 *
 * The backend before, if there is one, lets go of them first. Drivers call
 * kmemdump_register_backend(), which adds the owner.
 *
 * No reference to @owner is kept, or it could never be unloaded: its exit
 * function unregisters the backend, as it does with other kinds of callbacks.
 * If that is forgotten, the backend is dropped without being called.
 *
 * Context: May sleep. Calls the backend with interrupts off, for one region at
 * a time.
 * Return: 0, -EINVAL without functions, -ENODEV if @owner is being unloaded, or
 * -EALREADY if it is the one at hand.
 */
int kmemdump_register_backend_owner(struct kmemdump_backend *backend,
				    struct module *owner)
{
	unsigned long flags;
	int ret = 0;

	if (!backend || !backend->name || !backend->register_region ||
	    !backend->unregister_region)
		return -EINVAL;
	/* It must not go while its functions are called. */
	if (!try_module_get(owner))
		return -ENODEV;
	mutex_lock(&kmemdump_backend_mutex);
	if (backend == kmemdump_backend) {
		ret = -EALREADY;
	} else {
		if (kmemdump_backend)
			drop_backend(true);
		backend->owner = owner;
		strscpy(kmemdump_backend_name, backend->name,
			sizeof(kmemdump_backend_name));
		raw_spin_lock_irqsave(&kmemdump_lock, flags);
		kmemdump_operations = *backend;
		kmemdump_backend = backend;
		kmemdump_waiting = false;
		raw_spin_unlock_irqrestore(&kmemdump_lock, flags);
		offer_all();
	}
	mutex_unlock(&kmemdump_backend_mutex);
	module_put(owner);
	return ret;
}
EXPORT_SYMBOL_GPL(kmemdump_register_backend_owner);

/**
 * kmemdump_unregister_backend() - take all regions off a backend
 * @backend: the one at hand
 *
 * The regions stay marked, and wait for the next one. Afterwards the backend is
 * not called any more.
 *
 * Context: May sleep. Calls the backend with interrupts off, for one region at
 * a time.
 * Return: 0, or -ENOENT if it is not the one at hand, for another took over.
 */
int kmemdump_unregister_backend(struct kmemdump_backend *backend)
{
	int ret = -ENOENT;

	mutex_lock(&kmemdump_backend_mutex);
	if (backend && backend == kmemdump_backend) {
		drop_backend(true);
		ret = 0;
	}
	mutex_unlock(&kmemdump_backend_mutex);
	return ret;
}
EXPORT_SYMBOL_GPL(kmemdump_unregister_backend);

/**
 * kmemdump_forget() - take off the marks of memory that goes away
 * @start: first address
 * @last: last address; the one behind it may be 0
 * @why: for the warning
 *
 * Return: How many there were.
 */
unsigned int kmemdump_forget(unsigned long start, unsigned long last,
			     const char *why)
{
	unsigned int i, count = 0;
	unsigned long flags;

	for (i = 0; i < READ_ONCE(kmemdump_table.used); i++) {
		struct kmemdump_entry *entry = &kmemdump_table.entries[i];
		struct kmemdump_region gone = {};

		raw_spin_lock_irqsave(&kmemdump_lock, flags);
		if (entry->id && entry->address <= last &&
		    last_of(entry) >= start) {
			gone = to_region(entry);
			if (take_off(entry))
				set_held(entry, false);
			empty_entry(entry);
		}
		raw_spin_unlock_irqrestore(&kmemdump_lock, flags);
		if (gone.id) {
			count++;
			WARN(1, "kmemdump: region %s (id %u) %s while it is registered\n",
			     gone.name, gone.id, why);
		}
	}
	return count;
}

static void forget_regions(const struct module *module,
			   bool (*within)(unsigned long, const struct module *),
			   const char *why)
{
	unsigned int i;

	for (i = 0; i < READ_ONCE(kmemdump_table.used); i++) {
		struct kmemdump_entry *entry = &kmemdump_table.entries[i];
		unsigned long start, last, flags;
		u32 id;

		raw_spin_lock_irqsave(&kmemdump_lock, flags);
		id = entry->id;
		start = entry->address;
		last = last_of(entry);
		raw_spin_unlock_irqrestore(&kmemdump_lock, flags);

		if (!id)
			continue;
		if (within(start, module))
			kmemdump_forget(start, start, why);
		else if (within(last, module))
			kmemdump_forget(last, last, why);
	}
}

static bool backend_is_of(const struct module *module)
{
	const struct kmemdump_backend *it = &kmemdump_operations;

	return it->owner == module ||
	       within_module((unsigned long)kmemdump_backend, module) ||
	       within_module((unsigned long)it->register_region, module) ||
	       within_module((unsigned long)it->unregister_region, module);
}

static void forget_backend(const struct module *module)
{
	bool gone;

	mutex_lock(&kmemdump_backend_mutex);
	gone = kmemdump_backend && backend_is_of(module);
	/* Its exit function may have freed what it works with. */
	if (gone)
		drop_backend(false);
	WARN(gone, "kmemdump: backend %s is a module's that goes while it is registered\n",
	     kmemdump_backend_name);
	mutex_unlock(&kmemdump_backend_mutex);
}

/*
 * A module that goes takes its memory with it, in every build: all of it when
 * it is unloaded or fails to load, that of its init function when it is loaded.
 * The chain is called before the memory is freed in both.
 */
static int module_changes(struct notifier_block *block, unsigned long action,
			  void *data)
{
	const struct module *module = data;

	switch (action) {
	case MODULE_STATE_LIVE:
		forget_regions(module, within_module_init,
			       "is freed with its module's init memory");
		return NOTIFY_OK;
	case MODULE_STATE_GOING:
		forget_backend(module);
		forget_regions(module, within_module,
			       "is a module's that goes");
		return NOTIFY_OK;
	default:
		return NOTIFY_DONE;
	}
}

static struct notifier_block kmemdump_module_block = {
	.notifier_call = module_changes,
};

static int __init kmemdump_init(void)
{
	int err = register_module_notifier(&kmemdump_module_block);

	if (err)
		return err;
	err = kmemdump_debug_init();
	if (err)
		unregister_module_notifier(&kmemdump_module_block);
	return err;
}

static void __exit kmemdump_exit(void)
{
	kmemdump_debug_exit();
	unregister_module_notifier(&kmemdump_module_block);
	cancel_work_sync(&kmemdump_offer_work);
}

module_init(kmemdump_init);
module_exit(kmemdump_exit);
MODULE_DESCRIPTION("Marks memory, so that a dump of a dead kernel has it");
MODULE_LICENSE("GPL");
