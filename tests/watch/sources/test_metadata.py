# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing libvirt's domains by what their XML says about them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import UsageError
from kmemdump.watch.sources.libvirt import DomainFilter
from kmemdump.watch.sources.metadata import MetadataFilter

# As each program writes it.
VIRT_INSTALL = """<domain type="kvm"><name>a</name><title>web one</title>
<metadata><libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
<libosinfo:os id="http://debian.org/debian/12"/></libosinfo:libosinfo></metadata></domain>"""
NOVA = """<domain type="kvm"><name>instance-00000001</name><metadata>
<nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
<nova:package version="27.0.0"/><nova:name>web1</nova:name>
<nova:flavor name="m1.small"><nova:memory>2048</nova:memory></nova:flavor>
<nova:owner><nova:user uuid="1">admin</nova:user>
<nova:project uuid="2">shop</nova:project></nova:owner>
</nova:instance></metadata></domain>"""
KUBEVIRT = """<domain type="kvm"><name>default_vm</name><metadata>
<kubevirt xmlns="http://kubevirt.io"><uid>4c0b</uid></kubevirt></metadata></domain>"""


@pytest.mark.parametrize(
    ("text", "xml", "accepted"),
    [
        ("title=web*", VIRT_INSTALL, True),
        ("title=web", VIRT_INSTALL, False),
        ("title=*", NOVA, False),
        ("os@id=*debian.org*", VIRT_INSTALL, True),
        ("name=web1", NOVA, True),
        ("name=instance-00000001", NOVA, False),  # The domain's, not of metadata.
        ("instance/name=web1", NOVA, True),
        ("owner/project=shop", NOVA, True),
        ("project=shop", NOVA, True),
        ("user/project=shop", NOVA, False),
        ("flavor@name=m1.*", NOVA, True),
        ("flavor@name=m2.*", NOVA, False),
        ("project@uuid=2", NOVA, True),
        ("kubevirt/uid=4c0b", KUBEVIRT, True),
        ("uid=*", VIRT_INSTALL, False),
        ("uid=*", "<no xml", False),
    ],
)
def test_filters(text, xml, accepted):
    assert MetadataFilter.parse(text).accepts(xml) is accepted


@pytest.mark.parametrize("text", ["", "title", "=x", "a//b=x", "/a=x", "a@=x", "@b=x"])
def test_no_filter(text):
    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        MetadataFilter.parse(text)


@given(st.text())
def test_any_description(xml):
    MetadataFilter.parse("a=b").accepts(xml)


def test_names_need_no_description():
    chosen = DomainFilter(("web*",), (MetadataFilter.parse("project=shop"),))
    assert not chosen.accepts("db", lambda: pytest.fail("asked for nothing"))
    assert chosen.accepts("web1", lambda: NOVA)
    assert not chosen.accepts("web1", lambda: KUBEVIRT)
    assert DomainFilter().accepts("db", lambda: pytest.fail("asked for nothing"))
