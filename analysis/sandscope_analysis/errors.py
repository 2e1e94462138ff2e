"""What can be wrong with results, said so that the reader knows what to do."""


class ResultsError(Exception):
    """Something is wrong with results; the text says what, where, and what to do."""

    def __str__(self) -> str:
        return str(self.args[0])


class NotADataset(ResultsError, ValueError):
    """The directory holds no tables of sandscope."""


class NoSuchTable(ResultsError, KeyError):
    """The results have no table of this name."""


class DamagedFile(ResultsError, ValueError):
    """A file is no Parquet, or only the beginning of one."""


class ForeignFile(ResultsError, ValueError):
    """A Parquet file that sandscope did not write."""


class NewerSchema(ResultsError, ValueError):
    """A file whose schema this package does not know yet."""


class MissingColumns(UserWarning):
    """An earlier sandscope did not write these columns; they are null."""
