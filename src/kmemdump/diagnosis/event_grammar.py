# SPDX-License-Identifier: GPL-2.0-or-later
"""
What kernels log when something is wrong: Linux 4.14 to 7.3.

Each rule is a form of words in the kernel's source; the file is named above it. Since
commit e9e8543fecb3 ("x86/traps: Define RSVD..." era, v6.9) x86's die() has "Oops: "
before the name of each exception, so the names are searched for and not matched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kmemdump.diagnosis.event_kind import EventKind as K
from kmemdump.diagnosis.event_pattern import EventPattern, Place, Refinement, Weight

__all__ = ["EVENTS", "REFINEMENTS", "find_event"]

_O, _C, _S, _T, _H, _E = (
    Weight.OOPS,
    Weight.CORRUPTION,
    Weight.SPLAT,
    Weight.STALL,
    Weight.HARDWARE,
    Weight.END,
)
_PC, _HD, _ST, _LK, _SK, _NO = (
    Place.COUNTER,
    Place.HEADER,
    Place.STACK,
    Place.LOCK,
    Place.STUCK,
    Place.NONE,
)
_F = r"(?P<place>[\w.<>:$]{1,200})"
_AT = r"(?P<place>[^\s+]{1,200}(?: as [^\s+]{1,200})?)\+0x"

_Row = tuple[K, str, str, str, Weight, Place]
# kernel/panic.c: the messages of panic(), the most special first.
_PANICS: tuple[_Row, ...] = (
    (
        K.STACK_CORRUPTION,
        r"stack-protector: Kernel stack is corrupted in: (?:\[<[^>]*>\] )?"
        r"(?P<place>[^\s+]{1,200})?",
        "Something wrote over the kernel's stack",
        "kernel panic: stack is corrupted",
        _C,
        _HD,
    ),
    (
        K.STACK_CORRUPTION,
        r"corrupted stack end detected inside scheduler",
        "Something wrote over the end of the kernel's stack (corrupted stack end "
        "detected inside scheduler)",
        "kernel panic: corrupted stack end",
        _C,
        _ST,
    ),
)
# arch/*/mm/fault.c, arch/*/kernel/traps.c, kernel/panic.c, lib/bug.c
_OOPSES: tuple[_Row, ...] = (
    (
        K.NULL,
        r"(?:BUG: unable to handle kernel|Unable to handle kernel|BUG: kernel|"
        r"Unable to handle kernel access to|CPU \d+ Unable to handle kernel) "
        r"NULL pointer dereference",
        "The kernel dereferenced a NULL pointer",
        "BUG: unable to handle kernel NULL pointer dereference",
        _O,
        _PC,
    ),
    (
        K.PAGE_FAULT,
        r"[Uu]nable to handle kernel (?P<what>execute from non-executable memory|"
        r"execution of user memory)|kernel tried to execute NX-protected page",
        "The kernel executed memory that is not executable",
        "BUG: unable to handle kernel paging request",
        _O,
        _PC,
    ),
    (
        K.PAGE_FAULT,
        r"[Uu]nable to handle kernel write to read-only memory",
        "The kernel wrote to memory that is read-only",
        "BUG: unable to handle kernel paging request",
        _O,
        _PC,
    ),
    (
        K.PAGE_FAULT,
        r"[Uu]nable to handle (?:page fault for|kernel paging request)|"
        r"Unable to handle kernel (?:read from unreadable memory|"
        r"access to user memory)|"
        r"[Uu]nable to handle kernel (?!NULL)\w|unable to handle page fault",
        "The kernel used a bad pointer",
        "BUG: unable to handle kernel paging request",
        _O,
        _PC,
    ),
    (
        K.INT3,
        r"^(?:Oops: )?int3: \d+",
        "The kernel hit a breakpoint instruction (int3)",
        "int3",
        _O,
        _PC,
    ),
    (
        K.PROTECTION,
        r"^(?:Oops: )?general protection fault(?!.*ip[: ].*error:)|"
        r"(?<!traps: )general protection fault(?:, (?:maybe|"
        r"probably).*)?:? [0-9a-f]{4} \[#",
        "The kernel used an address that cannot exist",
        "general protection fault",
        _O,
        _PC,
    ),
    (
        K.STACK_SEGMENT,
        r"\bstack segment(?: fault)?: [0-9a-f]{4}",
        "The kernel used a stack address that cannot exist (stack segment fault)",
        "stack segment fault",
        _O,
        _PC,
    ),
    (
        K.DIVIDE,
        r"\bdivide[ _]error: |Division by zero in kernel",
        "The kernel divided by zero",
        "divide error",
        _O,
        _PC,
    ),
    (
        K.STACK_OVERFLOW,
        r"\bBUG: (?:\S{1,40} )?stack guard page was hit|"
        r"Insufficient stack space to handle "
        r"exception|kernel stack overflow \(|Kernel stack overflow in process|"
        r"Kernel panic - not syncing: kernel stack overflow",
        "The kernel's stack overflowed",
        "kernel stack overflow",
        _O,
        _PC,
    ),
    (
        K.DOUBLE_FAULT,
        r"PANIC: double fault|^(?:Oops: )?double fault: ",
        "An exception hit the kernel while it handled another one (double fault)",
        "PANIC: double fault",
        _O,
        _PC,
    ),
    (
        K.BTI,
        r"Internal error: Oops - BTI|, code 0x[0-9a-f]{8,16} -- BTI|"
        r"Unhandled 64-bit el1h sync exception .* -- BTI",
        "The kernel jumped to a place that is no target of an indirect branch (BTI)",
        "Internal error: BTI",
        _O,
        _PC,
    ),
    (
        K.CFI,
        r"CFI failure at |kernel/cfi\.c|CFI failure \(target",
        "An indirect call went to a function of a wrong type, or to none (CFI failure)",
        "CFI failure",
        _O,
        _PC,
    ),
    (
        K.BUG,
        r"kernel BUG at (?P<file>\S{1,200}?)!?$|kernel BUG at (?P<file2>\S{1,200})!",
        "The kernel gave up at a BUG()",
        "kernel BUG",
        _O,
        _PC,
    ),
    (
        K.EXTERNAL_ABORT,
        r"Internal error: synchronous (?:external abort|parity)|"
        r"Unhandled fault: (?:synchronous external abort|external abort|"
        r"imprecise external abort)",
        "The hardware refused an access of the kernel (synchronous external abort)",
        "Internal error",
        _O,
        _PC,
    ),
    (
        K.ALIGNMENT,
        r"\bAlignment trap: |Internal error: (?:Oops - )?SP/PC alignment|"
        r"Unhandled fault: alignment",
        "The kernel used an address that is not aligned",
        "Alignment trap",
        _O,
        _PC,
    ),
    (
        K.PAGE_FAULT,
        r"Unhandled fault: |Unhandled prefetch abort: ",
        "The kernel used a bad pointer",
        "Unhandled fault",
        _O,
        _PC,
    ),
    (
        K.INVALID_OPCODE,
        r"\binvalid opcode: [0-9a-f]{4}|Internal error: Oops - undefined instruction|"
        r"Oops - illegal instruction",
        "The kernel executed an invalid instruction",
        "invalid opcode",
        _O,
        _PC,
    ),
    (
        K.OOPS,
        r"\bBad mode in (?P<what>[\w ]{1,40}) handler|"
        # die() of arm64 and of x86 before v6.8: "simd exception: 0000 [#1]".
        r"Internal error: .{1,200}\[#\d+\]|^[A-Za-z][A-Za-z -]{2,39}: \w{4} \[#\d+\]|"
        r"Unhandled exception in kernel mode|^(?:Oops: )?(?:traps: )?PANIC: |"
        r"^Oops(?: -|:| \[#)",
        "The kernel hit an exception that it cannot handle",
        "Internal error",
        _O,
        _PC,
    ),
)
# mm/kasan, mm/kmsan, mm/kfence, kernel/kcsan, lib/ubsan.c, mm/slub.c, mm/page_alloc.c,
# lib/list_debug.c, mm/usercopy.c
_CHECKS: tuple[_Row, ...] = (
    (
        K.KASAN,
        r"BUG: KASAN: (?P<what>double-free or invalid-free|[a-z-]{1,60})"
        rf"(?: on address| in {_F})?",
        "KASAN found a bad memory access ({what})",
        "KASAN: {what}",
        _C,
        _HD,
    ),
    (
        K.KMSAN,
        rf"BUG: KMSAN: (?P<what>[a-z-]{{1,60}}) in {_F}",
        "KMSAN found a use of uninitialised memory ({what})",
        "KMSAN: {what}",
        _C,
        _HD,
    ),
    (
        K.KFENCE,
        rf"BUG: KFENCE: (?P<what>[a-z -]{{1,60}}) in {_F}",
        "KFENCE found a bad memory access ({what})",
        "KFENCE: {what}",
        _C,
        _HD,
    ),
    (
        K.KCSAN,
        rf"BUG: KCSAN: (?P<what>[a-z -]{{1,40}}|"
        rf"assert: race) in {_F}(?: / (?P<other>\S{{1,200}}))?",
        "KCSAN found a data race",
        "KCSAN: {what}",
        _S,
        _HD,
    ),
    (
        K.UBSAN,
        r"UBSAN: (?P<what>[\w -]{1,60}) in (?P<file>\S{1,200})",
        "UBSAN found undefined behaviour ({what})",
        "UBSAN: {what}",
        _S,
        _ST,
    ),
    (
        K.MEMORY_LEAK,
        r"BUG: memory leak|^unreferenced object 0x",
        "kmemleak found memory that nothing points to",
        "memory leak",
        _S,
        _ST,
    ),
    (
        K.BAD_PAGE,
        r"BUG: Bad (?P<what>page state|page map|rss-counter state|page cache|"
        r"swap file entry)\b",
        "The kernel found a page in a state in which it must not be (Bad {what})",
        "BUG: Bad {what}",
        _C,
        _ST,
    ),
    (
        K.SLAB,
        r"(?<!\w)BUG (?P<what>[\w:-]{1,80})(?: \([^)]{1,80}\))?: (?P<why>.{1,200})",
        "The kernel found a damaged slab object ({what}: {why})",
        "BUG {what}: {why}",
        _C,
        _ST,
    ),
    (
        K.LIST,
        r"^(?:slab )?(?P<what>list_(?:add|del)(?: double add)?|"
        r"list_\w{3}_valid) corruption",
        "The kernel found a damaged linked list ({what} corruption)",
        "BUG: corrupted list",
        _C,
        _ST,
    ),
    (
        K.USERCOPY,
        r"usercopy: [Kk]ernel memory (?P<what>exposure|overwrite) attempt|"
        r"Bad or missing usercopy whitelist\? Kernel memory (?P<what2>exposure|"
        r"overwrite)",
        "The kernel refused to copy outside of an object (usercopy)",
        "BUG: bad usercopy",
        _O,
        _ST,
    ),
    (
        K.FORTIFY,
        r"detected buffer overflow in (?P<what>\w{1,60})|"
        r"^(?P<what2>\w{1,60}): detected buffer "
        r"overflow",
        "FORTIFY found an overflow of a buffer ({what})",
        "kernel BUG",
        _O,
        _ST,
    ),
    (
        K.RUST,
        r"rust_kernel: panicked at (?P<file>\S{1,300})|"
        r"rust_kernel: panicked at '(?P<why>[^']{1,200})'",
        "Rust code of the kernel panicked",
        "rust panic",
        _O,
        _ST,
    ),
    (
        K.ATOMIC_SLEEP,
        r"BUG: scheduling while atomic: |BUG: scheduling in invalid context|"
        r"scheduling while atomic",
        "The kernel wanted to sleep where it must not (scheduling while atomic)",
        "BUG: scheduling while atomic",
        _S,
        _ST,
    ),
    (
        K.ATOMIC_SLEEP,
        r"BUG: sleeping function called from invalid context at|"
        r"DEBUG_LOCKS_WARN_ON\(in_interrupt|BUG: Invalid wait context",
        "The kernel called a function that sleeps where it must not",
        "BUG: sleeping function called from invalid context",
        _S,
        _ST,
    ),
    (
        K.PREEMPTIBLE,
        r"BUG: using (?P<what>\w{1,40}\(\)) in preemptible",
        "The kernel used data of a CPU ({what}) while it could be moved to another one",
        "BUG: using {what} in preemptible code",
        _S,
        _ST,
    ),
    (
        K.DEADLOCK,
        r"WARNING: possible (?:circular locking dependency|recursive locking|"
        r"irq lock inversion dependency)|possible (?:circular locking dependency|"
        r"recursive locking|irq lock inversion dependency) detected|"
        r"(?:INFO: |WARNING: )?\S{1,40}-safe -> \S{1,40}-unsafe lock order detected|"
        r"WARNING: \S{1,40} lock order detected",
        "The kernel takes locks in an order that can end in a deadlock",
        "possible deadlock",
        _S,
        _LK,
    ),
    (
        K.LOCK_STATE,
        r"inconsistent lock state|WARNING: inconsistent lock",
        "The kernel takes a lock both in interrupts and with interrupts on",
        "inconsistent lock state",
        _S,
        _LK,
    ),
    (
        K.RCU_USAGE,
        r"suspicious RCU usage",
        "The kernel used data protected by RCU without protection",
        "WARNING: suspicious RCU usage",
        _S,
        _ST,
    ),
    (
        K.LOCK_USAGE,
        r"bad (?P<bad>unlock|contention) balance detected",
        "The kernel released a lock that it did not hold (bad {bad} balance)",
        "WARNING: bad {bad} balance",
        _S,
        _LK,
    ),
    (
        K.LOCK_USAGE,
        r"held lock freed!",
        "The kernel freed memory with a lock that was held",
        "WARNING: held lock freed",
        _C,
        _LK,
    ),
    (
        K.LOCK_USAGE,
        r"WARNING: lock held when returning to user space|"
        r"BUG: lock held when returning to user space|lock held when returning to user",
        "The kernel returned to user space with a lock held",
        "WARNING: lock held when returning to user space",
        _S,
        _LK,
    ),
    (
        K.LOCK_USAGE,
        r"still has locks held!|BUG: lock held at task exit",
        "A task still has locks held where it must not",
        "WARNING: still has locks held",
        _S,
        _LK,
    ),
    (
        K.LOCK_USAGE,
        r"[Nn]ested lock was not taken",
        "The kernel took a lock as nested without the outer one",
        "WARNING: nested lock was not taken",
        _S,
        _LK,
    ),
    (
        K.LOCK_USAGE,
        r"INFO: trying to register non-static key|BUG: key \S{1,40} (?:not in|"
        r"has not been)",
        "The kernel used a lock that was not initialised",
        "INFO: trying to register non-static key",
        _S,
        _ST,
    ),
    (
        K.LOCK_USAGE,
        r"BUG: workqueue leaked (?:lock|atomic)[^:]{0,60}:",
        "Work of a queue ended with a lock held",
        "BUG: workqueue leaked lock or atomic",
        _S,
        _HD,
    ),
    (
        K.LOCK_USAGE,
        r"BUG: MAX_(?P<what>\w{1,40}) too low!",
        "The lock validator ran out of its own memory ({what})",
        "BUG: MAX_{what} too low!",
        _S,
        _ST,
    ),
    (
        K.SPINLOCK,
        r"BUG: (?P<what>spinlock|rwlock|rwsem)[ -](?P<why>[\w -]{1,60}?) on CPU#\d+|"
        r"BUG: (?P<what2>spinlock|rwlock) (?P<why2>[\w ]{1,60})",
        "The kernel used a lock wrongly ({what} {why})",
        "BUG: {what} {why}",
        _S,
        _ST,
    ),
    (
        K.WARNING,
        r"BUG: Dentry \S{1,40}\s?\{.{0,200}\} +still in use",
        "A file system is unmounted while a dentry is still in use",
        "BUG: Dentry still in use",
        _S,
        _ST,
    ),
    (
        K.SLAB,
        r"BUG: Object already free|BUG: \S{1,40}: Object already free",
        "The kernel freed an object twice",
        "BUG: Object already free",
        _C,
        _ST,
    ),
    (
        K.WARNING,
        r"VFS: (?:Close: file count is (?:0|zero)|Busy inodes after unmount)",
        "A file system used an object after it was freed",
        "VFS: (use-after-free)",
        _S,
        _NO,
    ),
    (
        K.WARNING,
        r"WARNING: (?:CPU: \d+ PID: \d+ )?(?:\[.{0,200}\] )?(?:(?:at|in) )?"
        r"(?P<file>[^\s:]{1,200}\.\w{1,3}:\d+)(?: at| in)?"
        r"(?: \[?(?P<place>[^\s+()\[\]]{1,200})\+0x| (?P<place2>[\w.]{1,200})\(\))?",
        "The kernel warned",
        "WARNING",
        _S,
        _HD,
    ),
    (
        K.WARNING,
        r"WARNING: CPU: \d+ PID: \d+ at (?P<place>[^\s+:]{1,200})\+0x",
        "The kernel warned",
        "WARNING",
        _S,
        _HD,
    ),
    (
        K.WARNING,
        r"WARNING: kernel stack (?P<what>regs|frame pointer) at",
        "The kernel could not follow its own stack ({what})",
        "WARNING: kernel stack {what} has bad value",
        _S,
        _NO,
    ),
    (
        K.WARNING,
        r"unregister_netdevice: waiting for \S{1,60} to become free",
        "A network device cannot be removed because something still holds it",
        "unregister_netdevice: waiting for DEV to become free",
        _S,
        _NO,
    ),
    (
        K.WARNING,
        r"BUG: no syscall|"
        r"(?<!\w)BUG: (?!KASAN|KMSAN|KFENCE|KCSAN|soft|workqueue lockup|arch topology)"
        r"(?P<what>[A-Za-z].{1,100})",
        "The kernel found a bug ({what})",
        "BUG: {what}",
        _S,
        _ST,
    ),
)
# kernel/watchdog.c, kernel/hung_task.c, kernel/rcu/tree_stall.h, kernel/workqueue.c
_STALLS: tuple[_Row, ...] = (
    (
        K.SOFT_LOCKUP,
        r"BUG: soft lockup - CPU#(?P<cpu>\d+) stuck for (?P<time>\d+)s!"
        r"(?: \[(?P<task>.{1,64}?):(?P<pid>\d+)\])?|BUG: soft lockup",
        "CPU {cpu} was stuck for {time}s",
        "BUG: soft lockup",
        _T,
        _SK,
    ),
    (
        K.HARD_LOCKUP,
        r"(?:NMI watchdog: )?(?:Watchdog detected hard LOCKUP on cpu (?P<cpu>\d+)|"
        r"CPU(?P<cpu2>\d+): Watchdog detected hard LOCKUP)|"
        r"Watchdog CPU:\d+ (?:detected )?Hard "
        r"LOCKUP|CPU:? ?(?P<cpu3>\d+):? .{0,20}Hard LOCKUP",
        "CPU {cpu} was stuck with interrupts off",
        "BUG: hard lockup",
        _T,
        _SK,
    ),
    (
        K.HUNG_TASK,
        r"(?:INFO: task (?P<task>.{1,64}?)|"
        r"^.{0,64}):(?P<pid>\d+) (?:blocked for more than|"
        r"is blocked on|blocked in I/O wait for more than|"
        r"can't die for more than) (?P<time>\d+)?",
        "Task {task} (pid {pid}) was blocked for over {time} s",
        "INFO: task hung",
        _T,
        _SK,
    ),
    (
        K.RCU_STALL,
        r"INFO: (?P<what>\S{1,40}) (?:self-)?detected(?: expedited)? stalls? on|"
        r"INFO: \S{1,40} detected stall|rcu: INFO: \S{1,40} .{0,20}stall",
        "{who} held up RCU for too long (a stall)",
        "INFO: rcu detected stall",
        _T,
        _SK,
    ),
    (
        K.WORKQUEUE_LOCKUP,
        r"BUG: workqueue lockup - pool (?P<what>.{1,100}?) stuck for (?P<time>\d+)s",
        "A work queue did not go on for {time} s",
        "BUG: workqueue lockup",
        _T,
        _NO,
    ),
)
# drivers/acpi/apei/ghes.c, drivers/firmware/efi/cper.c, arch/x86/kernel/cpu/mce,
# drivers/pci/pcie/aer.c, drivers/edac, arch/arm64/kernel/traps.c
_HARDWARE: tuple[_Row, ...] = (
    (
        K.FIRMWARE_ERROR,
        r"Hardware [Ee]rror from APEI Generic Hardware Error Source",
        "Firmware reported a fatal error of the hardware",
        "hardware error",
        _H,
        _NO,
    ),
    (
        K.SERROR,
        r"SError Interrupt on CPU(?P<cpu>\d+)|Asynchronous SError Interrupt",
        "The hardware reported an error of an earlier access (SError)",
        "SError",
        _H,
        _PC,
    ),
    (
        K.MACHINE_CHECK,
        r"mce: \[Hardware Error\]: CPU (?P<cpu>\d+): Machine Check|"
        r"\[Hardware Error\]: CPU (?P<cpu2>\d+): Machine Check",
        "The processor reported a fatal hardware error",
        "machine check",
        _H,
        _NO,
    ),
    (
        K.MEMORY_ERROR,
        r"Kernel panic - not syncing: EDAC (?P<what>.{1,200})",
        "A memory module had an error that cannot be corrected (EDAC {what})",
        "EDAC",
        _H,
        _NO,
    ),
)


def _rows(rows: tuple[_Row, ...]) -> Iterator[EventPattern]:
    for kind, pattern, words, title, weight, place in rows:
        yield EventPattern(kind, re.compile(pattern), words, title, weight, place)


EVENTS = tuple(
    rule
    for rows in (_PANICS, _OOPSES, _CHECKS, _STALLS, _HARDWARE)
    for rule in _rows(rows)
)
_TRIGGER = re.compile(
    r"BUG|INFO: |WARNING|[Uu]nable to handle|Oops|general protection|divide error|"
    r"int3: |"
    r"stack|divide_error|blocked for|double fault|[Hh]ard ?[Ll]|SError|Internal error|"
    r"Bad mode|CFI|corruption|"
    r"usercopy|overflow|rust_kernel|lock|RCU|UBSAN|unreferenced|Machine Check|"
    r"Hardware|EDAC|Unhandled|PANIC|invalid opcode|Alignment|NX-protected|VFS: |"
    r"scheduling|Division|waiting for|Dentry| \[#"
)
"""Words of which each rule's form has one: most lines of a log have none."""


def find_event(text: str) -> tuple[EventPattern, re.Match[str]] | None:
    """Return the rule of which a line is the beginning, and its match."""
    if _TRIGGER.search(text) is None:
        return None
    for rule in EVENTS:
        match = rule.pattern.search(text)
        if match is not None:
            return rule, match
    return None


_OF_WARNING = frozenset({K.WARNING})
_OF_BUG = frozenset({K.BUG, K.INVALID_OPCODE, K.OOPS})
_OF_FAULT = frozenset({K.PROTECTION, K.PAGE_FAULT})


def _refine(
    kinds: frozenset[K],
    pattern: str,
    kind: K,
    words: str,
    title: str,
    weight: Weight | None = None,
) -> Refinement:
    return Refinement(kinds, re.compile(pattern), kind, words, title, weight)


REFINEMENTS = (
    # arch/x86/mm/kasan: what the address would be without the shadow's offset.
    _refine(
        _OF_FAULT,
        r"KASAN: (?:maybe |probably )?null-ptr-deref in range",
        K.NULL,
        "The kernel dereferenced a NULL pointer",
        "general protection fault",
    ),
    _refine(
        _OF_WARNING,
        r"\brefcount_t: |lib/refcount\.c|include/linux/refcount",
        K.REFCOUNT,
        "The kernel warned of a wrong reference count",
        "WARNING: refcount bug",
        Weight.CORRUPTION,
    ),
    _refine(
        _OF_WARNING,
        r"ODEBUG: |lib/debugobjects\.c",
        K.OBJECT_DEBUG,
        "The kernel freed or changed an object that was in use (debugobjects)",
        "WARNING: ODEBUG bug",
        Weight.CORRUPTION,
    ),
    _refine(
        _OF_WARNING,
        r"Bad or missing usercopy|mm/usercopy\.c",
        K.USERCOPY,
        "The kernel copied outside of an object (usercopy)",
        "WARNING: bad usercopy",
    ),
    _refine(
        _OF_WARNING,
        r"\bRCU not watching|suspicious RCU",
        K.RCU_USAGE,
        "The kernel used data protected by RCU without protection",
        "WARNING: suspicious RCU usage",
    ),
    _refine(
        _OF_WARNING | _OF_BUG,
        r"list_(?:add|del)\w* corruption|lib/list_debug\.c",
        K.LIST,
        "The kernel found a damaged linked list",
        "BUG: corrupted list",
        Weight.CORRUPTION,
    ),
    _refine(
        _OF_WARNING | _OF_BUG,
        r"CFI failure|kernel/cfi\.c",
        K.CFI,
        "An indirect call went to a function of a wrong type, or to none (CFI failure)",
        "CFI failure",
    ),
    _refine(
        _OF_BUG,
        r"usercopy: |mm/usercopy\.c",
        K.USERCOPY,
        "The kernel refused to copy outside of an object (usercopy)",
        "BUG: bad usercopy",
    ),
    _refine(
        _OF_BUG,
        r"detected buffer overflow|\bfortify_panic\b|lib/string(?:_helpers)?\.c",
        K.FORTIFY,
        "FORTIFY found an overflow of a buffer",
        "kernel BUG",
    ),
    _refine(
        _OF_BUG,
        r"rust_helper_BUG|rust_kernel|rust/helpers",
        K.RUST,
        "Rust code of the kernel panicked",
        "rust panic",
    ),
)
