"""Tables in workbooks of Excel and LibreOffice, read by the optional package python-calamine."""

from __future__ import annotations

import io
from typing import Any

from alexnet.runtime.errors import AlexNetError

WORKBOOK_ENDINGS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")


class WorkbookError(AlexNetError):
    """A workbook that cannot be read."""


def read_workbook(data: bytes, name: str) -> list[tuple[str, list[tuple[int, list[str]]]]]:
    """The sheets of a workbook: the name of each, and number and cells of its rows that are not empty.

    Raises
    ------
    WorkbookError
        When the package is not installed, or the file is damaged or encrypted.
    """
    try:
        from python_calamine import CalamineWorkbook
    except ImportError:
        raise WorkbookError(
            f"{name} is a workbook, which needs a package: `pip install 'alexnet[formats]'`, or save it as CSV"
        ) from None
    # The package raises errors of its own, and passes on those of Rust as others.
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheets = [(sheet, book.get_sheet_by_name(sheet).to_python(skip_empty_area=False)) for sheet in book.sheet_names]
    except Exception as error:
        raise WorkbookError(
            f"{name} cannot be read as a workbook ({error}): open it, and save it as CSV without a password"
        ) from error
    return [(sheet, _filled([[_text(cell) for cell in row] for row in rows])) for sheet, rows in sheets]


def _filled(rows: list[list[str]]) -> list[tuple[int, list[str]]]:
    return [(number, cells) for number, cells in enumerate(rows, 1) if any(cell.strip() for cell in cells)]


def _text(cell: Any) -> str:
    """A cell as CSV has it; Excel stores every number as a decimal one."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell)
