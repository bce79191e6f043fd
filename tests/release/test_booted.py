# SPDX-License-Identifier: GPL-2.0-or-later
"""
A server with our package, booted by its systemd, that dies twice.

Its administrator types what docs/howto/server.rst has one type, in the first boot, and
nothing after that: the units are what has the next death copied. An upgrade of the
package leaves them running.
"""

import re
import subprocess
from pathlib import Path

import pytest

from kmemdump.core import open_core
from rigs.debian_package import build_package, released_source
from rigs.debian_root import debian_root, have_roots
from rigs.kdump_tools import read_folder

SUITE = "trixie"
UNITS = "kmemdump-kexec kmemdump-kdump kmemdump-watch"
SIZE = "2G"
PATIENCE = 2400
PACKAGES = (
    *("systemd-sysv", "udev", "fdisk", "kexec-tools"),
    "linux-image-cloud-amd64",
)
DUMPS = "/dev/vdb"
"""The disk with the partition for dumps."""

STEPS = f"""\
#!/bin/sh
# Run in each boot. What it prints stays on the disk, where no kernel message is in it.
exec >>/root/found/said 2>&1
report() {{
    for unit in {UNITS}; do
        echo "== $1 $unit $(systemctl is-active $unit)"
        systemctl is-active -q $unit || journalctl -b -n 30 --no-pager -u $unit
    done
    echo "== $1 loaded $(cat /sys/kernel/kexec_crash_loaded)"
    kmemdump status
    kmemdump check; echo "== $1 check $?"
}}
boot=$(($(cat /root/boot 2>/dev/null || echo 0) + 1))
echo $boot >/root/boot
sync
case $boot in
1)  echo 'size=60M, name=kmemdump' | sfdisk -q --label gpt {DUMPS}
    udevadm settle
    kmemdump mark live --backend kdump --to raw:PARTLABEL=kmemdump \\
        --make-initramfs /boot/kmemdump-$(uname -r).img
    echo "== made $?"
    systemctl enable --now {UNITS}
    report first
    sync
    echo c >/proc/sysrq-trigger ;;
2|3)
    dpkg -i /root/*.deb
    report again
    kmemdump collect kdump -o /root/found/$boot.elf; echo "== collected $?"
    sync
    test $boot = 2 && echo c >/proc/sysrq-trigger
    systemctl poweroff ;;
*)  systemctl poweroff ;;
esac
"""
UNIT = """\
[Unit]
After=kmemdump-kdump.service kmemdump-kexec.service kmemdump-watch.service
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/root/steps
[Install]
WantedBy=multi-user.target
"""

pytestmark = [
    pytest.mark.vm,
    pytest.mark.matrix,
    pytest.mark.skipif(not have_roots(), reason="needs root and debootstrap"),
]


@pytest.fixture(scope="module")
def server(lab_cache, tmp_path_factory) -> tuple[str, Path]:
    """What the machine said in all its boots, and the folder of its core images."""
    folder = tmp_path_factory.mktemp("server")
    source = released_source(folder)
    package = build_package(lab_cache, SUITE, source, folder)
    disk, dumps = folder / "disk", folder / "dumps"
    with debian_root(lab_cache, SUITE) as root:
        root.install_machine(*PACKAGES)
        root.copy(package, f"/root/{package.name}")
        root.run(f"apt-get install --yes -q /root/{package.name}")
        (root.path / "root/found").mkdir()
        steps = root.path / "root/steps"
        steps.write_text(STEPS)
        steps.chmod(0o755)
        (root.path / "etc/systemd/system/steps.service").write_text(UNIT)
        root.run("systemctl enable steps")
        boot = root.path / "boot"
        kernel, initrd = next(boot.glob("vmlinuz-*")), next(boot.glob("initrd.img-*"))
        for path in (kernel, initrd):
            (folder / path.name).write_bytes(path.read_bytes())
        root.write_disk(disk, SIZE)
    with open(dumps, "wb") as file:
        file.truncate(64 << 20)
    run_server(folder, folder / kernel.name, folder / initrd.name)
    found = read_folder(disk, "/root/found", folder / "found")
    disk.unlink()
    return (found / "said").read_text(errors="replace"), found


def run_server(folder: Path, kernel: Path, initrd: Path) -> None:
    """Run the machine until it powers off."""
    console = folder / "console"
    command_line = "root=/dev/vda rw console=ttyS0 crashkernel=160M panic=5 quiet"
    argv = ["qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-m", "1024"]
    argv += ["-smp", "2", "-nodefaults", "-display", "none", "-nic", "none"]
    argv += ["-serial", f"file:{console}", "-kernel", str(kernel)]
    argv += ["-initrd", str(initrd), "-append", command_line]
    for name in ("disk", "dumps"):
        argv += ["-drive", f"file={folder / name},if=virtio,format=raw,cache=unsafe"]
    done = subprocess.run(argv, timeout=PATIENCE, capture_output=True, text=True)
    shown = console.read_text(errors="replace")
    assert done.returncode == 0, done.stderr + shown[-4000:]


def test_units_do_it_again_after_each_death(server):
    said, _ = server
    for boot in ("first", "again"):
        for unit in UNITS.split():
            assert f"== {boot} {unit} active" in said, said
        assert f"== {boot} loaded 1" in said, said
        assert f"== {boot} check 0" in said, said
    assert "== made 0" in said
    assert re.findall(r"== collected (\d)", said) == ["0", "0"]


def test_core_images_answer(server):
    _, found = server
    cores = sorted(found.glob("*.elf"))
    assert [path.name for path in cores] == ["2.elf", "3.elf"]
    for path in cores:
        with open_core(path) as opened:
            assert opened.manifest.backend == "kdump"
            assert "sysrq" in opened.report().cause.sentence
