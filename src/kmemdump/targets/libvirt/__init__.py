# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs of libvirt, through libvirt's own connection to them."""
