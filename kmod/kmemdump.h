/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mark memory, so that a dump of a dead kernel has it.
 *
 * A region that is registered here is found, with its name, by whatever looks
 * at the kernel's memory: the kmemdump agent in this machine, which hands it to
 * the firmware, or a host that looks into a VM. No backend in the kernel is
 * needed for that.
 *
 * The caller must unregister a region before the memory is freed. A build with
 * KMEMDUMP_DEBUG=y warns of memory that is freed while it is registered.
 */
#ifndef KMEMDUMP_H
#define KMEMDUMP_H

#include <linux/module.h>
#include <linux/types.h>

#define KMEMDUMP_NAME_LEN	24	/* with the terminating NUL */
#define KMEMDUMP_CAPACITY	512	/* regions */
#define KMEMDUMP_FIRST_ID	3	/* 1 and 2 describe a dump */

/**
 * struct kmemdump_region - memory that is marked
 * @id: unique while it is registered
 * @name: for people and file names; need not be unique
 * @address: kernel virtual address
 * @size: size in bytes
 */
struct kmemdump_region {
	u32 id;
	char name[KMEMDUMP_NAME_LEN];
	unsigned long address;
	size_t size;
};

/**
 * struct kmemdump_backend - what can dump regions when the kernel cannot
 * @name: for messages
 * @register_region: hold this region from now on; 0 or an errno
 * @unregister_region: let go of it; 0 or an errno, and then it still holds it
 * @owner: the module that registered it; set by kmemdump_register_backend()
 *
 * Both are called with a raw spinlock held and interrupts off, so they must not
 * sleep, and must not call any function of this header.
 */
struct kmemdump_backend {
	const char *name;
	int (*register_region)(struct kmemdump_backend *backend,
			       const struct kmemdump_region *region);
	int (*unregister_region)(struct kmemdump_backend *backend,
				 const struct kmemdump_region *region);
	struct module *owner;
};

int kmemdump_register(const char *name, const void *address, size_t size);
int kmemdump_register_id(u32 id, const char *name, const void *address,
			 size_t size);
int kmemdump_unregister(u32 id);
int kmemdump_register_backend_owner(struct kmemdump_backend *backend,
				    struct module *owner);
int kmemdump_unregister_backend(struct kmemdump_backend *backend);

/**
 * kmemdump_register_backend() - hand all regions to a backend of this module
 * @backend: as for kmemdump_register_backend_owner(), which says the rest
 */
#define kmemdump_register_backend(backend) \
	kmemdump_register_backend_owner(backend, THIS_MODULE)

#endif /* KMEMDUMP_H */
