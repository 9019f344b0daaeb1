"""HDF5 files: demos by number, attributes to the last bit, what lies beside the demos, and one error for every damage."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from robozarr.convert.sources.hdf5 import SourceFile, find_sources
from robozarr.convert.sources.scan import scan_file
from robozarr.schemas.errors import SourceError
from robozarr.schemas.index import FlagRules

Edit = Callable[[Any], object]


def a_file(path: Path, edit: Edit | None = None, demos: tuple[str, ...] = ("demo_0",)) -> Path:
    with h5py.File(path, "w") as file:
        for demo in demos:
            file[f"data/{demo}/actions"] = np.zeros((3, 7))
        if edit is not None:
            edit(file)
    return path


# --- finding files ---


def test_sources_are_found_once_and_sorted(tmp_path: Path) -> None:
    for name in ("b.hdf5", "a.h5", "sub/c.hdf5", "sub/notes.txt", "sub.hdf5/d.hdf5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(tmp_path / name) for name in ("a.h5", "b.hdf5", "sub/c.hdf5", "sub.hdf5/d.hdf5")]
    everything = [Path(name) for name in sorted(names, key=Path)]
    assert find_sources([tmp_path]) == everything
    assert find_sources([f"{tmp_path}/**/*.h*5"])[0] == everything[0]
    assert find_sources([tmp_path, tmp_path / "b.hdf5", f"{tmp_path}/*.h5", tmp_path / "sub" / ".." / "b.hdf5"]) == everything
    assert find_sources([tmp_path / "sub" / "notes.txt"]) == [tmp_path / "sub" / "notes.txt"]  # named: taken


def test_a_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1].hdf5").touch()
    assert find_sources([tmp_path / "a[1].hdf5"]) == [tmp_path / "a[1].hdf5"]


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    """Hugging Face's cache links put_the_bowl_demo.hdf5 to blobs/<sha>; the task is read from the name."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "libero_goal").mkdir()
    (tmp_path / "blobs" / "5d41402a").touch()
    link = tmp_path / "libero_goal" / "put_the_bowl_demo.hdf5"
    link.symlink_to(tmp_path / "blobs" / "5d41402a")
    assert find_sources([tmp_path / "libero_goal"]) == [link]
    assert find_sources([link]) == [link]


def test_a_link_to_nothing_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "b.hdf5").symlink_to(tmp_path / "gone")
    (path,) = find_sources([tmp_path])
    (problem,) = scan_file(str(path), FlagRules()).problems
    assert "b.hdf5: the file cannot be read; found No such file or directory → check path and rights" in str(problem)


def test_folders_are_followed_through_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.hdf5").touch()
    (tmp_path / "suite" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "suite")
    assert find_sources([tmp_path / "suite"]) == [tmp_path / "suite" / "more" / "a.hdf5"]


def test_every_source_that_leads_nowhere_is_listed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "good.hdf5").touch()
    missing: list[str | Path] = [tmp_path / "empty", tmp_path / "gone.hdf5", f"{tmp_path}/*.zip"]
    with pytest.raises(SourceError, match=r"^sources not found:\n") as caught:
        find_sources([tmp_path / "good.hdf5", *missing])
    assert [problem.file for problem in caught.value.problems] == [str(source) for source in missing]
    assert [problem.rule for problem in caught.value.problems] == [
        "a folder must hold *.hdf5 or *.h5 files, or be a LeRobot data set or a ReplayBuffer",
        *["a source must be a file, a folder, or a pattern that matches files"] * 2,
    ]
    assert all(problem.value and problem.remedy for problem in caught.value.problems)


# --- demos and datasets ---


@settings(max_examples=25)
@given(numbers=st.lists(st.integers(0, 300), min_size=1, max_size=15, unique=True))
def test_demos_stand_by_number_with_gaps(numbers: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = a_file(Path(folder, "a.hdf5"), demos=tuple(f"demo_{number}" for number in numbers))
        with SourceFile(path) as source:
            assert source.demo_names() == [f"demo_{number}" for number in sorted(numbers)]


def test_datasets_are_described(tmp_path: Path) -> None:
    def edit(file: Any) -> None:
        demo = file["data/demo_0"]
        for name, dtype in (
            ("a/big", ">f8"),
            ("a/half", "f2"),
            ("a/flag", "?"),
            ("a/long", "f16"),
            ("a/name", "S3"),
            ("a/pair", "i4,f8"),
        ):
            demo[name] = np.zeros((3, 2), dtype)
        demo["one"] = 5
        demo["none"] = h5py.Empty("f4")

    with SourceFile(a_file(tmp_path / "a.hdf5", edit)) as source:
        found = {info.path: (info.shape, info.dtype) for info in source.datasets("demo_0")}
    kinds = {"a/big": "float64", "a/half": "float16", "a/flag": "bool", "a/long": None, "a/name": None, "a/pair": None}
    rest = {"actions": ((3, 7), "float64"), "one": ((), "int64"), "none": ((), "float32")}
    assert found == {name: ((3, 2), kind) for name, kind in kinds.items()} | rest


@pytest.mark.parametrize("link", [lambda demo: demo["obs/pos"], lambda demo: h5py.SoftLink(f"{demo.name}/obs/pos")])
def test_a_dataset_of_two_names_has_both(tmp_path: Path, link: Callable[[Any], Any]) -> None:
    def edit(file: Any) -> None:
        demo = file["data/demo_0"]
        demo["obs/pos"] = np.zeros((3, 2))
        demo["obs/alias"] = link(demo)

    with SourceFile(a_file(tmp_path / "a.hdf5", edit)) as source:
        assert [info.path for info in source.datasets("demo_0")] == ["actions", "obs/alias", "obs/pos"]


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<i2", ">u4", "?", "<f2"])
@pytest.mark.parametrize("packed", [{}, {"compression": "gzip", "chunks": (2, 1)}])
def test_rows_are_read_in_native_order(tmp_path: Path, dtype: str, packed: dict[str, Any]) -> None:
    values = np.random.default_rng(0).integers(0, 2, (9, 3)).astype(dtype)
    with SourceFile(
        a_file(tmp_path / "a.hdf5", lambda file: file["data/demo_0"].create_dataset("x", data=values, **packed))
    ) as source:
        whole, part = source.read("demo_0", "x"), np.empty((4, 3), whole_dtype := values.dtype.newbyteorder("="))
        assert whole.dtype == whole_dtype
        assert whole.tolist() == values.tolist()
        assert source.read_rows("demo_0", "x", 2, 6, part) is part
        assert part.tolist() == values[2:6].tolist()
        assert source.read_rows("demo_0", "x", 3, 3).shape == (0, 3)
        assert source.width("demo_0", "x") == 3


def test_a_broken_chunk_names_demo_and_key(tmp_path: Path) -> None:
    path = a_file(
        tmp_path / "a.hdf5", lambda file: file["data/demo_0"].create_dataset("x", data=np.arange(99), compression="gzip")
    )
    with h5py.File(path) as file:
        chunk = file["data/demo_0/x"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * 20)
    with (
        SourceFile(path) as source,
        pytest.raises(SourceError, match=r"a\.hdf5 · demo_0 · x: steps 5 to 9 cannot be read; found .*leave the demo out"),
    ):
        source.read_rows("demo_0", "x", 5, 9)


def test_a_broken_dataset_is_no_link_to_nowhere(tmp_path: Path) -> None:
    path = a_file(tmp_path / "a.hdf5", lambda file: file["data/demo_0"].create_dataset("x", data=np.arange(3)))
    with h5py.File(path) as file:
        header = h5py.h5o.get_info(file["data/demo_0/x"].id).addr
    with path.open("r+b") as raw:
        raw.seek(header)
        raw.write(bytes(16))
    with SourceFile(path) as source, pytest.raises(SourceError, match=r"a\.hdf5 .*demo_0"):
        source.datasets("demo_0")


# --- attributes ---

numbers = hnp.arrays(
    st.sampled_from(["?", "i1", "u2", ">i4", "i8", "u8", "f2", "f4", ">f8"]).map(np.dtype),
    hnp.array_shapes(min_dims=0, max_dims=2, max_side=4),
)
texts = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=20)


def read_back(attribute: dict[str, Any]) -> NDArray[Any]:
    values = [float(x) if isinstance(x, str) else x for x in attribute["value"]]
    return np.array(values, attribute["dtype"]).reshape(attribute["shape"])


@examples(40)
@given(values=st.lists(numbers, min_size=1, max_size=3), words=texts, listed=st.lists(texts, min_size=1, max_size=3))
def test_attributes_are_kept_to_the_last_bit(values: list[NDArray[Any]], words: str, listed: list[str]) -> None:
    def edit(file: Any) -> None:
        at = file["data/demo_0/actions"].attrs
        for number, value in enumerate(values):
            at[f"v{number}"] = value
        at["words"] = words
        at.create("listed", listed, dtype=h5py.string_dtype())

    with tempfile.TemporaryDirectory() as folder, SourceFile(a_file(Path(folder, "a.hdf5"), edit)) as source:
        kept = json.loads(source.demo_attributes("demo_0")[0])["actions"]
    for number, value in enumerate(values):
        again = read_back(kept[f"v{number}"])
        native = value.astype(value.dtype.newbyteorder("="))
        assert (again.dtype.newbyteorder("="), again.shape) == (native.dtype, native.shape)
        np.testing.assert_array_equal(again, native)
        assert np.signbit(again).tolist() == np.signbit(native).tolist()
    assert kept["words"] == {"dtype": "text", "value": words}
    assert kept["listed"] == {"dtype": "text", "shape": [len(listed)], "value": listed}


def test_bytes_that_are_no_utf8_stay_apart(tmp_path: Path) -> None:
    def edit(file: Any) -> None:
        file["data"].attrs["fixed"] = np.bytes_(b"caf\xe9")
        file["data/demo_0"].attrs.create("model_file", b"<a>caf\xe9</a>", dtype=h5py.string_dtype("utf-8"))

    with SourceFile(a_file(tmp_path / "a.hdf5", edit)) as source:
        (text,) = json.loads(source.file_attributes()[0])["data"]["fixed"]["value"]
        assert text.encode("utf-8", "surrogateescape") == b"caf\xe9"
        assert source.text_attribute("demo_0", "model_file") == b"<a>caf\xe9</a>"
        assert source.text_attribute("demo_0", "nothing") == b""


RARE = [np.longdouble(1) / 3, 1 + 2j, h5py.Empty("f4"), np.void(b"abc"), np.array([(1, 2.0)], "i4,f8")]


@pytest.mark.parametrize("value", RARE, ids=["longdouble", "complex", "empty", "void", "compound"])
def test_rare_attributes_are_kept_or_listed(tmp_path: Path, value: Any) -> None:
    def edit(file: Any) -> None:
        file["data/demo_0"].attrs["rare"] = value

    with SourceFile(a_file(tmp_path / "a.hdf5", edit)) as source:
        kept, lost = source.demo_attributes("demo_0")
        assert ("rare" in json.loads(kept).get("", {})) is (lost == [])


def test_references_are_listed(tmp_path: Path) -> None:
    with SourceFile(
        a_file(tmp_path / "a.hdf5", lambda file: file["data"].attrs.create("best", file["data/demo_0"].ref))
    ) as source:
        assert source.file_attributes() == ("{}", ["data@best"])


def test_bulk_attributes_have_columns_of_their_own(tmp_path: Path) -> None:
    def edit(file: Any) -> None:
        file["data/demo_1/actions"] = np.zeros((2, 7))
        file["data/demo_0"].attrs.update({"model_file": "<a/>", "init_state": np.arange(3.0), "num_samples": 3})
        file["data/demo_1"].attrs.update({"model_file": 7, "init_state": np.arange(3, dtype=np.float32)})

    with SourceFile(a_file(tmp_path / "a.hdf5", edit)) as source:
        assert list(json.loads(source.demo_attributes("demo_0")[0])[""]) == ["num_samples"]
        assert list(json.loads(source.demo_attributes("demo_1")[0])[""]) == ["init_state", "model_file"]
        assert source.float_attribute("demo_0", "init_state").tolist() == [0, 1, 2]
        assert source.float_attribute("demo_0", "nothing").shape == (0,)


# --- beside the demos ---


def test_strays_and_masks_are_told_apart(tmp_path: Path) -> None:
    def edit(file: Any) -> None:
        file["mask/train"] = np.array([b"demo_0", b"demo_10"])
        file.create_dataset("mask/valid", data=["demo_2"], dtype=h5py.string_dtype())
        file["mask/weights"] = np.zeros(2)
        file["data/note"] = 3
        file["extra/x"] = np.zeros(2)
        file["alone"] = 1
        file["extra"].attrs["why"] = "nobody knows"
        file["data/note"].attrs["unit"] = "m"

    with SourceFile(a_file(tmp_path / "a.hdf5", edit)) as source:
        assert source.splits() == {"train": ["demo_0", "demo_10"], "valid": ["demo_2"]}
        assert sorted(source.strays()) == ["alone", "data/note", "extra/x", "mask/weights"]
        assert sorted(json.loads(source.file_attributes()[0])) == ["data/note", "extra"]
        assert source.demo_names() == ["demo_0"]


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = a_file(tmp_path / "a.hdf5")
    stat = path.stat()
    with SourceFile(path) as source:
        source.expect(stat.st_size, stat.st_mtime_ns)
        for size, mtime in ((stat.st_size + 1, stat.st_mtime_ns), (stat.st_size, stat.st_mtime_ns - 1)):
            with pytest.raises(
                SourceError, match=r"a source must not change while it is converted; found .* → start again with --overwrite"
            ):
                source.expect(size, mtime)
