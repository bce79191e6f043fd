# SPDX-License-Identifier: GPL-2.0-or-later
"""
File and memory formats: bytes in, values out.

All input is hostile. In parsers' parameters, *source* is the name of the input, for
messages. *read* reads (offset, count) of a file, and may return less; *size* is the
file's, in bytes.
"""
