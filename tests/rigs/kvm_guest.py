# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that has KVM (SVM, emulated), and what a guest of its own is made of."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from kmemdump.lab import X86_64, Machine, PackageCache, Setup, python_image
from rigs.programs import KMEMDUMP

__all__ = ["PATIENCE", "ask", "boot_kvm_guest", "said_inside"]

PATIENCE = 3600
_RIGS = Path(__file__).parent
_KVM = ("irqbypass", "ccp", "kvm", "kvm-amd")


def boot_kvm_guest(
    packages: PackageCache,
    booted: Callable[..., Machine],
    make_setup: Callable[..., Setup],
    folder: Path,
    *programs: str | Path,
    vmm: tuple[Path, ...] = (),
) -> Machine:
    """
    Boot a guest with KVM; ``/run/vm`` has an inner guest's kernel and initramfs.

    :param folder: For files of the host.
    :param programs: Files for ``/run/vm``, too; a name is that of a rig.
    :param vmm: Files of the host's for the guest's root of Python.
    """
    inner = Machine(packages, make_setup("6.12", tasks=20, disk=1))
    carried = [folder / name for name in ("vmlinuz", "initramfs")]
    carried[0].write_bytes(inner.setup.kernel.vmlinuz.read_bytes())
    carried[1].write_bytes(inner.initramfs)
    machine = booted(
        "6.12-generic",
        cpu="max",
        memory=2048,
        tasks=0,
        module=None,
        python=python_image(packages, X86_64, vmm),
        more_modules=_KVM,
        files=(*carried, *(_RIGS / program for program in programs)),
    )
    machine.run("test -c /dev/kvm")
    machine.run("mkdir /run/vm; cp /files/* /run/vm/")
    return machine


def said_inside(output: str) -> list[str]:
    """Return the lines that a program in the guest said."""
    return [line.removeprefix("INSIDE ") for line in output.splitlines()]


def ask(core: Path, *questions: str) -> str:
    """Return what ``kmemdump ask`` answers here."""
    done = subprocess.run(
        [*KMEMDUMP, "ask", str(core), *questions], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
