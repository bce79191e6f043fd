# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent: stays on a machine, and keeps its regions registered and fresh."""

from kmemdump.agent.agent import Agent
from kmemdump.agent.lock import table_lock
from kmemdump.agent.pace import Pace
from kmemdump.agent.status import Cost, Status, read_all

__all__ = ["Agent", "Cost", "Pace", "Status", "read_all", "table_lock"]
