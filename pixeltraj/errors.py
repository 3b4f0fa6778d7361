"""The one error a user is meant to see."""


class PixeltrajError(Exception):
    """Something the user can mend: what was wrong, and what to do about it, in one line.

    The command line prints it without a traceback and exits with status 2.
    """
