"""Synthetic tables: types of columns, their transforms, and the models on them, such as :class:`minigen.TableVAE`.

:mod:`.reading` takes a DataFrame apart and makes one; :mod:`.kinds` finds what each column is; :mod:`.columns` turns a
column into the numbers and one-hot blocks that networks take, and back; :mod:`.model` trains on them.
"""

from minigen.tables.quality import evaluate
from minigen.tables.schema import Schema, find_columns

__all__ = ["Schema", "evaluate", "find_columns"]
