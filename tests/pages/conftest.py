"""Which process tests which page."""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling


class ByVisit(LoadScopeScheduling):
    """All tests of a page at a width go to one process, one after the other. (pytest-xdist's `loadgroup` is to do the
    same, but pytest 9.2 does not see the names that it gives to the tests.)"""

    def _split_scope(self, nodeid: str) -> str:
        visit = re.search(r"\[(.+-(desktop|phone))\]$", nodeid)
        return visit[1] if visit else nodeid


def pytest_xdist_make_scheduler(config, log):
    return ByVisit(config, log)
