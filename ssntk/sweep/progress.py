"""How far a run is: a bar on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.progress

from ssntk.notices import LOG, note

# If standard error is not a terminal, at most one line is printed in this time [s].
EVERY = 10.0


@contextlib.contextmanager
def reporting(what: str, total: int, done: int, failed: int, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A function `tell(finished, failed)` that takes numbers of points, and shows the count, the speed and what is left."""
    console = rich.console.Console(stderr=True)
    if not shown:
        yield lambda finished, failures: None
    elif console.is_terminal:
        columns = (
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[failures]} failed"),
            rich.progress.TextColumn("{task.fields[speed]}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(),
        )
        with rich.progress.Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total, completed=done, failures=failed, speed="")
            meter = _Meter(total, done, failed)

            def tell(finished: int, failures: int) -> None:
                meter.add(finished, failures)
                bar.update(task, advance=finished, failures=meter.failed, speed=f"{meter.speed:.3g} points/s")

            yield tell
        LOG.info(f"{what}: {meter}")
    else:
        meter = _Meter(total, done, failed)
        last = time.monotonic()

        def tell(finished: int, failures: int) -> None:
            nonlocal last
            meter.add(finished, failures)
            if time.monotonic() - last > EVERY:
                last = time.monotonic()
                note(f"{what}: {meter}")

        note(f"{what}: {done} of {total} points done, {total - done} to go")
        yield tell
        note(f"{what}: {meter}")


class _Meter:
    """The numbers of points, and the speed since this run began."""

    def __init__(self, total: int, done: int, failed: int):
        self.total, self.done, self.failed = total, done, failed
        self.new, self.began = 0, time.monotonic()

    def add(self, finished: int, failures: int) -> None:
        self.done += finished
        self.new += finished
        self.failed += failures

    @property
    def speed(self) -> float:
        return self.new / max(time.monotonic() - self.began, 1e-9)

    def __str__(self) -> str:
        text = f"{self.done} of {self.total} points, {self.failed} failed, {self.speed:.3g} points/s"
        if self.new and self.done < self.total:
            text += f", about {duration((self.total - self.done) / self.speed)} left"
        return text


def duration(seconds: float) -> str:
    """A number of seconds in words."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
