"""What keeps the double from running on this machine."""


class Missing(Exception):
    """The machine lacks something that the double needs; the message says what, and how to get it if that is known."""
