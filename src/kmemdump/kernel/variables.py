# SPDX-License-Identifier: GPL-2.0-or-later
"""
Types of the kernel's global variables.

BTF has only the types of per-CPU variables. This is a table of the others that drgn's
helpers and crash commands, and our areas, ask for by name.
``tests/kernel/test_variables.py`` compares it with the DWARF of real kernels.
"""

from __future__ import annotations

from collections.abc import Iterable

from drgn import Object, Program, Symbol, Type, TypeMember, alignof, sizeof

from kmemdump.memory.ranges import round_up

__all__ = ["VARIABLES", "make_struct", "variable"]

VARIABLES: dict[str, str] = {
    "__cpu_active_mask": "struct cpumask",
    "__cpu_online_mask": "struct cpumask",
    "__cpu_possible_mask": "struct cpumask",
    "__cpu_present_mask": "struct cpumask",
    "__highest_present_section_nr": "unsigned long",
    "__log_buf": "char []",
    "__per_cpu_offset": "unsigned long []",
    "_totalram_pages": "atomic_long_t",
    "arp_tbl": "struct neigh_table",
    "avenrun": "unsigned long [3]",
    "blockdev_superblock": "struct super_block *",
    "block_class": "struct class",
    "boot_command_line": "char []",
    "btf_idr": "struct idr",
    "btf_modules": "struct list_head",
    "btf_vmlinux": "struct btf *",
    "bus_kset": "struct kset *",
    "bus_ktype": "struct kobj_type",
    "cdev_map": "struct kobj_map *",
    "cgrp_dfl_root": "struct cgroup_root",
    "chrdevs": "struct char_device_struct *[255]",
    "class_kset": "struct kset *",
    "class_ktype": "struct kobj_type",
    "clear_seq": "struct latched_seq",
    "crash_notes": "note_buf_t *",
    "crashing_cpu": "int",
    "dentry_hashtable": "struct hlist_bl_head *",
    "device_ktype": "struct kobj_type",
    "die_counter": "int",
    "driver_ktype": "struct kobj_type",
    "file_systems": "struct file_system_type *",
    "free_vmap_area_root": "struct rb_root",
    "gfpflag_names": "struct trace_print_flags []",
    "high_memory": "void *",
    "hstates": "struct hstate []",
    "hugetlb_max_hstate": "int",
    "hung_task_show_lock": "_Bool",
    "idt_table": "gate_desc [256]",
    "init_cred": "struct cred",
    "init_files": "struct files_struct",
    "init_fs": "struct fs_struct",
    "init_ipc_ns": "struct ipc_namespace",
    "init_mm": "struct mm_struct",
    "init_net": "struct net",
    "init_nsproxy": "struct nsproxy",
    "init_pid_ns": "struct pid_namespace",
    "init_task": "struct task_struct",
    "init_time_ns": "struct time_namespace",
    "init_user_ns": "struct user_namespace",
    "init_uts_ns": "struct uts_namespace",
    "inode_hashtable": "struct hlist_head *",
    "iomem_resource": "struct resource",
    "ioport_resource": "struct resource",
    "ipc_mni_shift": "int",
    # A struct radix_tree_root, which is a struct xarray since Linux kernel
    # commit f8d5d0cc145c ("xarray: Add definition of struct xarray") (in v4.20).
    "irq_desc_tree": "struct xarray",
    "jiffies_64": "u64",
    "kthreadd_task": "struct task_struct *",
    "last_jiffies_update": "ktime_t",
    "link_idr": "struct idr",
    # Its length is unknown: tables without symbols follow it.
    "linux_banner": "const char [512]",
    "log_buf": "char *",
    "log_buf_len": "u32",
    "major_names": "struct blk_major_name *[255]",
    "map_idr": "struct idr",
    "max_low_pfn": "unsigned long",
    "max_pfn": "unsigned long",
    # CONFIG_SPARSEMEM_EXTREME, which x86_64 and aarch64 use.
    "mem_section": "struct mem_section **",
    "memblock": "struct memblock",
    "memory_subsys": "struct bus_type",
    "min_low_pfn": "unsigned long",
    "mod_tree": "struct mod_tree_root",
    "module_ktype": "struct kobj_type",
    "modules": "struct list_head",
    "mount_hashtable": "struct hlist_head *",
    "net_namespace_list": "struct list_head",
    "node_data": "struct pglist_data *[]",
    "node_states": "nodemask_t [6]",
    "nr_cpu_ids": "unsigned int",
    "nr_irqs": "int",
    "nr_node_ids": "unsigned int",
    "nr_swap_pages": "atomic_long_t",
    "nr_swapfiles": "unsigned int",
    "nr_swapper_spaces": "unsigned int []",
    "nr_threads": "int",
    "nr_vmap_nodes": "unsigned int",
    "ns_file_operations": "struct file_operations",
    "oops_in_progress": "int",
    "page_offset_base": "unsigned long",
    "panic_cpu": "atomic_t",
    "panic_on_oops": "int",
    "panic_timeout": "int",
    "pci_bus_type": "struct bus_type",
    "pci_root_buses": "struct list_head",
    "pcpu_base_addr": "void *",
    "poll_spurious_irq_timer": "struct timer_list",
    "prb": "struct printk_ringbuffer *",
    "printk_rb_static": "struct printk_ringbuffer",
    "prog_idr": "struct idr",
    "rcu_state": "struct rcu_state",
    "root_task_group": "struct task_group",
    "saved_command_line": "char *",
    "sections_per_block": "int",
    "single": "struct vmap_node",
    "slab_caches": "struct list_head",
    "slab_kset": "struct kset *",
    "softirq_vec": "struct softirq_action [10]",
    # A maple tree since Linux kernel commit 721255b9826b ("genirq: Use a maple
    # tree for interrupt descriptor management") (in v6.5); before, a bitmap.
    "sparse_irqs": "struct maple_tree",
    "stack_pools": "void *[]",
    "stack_slabs": "void *[]",
    "super_blocks": "struct list_head",
    "swap_info": "struct swap_info_struct *[]",
    "swapper_spaces": "struct address_space *[]",
    "sysctl_hung_task_timeout_secs": "unsigned long",
    "sysctl_overcommit_kbytes": "unsigned long",
    "sysctl_overcommit_ratio": "int",
    "sysfs_root_kn": "struct kernfs_node *",
    "taint_flags": "struct taint_flag []",
    "tainted_mask": "unsigned long",
    # 9 since v4.14, which added "I (idle)"; padding follows.
    "task_state_array": "const char *[9]",
    "task_struct_cachep": "struct kmem_cache *",
    "tick_do_timer_cpu": "int",
    "total_nr_irqs": "unsigned int",
    "total_swap_pages": "long",
    "totalram_pages": "unsigned long",
    "uidhash_table": "struct hlist_head [128]",
    "vermagic": "const char []",
    "vm_committed_as": "struct percpu_counter",
    "vm_node_stat": "atomic_long_t []",
    "vm_numa_event": "atomic_long_t []",
    "vm_zone_stat": "atomic_long_t []",
    "vmalloc_base": "unsigned long",
    "vmap_area_list": "struct list_head",
    "vmap_area_root": "struct rb_root",
    "vmap_nodes": "struct vmap_node *",
    "vmap_zone_size": "unsigned int",
    "vmcoreinfo_data": "unsigned char *",
    "vmcoreinfo_note": "u32 *",
    "vmcoreinfo_size": "size_t",
    "vmemmap_base": "unsigned long",
}
"""
C types of variables, by name. An array without a length has as many elements
as fit between its symbol and the next one.
"""

_ANONYMOUS: dict[str, list[tuple[str, str]]] = {
    "tk_core": [("seq", "seqcount_raw_spinlock_t"), ("timekeeper", "struct timekeeper")]
}
"""Variables whose structure type has no name: the type's members, in order."""

_ARRAYS_OF_MEMBERS: dict[str, tuple[str, str, int]] = {
    # NR_CPUS depends on the configuration; struct cpumask has it.
    "cpu_bit_bitmap": ("struct cpumask", "bits", 65)  # BITS_PER_LONG + 1
}
"""Arrays whose elements have a member's type: structure, member, length."""

_MAX_ELEMENTS = 1 << 20


def variable(prog: Program, name: str, symbol: Symbol) -> Object | None:
    """
    Return a global variable as an object, or ``None`` if it is not in the table.

    :param symbol: The variable's symbol; its size gives the length of arrays.
    :raises LookupError: If the kernel's types lack the variable's type.
    """
    if name in _ANONYMOUS:
        type = make_struct(prog, None, _ANONYMOUS[name])
        return Object(prog, type, address=symbol.address)
    if name in _ARRAYS_OF_MEMBERS:
        struct, member, length = _ARRAYS_OF_MEMBERS[name]
        element = prog.type(struct).member(member).type
        return Object(prog, prog.array_type(element, length), address=symbol.address)
    declared = VARIABLES.get(name)
    if declared is None:
        return None
    if declared.endswith("[]"):
        element = prog.type(declared.removesuffix("[]").rstrip())
        length = min(symbol.size // sizeof(element), _MAX_ELEMENTS)
        return Object(prog, prog.array_type(element, length), address=symbol.address)
    return Object(prog, declared, address=symbol.address)


def make_struct(
    prog: Program, tag: str | None, declared: Iterable[tuple[str, str]]
) -> Type:
    """
    Make the type of a structure whose members are aligned as C aligns them.

    :param declared: Names and types of its members, in order.
    :raises LookupError: If the kernel's types lack one of these.
    """
    members, end, widest = [], 0, 1
    for name, declaration in declared:
        type = prog.type(declaration)
        unit = alignof(type)
        end = round_up(end, unit)
        members.append(TypeMember(type, name, end * 8))
        end += sizeof(type)
        widest = max(widest, unit)
    return prog.struct_type(tag, round_up(end, widest), members)
