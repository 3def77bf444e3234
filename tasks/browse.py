"""All clips of a set to leaf through: one light page of thumbnails, and for every contact sheet a page with its clips' paths.

The pages stand beside the report and in a folder of their own; only what changed is written again.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from tasks.account import FilterAccount
from tasks.clip_path import Paths
from tasks.gallery import SyntheticSet
from tasks.pages import pages
from tasks.params import Params
from tasks.sheets import Sheet, sheets
from tasks.store import same_content
from tasks.tables import atomic_write

PAGE, FOLDER, STYLE = "gallery.html", "gallery", "style.css"


def browse(params: Params, shown: SyntheticSet, filters: list[FilterAccount], paths: Paths, out: Path) -> Path:
    """Write `gallery.html` and the folder `gallery`: contact sheets, their pages and one style sheet.

    Of all clips a line of the page is in memory, of one sheet the rest.

    Returns:
        The page's path.
    """
    environment, folder = pages(), out / FOLDER
    labels = sorted({record.label for record in shown.provenance if record.label})
    thumbs, written = [], set()
    sheet: Sheet | None = None
    for sheet in sheets(shown.store, folder):
        known = {"params": params, "shown": shown, "sheet": sheet, "clips": [paths.of(row) for row in sheet.rows]}
        thumbs.append(Markup(environment.get_template("gallery_thumbs.html").render(known, filters=filters, labels=labels)))
        _put(page := folder / f"{sheet.number:05d}.html", environment.get_template("gallery_sheet.html").render(known))
        written.add(page)
    for page in set(folder.glob("*.html")) - written:
        page.unlink()
    _put(folder / STYLE, "".join((Path(__file__).parent / name).read_text() for name in ("page.css", "gallery.css")))
    _put(out / PAGE, environment.get_template(PAGE).render(
        params=params, shown=shown, sheet=sheet, thumbs=thumbs, filters=filters, labels=labels))
    return out / PAGE


def _put(path: Path, text: str) -> None:
    if not same_content(path, text.encode()):
        atomic_write(path, text.encode())
