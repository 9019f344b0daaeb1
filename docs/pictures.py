"""Make docs/report.webp and docs/notebook.webp from a store: ``python docs/pictures.py libero.zarr``.

Needs chromium, the extra ``dev``, and ``pip install nbconvert`` (which nothing else here needs). Run it in the store's folder,
by its bare name, which the pictures show; then look at them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from robozarr.store.opened import open_store
from robozarr.view.report import write_report

DOCS = Path(__file__).parent


def shoot(browser: Browser, page_path: Path, width: int, height: int, scheme: str, selector: str = "") -> Image.Image:
    """Take one picture of a page, from `selector` on."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(page_path.as_uri())
    if selector:
        page.locator(selector).first.evaluate("one => window.scrollTo(0, one.getBoundingClientRect().top)")
    return Image.open(BytesIO(page.screenshot()))


def beside(pictures: list[Image.Image], path: Path, gap: int = 16) -> None:
    """Put pictures side by side and save them in a small file."""
    whole = Image.new(
        "RGB", (sum(one.width for one in pictures) + gap * (len(pictures) - 1), max(one.height for one in pictures)), "#888"
    )
    left = 0
    for one in pictures:
        whole.paste(one, (left, 0))
        left += one.width + gap
    whole.save(path, quality=82, method=6)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main(store: str) -> None:
    """Write both pictures."""
    folder = Path(tempfile.mkdtemp())
    write_report(open_store(store), folder / "report.html")
    os.environ["ROBOZARR_STORE"] = store
    notebook = nbformat.read(DOCS.parent / "notebooks" / "inspect.ipynb", 4)
    NotebookClient(notebook, resources={"metadata": {"path": str(Path.cwd())}}).execute()
    (folder / "notebook.html").write_text(HTMLExporter().from_notebook_node(notebook)[0])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        report, tour = folder / "report.html", folder / "notebook.html"
        beside(
            [
                shoot(browser, report, 900, 1000, "light"),
                shoot(browser, report, 390, 1000, "dark", "#tasks"),
                shoot(browser, report, 390, 1000, "light", "#coverage"),
            ],
            DOCS / "report.webp",
        )
        cells = [shoot(browser, tour, 980, 1060, "light", f".jp-CodeCell:nth-of-type({number})") for number in (4, 7)]
        beside(cells, DOCS / "notebook.webp")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
