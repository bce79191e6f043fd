# SPDX-License-Identifier: GPL-2.0-or-later
"""Container images, built by buildah without a registry and without privileges."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rigs.debian_root import DebianRoot

__all__ = ["Container", "container_of", "have_buildah"]

_ISOLATION = "--isolation=chroot"


def have_buildah() -> bool:
    """Return whether images can be built here."""
    return shutil.which("buildah") is not None


class Container:
    """A container of an image, in which commands run as the image says."""

    def __init__(self, store: Path, base: str, root: DebianRoot) -> None:
        self._argv = ["buildah", f"--root={store}/images", f"--runroot={store}/run"]
        self._argv.append("--storage-driver=vfs")
        # What a registry has by this name.
        name = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", name, f"{root.path}/", "/")
        self._buildah("commit", "--quiet", "--rm", name, base)
        self._name = ""

    def build(self, folder: Path) -> None:
        """Build the image that a folder's Containerfile describes, and start it."""
        options = (_ISOLATION, "--pull-never", "--tag=built")
        self._buildah("build", *options, str(folder))
        self._name = self._buildah("from", "--pull-never", "built")

    @property
    def path(self) -> Path:
        """Return the folder in which its files are."""
        return Path(self._buildah("mount", self._name))

    @property
    def entry(self) -> list[str]:
        """Return the program that the image starts."""
        said = json.loads(self._buildah("inspect", "--type=container", self._name))
        return list(said["OCIv1"]["config"]["Entrypoint"])

    def run(self, command: str, *, user: str = "", folder: str = "/") -> str:
        """
        Run a shell command in it, and return what it prints.

        :param user: By default, the image's own.
        :raises AssertionError: If it fails.
        """
        options = [_ISOLATION, f"--workingdir={folder}"]
        options += [f"--user={user}"] if user else []
        return self._buildah("run", *options, self._name, "--", "sh", "-c", command)

    def _buildah(self, *words: str) -> str:
        done = subprocess.run(
            [*self._argv, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-4000:]}"
        return done.stdout.strip()

    def remove(self) -> None:
        """Remove all images and containers of the store."""
        self._buildah("rm", "--all")
        self._buildah("rmi", "--all", "--force")


@contextmanager
def container_of(
    folder: Path, store: Path, base: str, root: DebianRoot
) -> Iterator[Container]:
    """
    Build an image of a folder with a Containerfile.

    :param store: Where images are kept meanwhile.
    :param base: The image of which it is built.
    :param root: What that image holds.
    """
    container = Container(store, base, root)
    try:
        container.build(folder)
        yield container
    finally:
        container.remove()
