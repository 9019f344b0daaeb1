"""The parts of the docs site that are made from other files: its first page, the format, the reference. A hook of mkdocs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie elsewhere: README.md, schemas/FORMAT.md, and the reference."""
    from mkdocs.structure.files import File

    readme = re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text()).replace("](schemas/FORMAT.md", "](specification.md")
    for path, text in (
        ("index.md", readme),
        ("specification.md", (ROOT / "schemas" / "FORMAT.md").read_text()),
        ("api.md", reference()),
    ):
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links out of the docs: FORMAT.md is the page specification; other files are named without a link."""
    markdown = re.sub(r"\]\((?:\.\./)+schemas/FORMAT\.md", "](specification.md", markdown)
    markdown = re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?!recipes/|\w+\.md)[^)]*\)", r"`\1`", markdown)
    if page.file.src_uri == "index.md":
        markdown = re.sub(r"\[([^\]]+)\]\((?:sample/|CONTRIBUTING|SECURITY|CHANGELOG)[^)]*\)", r"`\1`", markdown)
    return markdown


def public_names() -> dict[str, str]:
    """Public name → path of the object that it is."""
    import robozarr

    names = {name: f"{home}.{name}" for name, home in robozarr._HOME.items()}
    names |= {"convert": "robozarr.convert.run.convert", "verify": "robozarr.convert.verifying.verification.verify"}
    return names | {
        "ConvertReport": "robozarr.convert.run.ConvertReport",
        "VerifyReport": "robozarr.convert.verifying.verification.VerifyReport",
    }


def reference() -> str:
    """One page with every public name."""
    parts = ["# Reference", "", "Names of `robozarr`, and `convert` and `verify` of `robozarr.convert`."]
    return "\n\n".join([*parts, *(f"::: {path}" for _, path in sorted(public_names().items()))]) + "\n"
