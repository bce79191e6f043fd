#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# stress.sh SECONDS: all that the modules can do, at once, from many threads. In each
# round, threads register, unregister and read; two processes write to a driver's
# parameter, while the driver and a backend come and go; then all of them go.
end=$(($(cut -d. -f1 /proc/uptime) + $1))
say=/sys/module/kmemdump_sample/parameters/say

fail() {
	echo "stress: $1 failed" >/dev/kmsg
	exit 1
}

load() {
	insmod "/files/kmemdump$1.ko" || fail "insmod $1"
}

unload() {
	rmmod "kmemdump$1" || fail "rmmod $1"
}

write() {
	while [ -e /run/stress ]; do
		echo "$1$1$1$1$1$1$1$1" >$say
	done 2>/dev/null
}

round=0
while [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ]; do
	round=$((round + 1))
	load ""
	load _stress
	: >/run/stress
	write abcdefgh &
	first=$!
	write 01234567 &
	second=$!
	i=0
	while [ $i -lt 10 ]; do
		i=$((i + 1))
		load _sample
		load _backend
		# The driver goes first, and then the backend.
		if [ $((i % 2)) = 0 ]; then
			unload _sample
			unload _backend
		else
			unload _backend
			unload _sample
		fi
	done
	rm /run/stress
	wait $first $second
	unload _stress
	unload ""
	echo "stress: round $round" >/dev/kmsg
done
echo "stress: done" >/dev/kmsg
