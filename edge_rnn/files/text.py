"""Text from a file in a message: it must neither break the line nor reach a terminal as a command."""


def printable(text: str) -> str:
    """`text` as it is where every character can be printed, else with escapes like `\\n` and `\\x1b`."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
