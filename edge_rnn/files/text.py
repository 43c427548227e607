"""Numbers for people: lengths of time."""


def length_text(seconds: float) -> str:
    """A length of time for a reader: at most two units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, lower, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count} {unit} {rest // part} {lower}" if rest // part else f"{count} {unit}"
    return f"{whole} s"


def offset_text(seconds: float) -> str:
    """How far times are from a clock: "2 h behind", "5 min ahead of"."""
    return f"{length_text(abs(seconds))} {'behind' if seconds < 0 else 'ahead of'}"
