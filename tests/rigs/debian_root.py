# SPDX-License-Identifier: GPL-2.0-or-later
"""Clean installations of Debian in folders, in which commands run as on a machine."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kmemdump.lab import X86_64, PackageCache

__all__ = ["DebianRoot", "debian_root", "have_roots"]

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_OWN_CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""Of authorities that only this machine trusts: package ca-certificates adds them."""
_MODULES = ("virtio_pci", "virtio_blk", "ext4")
_NETWORK = ("PIP_", "SSL_CERT", "http_proxy", "https_proxy", "no_proxy", "REQUESTS_CA")
"""Variables by which this machine reaches the network begin so."""


def have_roots() -> bool:
    """Return whether such folders can be made here."""
    return os.geteuid() == 0 and shutil.which("debootstrap") is not None


class DebianRoot:
    """A folder with a root file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, command: str, *, user: str = "root", folder: str = "/") -> str:
        """
        Run a shell command, and return what it prints on both streams.

        :raises AssertionError: If it fails.
        """
        inner = f"cd {shlex.quote(folder)} && {command}"
        if user != "root":
            become = f"setpriv --reuid={user} --regid={user} --init-groups"
            inner = shlex.quote(f"export HOME=/home/{user} && {inner}")
            inner = f"exec {become} sh -c {inner}"
        root = shlex.quote(str(self.path))
        # The mounts are gone with the process.
        outer = (
            f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && "
            f"mount -t sysfs sysfs {root}/sys && "
            f"exec chroot {root} sh -c {shlex.quote(inner)}"
        )
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", outer],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}"
        return done.stdout

    def install(self, *packages: str) -> None:
        """Install packages of Debian's."""
        self.run("apt-get -q update")
        options = "--no-install-recommends --yes -q"
        self.run(f"apt-get install {options} {' '.join(packages)}")

    def install_machine(self, *packages: str) -> None:
        """Install a kernel and others, as on a machine with a disk of virtio."""
        self.install("initramfs-tools")
        # It cannot see from a folder which modules its disk will need.
        place = self.path / "etc/initramfs-tools"
        (place / "conf.d/modules").write_text("MODULES=list\n")
        (place / "modules").write_text("\n".join(_MODULES) + "\n")
        self.install(*packages)

    def write_disk(self, disk: Path, size: str) -> None:
        """Write an ext4 image, without what a machine that boots does not need."""
        self.run("apt-get clean; rm -rf /var/lib/apt/lists/* /usr/share/doc")
        argv = ["/usr/sbin/mke2fs", "-qt", "ext4", "-d", self.path, disk, size]
        subprocess.run(list(map(str, argv)), check=True)

    def add_user(self, name: str) -> None:
        self.run(f"useradd --create-home --shell /bin/bash {name}")

    def copy(self, source: Path, target: str, *, owner: str = "root") -> None:
        """Copy a file or folder of this machine to a path that is not there."""
        place = self.path / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--", source, place], check=True)
        self.run(f"chown -R {owner}: {shlex.quote(target)}")

    def files(self) -> set[str]:
        """Return the paths of all files, but for those that apt and users make."""
        left_out = ("proc", "dev", "sys", "tmp", "run", "home", "root", "var")
        return {
            str(path.relative_to(self.path))
            for top in self.path.iterdir()
            if top.name not in left_out
            for path in (top.rglob("*") if not top.is_symlink() else ())
            if "__pycache__" not in path.parts
        }


@contextmanager
def debian_root(cache: PackageCache, suite: str) -> Iterator[DebianRoot]:
    """
    Make a clean installation of a suite, which is removed at the end.

    It is a copy of one that debootstrap makes in the lab's folder, once.
    """
    address = cache.apt(X86_64).archive().rstrip("/")

    def make(folder: Path) -> None:
        argv = ["debootstrap", "--variant=minbase", suite]
        argv += [str(folder / "root"), address]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)

    kept = cache.entry(f"root-{suite}", make) / "root"
    # Not in memory: it takes some hundreds of megabytes.
    with tempfile.TemporaryDirectory(dir=cache.folder, prefix=".root-") as name:
        path = Path(name) / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", kept, path], check=True)
        sources = [f"deb {address} {suite} main"]
        sources.append(f"deb {address}-security {suite}-security main")
        (path / "etc/apt/sources.list").write_text("\n".join(sources) + "\n")
        shutil.copy("/etc/resolv.conf", path / "etc/resolv.conf")
        for part in Path("/etc/apt/apt.conf.d").glob("*"):
            if part.is_file() and b"proxy" in part.read_bytes().lower():
                shutil.copy(part, path / "etc/apt/apt.conf.d")
        # It is removed soon, and each file of each package would be synced.
        (path / "etc/dpkg/dpkg.cfg.d/no-sync").write_text("force-unsafe-io\n")
        if _CERTIFICATES.exists():
            (path / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
            shutil.copy(_CERTIFICATES, path / str(_CERTIFICATES).lstrip("/"))
        own = path / str(_OWN_CERTIFICATES).lstrip("/")
        if _OWN_CERTIFICATES.is_dir():
            shutil.copytree(_OWN_CERTIFICATES, own, dirs_exist_ok=True)
        yield DebianRoot(path)


def _environment() -> dict[str, str]:
    kept = {name: it for name, it in os.environ.items() if name.startswith(_NETWORK)}
    return {
        **kept,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
