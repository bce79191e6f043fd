#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# /etc/kdump/pre.d/kmemdump.sh: kdump-utils copies it into its root file system, and runs
# it before its own dump, whatever it returns.
exec /usr/lib/kmemdump/kmemdump-kdump config=/etc/kmemdump/kdump.conf
