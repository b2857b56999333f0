"""What the person sees while it runs: finished steps as lines, and what goes on now as one line that changes."""

import shutil
import sys
import time

QUIET_SECONDS = 5.0
"""Between two lines about what goes on, where lines cannot be overwritten."""


class Screen:
    """Standard output, with the seconds since the start before each line."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._overwrites = sys.stdout.isatty()
        self._shown_at = 0.0
        self._live = ""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._clear()
        print(f"[{self.seconds:4.0f}s] {text}", flush=True)

    def write(self, text: str) -> None:
        """Prints lines as they are."""
        self._clear()
        print(text, flush=True)

    def live(self, text: str) -> None:
        """Shows what goes on now."""
        if text == self._live:
            return
        if self._overwrites:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{f'[{self.seconds:4.0f}s] {text}'[:width]}", end="", flush=True)
        elif time.monotonic() - self._shown_at >= QUIET_SECONDS:
            print(f"[{self.seconds:4.0f}s]   {text}", flush=True)
            self._shown_at = time.monotonic()
        self._live = text

    def _clear(self) -> None:
        if self._overwrites and self._live:
            print("\r\033[K", end="")
        self._live = ""
        self._shown_at = 0.0
