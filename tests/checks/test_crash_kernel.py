# SPDX-License-Identifier: GPL-2.0-or-later
"""Points of a crash kernel, on a machine made by hand."""

from pathlib import Path

from kmemdump.backends.elf_header_region import Description
from kmemdump.backends.kdump import KdumpBackend
from kmemdump.checks.crash_kernel import check_crash_kernel
from kmemdump.formats.kdump_list import half_places
from kmemdump.marking.registry import Registry
from rigs.copier import INFO, LIST, Ram

TABLE = f"live-kdump-{LIST.start:x}"


def points(ram: Ram, root: Path) -> dict[str, tuple[str, str]]:
    found = check_crash_kernel(ram, TABLE, root)
    return {it.name: (str(it.state), it.text) for it in found}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_says_what_a_death_would_leave(tmp_path):
    ram = Ram()
    assert points(ram, tmp_path)["crash kernel"] == (
        "missing",
        "there is no memory for one",
    )
    registry = Registry(description=Description(62, INFO))
    registry.attach(KdumpBackend(ram, LIST))
    registry.register("one", LIST.end, 16)
    write(
        tmp_path,
        {
            "sys/kernel/kexec_crash_loaded": "1\n",
            "sys/kernel/kexec_crash_size": f"{128 << 20}\n",
            "proc/sys/kernel/softlockup_panic": "0\n",
            "etc/kmemdump/kdump.conf": "to=raw:/dev/sda3\nto=file:/var/crash\n",
            "dev/sda3": "x",
        },
    )
    found = points(ram, tmp_path)
    assert found["crash kernel"] == ("ok", "loaded, with 128 MiB")
    assert found["list"] == ("ok", f"1 regions, at {LIST.start:#x}")
    assert found["place"] == ("ok", "/dev/sda3, /var/crash")
    assert found["panics"][0] == "warning"
    assert "softlockup_panic is 0" in found["panics"][1]
    (tmp_path / "dev/sda3").unlink()
    write(tmp_path, {"sys/kernel/kexec_crash_loaded": "0\n"})
    for at in half_places():
        ram.data[at + 100] ^= 1
    found = points(ram, tmp_path)
    assert found["crash kernel"] == ("missing", "not loaded; it has 128 MiB")
    assert found["list"][0] == "missing"
    assert found["place"][0] == "warning"
