"""etcetera.dataset: names, validation and access."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcetera.dataset import Dataset, check_name, check_partition
from etcetera.errors import (
    DirectoryNotFound,
    InvalidDataset,
    InvalidName,
    NotFound,
    PartitionNotFound,
)


@pytest.fixture
def flower(tmp_path: Path) -> Path:
    """A dataset with two partitions, meta data and assets."""
    root = tmp_path / "flower"
    for partition in ("train", "test"):
        (root / "data" / partition).mkdir(parents=True)
    (root / "meta.json").write_text('{"classes": ["rose", "tulip"]}')
    (root / "assets").mkdir()
    return root


def test_mapping(flower: Path) -> None:
    """A dataset maps partition names to directories, sorted."""
    dataset = Dataset(flower)
    assert dataset.keys() == {"train", "test"}
    assert isinstance(dataset.keys(), set)
    assert dataset.partitions() == ["test", "train"] == list(dataset)
    assert dict(dataset.items()) == {name: flower / "data" / name for name in ("train", "test")}
    assert list(dataset.values()) == [flower / "data/test", flower / "data/train"]
    assert len(dataset) == 2
    assert dataset["train"] == flower / "data" / "train"
    assert "train" in dataset
    assert dataset.get("train") == dataset["train"]
    assert dataset.get("valid") is None
    assert issubclass(Dataset, Mapping)


def test_places(flower: Path) -> None:
    """Where things are, and what the dataset says about itself."""
    dataset = Dataset(str(flower))
    assert dataset.root == dataset.location == flower
    assert dataset.data == flower / "data"
    assert dataset.file("assets", "x") == flower / "assets" / "x"
    assert dataset.name == "flower"
    assert Dataset(flower, name="rose").name == "rose"
    assert dataset.meta == {"classes": ["rose", "tulip"]}
    assert repr(dataset) == f"Dataset({str(flower)!r}, name='flower')"
    assert str(dataset) == "flower"


def test_no_meta(flower: Path) -> None:
    """Without meta.json there is an empty dict."""
    (flower / "meta.json").unlink()
    assert Dataset(flower).meta == {}


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, b"\xff", "1" * 5000])
def test_invalid_meta(flower: Path, text: str | bytes) -> None:
    """A meta.json that is no JSON object is an error that names the file."""
    content = text.encode() if isinstance(text, str) else text
    (flower / "meta.json").write_bytes(content)
    with pytest.raises(InvalidDataset, match=r"flower/meta\.json"):
        Dataset(flower)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":[' + "1," * 400_000 + "1]}",
        "{" + ",".join(f'"{i:x}":0' for i in range(110_000)) + "}",
        '{"a":[' + "{}," * 250_000 + "1]}",
        '{"a":"' + "x" * (1 << 20) + '"}',
        '{"a":' * 110 + "1" + "}" * 110,
    ],
)
def test_meta_that_would_keep_everybody_waiting(flower: Path, text: str) -> None:
    """A meta.json with more in it than anybody needs is refused, and what to do is said."""
    (flower / "meta.json").write_text(text)
    with pytest.raises(InvalidDataset, match=r"flower/meta\.json .* below assets/"):
        Dataset(flower)


def test_large_meta(flower: Path) -> None:
    """What is large for people is not too large."""
    meta = {
        "classes": [f"class {i}" for i in range(50_000)],
        "deep": json.loads("[" * 90 + "]" * 90),
    }
    (flower / "meta.json").write_text(json.dumps(meta))
    assert Dataset(flower).meta == meta


def test_meta_by_a_link(flower: Path, tmp_path: Path) -> None:
    """A link in the dataset is followed, and none out of it."""
    (flower / "assets").mkdir(exist_ok=True)
    (flower / "meta.json").rename(flower / "assets" / "x.json")
    (flower / "meta.json").symlink_to("assets/x.json")
    assert Dataset(flower).meta == {"classes": ["rose", "tulip"]}
    (tmp_path / "secret").write_text('{"a": 1}')
    for target in (tmp_path / "secret", "../secret"):
        (flower / "meta.json").unlink()
        (flower / "meta.json").symlink_to(target)
        with pytest.raises(InvalidDataset, match=r"flower/meta\.json' is a link"):
            Dataset(flower)


def test_meta_that_is_no_file(flower: Path) -> None:
    """What is no file is not waited for."""
    (flower / "meta.json").unlink()
    os.mkfifo(flower / "meta.json")
    assert Dataset(flower).meta == {}


@pytest.mark.parametrize(
    "partition",
    ["valid", "", ".", "..", "../assets", "/", "train/", "train/x", "a\0b", "x" * 5000, 3],
)
def test_unknown_partition(flower: Path, partition: str) -> None:
    """An unknown partition is a ValueError and a KeyError, and no name leads out of data/."""
    (flower / "data/train/x").mkdir()
    dataset = Dataset(flower)
    assert partition not in dataset
    assert dataset.get(partition) is None
    for error in (PartitionNotFound, ValueError, KeyError):
        with pytest.raises(error) as caught:
            dataset[partition]
        assert str(caught.value).startswith(
            f"Partition {partition} does not exist in dataset flower"
        )


def test_partition_link(flower: Path) -> None:
    """A partition may be a link to another directory of the dataset."""
    (flower / "data/valid").symlink_to("test")
    assert Dataset(flower)["valid"] == flower / "data/valid"
    assert len(Dataset(flower)) == 3


def test_messages(tmp_path: Path) -> None:
    """Each way not to be a dataset has the message that scripts look for."""

    def complaint() -> str:
        with pytest.raises(ValueError) as caught:
            Dataset.validate(root)
        assert isinstance(caught.value, InvalidDataset)
        with pytest.raises(InvalidDataset):
            Dataset(root)
        return str(caught.value)

    root = tmp_path / "x"
    assert complaint() == f"Directory {root} does not exist"
    root.mkdir()
    missing = f'Directory {root} is not a dataset: expect "data/" subdirectory to exist; make one'
    assert complaint().startswith(missing)
    (root / "data").write_text("")
    assert complaint().startswith(missing)
    (root / "data").unlink()
    (root / "data").mkdir()
    assert complaint().startswith(
        f'Directory {root} is not a dataset: "data/" must have at least one partition in it; make'
    )
    (root / "data" / "file").write_text("")
    assert complaint() == (
        f'Directory {root} is not a dataset: "data/" must have only partition subdirectories, '
        f"seen: {root / 'data' / 'file'}"
    )
    (root / "data" / "file").unlink()
    (root / "data" / "train").mkdir()
    Dataset.validate(root)


def test_missing_directory(tmp_path: Path) -> None:
    """A directory that is not there is something not found, and still a ValueError."""
    for opened in (Dataset, Dataset.validate):
        with pytest.raises(DirectoryNotFound, match="does not exist") as caught:
            opened(tmp_path / "nowhere")
        assert isinstance(caught.value, NotFound)
        assert isinstance(caught.value, InvalidDataset)
        assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", [".hidden", ".ipynb_checkpoints"])
def test_hidden_partitions(flower: Path, name: str) -> None:
    """What a tool has hidden in data/ is no partition, and has to go."""
    dataset = Dataset(flower)
    (flower / "data" / name).mkdir()
    with pytest.raises(InvalidDataset, match=f'"data/{name}" is hidden.* delete it') as caught:
        Dataset(flower)
    assert type(caught.value) is InvalidDataset
    assert dataset.keys() == {"train", "test"}
    assert name not in dataset
    with pytest.raises(PartitionNotFound):
        dataset[name]


def test_equality(flower: Path, tmp_path: Path) -> None:
    """The same directory is the same dataset, however it was reached."""
    (tmp_path / "link").symlink_to(flower)
    assert Dataset(flower) == Dataset(tmp_path / "link", name="other")
    assert {Dataset(flower), Dataset(flower)} == {Dataset(flower)}
    assert Dataset(flower) != str(flower)


def test_registered(flower: Path, tmp_path: Path) -> None:
    """A link is followed once: replacing it later does not mix two datasets."""
    link = tmp_path / "rose"
    link.symlink_to(flower)
    dataset = Dataset(link, name="rose")
    assert dataset.location == flower
    link.unlink()
    assert dataset.partitions() == ["test", "train"]


def test_broken_link(tmp_path: Path) -> None:
    """RG-04: a link to nothing says so, and how to go on."""
    link = tmp_path / "rose"
    link.symlink_to(tmp_path / "gone")
    with pytest.raises(
        InvalidDataset, match=rf"^Directory {tmp_path}/gone does not exist"
    ) as error:
        Dataset(link)
    assert "etc purge rose" in str(error.value)
    assert "etc register" in str(error.value)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(InvalidDataset, match="does not exist"):
        Dataset(link)


@pytest.mark.parametrize(
    "name", ["MNIST", "a", "a.b-c_d", "Blumen äöü", "花", "a@b+c=d,e", "x" * 200, "~", "CON", "a'b"]
)
def test_good_names(name: str) -> None:
    """Ordinary names of any script are fine."""
    assert check_name(name) == name
    assert check_partition(name) == name


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "empty"),
        (".", r"begin with '\.'"),
        ("..", r"begin with '\.'"),
        (".etcetera", r"begin with '\.'"),
        ("../x", r"'/'"),
        ("a/b", r"'/'"),
        ("/", r"'/'"),
        ("a\\b", r"'\\'"),
        ("a\0b", "nobody sees"),
        ("a\nb", "nobody sees"),
        ("a\x1b[31m", "nobody sees"),
        ("a\x85b", "nobody sees"),
        ("a\u2028b", "nobody sees"),
        ("x" * 201, "201 bytes"),
        ("花" * 67, "201 bytes"),
        ("a\udcff", "not valid Unicode"),
        (None, "must be a string"),
        (Path("x"), "must be a string"),
        (b"x", "must be a string"),
    ],
)
def test_bad_components(name: str, complaint: str) -> None:
    """What is not one visible component is refused, with the reason and nothing unprintable."""
    for check in (check_name, check_partition):
        with pytest.raises(InvalidName, match=complaint) as caught:
            check(name)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["-f", "--force", "lab:MNIST", " x", "x ", "\u00a0x"])
def test_bad_dataset_names(name: str) -> None:
    """Partitions may be called what would confuse a command line, datasets may not."""
    with pytest.raises(InvalidName):
        check_name(name)
    assert check_partition(name) == name


@given(st.text())
def test_accepted_names_are_safe(name: str) -> None:
    """Whatever is accepted is one component below the home, and fits the file system."""
    try:
        check_name(name)
    except InvalidName:
        return
    path = Path("/home/etc") / name
    assert path.parent == Path("/home/etc")
    assert path.name == name
    assert 0 < len(name.encode()) <= 200
    assert not any(ord(character) < 32 for character in name)


@pytest.mark.parametrize("after", ["gone", "replaced", "damaged"])
def test_taken_away_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """A dataset that a purge takes away while it is looked at is one that is not there."""
    path = tmp_path / "rose"
    (path / "data" / "train").mkdir(parents=True)
    honest = Path.is_dir

    def is_dir(looked_at: Path) -> bool:
        monkeypatch.setattr(Path, "is_dir", honest)
        path.rename(tmp_path / "trash")
        if after != "gone":
            (path / "data" / ("train" if after == "replaced" else "")).mkdir(parents=True)
        return honest(looked_at)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    if after == "replaced":
        Dataset.validate(path)
    else:
        with pytest.raises(InvalidDataset) as caught:
            Dataset.validate(path)
        assert isinstance(caught.value, DirectoryNotFound) == (after == "gone")
