# SPDX-License-Identifier: GPL-2.0-or-later
"""A device on a real kernel's USB, by libusb and pyusb; a partition of its disk."""

import re
import subprocess
import zipfile
from collections.abc import Iterable
from importlib.metadata import files
from pathlib import Path

import pytest

from kmemdump.lab import X86_64, Machine, PackageCache, Setup, python_image
from rigs.phone import LOG, Phone
from rigs.usbip import SIZES

MODULES = ("usb-common", "usbcore", "usbip-core", "vhci-hcd")
TESTS = ("rigs/__init__.py", "rigs/simulated_usb.py", "rigs/usbip.py")
LIBUSB = "libusb-1.0.so.0"


def libraries() -> Iterable[Path]:
    """libusb, and what it needs besides the libraries that Python needs, too."""
    listed = subprocess.run(
        ["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(rf"{re.escape(LIBUSB)} .*x86-64.* => (\S+)", listed)
    assert found, "libusb is not installed"
    yield Path(found[1])
    needed = subprocess.run(
        ["ldd", found[1]], capture_output=True, text=True, check=True
    ).stdout
    for name, path in re.findall(r"(\S+) => (/\S+)", needed):
        if not name.startswith(("libc.", "libpthread.", "ld-")):
            yield Path(path)


def pack(path: Path) -> Path:
    """Pack pyusb and what plays the device, for Python to import."""
    with zipfile.ZipFile(path, "w") as archive:
        for item in files("pyusb") or ():
            if item.parts[0] == "usb" and item.suffix == ".py":
                archive.write(str(item.locate()), str(item))
        for name in TESTS:
            archive.write(Path(__file__).parent.parent / name, name)
    return path


@pytest.mark.vm
@pytest.mark.matrix
def test_real_usb(lab_cache: PackageCache, tmp_path: Path) -> None:
    kernel = lab_cache.kernel("6.1-generic")
    modules = []
    for name in MODULES:
        modules.append(tmp_path / f"{name}.ko")
        modules[-1].write_bytes(kernel.module(name))
    rawdump = Phone.with_log().image(tmp_path / "rawdump.img")
    carried = [*modules, *libraries(), pack(tmp_path / "tests.zip"), rawdump]
    setup = Setup(
        kernel, tasks=0, python=python_image(lab_cache, X86_64), files=tuple(carried)
    )
    with Machine(lab_cache, setup) as machine:
        for module in modules:
            machine.run(f"insmod /files/{module.name}")
        machine.run("mkdir /run/usb")
        for path in carried:
            machine.run(f"cat /files/{path.name} >/run/usb/{path.name}")
        said = machine.run(
            "PYTHONPATH=/run/usb/tests.zip:$PYTHONPATH LD_LIBRARY_PATH=/run/usb "
            "chroot /python /usr/bin/python3 -m rigs.usbip "
            f"/run/usb/{LIBUSB} /run/dump",
            timeout=300,
        )
        # While we are here: a partition, which is larger than the image in it.
        machine.run(f"cat /files/{rawdump.name} >/dev/vdb")
        machine.run("kmemdump collect /dev/vdb -o /run/core", timeout=120)
        log = machine.run("kmemdump ask /run/core log", timeout=120)
    assert log == LOG.rstrip("\n")
    lines = said.splitlines()
    assert lines[0] == "usb 05c6:900e (serial number A1B2C3D4)"
    assert lines[1:-2] == [
        f"md_K{i}.BIN at {i << 24:#x}: {size} bytes, same"
        for i, size in enumerate(SIZES, 1)
    ]
    assert lines[-2] == (
        "md_Kgone.BIN: the device gave 0 of 4 bytes: status 0x19 (invalid memory read)"
    )
    assert lines[-1] == "finished"
