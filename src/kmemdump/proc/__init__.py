# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host's kernel says of processes and mounts, in ``/proc``."""
