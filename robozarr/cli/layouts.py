"""The command ``robozarr layouts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from robozarr.cli.shared import Json, console, errors_as_json, examples, print_json
from robozarr.schemas.visible import visible

__all__ = ["EXAMPLES", "layouts"]

EXAMPLES: Final = examples(
    "robozarr layouts",
    "robozarr layouts aloha",
    "robozarr layouts aloha > my.toml",
    "robozarr layouts lerobot",
    "robozarr layouts episode_0.hdf5",
    "robozarr layouts episode_0.hdf5 --layout my.toml",
    "robozarr layouts --json",
)


def layouts(
    name: Annotated[
        str | None,
        typer.Argument(help="A layout, to print its TOML text; or a source, to say which layout it follows."),
    ] = None,
    layout: Annotated[list[str] | None, typer.Option("--layout", help="TOML file with your own layout, tried first.")] = None,
    as_json: Json = False,
) -> None:
    """List the known families of HDF5 files and other sources, show one of them, or say which one a file belongs to."""
    from robozarr.convert.sources.hdf5 import SourceFile
    from robozarr.convert.sources.layouts.catalogue import built_in, layout_text, read_layout_file
    from robozarr.convert.sources.layouts.others import OTHERS, other_of

    with errors_as_json(as_json):
        own = tuple(read_layout_file(path) for path in layout or ())
        if name is not None and (other := other_of(Path(name))) is not None:
            return print_json(other.to_json()) if as_json else print(f"{name}: {other.name} ({other.title})")
        if other := next((other for other in OTHERS if other.name == name), None):
            return print_json(other.to_json()) if as_json else print(other.text(), end="")
        if name is not None and Path(name).is_file():
            with SourceFile(name) as source:
                found = source.recognise(own)
            return (
                print_json(found.to_json())
                if as_json
                else print(visible(f"{name}: {found.name} ({found.title or 'your own'})"))
            )
        if name is not None:
            text = layout_text(name)
            known = next(each for each in built_in() if each.name == name)
            return print_json(known.to_json()) if as_json else print(text, end="")
    every = (*own, *built_in())
    if as_json:
        others = [other.to_json() for other in OTHERS]
        return print_json({"layouts": [each.to_json() for each in every], "others": others})
    lines = [(each.name, each.title, f"recognised by {', '.join(each.has)}") for each in every]
    lines += [(other.name, other.title, f"not HDF5; recognised by {other.has}") for other in OTHERS]
    width = max(len(name) for name, *_ in lines)
    for key, title, words in lines:
        console().print(f"{key:<{width}}  {title}\n{'':<{width}}  {words}", markup=False)
    print("next: robozarr layouts NAME prints one, as a start for your own; robozarr convert … --layout my.toml takes it")
    return None
