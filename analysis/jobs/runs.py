"""Which partitions belong to a time: the identifier of a run, a ULID, begins with the instant at which it was started."""

from __future__ import annotations

from datetime import UTC, datetime

# Crockford's base 32, as the ULID specification has it.
DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(milliseconds: int, number: int = 0) -> str:
    """The ULID of an instant since the Unix epoch; those of the same instant differ by their number (80 bits)."""
    value = milliseconds << 80 | number
    return "".join(DIGITS[value >> 5 * place & 31] for place in reversed(range(26)))


def first_run(since: str | None) -> str:
    """What the identifiers of all runs since an instant (ISO 8601, UTC unless it says otherwise) are equal to or come after."""
    if since is None:
        return ""
    instant = datetime.fromisoformat(since)
    instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return ulid(int(instant.timestamp() * 1000))
