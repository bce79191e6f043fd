# SPDX-License-Identifier: GPL-2.0-or-later
"""Find and read the tables that firmware keeps in a machine's memory."""
