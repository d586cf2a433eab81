"""The exceptions that a user is meant to read."""


class UserError(Exception):
    """Something a user can put right: the message names the file or key, the value, and what to do.

    The command line prints it as one message without a traceback and exits with 1; a batch command records it as
    the status of the scan it belongs to and goes on.
    """


class MemoryShortError(UserError):
    """What needs more memory than there is: elsewhere, or later, it may work."""


class MachineError(UserError):
    """What the machine failed at, or nobody had foreseen: it says nothing of the scan that met it."""


class StopError(UserError):
    """What is wrong with every scan alike, such as a wrong key or a full disk: a batch command stops at it."""
