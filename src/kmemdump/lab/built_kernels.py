# SPDX-License-Identifier: GPL-2.0-or-later
"""
Kernels that no archive has, built from Debian's sources: small, and once.

They stand for kernels that are built otherwise than Debian's: for phones, and for
distributions whose stack traces need frame pointers; one finds the bugs of modules
(KASAN and lockdep), one notes who holds which lock, and describes itself. Each takes
about 8 minutes on two CPUs and 2.5 GB meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.lab.apt import Apt
from kmemdump.lab.architectures import AARCH64, X86_64, Architecture
from kmemdump.lab.commands import ENDS_WITH_US, run
from kmemdump.lab.kernel_package import KernelPackage

__all__ = ["BUILT_KERNELS", "HEADERS", "BuiltKernel", "build_kernel", "built_kernel"]

_GUEST = (
    *(
        "EXPERT",
        "PRINTK",
        "BUG",
        "MULTIUSER",
        "SYSFS",
        "PROC_FS",
        "PROC_SYSCTL",
        "DEVTMPFS",
    ),
    *("TMPFS", "SHMEM", "SWAP", "FUTEX", "EPOLL", "SIGNALFD", "EVENTFD", "TIMERFD"),
    *("POSIX_TIMERS", "SYSVIPC", "HIGH_RES_TIMERS", "NO_HZ_IDLE", "PREEMPT", "SMP"),
    *("NAMESPACES", "UTS_NS", "PID_NS", "NET_NS", "CGROUPS", "BLOCK", "BLK_DEV"),
    *("BLK_DEV_INITRD", "RD_GZIP", "BINFMT_ELF", "BINFMT_SCRIPT", "MODULES"),
    *("MODULE_UNLOAD", "MAGIC_SYSRQ", "TTY", "UNIX98_PTYS", "PCI", "VIRTIO_MENU"),
    *("VIRTIO_PCI", "VIRTIO_BLK", "NET", "UNIX", "INET", "NETDEVICES", "NET_CORE"),
    *("SERIAL_8250", "SERIAL_8250_CONSOLE", "SERIAL_8250_PCI", "VMAP_STACK"),
    *("RELOCATABLE", "RANDOMIZE_BASE", "KALLSYMS", "KALLSYMS_ALL", "BPF_SYSCALL"),
    "DEBUG_KERNEL",
)
"""What a guest of the lab needs."""
_DEBUG_INFO = ("DEBUG_INFO_DWARF5", "DEBUG_INFO_BTF")
"""What a kernel needs to describe itself; takes a third of the build."""
_GUEST_MODULES = ("DUMMY", "FW_CFG_SYSFS")

HEADERS = "headers"
"""Folder to build modules in, of a kernel that keeps one."""
_TOOLS = {
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "pahole": "pahole",
    "xz": "xz-utils",
}
_LIBRARIES = {"gelf.h": "libelf-dev", "openssl/ssl.h": "libssl-dev"}


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """How a kernel is built."""

    name: str
    architecture: Architecture
    source: str
    """Debian's package of the source."""
    toolchain: tuple[str, ...]
    """Variables for make."""
    tools: dict[str, str]
    """Programs that it takes, and their packages."""
    image: str
    """The file that QEMU boots, which is also make's name for it."""
    options: tuple[str, ...]
    """Options that are set; the others are not unless something needs them."""
    without: tuple[str, ...]
    """Options that must not be set."""
    debug_info: bool = True
    """Whether it describes itself; one that is not looked into need not."""
    headers: bool = False
    """Whether to keep what other modules are built with."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Options that every kernel of the lab has."""
        return (*_GUEST, *(_DEBUG_INFO if self.debug_info else ()))

    @property
    def entry(self) -> str:
        """Name in the lab's folder; another recipe or module is built anew."""
        lists = (
            self.toolchain,
            self.options,
            self.without,
            self.needs,
            _GUEST_MODULES,
        )
        recipe = "\n".join((self.source, *(" ".join(names) for names in lists)))
        made_of = (recipe.encode(), *(path.read_bytes() for path in _sources()))
        digest = hashlib.sha256(b"\n".join(made_of)).hexdigest()[:12]
        return f"kernel-{self.name}-{digest}"


_built_by_gcc = partial(
    BuiltKernel,
    architecture=X86_64,
    source="linux-source-6.12",
    toolchain=(f"CROSS_COMPILE={X86_64.compiler}",),
    tools={f"{X86_64.compiler}gcc": X86_64.compiler_package},
    image="bzImage",
)
BUILT_KERNELS = {
    kernel.name: kernel
    for kernel in (
        BuiltKernel(
            name="android",
            architecture=AARCH64,
            source="linux-source-6.12",
            toolchain=("LLVM=-19",),
            tools={
                "clang-19": "clang-19",
                "ld.lld-19": "lld-19",
                "llvm-ar-19": "llvm-19",
            },
            image="Image",
            options=(
                *("ARM64_VA_BITS_39", "ARM64_4K_PAGES", "LTO_CLANG_THIN", "CFI_CLANG"),
                *("SHADOW_CALL_STACK", "PCI_HOST_GENERIC", "VIRTIO_MMIO"),
                *("SERIAL_AMBA_PL011", "SERIAL_AMBA_PL011_CONSOLE"),
            ),
            without=("KEXEC", "KEXEC_FILE", "CRASH_DUMP", "PROC_KCORE", "VMCORE_INFO"),
        ),
        _built_by_gcc(
            name="frame-pointers",
            options=(
                *("64BIT", "UNWINDER_FRAME_POINTER", "KEXEC", "CRASH_DUMP", "ACPI"),
                *("HYPERVISOR_GUEST", "PARAVIRT", "RANDOMIZE_MEMORY"),
            ),
            without=("UNWINDER_ORC", "NUMA"),
        ),
        _built_by_gcc(
            name="sanitizers",
            options=(
                *("64BIT", "UNWINDER_FRAME_POINTER", "ACPI", "HYPERVISOR_GUEST"),
                *("PARAVIRT", "FTRACE", "ENABLE_DEFAULT_TRACERS", "TRACEPOINTS"),
                *("KASAN", "KASAN_GENERIC", "KASAN_INLINE", "KASAN_VMALLOC"),
                *("PROVE_LOCKING", "PROVE_RAW_LOCK_NESTING", "DEBUG_ATOMIC_SLEEP"),
                *("DEBUG_LIST", "BUG_ON_DATA_CORRUPTION", "DEBUG_NOTIFIERS"),
            ),
            without=("UNWINDER_ORC", "NUMA", "CPU_MITIGATIONS", "DEBUG_INFO"),
            debug_info=False,
            headers=True,
        ),
        _built_by_gcc(
            name="lockdep",
            options=(
                *("64BIT", "UNWINDER_ORC", "ACPI", "HYPERVISOR_GUEST", "PARAVIRT"),
                *("KEXEC", "CRASH_DUMP", "RANDOMIZE_MEMORY", "PROVE_LOCKING"),
            ),
            without=("NUMA",),
            headers=True,
        ),
    )
}
"""The kernels that are built, by name."""


def built_kernel(recipe: BuiltKernel, folder: Path) -> KernelPackage:
    """Return a kernel that `build_kernel` has built into a folder."""
    release, version = (folder / "built").read_text().split()
    return KernelPackage(recipe.name, release, version, folder, recipe.architecture)


def build_kernel(recipe: BuiltKernel, apt: Apt, folder: Path) -> None:
    """
    Build a kernel, and the lab's module for it.

    :param apt: Where the source is.
    :param folder: Gets the files, in the places that Debian's packages have them in.
    :raises UnsupportedError: If a tool is missing, which one line installs, or it does
        not build.
    """
    _check_tools(recipe)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build-") as name:
        work = Path(name)
        apt.unpack(recipe.source, work)
        [packed] = (work / "usr/src").glob("linux-source-*.tar.xz")
        run("tar", "-xf", str(packed), "-C", str(work), long=True)
        packed.unlink()
        [tree] = work.glob("linux-source-*")
        build = work / "build"
        build.mkdir()
        make = _make_arguments(recipe, tree, build)
        _configure(recipe, make, build)
        _run(recipe, *make, f"-j{os.cpu_count() or 1}", recipe.image, "modules")
        module = work / "module"
        shutil.copytree(_guest(), module)
        _run(recipe, *make, f"M={module}", "modules")
        release = run(*make, "-s", "kernelrelease").strip()
        _keep(recipe, build, module, folder, release)
        if recipe.headers:
            _keep_headers(recipe, make, tree, folder)
        version = re.sub("[^0-9.]", "", release)
        (folder / "built").write_text(f"{release} {version}\n")


def _check_tools(recipe: BuiltKernel) -> None:
    tools = {**_TOOLS, **recipe.tools}
    missing = [package for tool, package in tools.items() if not shutil.which(tool)]
    missing += [
        package
        for header, package in _LIBRARIES.items()
        if not (Path("/usr/include") / header).exists()
    ]
    if missing:
        raise UnsupportedError(
            f"kernel {recipe.name} is built here, which takes {', '.join(missing)}\n"
            "as root, run 'apt-get install --no-install-recommends --yes "
            f"{' '.join(missing)}'"
        )


def _make_arguments(recipe: BuiltKernel, tree: Path, build: Path) -> tuple[str, ...]:
    arch = {"x86_64": "x86_64", "aarch64": "arm64"}[recipe.architecture.name]
    make = ("make", "-C", str(tree), f"O={build}", f"ARCH={arch}")
    return ("nice", "-n", "19", *make, *recipe.toolchain)


def _configure(recipe: BuiltKernel, make: tuple[str, ...], build: Path) -> None:
    wanted = {f"CONFIG_{option}": "y" for option in (*recipe.needs, *recipe.options)}
    wanted |= {f"CONFIG_{option}": "m" for option in _GUEST_MODULES}
    lines = [f"{name}={value}\n" for name, value in wanted.items()]
    lines += [f"# CONFIG_{option} is not set\n" for option in recipe.without]
    lines.append(f'CONFIG_LOCALVERSION="-{recipe.name}"\n')
    given = build / "given.config"
    given.write_text("".join(lines))
    _run(recipe, *make, f"KCONFIG_ALLCONFIG={given}", "allnoconfig")
    config = (build / ".config").read_text()
    wrong = [
        name for name, value in wanted.items() if f"\n{name}={value}\n" not in config
    ]
    wrong += [name for name in recipe.without if f"\nCONFIG_{name}=y" in config]
    if wrong:
        raise UnsupportedError(
            f"kernel {recipe.name}: {recipe.source} cannot have {', '.join(wrong)}"
        )


def _run(recipe: BuiltKernel, *argv: str) -> None:
    done = subprocess.run(
        [*ENDS_WITH_US, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        said = next((line for line in lines if "rror" in line), "no output")
        raise UnsupportedError(f"kernel {recipe.name} does not build: {said}")


def _keep(
    recipe: BuiltKernel, build: Path, module: Path, folder: Path, release: str
) -> None:
    boot, modules = folder / "boot", folder / "lib/modules" / release / "kernel"
    boot.mkdir()
    modules.mkdir(parents=True)
    arch = {"x86_64": "x86", "aarch64": "arm64"}[recipe.architecture.name]
    image = build / "arch" / arch / "boot" / recipe.image
    shutil.copy(image, boot / f"vmlinuz-{release}")
    shutil.copy(build / ".config", boot / f"config-{release}")
    shutil.copy(build / "vmlinux", folder / f"vmlinux-{release}")
    for path in (*build.rglob("*.ko"), *module.glob("*.ko")):
        shutil.copy(path, modules / path.name)


def _keep_headers(
    recipe: BuiltKernel, make: tuple[str, ...], tree: Path, folder: Path
) -> None:
    # With one name for both compilers: it would build its programs again for another.
    script = tree / "scripts/package/install-extmod-build"
    command = f"CC=cc HOSTCC=cc {script} {folder / HEADERS}"
    _run(recipe, *make, "run-command", f"KBUILD_RUN_COMMAND={command}")


def _guest() -> Path:
    return Path(str(files("kmemdump.lab"))) / "guest"


def _sources() -> list[Path]:
    return sorted(path for path in _guest().iterdir() if path.name != "init")
