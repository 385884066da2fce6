"""`akvfs demo`."""


def run() -> int:
    """Run the tour."""
    return 1
