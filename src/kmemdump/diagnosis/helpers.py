# SPDX-License-Identifier: GPL-2.0-or-later
"""
Functions that only notice what is wrong, so that their caller is to be asked.

A function belongs to a family by its name. Families are rules about how the kernel
names things, and not lists of what some logs hold: a new member of one is known.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = [
    "is_dispatcher",
    "is_exception_code",
    "is_generic_operation",
    "is_helper",
    "is_reporter",
]


class _Family(NamedTuple):
    what: str
    pattern: str


_HELPERS = (
    _Family(
        "print and end",
        r"_?dump_(?:stack|backtrace|trace)\w*|show_(?:stack|trace|regs|opcodes)\w*|"
        r"v?panic|nmi_panic|print_\w+|printk|_printk|vprintk\w*|__?die\w*|die|oops_\w+|"
        r"oops_end|machine_kexec|crash_kexec|__crash_kexec|warn_slowpath\w*|__warn\w*|"
        r"warn_bogus\w*|report_bug\w*|handle_bug|fixup_bug\w*|unwind_backtrace|"
        r"check_panic_on_warn|dev_printk\w*|_dev_\w+|end_report\w*|add_taint|"
        r"rust_helper_\w+|rust_panic\w*|rust_begin_unwind|.*rust_begin_unwind|"
        r"<?core::.*|core::panic\w*|"
        r"_R\w+4core9panicking\w*|"
        r"_R\w*(?:rust_begin_unwind|panicking|panic_\w)\w*|spin_dump|"
        r"<?core::.*|asm_call_\w+|_sched_show\w*|_*switch_to\w*|<?kernel::panic.*|"
        r"__rust\w*|stack_trace_\w+|save_stack\w*|"
        r"sched_show_task|dump_cpu_task|dump_header|handle_overflow|kmemleak_\w+|"
        r"create_object|"
        r"stack_chk_fail|__stack_chk_fail|_*(?:dev|netdev)_(?:v?printk\w*|warn|err|"
        r"info|notice|crit)|va_format|"
        r"kthread_stop\w*|"
        r"assertfail|assfail|\w*_assertfail|_*printk\w*|printk_\w+|_*fortify\w*|"
        r"hlock_class|\w+_panic|rcu_is_\w+|rcu_\w+_held\w*|_*cache_alloc_node|"
        r"kill_fasync|iput|"
        r"fwnode_\w+|_*seqprop\w*|"
        r"__save_stack_trace|arch_stack_walk\w*|walk_stackframe|abort|BUG_func",
    ),
    _Family(
        "exceptions",
        r"(?:asm_)?exc_\w+|asm_\w+|do_trap\w*|do_error_trap|do_invalid_op|invalid_op|"
        r"do_general_protection|general_protection|(?:async_)?page_fault|do_page_fault|"
        r"__do_page_fault|do_user_addr_fault|do_kern_addr_fault|__bad_area\w*|"
        r"bad_area\w*|"
        r"no_context|no_uaccess|page_fault_oops|kernelmode_fixup_or_oops|"
        r"trace_\w*page_fault|"
        r"do_(?:double|divide|int3|stack_segment|coprocessor|bounds|overflow|"
        r"device)\w*|"
        r"double_fault|error_(?:code|exit|entry|return)|common_exception\w*|"
        r"fixup_exception|ex_handler\w*|mce_\w+|do_machine_check|machine_check\w*|"
        r"el[01][th]?_\w+|el[01]_\w+|do_(?:mem_abort|bad_area|translation_fault|"
        r"alignment_fault|sea|serror|undefinstr|bad|cp15\w*|sp_pc_abort|kernel_fault|"
        r"ptrauth_fault|bti|el1_\w+|DataAbort|PrefetchAbort|tag_\w+|debug_exception)|"
        r"bad_mode|handle_bad_stack|panic_bad_stack|__bad_stack|arm64_\w*serror\w*|"
        r"nmi_(?:enter|exit|handle|cpu_backtrace\w*|trigger\w*)|default_do_nmi|do_nmi|"
        r"end_repeat_nmi|nmi|repeat_nmi|brk_handler|bug_handler|call_break_hook|"
        r"kgdb_\w+|__(?:dabt|und|irq|pabt)_\w+|__irq_\w+|ret_from_exception|"
        r"do_trap_\w+|"
        r"handle_exception|do_irq|do_undefinstr|arch_trigger_cpumask\w*|"
        r"trigger_(?:all|single|allbutself)\w*|__do_kernel_fault|die_kernel_fault|"
        r"notify_die|atomic_notifier_call_chain|notifier_call_chain|reserved_fault",
    ),
    _Family(
        "sanitizers",
        r"_*k[acmt]?[sc]an_\w+|__?hwasan_\w+|__asan_\w+|__msan_\w+|__tsan_\w+|"
        r"kfence_\w+|"
        r"__kfence_\w+|ubsan_\w+|__ubsan_\w+|kasan\w*|check_memory_region\w*|"
        r"__sanitizer_\w+|write_comp_data|check_kcov_mode|kmsan\w*|__kcsan\w*|"
        r"stackdepot_\w+|stack_depot_\w+|memory_is_\w+|check_region_inline|"
        r"object_err|slab_(?:err|bug|pad_check)|__fortify_\w+|fortify_panic|"
        r"__kernel_fault|report_\w*access|find_head\w*|addr_has_metadata|"
        r"bytes_is_nonzero|read_word_at_a_time|test_bytes\w*|metadata_update_state",
    ),
    _Family(
        "memory and strings",
        r"_*(?:a?mem|wmem|bug_mem|arch_mem)(?:cpy|move|set|cmp|chr|scan|cpy_\w+|"
        r"move_\w+|"
        r"set\w*|chr_inv)\w*|memdup\w*|_*copy_(?:to|from|in|user|page|data|mc)\w*|"
        r"_*copyin|_*copyout|raw_copy\w*|__arch_copy\w*|arm_copy\w*|__?clear_user\w*|"
        r"_*(?:put|get)_user\w*|probe_kernel_\w+|str[nl]?(?:len|cmp|cpy|cat|chr|rchr|"
        r"str|"
        r"casecmp|scpy|pbrk|spn|cspn|sep|nlen|ncmp|ncpy|nchr|lcpy|lcat|ncat|"
        r"ncasecmp)\w*|"
        r"sized_strscpy|rep_(?:movs|stos)\w*|csum_partial\w*|do_csum|check_copy_size|"
        r"copy_overflow|strndup_user|vmemdup_user|usercopy_\w+|__check_\w*object\w*|"
        r"__check_(?:page_span|heap_object)|check_(?:stack|heap)_object|v?s[cn]*printf|"
        r"crc(?:16|32|64|_\w+|32\w+)\w*|_*crc\w*_(?:le|be|base|update|body)\w*|"
        r"aes_\w+|aesti_\w+|"
        r"sha\d+_\w+|crypto_\w+|(?:rng|skcipher|shash|ahash|aead)_(?:set|enc|dec|dig|"
        r"up|fin|gen)\w+|cipher_\w+|"
        r"xts_\w+|drbg_\w+|logic_(?:in|out)\w+|"
        r"_*phys_addr\w*|_*virt_to_\w+|\w*copy_(?:to|from)_iter\w*|vsn?printf|string|"
        r"hex_string|widen_string|number|address_val|"
        r"skb_(?:put|push|pull|panic|over_panic|under_panic|trim)\w*|_*skb_put\w*|"
        r"__pskb\w*|pskb_may\w*|"
        r"string_nocheck|pointer|format_decode|hex_dump\w*|"
        r"print_hex_dump\w*|_*raw_(?:read|write)[bwlq]|__?io(?:read|write)\w*|"
        r"iov_iter_(?:copy|zero)\w*|_copy_(?:to|from)_iter\w*|copy_\w+_iter\w*",
    ),
    _Family(
        "locks",
        r"_*(?:do_)?(?:raw_)*_*(?:spin|read|write|rw|seq)_?(?:try|un)?locks?(?:_\w+)?|"
        r"_*raw_\w*lock\w*|do_raw_\w*lock\w*|lockdep_\w+|lock_\w*(?:acquire|release|"
        r"downgrade|is_held|set_class|pin|unpin)\w*|_*lock_(?:acquire|release|acquired|"
        r"contended|set_class)\w*|__lock_\w+|_*mutex_\w+|ww_mutex\w*|rt_mutex\w*|"
        r"rt_spin_\w+|rwlock\w*|_*rwsem_\w+|_*(?:down|up)_(?:read|write|interruptible|"
        r"killable|trylock|timeout|common)\w*|down|up|__down\w*|__up\w*|percpu_down\w*|"
        r"percpu_up\w*|__percpu_\w*(?:down|rwsem)\w*|queued_\w+|native_queued\w*|"
        r"pv_queued\w*|"
        r"__pv_queued\w*|osq_\w+|arch_spin\w*|virt_spin\w*|"
        r"check_(?:prev|prevs|deadlock|wait|flags|usage|irq|noncircular)\w*|"
        r"validate_chain\w*|"
        r"mark_lock\w*|mark_held\w*|mark_usage|valid_state|register_lock_class|"
        r"look_up_lock\w*|assign_lock_key|debug_(?:spin|mutex|rt_mutex|check|locks|"
        r"lock)\w*|"
        r"spin_(?:bug|dump)|rwlock_bug|debug_write\w*|debug_read\w*|trace_hardirqs\w*|"
        r"trace_softirqs\w*|_?local_bh\w*|__local_bh\w*|reacquire_held_locks|"
        r"find_held_lock|"
        r"graph_lock|add_lock_to_list|look_up_lock_class|match_held_lock|lock_sock\w*|"
        r"__lock_sock|"
        r"release_sock|lock_page\w*|__lock_page\w*|folio_lock|__folio_lock\w*|"
        r"ldsem_\w+|"
        r"__ldsem_\w+|bit_spin\w*|hlist_bl_\w*lock|seqprop\w*|rcu_(?:lockdep|read)\w*|"
        r"debug_lockdep\w*|raw_seqcount\w*|wait_on_bit\w*|__wait_on_bit\w*|"
        r"out_of_line_wait\w*|"
        r"bit_wait\w*|lock_kernel|tty_ldisc_lock\w*|_*task_rq_lock\w*|"
        r"\w+_write_lock\w*|arch_local_irq\w*|"
        r"arch_irqs?_\w+|_*call_rwsem\w*|console_(?:un|try)?lock|lockref_\w+|"
        r"_*wait_on_\w+|(?:folio|page)_wait\w*|do_read_cache\w*|"
        r"_*filemap_fdatawait\w*|(?:cleanup|init)_srcu\w*",
    ),
    _Family(
        "atomics and bits",
        r"_*(?:arch_|raw_|instrument_)*atomic\w*|refcount_\w+|__refcount\w*|kref_\w+|"
        r"_*(?:test|set|clear|change)(?:_and)?(?:_set|_clear|_change)?_bit\w*|"
        r"arch_\w+_bit|"
        r"test_and_\w+|instrument_\w+|ll_sc_\w+|__ll_sc_\w+|__lse_\w+|__cmpxchg\w*|"
        r"__xchg\w*|"
        r"__read_once\w*|__write_once\w*|_*(?:READ|WRITE)_ONCE\w*|variable_test_bit|"
        r"constant_test_bit|_find_(?:first|next|last)\w*|get_bit\w*",
    ),
    _Family(
        "lists and trees",
        r"_*list_\w+|_*hlist_\w+|_*llist_\w+|_*rb_(?:insert|erase|next|prev|first|"
        r"last|link|replace)\w*|"
        r"xas_\w+|xa_\w+|rhashtable_\w+|_*rhashtable\w*|rht_\w+|ida_\w+|idr_\w+|"
        r"ref_tracker\w*|"
        r"__rb_\w+|rb_\w+_color|timerqueue_dummy|__dlist\w*|klist_\w+",
    ),
    _Family(
        "allocators",
        r"_*k(?:v?|vm)(?:alloc|zalloc|calloc|free|realloc|malloc|mem_cache|memdup)\w*|"
        r"_*kmem_cache_\w+|_*kmalloc\w*|_*kvmalloc\w*|_*kfree\w*|_*slab_\w+|"
        r"_*s?lub_\w+|"
        r"__?slab_\w+|___slab_\w+|__do_k\w*alloc\w*|__do_cache_\w+|cache_(?:alloc|"
        r"free|flush|"
        r"grow|from_obj)\w*|_*cache_(?:free|alloc)\w*|(?:__|qlist_|qlink_)?qlist_\w+|"
        r"qlink_\w+|quarantine_\w+|"
        r"_*vz?alloc\w*|_*vmalloc\w*|_*vfree\w*|_*vunmap\w*|filemap_alloc\w*|"
        r"_*filemap_get_folio\w*|pagecache_get_page|grab_cache\w*|find_or_create_page|"
        r"_*alloc_pages\w*|"
        r"_*alloc_frozen_pages\w*|"
        r"_*get_free_page\w*|_*free_pages?\w*|_*free_frozen\w*|free_unref\w*|"
        r"free_pcp\w*|"
        r"sock_kmalloc|sk_(?:prot_)?alloc\w*|_*(?:netdev_|dev_|napi_)?alloc_skb\w*|"
        r"_*build_skb\w*|"
        r"kstrn?dup\w*|kvasprintf\w*|kasprintf|alloc_inode|_*alloc_percpu\w*|"
        r"free_percpu\w*|_*sk_(?:destruct|free|dst\w*)|put_cpu_partial|"
        r"sk_stream_alloc\w*|"
        r"_*(?:page|folio)_(?:un)?lock|_*(?:un)?lock_page\w*|alloc_page\w*|"
        r"_*set_page_owner|page_cache_alloc\w*|__page_cache_alloc|"
        r"page_pool_alloc\w*|_*page_pool\w*alloc\w*|"
        r"pcpu_\w+|_*create_mapping|get_page_from_freelist|_*folio_alloc\w*|"
        r"prep_(?:new|compound)_page\w*|"
        r"post_alloc_hook|rmqueue\w*|_*new_slab\w*|allocate_slab|alloc_slab_page|"
        r"setup_object\w*|"
        r"_*krealloc\w*|_*devm_k\w*alloc\w*|memdup_user\w*|mempool_\w+|"
        r"(?:__)?pcpu_\w*alloc\w*|"
        r"free_to_partial\w*|deactivate_slab_dummy|discard_slab|"
        r"check_(?:slab|object|bytes\w*)|free_debug_\w+|alloc_debug_\w+|bad_page\w*|"
        r"free_pages_\w+|"
        r"free_(?:block|large_kmalloc)\w*|page_frag_free|"
        r"warn_alloc\w*|check_new_page\w*|page_expected_state|page_bad_reason|"
        r"free_tail_page\w*",
    ),
    _Family(
        "scheduler and waits",
        r"_*schedule(?:_\w+)?|io_schedule\w*|context_switch|__switch_to\w*|"
        r"preempt_schedule\w*|"
        r"_*cond_resched\w*|_*might_(?:sleep|fault|alloc|resched)\w*|_*might_\w+|"
        r"preempt_count\w*|"
        r"__schedule_bug|schedule_debug|_*wait_for_common\w*|do_wait_for_common|"
        r"_*wait_for_completion\w*|wait_for_\w*completion\w*|complete\w*_dummy|"
        r"_*wake_up(?!_new)\w*|"
        r"swake_up\w*|complete(?:_all)?|try_to_wake_up|default_wake_function|"
        r"autoremove_wake_function|prepare_to_wait\w*|finish_wait|add_wait_queue\w*|"
        r"handle_\w*irq\w*|irqentry_\w+|(?:exiting|entering)_\w*irq|irq_entries\w*|"
        r"smp_trace\w*|unwind_\w+|"
        r"_*kernel_text_address|"
        r"is_bpf_text\w*|is_module_text\w*|_*rcu_barrier|_*wait_rcu_gp|"
        r"synchronize_(?:hardirq|irq)\w*|"
        r"lock_timer_base|kernel_fpu\w*|panic_saved\w*|__panic|__rela_\w+|_s?_?stext|"
        r"_text|"
        r"_*preempt_schedule\w*|retint_\w+|__sched_text_start|__cond_resched\w*|"
        r"debug_smp_processor_id|check_preemption_disabled|__this_cpu_preempt_check|"
        r"msleep\w*|usleep\w*|schedule_timeout\w*|__bit_wait\w*|do_nanosleep|"
        r"get_current|"
        r"sleep_on\w*|_*prepare_to_\w*wait\w*|_*wait_event\w*|__cond_resched_lock|"
        r"_*(?:const_)?[un]delay|_*delay(?:_tsc|_loop|_cycles|_halt\w*)?|"
        r"arch_(?:timer_read|counter_(?:get|read))\w*|read_tsc|rdtsc\w*|get_cycles|"
        r"debug_show_all_locks|rt_mutex_slow\w*|__rt_mutex\w*|check_hung\w*|"
        r"watchdog\w*|is_hardlockup\w*|rcu_(?:check|dump|print|sched_clock|pending|"
        r"core|"
        r"preempt|process|report|do_batch|note)\w*|print_other_cpu_stall\w*|"
        r"panic_on_rcu\w*|"
        r"check_cpu_stall|__rcu_pending|__rcu_read_\w+|update_process_times|tick_\w+|"
        r"synchronize_hardirq_dummy",
    ),
    _Family(
        "work and timers",
        r"_*flush_work(?:queue)?\w*|_*flush_(?:delayed|rcu)_work|_*cancel_\w*work\w*|"
        r"_*drain_workqueue|destroy_workqueue|_*queue_(?:delayed_)?work\w*|"
        r"_*queue_work_on|"
        r"_*del_timer\w*|timer_delete\w*|_*mod_timer\w*|_*timer_\w*sync\w*|"
        r"try_to_del_timer\w*|"
        r"detach_(?:timer|if_pending)\w*|hrtimer_\w+|debug_\w*(?:object|hrtimer|timer|"
        r"work)\w*|"
        r"\w+_is_static_object|try_to_grab_pending|_*flush_work\w*|usb_(?:kill|poison|"
        r"submit|free|unlink)_\w*urb\w*|"
        r"usb_(?:start_wait|control|bulk|interrupt|hcd)\w*|_*try_to_del_timer\w*|"
        r"sk_stop_timer\w*|"
        r"_*insert_work|_*debug_object\w*|debug_print_object|debug_obj\w*|"
        r"init_timer\w*|"
        r"enqueue_timer_dummy|_*call_rcu\w*|destroy_workqueue_dummy|"
        r"kthread_\w*stop\w*_dummy",
    ),
    _Family(
        "objects, in debugging",
        r"kobject_(?:add|init|get|put|set|release|cleanup|del)\w*|kset_\w+|"
        r"kobj_\w+_dummy|"
        r"sysfs_(?:create|warn|add)\w*|kernfs_\w+_dummy|put_page\w*|get_page\w*|"
        r"_*folio_(?:put|get)\w*|__put_(?:page|compound)\w*|percpu_(?:ref|counter)\w*|"
        r"device_(?:add|create|del|register|unregister|destroy|remove_file|links|"
        r"is)\w*|"
        r"_*device_links\w*|add_uevent_var|kobject_uevent\w*|(?:drop|inc|clear|"
        r"set)_nlink|sysfs_(?:remove|notify)\w*|root_device\w*|"
        r"proc_(?:register|create|mkdir)\w*|"
        r"unregister_netdev\w*|tty_unregister_device|hwrng_unregister|device_release|"
        r"_*kobject_\w+|dpm_sysfs\w*|"
        r"usb_disable_device|device_for_each\w*|i2c_(?:del|add)_\w+|"
        r"__unregister_client|__process_removed\w*|fast_dput|dput|_*d_walk|"
        r"mark_buffer_dirty|"
        r"find_lock_entries|truncate_inode_pages\w*|"
        r"rollback_registered\w*|unregister_netdevice\w*|devres_\w+|class_create\w*|"
        r"get_device\w*|put_device",
    ),
    _Family(
        "control flow",
        r"__cfi_\w+|handle_cfi_\w+|cfi_\w+|__x86_\w*thunk\w*|__x86_return\w*|"
        r"retbleed\w*|srso\w*|ftrace_\w+|function_\w+|arch_ftrace\w*|return_to_handler|"
        r"__fentry__|static_call\w*|__SCT__\w+|__traceiter\w+|trace_event_raw\w*|"
        r"perf_trace\w*",
    ),
)
_DISPATCHERS = (
    _Family(
        "entries",
        r"entry_\w+|do_syscall\w*|do_(?:fast|int80)\w*|__do_fast_syscall\w*|"
        r"ret_from_\w+|ret_to_user\w*|"
        r"system_call\w*|sysenter\w*|el0_\w+|el0t_\w+|invoke_syscall|do_el0_svc|"
        r"el0_svc\w*|"
        r"ret_fast_syscall|work_pending|syscall_\w+|x64_sys_call|tracesys\w*|"
        r"kthread|kthread_worker_fn|worker_thread|process_(?:one|scheduled)_works?|"
        r"process_one_work|exit_to_user\w*|prepare_exit_to\w*|task_work_run|"
        r"do_softirq\w*|__do_softirq|handle_softirqs|_*irq_exit\w*|invoke_softirq|"
        r"run_ksoftirqd|"
        r"smpboot_thread_fn|do_initcall\w*|do_one_initcall|do_basic_setup|"
        r"kernel_init\w*|"
        r"start_kernel|secondary_startup\w*|start_secondary|cpu_startup_entry|do_idle|"
        r"load_module|do_init_module|init_module\w*|x86_64_start\w*|rest_init|"
        r"smp_(?:apic|call|reschedule)\w*|apic_timer\w*|sysvec_\w+|__sysvec\w*|"
        r"handle_irq\w*|__handle\w*irq\w*|generic_handle\w*|gic_handle\w*|"
        r"call_on_(?:irq_)?stack|do_interrupt\w*|"
        r"common_interrupt|do_IRQ|ret_from_intr|run_timer\w*|__run_timer\w*|"
        r"expire_timers|call_timer_fn|_*hrtimer_run\w*|hrtimer_interrupt|"
        r"tasklet_\w*action\w*|net_rx_action|napi_poll|local_apic\w*|__irqentry\w*",
    ),
)


def _compile(families: tuple[_Family, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{item.pattern})" for item in families))


_IS_HELPER = _compile(_HELPERS)
_IS_DISPATCHER = _compile(_DISPATCHERS)


_IS_REPORTER = _compile(_HELPERS[:2])
_IS_EXCEPTION_CODE = _compile(_HELPERS[1:2])


def is_reporter(name: str) -> bool:
    """Return whether a function belongs to the kernel's report, not to the event."""
    return _IS_REPORTER.fullmatch(name) is not None


def is_exception_code(name: str) -> bool:
    """Return whether a function handles exceptions."""
    return _IS_EXCEPTION_CODE.fullmatch(name) is not None


def is_helper(name: str) -> bool:
    """Return whether a function only notices what another one did wrong."""
    return _IS_HELPER.fullmatch(name) is not None


def is_dispatcher(name: str) -> bool:
    """Return whether a function only calls what it was told to call."""
    return _IS_DISPATCHER.fullmatch(name) is not None


_GENERIC = re.compile(
    r"_*sys_(?:p?(?:read|write)v?\d*(?:64)?|ioctl|compat_ioctl|(?:send|recv)(?:msg|"
    r"to|from)?|"
    r"open(?:at)?|creat|socketcall|setsockopt|getsockopt|bind|connect|accept4?|close|"
    r"splice|sendfile\w*|mmap\w*|fadvise\w*|shutdown)|"
    r"_*(?:compat_)?sys_(?:send|recv)(?!mmsg)\w*|_+sys_\w+|do_sys_\w+|do_sysv?_\w+|"
    r"ksys_\w+|_*vfs_(?:read|write|readv|writev|iter\w*|ioctl|open|fsync\w*|fallocate|"
    r"mmap)|do_vfs_\w+|new_sync_\w+|do_iter_\w+|do_loop_readv\w*|call_(?:read|"
    r"write)_iter|"
    r"do_(?:read|write|p?send|p?recv)v?\w*|sock_(?:send|recv|write|read)\w*|"
    r"_*sock_(?:send|recv)\w*|"
    r"netlink_\w+|_*netlink_dump\w*|"
    r"nfnetlink_rcv\w*|genl_(?:rcv|family|lock)\w*|"
    r"rtnetlink_rcv\w*|sendmsg_\w+|_*netif_receive\w*|process_backlog|napi_(?:poll|"
    r"gro|complete|skb|busy)\w*|"
    r"deliver_skb|deliver_ptype\w*|"
    r"sock_(?:ioctl|do_ioctl|close|setsockopt\w*|common_\w+)|_*sock_release|compat_\w+|"
    r"_*handle_mm_fault|_*do_fault|do_(?:anonymous|wp|read|shared|cow)_(?:page|"
    r"fault)\w*|handle_pte_fault|"
    r"do_(?:filp_open|last|open\w*|dentry_open|splice\w*|sendfile\w*|mmap\w*)|"
    r"path_openat|vfs_open|__fput|____fput|fput|"
    r"do_exit|do_group_exit|get_signal|do_signal|arch_do_signal\w*|mmap_region|"
    r"__mmap_region|vm_mmap\w*|"
    r"call_mmap|_*____sys_\w+|direct_splice_actor|splice_direct\w*|inet_(?:send|"
    r"recv)msg|"
    r"file_ioctl|do_exit\w*|iter_file_splice\w*|generic_file_splice\w*|__se_sys\w+"
)


def is_generic_operation(name: str) -> bool:
    """Return whether a function is a way to many operations, which it does not name."""
    return _GENERIC.fullmatch(name) is not None
