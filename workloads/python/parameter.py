"""The one number that an endpoint may take from the query of the URL."""

from __future__ import annotations

from output import quoted


class RequestError(Exception):
    """A request that is wrong."""


class Parameter:
    """What a number is called and may be.

    `fallback` is the value when it is absent; without one, it must not be.
    """

    def __init__(self, name: str, maximum: int, fallback: int | None = None) -> None:
        self.name = name
        self.maximum = maximum
        self.fallback = fallback

    def value(self, query: str) -> int:
        """Takes the number.

        A parameter of another name is an error: a misspelt one would otherwise pass for absent.
        """
        found = None
        for pair in filter(None, query.split("&")):
            name, _, text = pair.partition("=")
            if name != self.name:
                raise RequestError(
                    f"the parameter {quoted(name)} is unknown: {self.rule()} is expected"
                )
            if found is not None:
                raise RequestError(
                    f"the parameter {quoted(name)} is given twice: {self.rule()} is expected once"
                )
            found = text
        if found is None:
            if self.fallback is None:
                raise RequestError(f"a parameter is missing: {self.rule()} is expected")
            return self.fallback
        digits = found.lstrip("0")
        # `int` alone would also take signs, spaces and underscores, and a long time for many
        # digits.
        if found.isascii() and digits.isdigit() and len(digits) <= len(str(self.maximum)):
            number = int(digits)
            if number <= self.maximum:
                return number
        raise RequestError(
            f"the parameter {quoted(self.name)} is {quoted(found)}: {self.rule()} is expected"
        )

    def rule(self) -> str:
        return f"{self.name}, a whole number from 1 to {self.maximum},"
