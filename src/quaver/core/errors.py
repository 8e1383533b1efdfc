"""Errors that a caller can cause and act on.

Every message says what was given, what is allowed and what to do, in one line. The command line
prints it and exits with status 2; anything else that escapes is a bug and keeps its traceback.
"""


class QuaverError(Exception):
    """Base of all errors that are the caller's to mend."""


class InputError(QuaverError):
    """A request is unusable: its text, voice, sampling parameters or reference audio."""


class SilentTextError(InputError):
    """A text has no letter or digit that the model can speak."""

    def __init__(self, message: str, left_out: int = 0, names: tuple[str, ...] = ()) -> None:
        """left_out: how many characters the model cannot read. names: the first of them."""
        super().__init__(message)
        self.left_out, self.names = left_out, names


class UnreadableTextError(InputError):
    """A text has characters that the model cannot read, and was to be read strictly."""


class CheckpointError(QuaverError):
    """A model folder or file is missing, damaged, or of a layout that is not supported."""


class ConfigError(QuaverError):
    """A configuration has unknown keys or values that do not fit together."""


class UnsupportedError(QuaverError):
    """The request is well formed, but this device or installation cannot do it."""
