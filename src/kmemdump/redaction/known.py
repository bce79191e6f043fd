# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in physical memory a kernel has what is known: structures, texts, stacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from drgn import (
    FaultError,
    Object,
    ObjectAbsentError,
    Program,
    sizeof,
)
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.ipc import (
    for_each_sysv_msg_queue,
    for_each_sysv_sem_array,
    for_each_sysv_shm,
)
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.module import for_each_module
from drgn.helpers.linux.net import for_each_netdev
from drgn.helpers.linux.percpu import per_cpu

from kmemdump.arch.architecture import (
    arch_from_info,
    arch_from_program,
    image_address,
)
from kmemdump.arch.pagetable import walk
from kmemdump.areas import AREAS
from kmemdump.areas.crash import CRASH
from kmemdump.areas.crash_names import PER_CPU, VARIABLES
from kmemdump.errors import KmemdumpError, NotCapturedError
from kmemdump.kernel.attach import Kernel
from kmemdump.kernel.limits import MAX_MODULES, MAX_TASKS
from kmemdump.kernel.printk import find_log_places
from kmemdump.kernel.program import OBJECTS
from kmemdump.kernel.tasks import readable_tasks
from kmemdump.memory.physical import PAGE_SIZE
from kmemdump.memory.ranges import Range, parts_in, subtract
from kmemdump.redaction.codes import IDS, NETWORK
from kmemdump.redaction.reads import ByteRecorder, TextRun
from kmemdump.redaction.structures import Part, Structures

__all__ = ["Known", "find_known"]

_PF_KTHREAD = 0x00200000
_MAX_STACK = 1 << 17
_MAX_ADDRESSES = 4096
_MAX_TABLE = 16 << 20
_MAX_COMMAND_LINE = 4096
_OWN_RANGES = (
    ("_stext", "_etext"),
    ("__start_rodata", "__end_rodata"),
    ("__start_orc_unwind", "__stop_orc_unwind"),
    ("__start_orc_unwind_ip", "__stop_orc_unwind_ip"),
    ("__start_orc_header", "__stop_orc_header"),
    ("orc_lookup", "orc_lookup_end"),
    ("__start___bug_table", "__stop___bug_table"),
)
"""Parts of the image that are as they were built."""
_NOT_OWN = (("__start_ro_after_init", "__end_ro_after_init"),)
"""Parts of them that the kernel wrote when it started."""
_ABSENT = (
    AttributeError,
    FaultError,
    KmemdumpError,
    LookupError,
    ObjectAbsentError,
    OverflowError,
    TypeError,
    ValueError,
)
"""What drgn's helpers raise where memory, types or symbols are missing."""


@dataclass
class Known:
    """Places in physical memory."""

    own: list[Range] = field(default_factory=list)
    """The kernel build's own, and its modules': code and constants."""
    structure: list[Range] = field(default_factory=list)
    """Structure without a type: tables, the parts of the log."""
    parts: list[Part] = field(default_factory=list)
    """Parts of structures; the start is a physical address."""
    stacks: list[Range] = field(default_factory=list)
    texts: list[TextRun] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    """What could not be looked for."""


def find_known(kernel: Kernel, recorder: ByteRecorder) -> Known:
    """Find what is known of a kernel; what it lacks is left out."""
    finder = _Finder(kernel, recorder)
    for find in (
        finder.image,
        finder.log,
        finder.names,
        finder.modules,
        finder.variables,
        finder.objects,
        finder.tasks,
        finder.other_stacks,
        finder.network,
        finder.ipc,
    ):
        try:
            with recorder.unnoticed():
                find()
        except _ABSENT as error:
            name = find.__name__.replace("_", " ")
            finder.known.problems.append(f"{name}: {error}")
    return finder.known


class _Finder:
    def __init__(self, kernel: Kernel, recorder: ByteRecorder) -> None:
        self.known = Known()
        self._kernel = kernel
        self._prog = kernel.prog
        self._recorder = recorder
        self._structures = Structures()
        self._seen: set[tuple[int, str]] = set()
        # It ends with room for all registers of any processor; this one has fewer.
        self._task_size = 1 << 20
        try:
            symbol = kernel.prog.symbol("arch_task_struct_size")
            with recorder.unnoticed():
                self._task_size = kernel.prog.read_u32(symbol.address)
        except _ABSENT:
            pass  # Not on every architecture.

    # Places.

    def _places(self, address: int, size: int) -> Iterator[tuple[int, Range]]:
        """Yield offsets and physical ranges of the captured part of a virtual range."""
        end = address + size
        at = address
        while at < end:
            count = min(end - at, PAGE_SIZE - at % PAGE_SIZE)
            found = self._place(at, count)
            if found is not None:
                yield at - address, found
            at += count

    def _place(self, address: int, count: int) -> Range | None:
        try:
            self._prog.read(address, count)
        except _ABSENT:
            # A part of a page may be captured: its last byte, or its first, says where.
            for at in (address, address + count - 1):
                try:
                    self._prog.read(at, 1)
                except _ABSENT:
                    continue
                return Range(self._recorder.last[0] - (at - address), count)
            return None
        return Range(self._recorder.last[0], count)

    def _object(self, value: Object) -> None:
        """Note an object's parts."""
        if value.address_ is None:
            return
        key = value.address_, value.type_.type_name()
        if key in self._seen:
            return
        self._seen.add(key)
        parts = self._structures.parts(value.type_)
        size = sum(part.size for part in parts)
        if value.type_.type_name() == "struct task_struct":
            size = min(size, self._task_size)
        for offset, place in self._places(value.address_, size):
            for part in parts:
                start = max(part.start, offset)
                end = min(part.start + part.size, offset + place.size)
                if start < end:
                    at = place.start + start - offset
                    self.known.parts.append(Part(at, end - start, part.code))

    def _text(self, kind: str, address: int, size: int) -> None:
        for _, place in self._places(address, size):
            self.known.texts.append(TextRun(place.start, place.size, kind))

    def _string(self, kind: str, address: int, limit: int) -> None:
        """Note a string that ends with a NUL."""
        for offset, place in self._places(address, limit):
            data = self._prog.read(address + offset, place.size)
            end = data.find(b"\0")
            size = place.size if end < 0 else end + 1
            self.known.texts.append(TextRun(place.start, size, kind))
            if end >= 0:
                return

    # What is there.

    def image(self) -> None:
        """The image's constants, and the page table."""
        info = self._kernel.vmcoreinfo
        own = [*self._symbol_ranges(_OWN_RANGES)]
        self.known.own += subtract(own, self._symbol_ranges(_NOT_OWN))
        for _ in walk(arch_from_info(info).page_table(info), self._read_table):
            pass
        data, size = self._prog["vmcoreinfo_data"], self._prog["vmcoreinfo_size"]
        for _, place in self._places(data.value_(), min(size.value_(), 1 << 16)):
            self.known.own.append(place)

    def _read_table(self, address: int, size: int) -> bytes:
        """Read a page table, zeros where it is not captured, and note it."""
        memory = self._recorder.memory
        held = [*parts_in(Range(address, size), memory.ranges)]
        if not held:
            raise NotCapturedError(f"{address:#x} is not captured")
        data = bytearray(size)
        for item in held:
            at = item.start - address
            data[at : at + item.size] = memory.read(item.start, item.size)
        self.known.structure += held
        return bytes(data)

    def _symbol_ranges(self, pairs: tuple[tuple[str, str], ...]) -> Iterator[Range]:
        for first, last in pairs:
            try:
                start, end = (self._prog.symbol(it).address for it in (first, last))
            except LookupError:
                continue
            if start < end:
                physical = image_address(self._kernel.vmcoreinfo, start)
                yield Range(physical, end - start)

    def log(self) -> None:
        """The kernel log."""
        places = find_log_places(self._prog.read, self._kernel.vmcoreinfo)
        for address, size in places.structure:
            self.known.structure += (it for _, it in self._places(address, size))
        for address, size in places.texts:
            self._text("log-text", address, size)

    def names(self) -> None:
        """Names of the machine, and the command line."""
        prog = self._prog
        name = prog["init_uts_ns"].name
        for member in ("nodename", "domainname"):
            field = name.member_(member)
            self._text("host-names", field.address_, sizeof(field))
        for member in ("sysname", "release", "version", "machine"):
            field = name.member_(member)
            self.known.own += (
                it for _, it in self._places(field.address_, sizeof(field))
            )
        line = prog["saved_command_line"].value_()
        self._string("command-line", line, _MAX_COMMAND_LINE)

    def modules(self) -> None:
        """Modules: code, constants and symbols are their builds' own."""
        for module in islice(for_each_module(self._prog), MAX_MODULES):
            try:
                self._module(module)
            except _ABSENT:
                continue  # Half of it is missing.

    def _module(self, module: Object) -> None:
        name = module.name.string_().decode("latin-1")
        self.known.modules.add(name)
        self._text("module-names", module.name.address_, sizeof(module.name))
        for start, size in _constant_parts(module):
            self.known.own += (it for _, it in self._places(start, size))
        for table in arch_from_program(self._prog).module_tables(module):
            size = min(table.size, _MAX_TABLE)
            self.known.own += (it for _, it in self._places(table.start, size))
        tables = module.kallsyms.read_()
        count = tables.num_symtab.value_()
        names = tables.symtab[count - 1].st_name.value_() + 512
        for start, size in (
            (tables.symtab, count * sizeof(tables.symtab[0])),
            (tables.strtab, names),
            (tables.typetab, count),
        ):
            size = min(size, _MAX_TABLE)
            self.known.own += (it for _, it in self._places(start.value_(), size))

    def variables(self) -> None:
        """Variables whose type is known, of each CPU where they are its own."""
        names = {*VARIABLES, *(it for area in AREAS for it in area.variables)}
        for name in sorted(names):
            with suppress(*_ABSENT):
                self._object(self._prog.variable(name))
        # crash reads these for sys and net; the first has no type that drgn needs.
        with suppress(*_ABSENT):
            address = self._prog.symbol("shadow_timekeeper").address
            self._object(Object(self._prog, "struct timekeeper", address=address))
        with suppress(*_ABSENT):
            self._object(self._prog["init_nsproxy"])
        for name in PER_CPU:
            for cpu in for_each_possible_cpu(self._prog):
                with suppress(*_ABSENT):
                    self._object(per_cpu(self._prog[name], cpu))

    def objects(self) -> None:
        """The objects that area crash reads whole."""
        self._prog.config[OBJECTS] = self._object
        try:
            for question in CRASH.questions:
                with suppress(*_ABSENT):
                    question.put(self._prog)
        finally:
            del self._prog.config[OBJECTS]

    def tasks(self) -> None:
        """Tasks: their names, and their stacks."""
        prog = self._prog
        size = min(prog["THREAD_SIZE"].value_(), _MAX_STACK)
        untagged = arch_from_program(prog).untagged
        for task in islice(readable_tasks(prog), MAX_TASKS):
            with suppress(*_ABSENT):
                self._object(task[0])
            comm = task.comm
            try:
                of_kernel = bool(task.flags.value_() & _PF_KTHREAD)
            except _ABSENT:
                of_kernel = False
            kind = "kernel-thread-names" if of_kernel else "task-names"
            self._text(kind, comm.address_, sizeof(comm))
            with suppress(*_ABSENT):
                self._stack(untagged(task.stack.value_()), size)

    def other_stacks(self) -> None:
        """The stacks for interrupts and exceptions."""
        arch = arch_from_program(self._prog)
        for cpu in for_each_possible_cpu(self._prog):
            stack = arch.interrupt_stack(self._prog, cpu)
            if stack is not None:
                self._stack(stack.start, min(stack.size, _MAX_STACK))
            for stack in arch.exception_stacks(self._prog, cpu):
                self._stack(stack.start, min(stack.size, _MAX_STACK))

    def _stack(self, start: int, size: int) -> None:
        self.known.stacks += (place for _, place in self._places(start, size))

    def network(self) -> None:
        """Names and addresses of the network's interfaces."""
        for device in islice(for_each_netdev(self._prog), _MAX_ADDRESSES):
            self._text("interface-names", device.name.address_, sizeof(device.name))
            with suppress(*_ABSENT):
                self._object(device[0])
            with suppress(*_ABSENT):
                self._number(device.dev_addr, 32)
            with suppress(*_ABSENT):
                self._addresses(device)

    def _addresses(self, device: Object) -> None:
        address = device.ip_ptr.ifa_list.read_() if device.ip_ptr else None
        for _ in range(_MAX_ADDRESSES):
            if not address:
                break
            self._object(address[0])
            label = address.ifa_label
            self._text("interface-names", label.address_, sizeof(label))
            address = address.ifa_next.read_()
        if device.ip6_ptr:
            head = device.ip6_ptr.addr_list.address_of_()
            found = list_for_each_entry("struct inet6_ifaddr", head, "if_list")
            for item in islice(found, _MAX_ADDRESSES):
                self._object(item[0])

    def _number(self, pointer: Object, size: int) -> None:
        for _, place in self._places(pointer.value_(), size):
            self.known.parts.append(Part(place.start, place.size, NETWORK))

    def ipc(self) -> None:
        """Owners of System V shared memory, semaphores and message queues."""
        namespace = self._prog["init_ipc_ns"].address_of_()
        for each, member in (
            (for_each_sysv_shm, "shm_perm"),
            (for_each_sysv_sem_array, "sem_perm"),
            (for_each_sysv_msg_queue, "q_perm"),
        ):
            with suppress(*_ABSENT):
                self._owners(each, namespace, member)

    def _owners(
        self, each: Callable[..., Iterator[Object]], namespace: Object, member: str
    ) -> None:
        for item in islice(each(namespace), _MAX_ADDRESSES):
            permission = item.member_(member)
            for name in ("uid", "gid", "cuid", "cgid"):
                field = permission.member_(name)
                for _, place in self._places(field.address_, sizeof(field)):
                    self.known.parts.append(Part(place.start, place.size, IDS))


def _constant_parts(module: Object) -> Iterator[tuple[int, int]]:
    """Yield addresses and sizes of a module's code and constants."""
    # Since Linux kernel commit ac3b432839234 ("module: replace module_layout with
    # module_memory") (in v6.4), before that in layouts that begin with them.
    try:
        kinds = [
            module.prog_.constant(name).value_() for name in ("MOD_TEXT", "MOD_RODATA")
        ]
    except LookupError:
        layout = module.core_layout
        yield layout.base.value_(), min(layout.ro_size.value_(), _MAX_TABLE)
        return
    for kind in kinds:
        part = module.mem[kind]
        yield part.base.value_(), min(part.size.value_(), _MAX_TABLE)


def is_known_symbol(prog: Program, name: str) -> bool:
    """Return whether the kernel, or a module of it, has a symbol."""
    try:
        prog.symbol(name)
    except LookupError:
        return False
    return True
