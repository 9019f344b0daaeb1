"""Make the pictures of the README and of docs/: ``python docs/pictures.py libero.zarr``; without a store, only the demo's.

docs/demo.webp is what ``make demo`` prints, run now, on this machine; docs/report.webp and docs/notebook.webp are of the store.
Needs chromium and the extra ``dev``. Run it in the store's folder, by its bare name, which they show; then look at them.
"""

from __future__ import annotations

import html
import os
import shutil
import subprocess
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
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; background: #1e1e2e; color: #cdd6f4; font: 15px/1.45 "DejaVu Sans Mono", monospace }
pre { margin: 0; padding: 18px 22px; width: max-content; font: inherit }
b { color: #a6e3a1 } i { color: #89b4fa; font-style: normal }
</style><pre>"""


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


def demo_page(folder: Path) -> Path:
    """A page that looks like a terminal in which ``make demo`` has run; paths are those of a clone."""
    store = folder / "demo.zarr"
    command = [sys.executable, DOCS.parent / "examples" / "demo.py", "--store", store, "--report", folder / "demo.html"]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    lines = [html.escape(line) for line in said.replace(f"{folder}/", ".venv/").splitlines()]
    marked = [f"<i>{line}</i>" if line.startswith("  ") and line[2:3].isdigit() else line for line in lines]
    page = folder / "terminal.html"
    page.write_text(f"{TERMINAL}<b>$ make demo</b>\n{chr(10).join(marked)}</pre>")
    return page


def shoot_terminal(browser: Browser, page_path: Path) -> Image.Image:
    """The whole of such a page, and nothing around it."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(page_path.as_uri())
    return Image.open(BytesIO(page.locator("pre").screenshot()))


def main(store: str | None) -> None:
    """Write the pictures."""
    folder = Path(tempfile.mkdtemp())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        beside([shoot_terminal(browser, demo_page(folder))], DOCS / "demo.webp")
        browser.close()
    if store is not None:
        of_store(store, folder)


def of_store(store: str, folder: Path) -> None:
    """Write the pictures of the report and of the notebook."""
    report = folder / "report.html"
    write_report(open_store(store), report)
    report.write_text(report.read_text().replace(f"{Path.cwd()}/", ""))  # nobody's folder in a picture
    os.environ["ROBOZARR_STORE"] = store
    notebook = nbformat.read(DOCS.parent / "notebooks" / "inspect.ipynb", 4)
    NotebookClient(notebook, resources={"metadata": {"path": str(Path.cwd())}}).execute()
    (folder / "notebook.html").write_text(HTMLExporter().from_notebook_node(notebook)[0])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tour = folder / "notebook.html"
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
    main(sys.argv[1] if len(sys.argv) > 1 else None)
