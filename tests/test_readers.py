"""Other libraries read what robozarr wrote: TensorStore, plain zarr-python and xarray, against h5py, bit for bit.

Nothing here reads through robozarr, which only converts: a store is found its way through by its JSON attributes and tables.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import tensorstore
import zarr
from effort import some
from numpy.typing import NDArray

import synthetic
from robozarr.convert import convert
from robozarr.schemas.layout import Profile

Array = NDArray[Any]
Read = Callable[[str], Array]
REAL = Path(__file__).parents[2] / "shared" / "data" / ("." if some(1, 0) else "libero/libero_object")
"""Whole files: all with ``--full``, or else one."""
SAMPLE = Path(__file__).parents[1] / "sample"
PROFILES: tuple[Profile, ...] = ("raw", "fast")
"""Those that any reader of Zarr opens; `test_keyframe_readers` has the others."""
GENERATED = [Path(name) for name in ("openvla", "robomimic", "depth")]
"""Siblings of LIBERO's files, made by `synthetic` below a temporary folder of this name."""
AGAIN = pytest.mark.slow(reason="one more family in the profile that packs nothing")
STORES = [
    pytest.param((sources, profile), marks=AGAIN if profile == "raw" and sources in GENERATED[1:] else ())
    for sources in (SAMPLE, REAL, *GENERATED)
    for profile in PROFILES
]


class Converted(NamedTuple):
    """A store and the folder of the sources that it was made from."""

    store: Path
    sources: Path


Make = Callable[[Path, Profile], Converted]


def name_of(param: tuple[Path, Profile]) -> str:
    return f"{param[0].name}-{param[1]}"


def generate(folder: Path) -> Path:
    """Two files of one kind, so that episodes and shards span files."""
    for seed, name in enumerate(("stack_it_demo.hdf5", "turn_it_demo.hdf5")):
        if folder.name == "openvla":
            synthetic.write_openvla(folder / name, lengths=(9, 12, 5), seed=seed)
        elif folder.name == "robomimic":
            synthetic.write_robomimic(folder / name, lengths=(9, 7, 8), size=20, seed=seed)
        else:
            synthetic.write_libero(folder / name, lengths=(9, 11), depth=True, seed=seed, n_states=20 + seed)
    return folder


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A store of some sources: made once, whoever asks for it."""
    return cache(partial(make_store, tmp_path_factory))


@pytest.fixture(scope="session", params=STORES, ids=name_of)
def converted(request: pytest.FixtureRequest, make: Make) -> Converted:
    return make(*request.param)


def make_store(tmp_path_factory: pytest.TempPathFactory, sources: Path, profile: Profile) -> Converted:
    if sources in GENERATED:
        sources = generate(tmp_path_factory.mktemp("sources") / sources)
    if not sources.is_dir():
        pytest.skip(f"no source files: {sources} is not there")
    store = tmp_path_factory.mktemp("readers") / "a.zarr"
    convert(sources, store, profile=profile, workers=0)
    return Converted(store, sources)


def through_tensorstore(store: Path) -> Read:
    def read(path: str) -> Array:
        kvstore = {"driver": "file", "path": f"{store / path}/"}
        array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True, open=True).result()
        return np.asarray(array.read().result())

    return read


def through_zarr(store: Path) -> Read:
    return lambda path: np.asarray(zarr.open_array(store / path, mode="r", zarr_format=3)[...])


READERS = [
    pytest.param(through_tensorstore, id="tensorstore"),
    pytest.param(through_zarr, id="zarr-python", marks=pytest.mark.slow(reason="the same arrays by a second reader")),
]


def attributes(store: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((store / "zarr.json").read_text())["attributes"]["robozarr"]
    return value


def texts(read: Read, path: str) -> list[bytes]:
    offsets, data = read(f"{path}/offsets").tolist(), read(f"{path}/bytes").tobytes()
    return [data[start:stop] for start, stop in pairwise(offsets)]


def demos(converted: Converted, read: Read) -> Iterator[tuple[int, slice, Any]]:
    """Episode, its rows, and the open HDF5 group that it comes from."""
    files = sorted(converted.sources.rglob("*.hdf5"))
    names = [source["name"] for source in attributes(converted.store)["sources"]]
    by_name = {name: path for name in names for path in files if str(path).endswith(f"/{name}")}
    assert sorted(by_name.values()) == files
    columns = [read(f"episodes/{column}").tolist() for column in ("source", "start", "length")]
    n_demos = 0
    for episode, (source, start, length, demo) in enumerate(zip(*columns, texts(read, "episodes/demo"), strict=True)):
        with h5py.File(by_name[names[source]], "r") as file:
            yield episode, slice(start, start + length), file["data"][demo.decode()]
            n_demos += 1
    assert n_demos == sum(count_demos(path) for path in files)


@cache
def count_demos(path: Path) -> int:
    with h5py.File(path, "r") as file:
        return len(file["data"])


def datasets(group: Any) -> set[str]:
    found: set[str] = set()
    group.visititems(lambda path, item: found.add(path) if isinstance(item, h5py.Dataset) else None)
    return found


def same_bits(got: Array, expected: Array) -> bool:
    return (got.dtype, got.shape) == (expected.dtype, expected.shape) and got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("reader", READERS)
def test_every_bit_of_every_demo(converted: Converted, reader: Callable[[Path], Read]) -> None:
    read, keys = reader(converted.store), attributes(converted.store)["keys"]
    plain = {key["name"]: read(f"steps/{key['name']}") for key in keys if not key["ragged"]}
    ragged = {
        key["name"]: (read(f"ragged/{key['name']}/offsets"), read(f"ragged/{key['name']}/values"))
        for key in keys
        if key["ragged"]
    }
    assert set(ragged) == {"states"}
    model_files, init_offsets = texts(read, "episodes/model_file"), read("episodes/init_state/offsets")
    init_states = read("episodes/init_state/values")
    for episode, rows, demo in demos(converted, read):
        left_out = {entry["path"] for entry in attributes(converted.store)["not_stored"]}
        assert all(path.startswith("next_obs/") for path in left_out)
        assert datasets(demo) - left_out == {key["source"] for key in keys}
        for key in keys:
            expected = demo[key["source"]][()]
            if key["ragged"]:
                offsets, values = ragged[key["name"]]
                assert np.unique(np.diff(offsets[rows.start : rows.stop + 1])).tolist() == [expected.shape[1]]
                got = values[offsets[rows.start] : offsets[rows.stop]].reshape(expected.shape)
            else:
                got = plain[key["name"]][rows]
            assert same_bits(got, expected), (demo.file.filename, demo.name, key["name"])
        assert model_files[episode] == demo.attrs.get("model_file", "").encode()
        start, stop = init_offsets[episode : episode + 2]
        assert same_bits(init_states[start:stop], demo.attrs.get("init_state", np.empty(0)))


@pytest.mark.parametrize("reader", READERS)
def test_index_and_tables(converted: Converted, reader: Callable[[Path], Read]) -> None:
    read, facts = reader(converted.store), attributes(converted.store)
    length = read("episodes/length")
    assert read("index/episode").tolist() == np.repeat(np.arange(facts["n_episodes"]), length).tolist()
    assert read("index/step").tolist() == np.concatenate([np.arange(n) for n in length]).tolist()
    assert len(read("index/flags")) == facts["n_steps"] == length.sum()
    bddl, tasks = texts(read, "tasks/bddl"), read("episodes/task")
    for episode, _, demo in demos(converted, read):
        assert bddl[tasks[episode]] == demo.parent.attrs.get("bddl_file_content", "").encode()


ALONE = """
import hashlib, json, sys
sys.modules["robozarr"] = None  # any import of it fails
import numpy as np, xarray, zarr

def fact(dims, values):
    values = np.ascontiguousarray(values)
    return [list(dims), str(values.dtype), list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()]

def facts(store):
    found = {"xarray": {}, "zarr": {}}
    for folder in ("steps", "index"):
        dataset = xarray.open_zarr(f"{store}/{folder}", consolidated=False, chunks=None)
        group = zarr.open_group(f"{store}/{folder}", mode="r", zarr_format=3)
        if folder == "steps":
            lazy = xarray.open_zarr(f"{store}/{folder}", consolidated=False)["actions"]  # in Dask's chunks
            assert lazy.chunks and np.array_equal(lazy.values, group["actions"][...])
        for name, variable in dataset.variables.items():
            found["xarray"][f"{folder}/{name}"] = fact(variable.dims, variable.values)
        for name, array in group.arrays():
            found["zarr"][f"{folder}/{name}"] = fact(array.metadata.dimension_names, array[...])
    return found

print(json.dumps([facts(store) for store in sys.argv[1:]]))
assert not [name for name in sys.modules if name.startswith("robozarr.")]
"""


@pytest.mark.parametrize(
    "stores",
    [
        pytest.param(
            [(SAMPLE, "raw"), (SAMPLE, "fast")],
            id="sample",
            marks=pytest.mark.slow(reason="a process of its own"),
        ),
        pytest.param([(REAL, "fast")], id="data", marks=pytest.mark.slow(reason="all whole files, in a process of its own")),
    ],
)
def test_an_environment_without_robozarr(stores: list[tuple[Path, Profile]], make: Make, tmp_path: Path) -> None:
    """`-I` leaves PYTHONPATH and the working folder out; every warning is an error."""
    converted = [make(*each) for each in stores]
    command = [sys.executable, "-I", "-W", "error", "-c", ALONE, *(str(each.store) for each in converted)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for each, found in zip(converted, json.loads(done.stdout), strict=True):
        expected = facts_of_sources(each)
        assert found["zarr"] == expected
        assert found["xarray"] == expected


def facts_of_sources(converted: Converted) -> dict[str, Any]:
    """Dimensions, type, shape and hash of each array, as it should be."""
    facts, read = attributes(converted.store), through_tensorstore(converted.store)
    keys = {key["name"]: key for key in facts["keys"] if not key["ragged"]}
    hashes = {name: hashlib.sha256() for name in keys}
    for _, _, demo in demos(converted, read):
        for name, key in keys.items():
            hashes[name].update(demo[key["source"]][()].tobytes())
    expected = {}
    for name, key in keys.items():
        dims = ["step", *(f"{name}_{axis}" for axis in {3: "yxc", 1: "i", 0: ""}[len(key["shape"])])]
        expected[f"steps/{name}"] = [dims, key["dtype"], [facts["n_steps"], *key["shape"]], hashes[name].hexdigest()]
    for name, dtype in {"episode": "int32", "step": "int32", "flags": "uint8"}.items():
        digest = hashlib.sha256(read(f"index/{name}").tobytes()).hexdigest()
        expected[f"index/{name}"] = [["step"], dtype, [facts["n_steps"]], digest]
    return expected
