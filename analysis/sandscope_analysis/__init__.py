"""Loads the tables that sandscope writes.

>>> from sandscope_analysis import Results
>>> results = Results("results")
>>> results.table("instances").filter(pl.col("ok")).group_by("sandbox").agg(pl.col("wall_ns").median()).collect()
"""

from . import schema
from .errors import (
    DamagedFile,
    ForeignFile,
    MissingColumns,
    NewerSchema,
    NoSuchTable,
    NotADataset,
    ResultsError,
)
from .results import Results

__all__ = [
    "DamagedFile",
    "ForeignFile",
    "MissingColumns",
    "NewerSchema",
    "NoSuchTable",
    "NotADataset",
    "Results",
    "ResultsError",
    "schema",
]
