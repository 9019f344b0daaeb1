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
    "robozarr layouts episode_0.hdf5",
    "robozarr layouts episode_0.hdf5 --layout my.toml",
    "robozarr layouts --json",
)


def layouts(
    name: Annotated[
        str | None,
        typer.Argument(help="A layout, to print its TOML text; or an HDF5 file, to say which layout it follows."),
    ] = None,
    layout: Annotated[list[str] | None, typer.Option("--layout", help="TOML file with your own layout, tried first.")] = None,
    as_json: Json = False,
) -> None:
    """List the known families of HDF5 files, show one of them, or say which one a file belongs to."""
    from robozarr.convert.sources.hdf5 import SourceFile
    from robozarr.convert.sources.layouts.catalogue import built_in, layout_text, read_layout_file

    with errors_as_json(as_json):
        own = tuple(read_layout_file(path) for path in layout or ())
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
        return print_json({"layouts": [each.to_json() for each in every]})
    width = max(len(each.name) for each in every)
    for each in every:
        console().print(f"{each.name:<{width}}  {each.title}\n{'':<{width}}  recognised by {', '.join(each.has)}", markup=False)
    print("next: robozarr layouts NAME prints one, as a start for your own; robozarr convert … --layout my.toml takes it")
    return None
