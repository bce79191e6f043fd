# SPDX-License-Identifier: GPL-2.0-or-later
"""
Debian's kernels, downloaded and unpacked into a folder; nothing is installed.

Needs apt and dpkg, not root. Every entry of the folder appears under its name once
it is whole, so that a killed run leaves nothing half done.
"""

import fcntl
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.lab.apt import Apt, MissingPackageError, have_apt, require_apt
from kmemdump.lab.architectures import X86_64, Architecture, get_architecture
from kmemdump.lab.built_kernels import (
    BUILT_KERNELS,
    HEADERS,
    BuiltKernel,
    build_kernel,
    built_kernel,
)
from kmemdump.lab.busybox import find_busybox
from kmemdump.lab.deb_file import extract_file
from kmemdump.lab.kernel_names import KernelName, base_suite, find_kernel
from kmemdump.lab.kernel_package import KernelPackage
from kmemdump.lab.other_programs import unpack_libraries, wrap_programs
from kmemdump.locked_folder import LockedFolder, remove_left
from kmemdump.user_folders import user_folder

__all__ = ["PackageCache", "default_folder"]

# "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)"
_DEPENDENCY = re.compile(r"(linux-[a-z][^\s,]*)(?: \(= ([^)]+)\))?")


def default_folder(environ: Mapping[str, str]) -> Path:
    """
    Return the default folder for packages: one of the user's cache.

    :param environ: The environment; ``KMEMDUMP_LAB`` in it names another folder.
    """
    return Path(environ.get("KMEMDUMP_LAB") or user_folder(environ, "CACHE") / "lab")


class PackageCache:
    """
    A folder of unpacked packages, filled on demand.

    :param folder: Made if it does not exist. May be shared between processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._apts: dict[tuple[str, str | None], Apt] = {}

    def apt(self, architecture: Architecture, release: str | None = None) -> Apt:
        """
        Return the packages of an architecture.

        :param release: Debian's name of a release; this machine's, if it is None.
        :raises UnsupportedError: If this machine has no apt.
        """
        key = architecture.debian, release
        if key not in self._apts:
            require_apt()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._apts[key] = Apt(architecture.debian, self.folder, release)
        return self._apts[key]

    def kernel(self, name: str, architecture: Architecture = X86_64) -> KernelPackage:
        """
        Return the newest kernel of a name.

        :param name: See :mod:`kmemdump.lab.kernel_names`; ``6.12`` is Debian's cloud
            kernel of that series, for VMs: it has few drivers and boots in half the
            time. Or one of `BUILT_KERNELS`, which takes minutes the first time.
        :raises UnsupportedError: If Debian has none, or apt cannot download it.
        """
        if (recipe := BUILT_KERNELS.get(name)) is not None:
            return self._built(recipe, architecture)
        found = find_kernel(
            KernelName.parse(name),
            architecture.debian,
            lambda suite: self.apt(architecture, suite),
        )

        def make(folder: Path) -> None:
            apt = self.apt(architecture, found.suite)
            depends = apt.unpack(found.package, folder, found.version)
            # Since 6.19, Debian's package is empty, and depends on its parts.
            for part, version in _DEPENDENCY.findall(depends):
                if part.startswith("linux-binary-"):
                    apt.unpack(part, folder, version or None)
                elif part.startswith("linux-modules-"):
                    # Backports keep what is signed of an old kernel: not these.
                    with suppress(MissingPackageError):
                        apt.unpack(part, folder, version or None)

        folder = self.entry(f"{found.package}_{_file_name(found.version)}", make)
        return KernelPackage(
            name,
            found.release,
            found.version,
            folder,
            architecture,
            found.suite,
            package=found.package,
        )

    def _built(self, recipe: BuiltKernel, architecture: Architecture) -> KernelPackage:
        if architecture is not recipe.architecture:
            raise UnsupportedError(
                f"kernel {recipe.name} is built for {recipe.architecture.name} only"
            )
        apt = self.apt(architecture)
        folder = self.entry(
            recipe.entry, lambda folder: build_kernel(recipe, apt, folder)
        )
        return built_kernel(recipe, folder)

    def vmlinux(self, kernel: KernelPackage) -> Path:
        """
        Return the kernel with debug information. About 300 MB to download.

        :raises MissingPackageError: If Debian has none, as for some old kernels.
        :raises UnsupportedError: If it cannot be downloaded.
        """
        package = f"linux-image-{kernel.release}-dbg"
        name = f"vmlinux-{kernel.release}"
        if kernel.name in BUILT_KERNELS:
            return kernel.folder / name
        debug = "./usr/lib/debug"
        # The second is a link to the first, and since 6.19 the only one.
        places = (
            f"{debug}/boot/{name}",
            f"{debug}/lib/modules/{kernel.release}/vmlinux",
        )

        def make(folder: Path) -> None:
            apt = self.apt(kernel.architecture, kernel.suite)
            with apt.downloaded(package, kernel.version) as deb:
                if not extract_file(deb, places, folder / name):
                    raise UnsupportedError(f"{deb.name}: no file {' or '.join(places)}")

        return self.entry(f"{package}_{_file_name(kernel.version)}", make) / name

    def headers(self, kernel: KernelPackage) -> Path:
        """
        Return the folder to build modules for a kernel in.

        :raises MissingPackageError: If Debian has none, as for some old kernels.
        :raises UnsupportedError: If something cannot be downloaded.
        """
        if kernel.name in BUILT_KERNELS:
            if (kept := kernel.folder / HEADERS).exists():
                return kept
            raise UnsupportedError(f"kernel {kernel.name} keeps no headers")
        package = f"linux-headers-{kernel.release}"
        tree = Path("usr/src") / package

        def make(folder: Path) -> None:
            apt = self.apt(kernel.architecture, kernel.suite)
            for name, version in _DEPENDENCY.findall(
                apt.unpack(package, folder, kernel.version)
            ):
                # The others are the image itself and a list of compilers.
                if name.startswith("linux-headers-"):
                    apt.unpack(name, folder, version or None)
                elif name.startswith("linux-kbuild-"):
                    self._unpack_programs(name, version or None, kernel.suite, folder)
            # The only absolute path in there; the links are relative.
            makefile = folder / tree / "Makefile"
            makefile.write_text(makefile.read_text().replace("/usr/src/", "../"))

        return self.entry(f"{package}_{_file_name(kernel.version)}", make) / tree

    def _unpack_programs(
        self, package: str, version: str | None, suite: str | None, folder: Path
    ) -> None:
        """Unpack the programs of a build, so that they run on this machine."""
        host = get_architecture(platform.machine())
        depends = self.apt(host, suite).unpack(package, folder, version)
        if suite is None:
            return
        # This machine may be older. Backports have few of the libraries.
        libraries = folder / "libraries"
        libraries.mkdir()
        unpack_libraries(depends, self.apt(host, base_suite(suite)), libraries)
        wrap_programs(folder / "usr/lib" / package, libraries, host)

    def busybox(self, architecture: Architecture = X86_64) -> Path:
        """
        Return a statically linked busybox, for the guests.

        :raises UnsupportedError: If it cannot be downloaded, and this machine has none.
        """
        if not have_apt() and architecture.name == platform.machine():
            return find_busybox()

        def make(folder: Path) -> None:
            self.apt(architecture).unpack("busybox-static", folder)

        folder = self.entry(f"busybox-static_{architecture.debian}", make)
        # Debian 13 moved it to /usr/bin.
        for path in (folder / "bin/busybox", folder / "usr/bin/busybox"):
            if path.exists():
                return path
        raise UnsupportedError(f"{folder}: the package holds no busybox; remove it")

    def entry(self, name: str, make: Callable[[Path], None]) -> Path:
        """
        Return an entry of the folder, made if it does not exist.

        :param name: Name of the entry.
        :param make: Fills an empty folder, which then becomes the entry.
        """
        remove_left(self.folder)
        final = self.folder / name
        if final.exists():
            return final
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f".{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if final.exists():  # Another process made it meanwhile.
                return final
            with LockedFolder(self.folder) as new:
                partial = new / name
                partial.mkdir()
                make(partial)
                partial.rename(final)
        return final


def _file_name(version: str) -> str:
    # An epoch's colon would end a path in a list of paths, and make's rules.
    return version.replace(":", "%3a")
