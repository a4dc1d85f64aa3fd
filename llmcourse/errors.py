"""The one kind of error this package raises on purpose.

A `CourseError` is a mistake that the person at the keyboard can mend: a wrong setting, an unknown
character, a damaged file. Its message is one sentence that says what to do. Everything else that goes
wrong is a bug and keeps its traceback. The command line prints a `CourseError` and exits with code 2.
"""


class CourseError(ValueError):
    """A mistake the user can mend; the message is one sentence that says how."""
