"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something a user can put right: the message names the file or key, the value, and what to do.

    The command line prints it as one message without a traceback and exits with 1; a batch command records it as
    the status of the scan it belongs to and goes on.
    """
