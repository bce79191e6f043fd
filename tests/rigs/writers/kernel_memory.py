# SPDX-License-Identifier: GPL-2.0-or-later
"""
A small kernel in memory, without a VMCOREINFO: what such a kernel is known by.

Each thing is where the kernel's sources put it; nothing is shared with the parsers.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from rigs.btf_writer import BtfWriter
from rigs.synthetic import note
from rigs.writers import put
from rigs.writers.kallsyms import NEW, Written, write_kallsyms

MIB = 1 << 20
IMAGE = 4 * MIB
BANNER = 0x120000
TABLES = 0x130000
BTF = 0x160000
NOTES = 0x17F000
PAGE_TABLE = 0x180000
DATA = 0x200000
VARIABLES = DATA + 0x8000
RELEASE = "6.6.30-android15-8"
BUILD_ID = "00112233445566778899aabbccddeeff00112233"


@dataclass
class SyntheticKernel:
    """
    A kernel that has booted.

    :param arch: ``x86_64``, with page tables of four levels; or ``aarch64``, with pages
        of 4 KiB and addresses of 39 bits.
    :param ram: Physical address of the first byte.
    :param place: Offset in RAM of the image; a multiple of 2 MiB.
    """

    arch: str = "x86_64"
    order: Sequence[str] = NEW
    alignment: int = 8
    ram: int = 0
    size: int = 10 * MIB
    place: int = 4 * MIB
    moved: int = 0x1000000
    """How far KASLR moved it."""
    encrypted: int = 0
    """x86_64: the bit of addresses in page tables that says so (AMD's SME)."""
    variables: dict[str, int] = field(default_factory=dict)
    """Further variables of 8 bytes."""
    memory: bytearray = field(default_factory=bytearray)
    parts: dict[str, range] = field(default_factory=dict)
    """Offsets in :attr:`memory` of what can be damaged."""

    def __post_init__(self) -> None:
        self.memory = bytearray(self.size)
        x86 = self.arch == "x86_64"
        linked = 0xFFFFFFFF81000000 if x86 else 0xFFFFFFC088000000 - 128 * MIB
        self.text = linked + self.moved
        self.physical = self.ram + self.place
        self.direct = 0xFFFF914400000000 if x86 else 0xFFFFFF8000000000 - self.ram
        self.symbols = self._symbols()
        self._write()

    def set(self, name: str, value: int, size: int = 8) -> None:
        """Change the value of a variable."""
        start = self.parts[name].start
        self.memory[start : start + size] = value.to_bytes(size, "little")

    def virtual(self, offset: int) -> int:
        """Return the virtual address of an offset in the image."""
        return self.text + offset

    @property
    def truth(self) -> dict[str, str]:
        """The lines of a VMCOREINFO that must be right, if they are there."""
        address = {name: f"{at:x}" for at, name in self.symbols}
        table = "init_top_pgt" if self.arch == "x86_64" else "swapper_pg_dir"
        lines = {
            "OSRELEASE": RELEASE,
            "BUILD-ID": BUILD_ID,
            "PAGESIZE": "4096",
            "SYMBOL(swapper_pg_dir)": address[f"D{table}"],
            "SYMBOL(init_uts_ns)": address["Dinit_uts_ns"],
            "SYMBOL(_stext)": address["T_stext"],
            "SYMBOL(prb)": address["dprb"],
            "SYMBOL(printk_rb_static)": address["dprintk_rb_static"],
            "OFFSET(uts_namespace.name)": "8",
            "SIZE(list_head)": "16",
            "OFFSET(list_head.next)": "0",
            "OFFSET(list_head.prev)": "8",
            "SIZE(prb_desc)": "24",
            "OFFSET(prb_desc.state_var)": "0",
            "OFFSET(prb_desc.text_blk_lpos)": "8",
            "SIZE(prb_data_blk_lpos)": "16",
            "OFFSET(prb_data_blk_lpos.begin)": "0",
            "OFFSET(prb_data_blk_lpos.next)": "8",
            "NUMBER(PG_lru)": "5",
            "NUMBER(PG_head_mask)": "64",
            "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)": "-184549376",
            "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": "-268435456",
            "NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)": "-201326592",
            "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)": "-251658240",
            "SIZE(atomic_long_t)": "8",
            "OFFSET(atomic_long_t.counter)": "0",
            "KERNELOFFSET": f"{self.moved:x}",
        }
        names = {"count": "num_syms", "tokens": "token_table", "index": "token_index"}
        names |= {"names": "names", "offsets": "offsets", "base": "relative_base"}
        for part, name in names.items():
            if part in self.tables.places:
                at = self.virtual(TABLES + self.tables.places[part])
                lines[f"SYMBOL(kallsyms_{name})"] = f"{at:x}"
        if self.arch == "x86_64":
            base = self.physical - (self.text - 0xFFFFFFFF80000000)
            lines |= {
                "SYMBOL(init_top_pgt)": address["Dinit_top_pgt"],
                "NUMBER(phys_base)": str(base),
                "NUMBER(pgtable_l5_enabled)": "0",
                "NUMBER(sme_mask)": str(self.encrypted),
                "NUMBER(KERNEL_IMAGE_SIZE)": str(1 << 30),
                "NUMBER(MAX_PHYSMEM_BITS)": "46",
            }
        else:
            lines |= {
                "NUMBER(VA_BITS)": "39",
                "NUMBER(TCR_EL1_T1SZ)": "0x19",
                "NUMBER(kimage_voffset)": f"{self.text - self.physical:#x}",
                "NUMBER(PHYS_OFFSET)": f"{self.ram:#x}",
                "NUMBER(MODULES_VADDR)": "0xffffffc000000000",
                "NUMBER(MODULES_END)": "0xffffffc080000000",
                "NUMBER(KERNELPACMASK)": "0xffffff8000000000",
                "NUMBER(MAX_PHYSMEM_BITS)": "48",
            }
        return lines

    def _symbols(self) -> list[tuple[int, str]]:
        image: list[tuple[int, str]] = [
            (0, "T_text"),
            (0x10000 if self.arch == "aarch64" else 0, "T_stext"),
            *((0x10400 + 32 * i, f"tsys_{i}_init_read") for i in range(600)),
            (0x40000, "tkernel_randomize_memory"),
            (0x40020, "tafter_it"),
            (BANNER, "Rlinux_banner"),
            (BANNER + 0x200, "R__start_rodata_after"),
            (BTF, "R__start_BTF"),
            (BTF + len(kernel_btf()), "R__stop_BTF"),
            (NOTES, "R__start_notes"),
            (NOTES + len(_build_id_note()), "R__stop_notes"),
            (NOTES + 0x100, "Rvmlinux_build_id"),
            *((DATA + 0x400 * i, f"D{name}") for i, name in enumerate(_OBJECTS)),
            *((VARIABLES + 8 * i, f"d{name}") for i, name in enumerate(self._values())),
            *((VARIABLES + 0x800 + 16 * i, f"bkmem_{i}") for i in range(200)),
        ]
        image.append((IMAGE, "B_end"))
        if self.arch == "x86_64":
            image.append((PAGE_TABLE, "Dinit_top_pgt"))
        else:
            image.append((PAGE_TABLE, "Dswapper_pg_dir"))
            image.append((0x41000, "dmodule_plt_base"))
            image.append((0x41008, "dmodule_direct_base"))
        return sorted((self.virtual(at), name) for at, name in image)

    def _values(self) -> dict[str, int]:
        """Return the variables of 8 bytes, in their order."""
        rings = DATA + 0x400 * _OBJECTS.index("boot_params") + 0x2000
        values = {
            "printk_rb_static": 0,
            "prb": self.virtual(rings),
            "system_state": 3,
            "panic_cpu": 0xFFFFFFFF,
        }
        if self.arch == "x86_64":
            base = self.physical - (self.text - 0xFFFFFFFF80000000)
            values |= {
                "phys_base": base % (1 << 64),
                "sme_me_mask": self.encrypted,
                "page_offset_base": self.direct,
                "vmalloc_base": 0xFFFFA34480000000,
            }
        else:
            values |= {
                "kimage_voffset": self.text - self.physical,
                "memstart_addr": self.ram,
            }
        values["prb"] = self.virtual(VARIABLES)
        return values | self.variables

    def _put(self, name: str, offset: int, data: bytes) -> None:
        at = self.place + offset
        self.memory[at : at + len(data)] = data
        self.parts[name] = range(at, at + len(data))

    def _write(self) -> None:
        at = {name[1:]: address - self.text for address, name in self.symbols}
        banner = f"Linux version {RELEASE} (build@host) (clang) #1 SMP\n"
        self._put("banner", BANNER, banner.encode() + b"\0")
        self.tables: Written = write_kallsyms(
            self.symbols, self.order, self.virtual(TABLES), alignment=self.alignment
        )
        self._put("kallsyms", TABLES, self.tables.data)
        self._put("btf", BTF, kernel_btf())
        self._put("notes", NOTES, _build_id_note())
        self._put("build id", at["vmlinux_build_id"], bytes.fromhex(BUILD_ID))
        self._put("uts", at["init_uts_ns"], bytes(8) + _uts(self.arch))
        root = self.virtual(PAGE_TABLE)
        self._put("init_mm", at["init_mm"], struct.pack("<72xQ", root))
        for name, value in self._values().items():
            size = 4 if name in ("system_state", "panic_cpu") else 8
            self._put(name, at[name], value.to_bytes(size, "little"))
        params = bytearray(4096)
        params[0x202:0x206] = b"HdrS"
        put(params, 0x258, 8, 0x1000000)
        self._put("boot_params", at["boot_params"], bytes(params[:0x400]))
        self._put_page_tables()

    def _put_page_tables(self) -> None:
        """Map the image with blocks of 2 MiB, and all RAM with blocks of 1 GiB."""
        below = self.place + IMAGE  # Behind the image.
        x86 = self.arch == "x86_64"
        table, block, leaf = (0x63, 0xE3, 30) if x86 else (0x3, 0x701, 30)
        assert leaf
        root, middle, low, direct = (
            self.place + PAGE_TABLE,
            below,
            below + 0x1000,
            below + 0x2000,
        )

        def entry(at: int, virtual: int, shift: int, value: int) -> None:
            value |= self.encrypted
            put(self.memory, at + (virtual >> shift) % 512 * 8, 8, value)

        upper = root
        if x86:
            entry(root, self.text, 39, self.ram + middle | table)
            entry(root, self.direct, 39, self.ram + direct | table)
            upper = middle
        entry(upper, self.text, 30, self.ram + low | table)
        for step in range(0, IMAGE, 2 * MIB):
            entry(low, self.text + step, 21, self.physical + step | block)
        gib = self.ram & -(1 << 30)
        entry(direct if x86 else root, self.direct + gib, 30, gib | block)
        self.parts["page table"] = range(root, root + 4096)
        self.parts["lower tables"] = range(below, below + 0x3000)


_OBJECTS = ("init_mm", "init_task", "init_uts_ns", "boot_params")


def _uts(arch: str) -> bytes:
    fields = ("Linux", "phone", RELEASE, "#1 SMP", arch, "(none)")
    return b"".join(text.encode().ljust(65, b"\0") for text in fields)


def _build_id_note() -> bytes:
    return note(b"GNU", 3, bytes.fromhex(BUILD_ID))


def kernel_btf() -> bytes:
    """Return types that VMCOREINFO describes."""
    writer = BtfWriter()
    long = writer.integer("long unsigned int", 8)
    char = writer.integer("char", 1, signed=True)
    text = writer.array(char, 65)
    names = ("sysname", "nodename", "release", "version", "machine", "domainname")
    uts = writer.struct(
        "new_utsname", 390, [(name, text, 520 * i) for i, name in enumerate(names)]
    )
    writer.struct("uts_namespace", 400, [("ns", long, 0), ("name", uts, 64)])
    pointer = writer.pointer(writer.next_id + 1)
    writer.struct("list_head", 16, [("next", pointer, 0), ("prev", pointer, 64)])
    atomic = writer.struct("", 8, [("counter", long, 0)])
    writer.typedef("atomic_long_t", atomic)
    lpos = writer.struct(
        "prb_data_blk_lpos", 16, [("begin", long, 0), ("next", long, 64)]
    )
    writer.struct(
        "prb_desc", 24, [("state_var", atomic, 0), ("text_blk_lpos", lpos, 64)]
    )
    writer.enum("pageflags", {"PG_locked": 0, "PG_lru": 5, "PG_head": 6})
    kinds = ("buddy", "offline", "table", "guard", "hugetlb", "slab")
    writer.enum("pagetype", {f"PGTY_{it}": 0xF0 + i for i, it in enumerate(kinds)})
    return writer.bytes()
