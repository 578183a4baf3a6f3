"""The errors of Athena, and the one word for what Athena has and this console has not."""

from __future__ import annotations


class AthenaError(Exception):
    """A query that Athena would refuse, or fail. `code` is Athena's name of the error, `line` and
    `column` count from 1."""

    def __init__(
        self, code: str, message: str, line: int | None = None, column: int | None = None
    ) -> None:
        self.code, self.line, self.column = code, line, column
        where = f"line {line}:{column}: " if line else ""
        super().__init__(f"{code}: {where}{message}")


class Refusal(Exception):
    """A refusal while a statement is read, with the offset at which it arose; becomes an
    AthenaError."""

    def __init__(self, code: str, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.offset = code, message, offset

    def in_statement(self, sql: str) -> AthenaError:
        if self.offset is None:
            return AthenaError(self.code, self.message)
        before = sql[: self.offset]
        column = len(before) - (before.rfind("\n") + 1) + 1
        return AthenaError(self.code, self.message, before.count("\n") + 1, column)


NOT_HERE = "NOT_SUPPORTED"


def not_here(what: str, offset: int | None = None) -> Refusal:
    """For what Athena has: the console's own limit, said so."""
    return Refusal(
        NOT_HERE, f"{what} is not part of this local console. On AWS, Athena runs it", offset
    )
