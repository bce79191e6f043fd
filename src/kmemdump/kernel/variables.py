# SPDX-License-Identifier: GPL-2.0-or-later
"""
Types of the kernel's global variables.

BTF has only the types of per-CPU variables. This is a table of the others that drgn's
helpers and crash commands, and our areas, ask for by name. Where kernels differ, a
variable has several spellings, and the first that the kernel's own types and symbols
allow is taken; no spelling goes by the kernel's version.
``tests/kernel/test_variables.py`` compares the table with the DWARF of real kernels.
"""

from __future__ import annotations

from drgn import FaultError, Object, Program, Symbol, Type, TypeKind

from kmemdump.arch.architecture import arch_from_program
from kmemdump.kernel.spelling import (
    Spelling,
    at_least,
    at_most,
    elements_of,
    having,
    make_type,
    structure,
)

__all__ = ["PER_CPU", "VARIABLES", "variable"]

VARIABLES: dict[str, Spelling | tuple[Spelling, ...]] = {
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
    # Without CONFIG_NUMA; node_data otherwise.
    "contig_page_data": "struct pglist_data",
    # NR_CPUS depends on the configuration; struct cpumask has it. BITS_PER_LONG + 1.
    "cpu_bit_bitmap": elements_of("struct cpumask", "bits", 65),
    "crash_notes": "note_buf_t *",
    "crashing_cpu": "int",
    "debug_locks": "int",
    "dentry_hashtable": "struct hlist_bl_head *",
    "device_ktype": "struct kobj_type",
    "die_counter": "int",
    "driver_ktype": "struct kobj_type",
    # A list of another kind since v7.2 (fs/filesystems.c).
    "file_systems": (
        having("struct file_system_type", "next", "struct file_system_type *"),
        "struct hlist_head",
    ),
    "free_vmap_area_root": "struct rb_root",
    "gfpflag_names": "struct trace_print_flags []",
    "high_memory": "void *",
    "hstates": "struct hstate []",
    "hugetlb_max_hstate": "int",
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
    "lock_classes": "struct lock_class []",
    # Its length is unknown: tables without symbols may follow it.
    "linux_banner": at_most(512, "const char []"),
    "log_buf": "char *",
    "log_buf_len": "u32",
    "major_names": "struct blk_major_name *[255]",
    "map_idr": "struct idr",
    "max_low_pfn": "unsigned long",
    # Without CONFIG_NUMA, as mem_map (mm/memory.c).
    "max_mapnr": "unsigned long",
    "max_pfn": "unsigned long",
    "mem_map": "struct page *",
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
    # An array until v6.16; allocated since, as many as memory wants (lib/stackdepot.c).
    "stack_pools": (at_least(64, "void *[]"), "void **"),
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
    # Since Linux kernel commit 22c62b9a84b8 ("timekeeping: Introduce auxiliary
    # timekeepers") (in v6.17); tk_core before.
    "timekeeper_data": "struct tk_data []",
    # Its structure has a name since v6.13.
    "tk_core": (
        "struct tk_data",
        structure(
            ("seq", "seqcount_raw_spinlock_t"), ("timekeeper", "struct timekeeper")
        ),
    ),
    "total_nr_irqs": "unsigned int",
    "total_swap_pages": "long",
    "totalram_pages": "unsigned long",
    "uidhash_table": "struct hlist_head [128]",
    # Since Linux kernel commit 9a8e29695888 (in v7.3), whose init_task is elsewhere.
    "userspace_init_fs": "struct fs_struct *",
    "vermagic": "const char []",
    "vm_committed_as": "struct percpu_counter",
    "vm_node_stat": "atomic_long_t []",
    "vm_numa_event": "atomic_long_t []",
    "vm_numa_stat": "atomic_long_t []",
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
Spellings of variables, by name: C types, or functions that make one. An array without
a length has as many elements as fit between its symbol and the next one.
"""

PER_CPU: dict[str, Spelling | tuple[Spelling, ...]] = {
    "__irq_regs": "struct pt_regs *",
    "__preempt_count": "int",
    "_cea_offset": "unsigned long",
    "cached_stacks": "struct vm_struct *[2]",
    "cpu_tss_rw": "struct tss_struct",
    "current_task": "struct task_struct *",
    "exception_stacks": "struct exception_stacks",
    "hardirq_stack_ptr": ("struct irq_stack *", "void *"),
    "hrtimer_bases": "struct hrtimer_cpu_base",
    "irq_stack_ptr": "unsigned long *",
    "irq_stat": "irq_cpustat_t",
    "kernel_cpustat": "struct kernel_cpustat",
    "kstat": "struct kernel_stat",
    "overflow_stack": "unsigned long []",
    "runqueues": "struct rq",
    "tick_cpu_device": "struct tick_device",
    "tick_cpu_sched": "struct tick_sched",
    "timer_bases": "struct timer_base []",
    "vm_event_states": "struct vm_event_state",
}
"""
Spellings of per-CPU variables, for kernels whose BTF lacks their types: it was made by
pahole before 1.18, or by one up to 1.21 that wrote them wrongly (Debian's 5.10).
"""

_PER_CPU_POINTERS = frozenset(("crash_notes",))
"""Pointers to per-CPU memory, which are offsets and no addresses."""


def variable(prog: Program, name: str, symbol: Symbol) -> Object | None:
    """
    Return a global variable as an object, or ``None`` if it is not in the table.

    A pointer's value is read. Whoever looks up a pointer reads it next.

    :param symbol: The variable's symbol; its size, if known, is the distance to the
        next one, gives the length of arrays, and limits all other types.
    :raises LookupError: If the kernel lacks the variable's type, or the variable
        cannot be of that type.
    """
    spellings = VARIABLES.get(name) or PER_CPU.get(name)
    if spellings is None:
        return None
    if not isinstance(spellings, tuple):
        spellings = (spellings,)
    problem = LookupError(name)
    for spelling in spellings:
        try:
            type = make_type(prog, spelling, symbol.size)
        except LookupError as error:
            problem = error
            continue
        found = Object(prog, type, address=symbol.address)
        if name in VARIABLES and name not in _PER_CPU_POINTERS:
            _check_pointer(prog, name, found)
        return found
    raise problem


def _check_pointer(prog: Program, name: str, found: Object) -> None:
    """
    Check that a pointer points to kernel memory, or nowhere.

    :raises LookupError: If it does not, so that its type must be wrong.
    """
    if _plain(found.type_).kind != TypeKind.POINTER:
        return
    try:
        value = prog.read_word(found.address_)
    except FaultError:
        return  # Whoever uses it is told so.
    if value and not arch_from_program(prog).is_kernel_address(value):
        raise LookupError(f"{name} is {value:#x}, which is no kernel address")


def _plain(type: Type) -> Type:
    while type.kind == TypeKind.TYPEDEF:
        type = type.type
    return type
