"""Exception for errors that the user can fix: the command line prints it without a traceback."""


class UserError(Exception):
    """Bad input, configuration or state. The message says what was expected, what came, and the next step."""
