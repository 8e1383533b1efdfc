"""What would be recorded on a GPU, for tests without one."""

from collections.abc import Callable, Hashable


class Shapes:
    """In place of `Recorded`: what would be recorded runs as it is, and its shape is kept."""

    def __init__(self) -> None:
        self.seen: set[Hashable] = set()

    def run(self, shape: Hashable, step: Callable[[], None]) -> None:
        self.seen.add(shape)
        step()
