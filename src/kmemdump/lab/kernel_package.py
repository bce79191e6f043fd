# SPDX-License-Identifier: GPL-2.0-or-later
"""An unpacked kernel, whatever the layout of its packages."""

from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.kernel.module_file import read_module
from kmemdump.lab.architectures import X86_64, Architecture

__all__ = ["KernelPackage"]


@dataclass(frozen=True, slots=True)
class KernelPackage:
    """An unpacked kernel package."""

    name: str
    """As requested: ``6.1``."""
    release: str
    """As ``uname -r`` prints it there."""
    version: str
    """Version of the Debian package."""
    folder: Path
    architecture: Architecture = X86_64
    suite: str | None = None
    """Debian's suite that it comes from; None for one of this machine's."""
    image: Path | None = None
    """What boots, of a kernel that is no package; *folder* is then without meaning."""
    modules: Path | None = None
    """The folder of its modules, of a kernel that is no package."""
    package: str | None = None
    """Name of the Debian package; None of a kernel that is no package."""

    @property
    def vmlinuz(self) -> Path:
        """The kernel that QEMU boots."""
        if self.image is not None:
            return self.image
        places = (
            self.folder / "boot" / f"vmlinuz-{self.release}",
            self._modules / "vmlinuz",  # Debian, since 7.2.
        )
        return next((path for path in places if path.exists()), places[0])

    def module(self, name: str) -> bytes:
        """
        Return a module that the package ships, decompressed.

        :param name: File name without its endings, as in ``pvpanic-pci``.
        :raises UnsupportedError: If the package has no such module, or it cannot be
            read.
        """
        path = self._find_module(name)
        if path is None:
            problem = f"{self.folder}: kernel {self.release} has no module {name}"
            raise UnsupportedError(problem)
        return read_module(path)

    def has_module(self, name: str) -> bool:
        """Return whether the package ships a module."""
        return self._find_module(name) is not None

    def _find_module(self, name: str) -> Path | None:
        # Where some distributions build it, its name has underscores.
        for spelt in dict.fromkeys((name, name.replace("-", "_"))):
            for path in self._modules.rglob(f"{spelt}.ko*"):
                return path
        return None

    def built_module(self, name: str) -> Path | None:
        """Return a module of ours that was built with the kernel."""
        path = self._modules / "kernel" / f"{name}.ko"
        return path if path.exists() else None

    @property
    def has_modules(self) -> bool:
        """Whether its modules are here; Debian keeps only some old kernels whole."""
        return (self._modules / "kernel").exists()

    def has_builtin(self, name: str) -> bool:
        """Return whether a module is a part of the kernel itself."""
        listed = self._modules / "modules.builtin"
        text = listed.read_text(errors="replace") if listed.exists() else ""
        return any(Path(line).stem == name for line in text.splitlines())

    @property
    def _modules(self) -> Path:
        if self.image is not None:
            return self.modules or self.folder / "no modules"
        # Debian 13 moved /lib/modules to /usr/lib/modules, and 6.12 packs them.
        new = self.folder / "usr/lib/modules" / self.release
        return new if new.exists() else self.folder / "lib/modules" / self.release
