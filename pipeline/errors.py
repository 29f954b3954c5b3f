"""The one exception for what a user can mend: the command line prints it without a traceback."""


class UserError(Exception):
    """Bad input, configuration or state. The message says what was expected, what came, and the next step."""
