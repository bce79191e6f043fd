# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers for people: a report is a record; text, HTML and JSON are views of it."""
