#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# /usr/lib/kmemdump/core-collector.sh: as core_collector of /etc/kdump.conf it writes what
# is marked where kdump-utils wants its dump; if nothing is marked, makedumpfile's dump.
#
# kdump-utils gives it /proc/vmcore and, unless its dump goes through a pipe, a file.
collector=/usr/lib/kmemdump/kmemdump-kdump
if [ $# -lt 2 ]; then
	exec makedumpfile -F -l --message-level 7 -d 31 "$@"
fi
"$collector" "$@"
# 1: some memory could not be read, the rest is written.
[ $? -gt 1 ] || exit 0
exec makedumpfile -l --message-level 7 -d 31 "$@"
