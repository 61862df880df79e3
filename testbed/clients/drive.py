"""What the two client scripts share: waiting for something, with a bound."""

import time


def until(what, check, seconds=60, pause=0.3):
    """The first true value of `check`."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(pause)


def equal(found, expected, what):
    assert found == expected, f"{what}: {found!r} is not {expected!r}"
