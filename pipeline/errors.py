"""Exception for errors that a user can fix; the command line prints it without a traceback."""


class UserError(Exception):
    """Bad input, configuration or state. The message states expected and actual values, and a fix."""
