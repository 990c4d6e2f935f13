"""A thread that works at the newest wish alone."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress


class Dropped(Exception):  # noqa: N818 (nothing went wrong)
    """Work that was given up for a newer wish."""


class Latest:
    """Works at one thing at a time, in a thread of its own: what is older than the newest wish is not begun, or ends at its next
    `check`."""

    def __init__(self):
        self._thread, self._newest = ThreadPoolExecutor(1), 0

    def ask(self, work):
        """work(check), as soon as the thread is free; check(...) raises Dropped where there is a newer wish.  -> its Future"""
        self._newest += 1
        return self._thread.submit(self._run, work, self._newest)

    def _run(self, work, number):
        def check(*_):
            if number != self._newest:
                raise Dropped

        with suppress(Dropped):
            check()
            work(check)
