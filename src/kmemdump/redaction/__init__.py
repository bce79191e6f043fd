# SPDX-License-Identifier: GPL-2.0-or-later
"""
A core image to give away: data removed, and proven to answer what it answered.

A byte stays only if there is a reason for it: it is the kernel build's own (code,
constants), a number or a pointer that a question reads, a member of a structure that is
no data, or text that the policy keeps. All others become zero; text becomes ``x``, at
equal length, so that all pointers hold. Then all questions are asked again.
"""
