# SPDX-License-Identifier: GPL-2.0-or-later
"""Variables that an unpatched ``crash`` reads, and its functions that read them."""

__all__ = ["PER_CPU", "STRING_TABLES", "VARIABLES"]

# Names that a kernel lacks are skipped: crash does not ask that kernel for them.
VARIABLES = {
    "__cpu_active_mask": "cpu_maps_init()",
    "__cpu_online_mask": "cpu_maps_init(), mach",
    "__cpu_possible_mask": "cpu_maps_init()",
    "__cpu_present_mask": "cpu_maps_init()",
    "__per_cpu_offset": "kernel_init(); for all CPUs that the kernel could have",
    "_totalram_pages": "vm_init(); since v5.0",
    "arch_task_struct_size": "task_init(); since v4.2",
    "avenrun": "sys",
    "chrdevs": "dev",
    "contig_page_data": "node_table_init(); without CONFIG_NUMA",
    "cpu_khz": "sys, mach",
    "crash_notes": "arm64_get_crash_notes()",
    "crashing_cpu": "get_panic_context()",
    "high_memory": "vm_init()",
    "hstates": "get_hugetlb_total_pages(), kmem -i; 9.0 cannot do without it",
    "huge_zero_pfn": "vm_init(); since v5.11",
    "idt_table": "x86_64_post_init(), irq -d",
    "init_uts_ns": "kernel_init()",
    "jiffies": "p jiffies",
    "jiffies_64": "sys, timer",
    "kexec_crash_image": "kdump_backup_region_init()",
    "kmem_cache": "vm_init()",
    "linux_banner": "verify_version(), rd linux_banner",
    "lookup_num_blocks": "x86_64_ORC_init()",
    "major_names": "dev",
    "mem_section": "sparse_mem_init()",
    "modules": "module_init()",
    "mt_pivots": "maple_init(); since v6.1",
    "mt_slots": "maple_init(); since v6.1",
    "node_data": "node_table_init()",
    "node_states": "node_table_init()",
    "nr_irqs": "x86_64_init()",
    "nr_swapfiles": "vm_init(), swap",
    "nr_threads": "task_init()",
    "page_offset_base": "x86_64_init()",
    "pageflag_names": "vm_init()",
    "prb": "dump_lockless_record_log(); since v5.10",
    "pv_info": "x86_64_init()",
    "shadow_timekeeper": "get_xtime(); until v6.12",
    "softirq_vec": "irq -b",
    "swap_info": "swap",
    "sys_call_table": "sys -c; its table is a function since v6.9",
    "sysrq_pressed": "get_panicmsg()",
    "taint_flags": "show_kernel_taints()",
    "tainted_mask": "show_kernel_taints()",
    "task_state_array": "initialize_task_state()",
    "tk_core": "get_xtime()",
    "timekeeper_data": "get_xtime(); since v6.17, tk_core before",
    "totalram_pages": "vm_init(); until v4.20",
    "vmalloc_base": "x86_64_init()",
    "vmemmap_base": "x86_64_init()",
    "xen_start_info": "x86_64_init()",
    "zero_pfn": "vm_init()",
}
"""Variables that are read whole, with the functions or commands that read them."""

STRING_TABLES = ("pageflag_names", "pv_info", "task_state_array")
"""Variables whose pointers to strings are followed at start-up."""

PER_CPU = {
    "cpu_number": "x86_64_per_cpu_init(); in pcpu_hot from v6.2 to v6.14",
    "cpu_tss_rw": "x86_64_ist_init(); since v4.15",
    "current_task": "x86_64_per_cpu_init(); in pcpu_hot from v6.2 to v6.14",
    "hardirq_stack_ptr": "x86_64_per_cpu_init(); likewise, since v5.2",
    "irq_stack_ptr": "arm64_irq_stack_init()",
    "kstat": "irq -s",
    "nmi_print_seq": "dump_printk_safe_seq_buf(), log; until v5.14",
    "overflow_stack": "arm64_overflow_stack_init()",
    "pcpu_hot": "x86_64_per_cpu_init(); from v6.2 to v6.14",
    "runqueues": "get_active_set(), runq",
    "safe_print_seq": "dump_printk_safe_seq_buf(), log; until v5.14",
    "timer_bases": "timer",
    "vm_event_states": "kmem -V",
}
"""Per-CPU variables that are read whole, with the readers as above."""
