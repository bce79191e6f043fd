# SPDX-License-Identifier: GPL-2.0-or-later
"""Masking text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.redaction.policy import POLICIES, load_policy
from kmemdump.redaction.text import Masker

SHARE, STRICT = (load_policy(name) for name in ("share", "strict"))
KERNEL = {"vfs_write", "panic", "sysrq_handle_crash"}


def masker(policy):
    return Masker(policy, KERNEL.__contains__, ["virtio_net"])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("eth0: link up, 10.1.2.3/24", "eth0: link up, xx.x.x.x/24"),
        ("from 52:54:00:12:34:56", "from xx:xx:xx:xx:xx:xx"),
        ("to fe80::5054:ff:fe12:3456 now", "to xxxx::xxxx:xx:xxxx:xxxx now"),
        ("mail ann.lee@example.com!", "mail xxx.xxx@xxxxxxx.xxx!"),
        ("root=UUID=0a1b-22 ro", "root=xxxx=xxxx-xx ro"),
        ("luks password=hunter2, ok", "luks password=xxxxxxx, ok"),
        ("the API_KEY is abc123 here", "the API_KEY is xxxxxx here"),
        ("open /home/ann/thesis.pdf failed", "open /home/xxx/xxxxxx.xxx failed"),
        ("usb 1-1: SerialNumber: AB1234", "usb 1-1: SerialNumber: xxxxxx"),
        ('audit: uid=1000 exe="/bin/x y"', 'audit: uid=xxxx exe="/xxx/x x"'),
        ("get https://u:p@h.de/a?b=c", "get https://x:x@x.xx/x?x=x"),
        (
            "MAC=52:54:00:12:34:56:52:54:00:ab:cd:ef:08:00 SRC=10.0.0.1 LEN=40",
            "MAC=xx:xx:xx:xx:xx:xx:xx:xx:xx:xx:xx:xx:xx:xx SRC=xx.x.x.x LEN=40",
        ),
        ("52:54:00:12:34:56: up", "xx:xx:xx:xx:xx:xx: up"),
        ("ib0: " + ":".join(["8f"] * 20), "ib0: " + ":".join(["xx"] * 20)),
        ("process 7 (x) UID:1005 pgtables:4kB", "process 7 (x) UID:xxxx pgtables:4kB"),
        ("ouid=1000 loginuid=7 pid=12", "ouid=xxxx loginuid=x pid=12"),
        ("INFO: task squid:1234 blocked, uuid: 12, guid: 3",) * 2,
        ("fault addr=ffffffff81000000 and x",) * 2,
        ("CPU: 3 UID: 0 PID: 5 Comm: a", "CPU: 3 UID: x PID: 5 Comm: a"),
        ("cannot reach server 192.168.17.20.", "cannot reach server xxx.xxx.xx.xx."),
        ("saddr=020000500A010203 a", "saddr=xxxxxxxxxxxxxxxx a"),
        ("on //10.1.2.3/home/alice/x", "on //xx.x.x.x/home/xxxxx/x"),
        ("on //nas/home/alice/x", "on //nas/home/xxxxx/x"),
        ("nfs: server files.corp.example OK", "nfs: server xxxxx.xxxx.xxxxxxx OK"),
        ("nfs: server nas not responding", "nfs: server xxx not responding"),
        ("lost www.example.com, mail.firm.de.", "lost xxx.xxxxxxx.xxx, xxxx.xxxx.xx."),
        (r"CIFS: \\SRV1\homes\ann failed", r"CIFS: \\xxxx\xxxxx\xxx failed"),
        ("user=ann domain=FIRM essid=home", "user=xxx domain=xxxx essid=xxxx"),
        ('ssid="Ann and Bob" up', 'ssid="xxx xxx xxx" up'),
        ("device=00:14.0 domain=0x0003 address=0x12",) * 2,
        ("foo.isra.0 in libc.so.6, x.ko and kernel/a.c, e.g. net.core.somaxconn=1",)
        * 2,
        ("Started ssh.service on acpi.ec_no_wakeup=1 in drivers/net/phy.de",) * 2,
        (
            "RIP: 0010:vfs_write+0x12/0x340 [virtio_net]",
            "RIP: 0010:vfs_write+0x12/0x340 [virtio_net]",
        ),
        ("pcieport 0000:00:1c.0: AER: 12:34:56 ok",) * 2,
        ("[mem 0x0000000000001000-0x000000000009ffff] usable",) * 2,
        ("CPU: 1 PID: 77 Comm: nginx Not tainted 6.12.9 #1",) * 2,
        ("RAX: ffffffff81234567 RBX: 0000000000000000",) * 2,
    ],
)
def test_share_masks_what_patterns_match(text, left):
    assert masker(SHARE).mask_text("log-text", text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "Kernel panic - not syncing: sysrq triggered crash",
            "Kernel panic - not syncing: sysrq triggered crash",
        ),
        ("Kernel panic - not syncing: Ann", "Kernel panic - not syncing: xxx"),
        (
            "RIP: 0010:vfs_write+0x12/0x340 [virtio_net]",
            "RIP: 0010:vfs_write+0x12/0x340 [virtio_net]",
        ),
        (
            "RIP: 0010:hunter2+0x12/0x340 [hunter2]",
            "RIP: 0010:xxxxxxx+xxxx/xxxxx [xxxxxxx]",
        ),
        (
            "CPU: 1 PID: 77 Comm: nginx Not tainted",
            "CPU: 1 PID: 77 Comm: xxxxx Not tainted",
        ),
        ("the password is hunter2", "xxx xxxxxxxx xx xxxxxxx"),
        ("RAX: 6e75682065746172", "xxx: xxxxxxxxxxxxxxxx"),
    ],
)
def test_strict_keeps_the_kernels_own_words(text, left):
    assert masker(STRICT).mask_text("log-text", text) == left


def test_a_value_is_masked_wherever_text_stays():
    found = masker(SHARE)
    found.add_value("host-names", b"db7")
    assert found.mask_text("log-text", "db7: down; mydb7") == "xxx: down; mydb7"
    assert found.mask_text("task-names", "db7") == "xxx"
    found.add_value("task-names", b"nginx")  # Kinds that the policy keeps.
    assert found.mask_text("log-text", "nginx") == "nginx"


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_the_same_everywhere_stays(policy):
    found = masker(load_policy(policy))
    assert found.mask("paths", b"proc") == b"proc"
    assert found.mask("paths", b"proc-x") == b"xxxx-x"


TEXTS = st.text(st.characters(max_codepoint=255), max_size=80)
KINDS = st.sampled_from(["log-text", "paths", "task-names", "command-line"])


@pytest.mark.parametrize("policy", POLICIES)
@given(data=TEXTS.map(lambda it: it.encode("latin-1")), kind=KINDS)
def test_masking_keeps_the_length(policy, data, kind):
    found = masker(load_policy(policy))
    left = found.mask(kind, data)
    assert len(left) == len(data)
    assert all(
        one == other or other == ord("x") for one, other in zip(data, left, strict=True)
    )


def test_a_host_by_a_part_of_its_name_and_in_capitals():
    found = masker(SHARE)
    found.add_value("host-names", b"db7.corp.example.com")
    for name in ("db7", "DB7", "db7.corp.example.com", "DB7.CORP.EXAMPLE.COM"):
        hidden = "".join("x" if it.isalnum() else it for it in name)
        assert found.mask_text("log-text", f"on {name}: x") == f"on {hidden}: x"


@pytest.mark.parametrize("host", [b"debian.example.com", b"linux", b"cpu.example.com"])
def test_a_host_with_a_name_of_the_kernels_masks_no_word_of_it(host):
    found = masker(SHARE)
    found.add_value("host-names", host)
    text = "Linux version 6.1 (Debian 6.1-1) linux CPU: 3 cpu debian"
    assert found.mask_text("log-text", text) == text


@pytest.mark.parametrize("part", ["1.", "a.", "a-", "f", "a@", "token", "token is"])
def test_a_long_line_takes_time_in_proportion(part):
    """A console's line may have 64 KiB: in proportion to its square, minutes."""
    start = time.process_time()
    masker(SHARE).mask("log-text", (part * (60_000 // len(part))).encode())
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        (
            "mail to first.last+tag@host.co.uk now",
            "mail to xxxxx.xxxx+xxx@xxxx.xx.xx now",
        ),
        ("cifs.my-secret_key= abc,d", "cifs.my-secret_key= xxx,d"),
        ("-token is Zz9; next", "-token is xxx; next"),
    ],
)
def test_mails_and_secrets(line, masked):
    assert masker(SHARE).mask("log-text", line.encode()).decode() == masked
