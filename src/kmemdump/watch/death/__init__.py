# SPDX-License-Identifier: GPL-2.0-or-later
"""What follows a death: a core image is written, and then the VM is acted on."""
