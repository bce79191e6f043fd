# SPDX-License-Identifier: GPL-2.0-or-later
"""
Fedora's kdump-utils, run here as its crash kernel runs it.

Its ``kdump.sh`` runs whole, in name spaces of its own that cannot touch this machine:
on a root file system with dracut's library, where /proc/vmcore is a file. What would
end the machine is replaced by what records it.
"""

import os
import re
import subprocess
from pathlib import Path

from kmemdump.lab import X86_64, PackageCache

__all__ = ["SOURCE", "KdumpRoot"]

SOURCE = Path(os.environ.get("KMEMDUMP_KDUMP_UTILS", "/nonexistent"))
"""A clone of https://github.com/rhkdump/kdump-utils; Debian has no package of it."""

_SCRIPTS = (
    "kdump-lib-initramfs.sh",
    "kdump-logger.sh",
    "dracut/99kdumpbase/kdump.sh",
)
_BOUND = ("usr/bin", "usr/sbin", "usr/lib/x86_64-linux-gnu", "usr/lib64")
_FOLDERS = ("dev", "etc", "proc", "replaced", "run", "sysroot", "tmp")
_LINKS = ("bin", "sbin", "lib", "lib64")
_REPLACED = ("systemctl", "dmesg", "journalctl", "logger", "makedumpfile")
_RECORD = """#!/bin/sh
echo "${0##*/} $*" >>/record
"""
_MAKEDUMPFILE = """
for last; do :; done
echo dump >"$last"
"""


class KdumpRoot:
    """The root file system of Fedora's crash kernel, in an empty folder."""

    def __init__(self, path: Path, cache: PackageCache) -> None:
        self.path = path

        def unpack(folder: Path) -> None:
            cache.apt(X86_64).unpack("dracut-core", folder)

        dracut = cache.entry("dracut-core_amd64", unpack)
        libraries = dracut.glob("usr/lib/dracut/modules.d/*base/dracut-*lib.sh")
        for name in (*_BOUND, *_FOLDERS):
            (path / name).mkdir(parents=True)
        (path / "etc/alternatives").mkdir()
        for name in _LINKS:
            (path / name).symlink_to(f"usr/{name}")
        for library in libraries:
            self.write(f"lib/{library.name}", library.read_text())
        for script in _SCRIPTS:
            text = (SOURCE / script).read_text()
            # A file in /proc cannot be made.
            text = re.sub(r"/proc/vmcore\b", "/vmcore", text)
            self.write(f"lib/{Path(script).name}", text)
        for name in _REPLACED:
            more = _MAKEDUMPFILE if name == "makedumpfile" else ""
            self.write(f"replaced/{name}", _RECORD + more)
        for name in ("dev/console", "dev/null", "record"):
            self.write(name, "")

    def write(self, place: str, text: str) -> None:
        """Write a file that may be executed; its folder is made."""
        target = self.path / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o755)

    def run(self) -> str:
        """Run what the service of the crash kernel runs; return what it recorded."""
        root = self.path
        binds = [f"mount --rbind /{it} {root}/{it}" for it in _BOUND]
        binds += [
            f"mount --bind /etc/alternatives {root}/etc/alternatives",
            f"mount --bind /dev/null {root}/dev/null",
            f"mount --bind {root}/sysroot {root}/sysroot",
            f"mount -t proc proc {root}/proc",
        ]
        path = "PATH=/replaced:/usr/sbin:/usr/bin"
        program = f"exec env -i {path} NEWROOT=/sysroot chroot {root} sh /lib/kdump.sh"
        apart = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork"]
        done = subprocess.run(
            [*apart, "sh", "-c", " && ".join([*binds, program])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        record = (root / "record").read_text()
        assert "systemctl reboot -f" in record, done.stdout
        return record + (root / "dev/console").read_text() + done.stdout
