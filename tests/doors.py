"""Doors for tests."""


def entered(made):
    """``enter(x, axis, out)`` of a door."""
    return lambda x, axis, out: made.enter(x, axis, out, made.numbers)
