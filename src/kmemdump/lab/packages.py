# SPDX-License-Identifier: GPL-2.0-or-later
"""
Debian's kernels, downloaded and unpacked into a folder; nothing is installed.

Needs apt and dpkg, not root. Every entry of the folder appears under its name once
it is whole, so that a killed run leaves nothing half done.
"""

import fcntl
import lzma
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.lab.apt import Apt, CommandError, run
from kmemdump.lab.architectures import X86_64, Architecture

__all__ = ["SERIES", "KernelPackage", "PackageCache", "default_folder"]

SERIES = ("6.1", "6.12")
"""The kernel series that kmemdump is tested with, oldest first."""

_META_PACKAGES = ("linux-image-{series}-{flavor}", "linux-image-{flavor}")
# "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)"
_DEPENDENCY = re.compile(r"(linux-[a-z][^\s,]*)(?: \(= ([^)]+)\))?")


def default_folder(environ: Mapping[str, str]) -> Path:
    """
    Return the default folder for packages.

    :param environ: The environment; ``KMEMDUMP_LAB`` in it names the folder.
    """
    return Path(environ.get("KMEMDUMP_LAB") or "build/lab")


@dataclass(frozen=True, slots=True)
class KernelPackage:
    """An unpacked kernel package."""

    series: str
    """As requested: ``6.1``."""
    release: str
    """As ``uname -r`` prints it there."""
    version: str
    """Version of the Debian package."""
    folder: Path
    architecture: Architecture = X86_64

    @property
    def vmlinuz(self) -> Path:
        """The kernel that QEMU boots."""
        return self.folder / "boot" / f"vmlinuz-{self.release}"

    def module(self, name: str) -> bytes:
        """
        Return a module that the package ships, decompressed.

        :param name: File name without its endings, as in ``pvpanic-pci``.
        :raises UnsupportedError: If the package has no such module.
        """
        for path in self._modules.rglob(f"{name}.ko*"):
            data = path.read_bytes()
            return lzma.decompress(data) if path.suffix == ".xz" else data
        problem = f"{self.folder}: kernel {self.release} has no module {name}"
        raise UnsupportedError(problem)

    def has_builtin(self, name: str) -> bool:
        """Return whether a module is a part of the kernel itself."""
        listed = self._modules / "modules.builtin"
        lines = listed.read_text().splitlines() if listed.exists() else ()
        return any(Path(line).stem == name for line in lines)

    @property
    def _modules(self) -> Path:
        # Debian 13 moved /lib/modules to /usr/lib/modules, and 6.12 packs them.
        new = self.folder / "usr/lib/modules" / self.release
        return new if new.exists() else self.folder / "lib/modules" / self.release


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
        """
        key = architecture.debian, release
        if key not in self._apts:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._apts[key] = Apt(architecture.debian, self.folder, release)
        return self._apts[key]

    def kernel(
        self, series: str, architecture: Architecture = X86_64, *, cloud: bool = True
    ) -> KernelPackage:
        """
        Return the newest kernel of a series that apt knows.

        :param series: One of `SERIES`.
        :param cloud: Whether to take Debian's kernel for VMs, which has few drivers and
            boots in half the time.
        :raises UnsupportedError: If apt does not know one, or cannot download it.
        """
        apt = self.apt(architecture)
        release, version = _resolve(series, apt, cloud)
        package = f"linux-image-{release}"

        def make(folder: Path) -> None:
            apt.unpack(package, folder, version)

        folder = self.entry(f"{package}_{_file_name(version)}", make)
        return KernelPackage(series, release, version, folder, architecture)

    def vmlinux(self, kernel: KernelPackage) -> Path:
        """
        Return the kernel with debug information. About 300 MB to download.

        :raises UnsupportedError: If it cannot be downloaded.
        """
        package = f"linux-image-{kernel.release}-dbg"
        name = f"vmlinux-{kernel.release}"

        def make(folder: Path) -> None:
            apt = self.apt(kernel.architecture)
            with apt.downloaded(package, kernel.version) as deb:
                _extract_file(deb, f"./usr/lib/debug/boot/{name}", folder / name)

        return self.entry(f"{package}_{_file_name(kernel.version)}", make) / name

    def headers(self, kernel: KernelPackage) -> Path:
        """
        Return the folder to build modules for a kernel in.

        :raises UnsupportedError: If something cannot be downloaded.
        """
        package = f"linux-headers-{kernel.release}"
        tree = Path("usr/src") / package

        def make(folder: Path) -> None:
            apt = self.apt(kernel.architecture)
            # Programs of the build, which this machine runs.
            native = Apt(run("dpkg", "--print-architecture").strip(), self.folder)
            needed: list[tuple[Apt, str, str | None]] = [(apt, package, kernel.version)]
            with apt.downloaded(package, kernel.version) as deb:
                depends = run("dpkg-deb", "-f", str(deb), "Depends")
            for name, version in _DEPENDENCY.findall(depends):
                # The others are the image itself and a list of compilers.
                if name.startswith("linux-headers-"):
                    needed.append((apt, name, version or None))
                elif name.startswith("linux-kbuild-"):
                    needed.append((native, name, version or None))
            for source, name, version in needed:
                source.unpack(name, folder, version)
            # The only absolute path in there; the links are relative.
            makefile = folder / tree / "Makefile"
            makefile.write_text(makefile.read_text().replace("/usr/src/", "../"))

        return self.entry(f"{package}_{_file_name(kernel.version)}", make) / tree

    def busybox(self, architecture: Architecture = X86_64) -> Path:
        """
        Return a statically linked busybox, for the guests.

        :raises UnsupportedError: If it cannot be downloaded.
        """

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
        :param make: Fills an empty folder, which then becomes the entry. Must
            not ask for other entries, which would wait for this one.
        """
        final = self.folder / name
        if final.exists():
            return final
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if final.exists():  # Another process made it meanwhile.
                return final
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as new:
                partial = Path(new, name)
                partial.mkdir()
                make(partial)
                partial.rename(final)
        return final


def _resolve(series: str, apt: Apt, cloud: bool) -> tuple[str, str]:
    """Return release and package version of the newest kernel of a series."""
    if series not in SERIES:
        known = ", ".join(SERIES)
        raise UnsupportedError(f"kernel series {series} is not one of {known}")
    flavor = f"cloud-{apt.debian}" if cloud else apt.debian
    for template in _META_PACKAGES:
        meta = template.format(series=series, flavor=flavor)
        try:
            shown = apt.show(meta)
        except CommandError:
            continue
        for name, version in _DEPENDENCY.findall(shown):
            release = name.removeprefix("linux-image-")
            if release.startswith(f"{series}.") and version:
                return release, version
    raise UnsupportedError(
        f"apt knows no {'cloud ' if cloud else ''}kernel {series} for {apt.debian} "
        f"(Debian 12's bookworm-security has both); {apt.advice()}"
    )


def _extract_file(deb: Path, member: str, target: Path) -> None:
    argv = ["tar", "-x", "--to-stdout", "--occurrence", "-f", "-", member]
    with (
        open(target, "wb") as file,
        subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(deb)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as unpacker,
    ):
        done = subprocess.run(
            argv, stdin=unpacker.stdout, stdout=file, stderr=subprocess.DEVNULL
        )
        unpacker.kill()  # tar does not read what comes after the file.
    if done.returncode:
        raise UnsupportedError(f"{deb.name}: no {member} in it")


def _file_name(version: str) -> str:
    # An epoch's colon would end a path in a list of paths, and make's rules.
    return version.replace(":", "%3a")
