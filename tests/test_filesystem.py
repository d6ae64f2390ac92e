"""``etc://``: what pandas, pyarrow and fsspec itself read through it."""

import io
import pickle
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import etcetera as etc
from etcetera.errors import DatasetNotFound, PathNotFound
from etcetera.filesystem import EtceteraFileSystem
from etcetera.stores.memory import memory_store

ROWS = 200_000


def table(seed: int) -> pd.DataFrame:
    """Numbers that do not compress, and words that do."""
    chance = random.Random(seed)
    return pd.DataFrame(
        {
            "number": [chance.random() for _ in range(ROWS)],
            "word": [chance.choice(["rose", "tulip", "naïve ☃"]) for _ in range(ROWS)],
        }
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of tables."""
    root = tmp_path_factory.mktemp("tables") / "tables"
    for partition in ("train", "val"):
        (root / "data" / partition).mkdir(parents=True)
    for number in range(2):
        frame = table(number)
        path = root / "data" / "train" / f"{number}.parquet"
        pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=20_000)
    table(2).head(5000).to_csv(root / "data" / "val" / "x.csv", index=False)
    (root / "data" / "val" / "link.csv").symlink_to("x.csv")
    (root / "README.md").write_text("# Tables\n")
    return root


@pytest.fixture
def config(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[etc.Config]:
    """A repository that has it, both as the default one and as the one called lab."""
    url = f"memory://{secrets.token_hex(8)}"
    file = tmp_path / "etc.toml"
    file.write_text(f'url = "{url}"\nhome = "{tmp_path}/home"\n[repositories.lab]\nurl = "{url}"\n')
    monkeypatch.setenv("ETC_CONFIG", str(file))
    config = etc.Config.load()
    etc.register(root, config=config)
    etc.push("tables", config=config)
    EtceteraFileSystem.clear_instance_cache()
    yield config
    for files in EtceteraFileSystem._cache.values():
        files.invalidate_cache()
    EtceteraFileSystem.clear_instance_cache()


def test_pandas_reads_csv(config: etc.Config, root: Path) -> None:
    """A URL is enough; nothing of etcetera has to be imported."""
    expected = pd.read_csv(root / "data" / "val" / "x.csv")
    for url in (
        "etc://tables/data/val/x.csv", "etc://tables/data/val/link.csv",
        "etc://lab:tables/data/val/x.csv",
    ):  # fmt: skip
        pd.testing.assert_frame_equal(pd.read_csv(url), expected)


def test_pandas_reads_parquet(config: etc.Config) -> None:
    """So it is for a parquet file, of which a column costs no more than its frames."""
    url = "etc://tables/data/train/1.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(url), table(1))
    store = memory_store(str(config.url))
    before = store.bytes_read
    words = pd.read_parquet(url, columns=["word"], engine="pyarrow")
    assert words["word"].tolist() == table(1)["word"].tolist()
    size = store.objects["tables.tgz"][0].size
    assert store.bytes_read - before < size  # of both files and the rest


def test_pyarrow_reads_parquet(config: etc.Config) -> None:
    """A file is read through pyarrow's own interface, and a directory as one dataset."""
    files = fsspec.filesystem("etc")
    found = pq.read_table("tables/data/train/0.parquet", filesystem=files)
    pd.testing.assert_frame_equal(found.to_pandas(), table(0))
    whole = pyarrow.dataset.dataset("tables/data/train", format="parquet", filesystem=files)
    assert whole.count_rows() == 2 * ROWS
    few = whole.to_table(filter=pyarrow.dataset.field("number") < 0.001, columns=["number"])
    expected = sum((table(seed)["number"] < 0.001).sum() for seed in range(2))
    assert few.num_rows == expected


def test_listing(config: etc.Config, root: Path) -> None:
    """Datasets, directories and files, as fsspec wants them."""
    files = fsspec.filesystem("etc")
    assert files.ls("etc://", detail=False) == ["tables"]
    assert files.ls("etc://tables", detail=False) == ["tables/README.md", "tables/data"]
    assert files.ls("tables/data/val", detail=False) == [
        "tables/data/val/link.csv", "tables/data/val/x.csv",
    ]  # fmt: skip
    assert files.ls("tables/README.md", detail=False) == ["tables/README.md"]
    assert sorted(files.glob("etc://tables/data/*/*.parquet")) == [
        "tables/data/train/0.parquet", "tables/data/train/1.parquet",
    ]  # fmt: skip
    info = files.info("etc://tables/data/val/x.csv")
    assert (info["type"], info["size"]) == ("file", (root / "data/val/x.csv").stat().st_size)
    modified = files.modified("tables/README.md").timestamp()
    assert modified == int((root / "README.md").stat().st_mtime)
    assert files.isdir("tables") and files.isdir("tables/data") and files.isfile("tables/README.md")
    assert not files.exists("tables/nothing")
    for path in ("tables/nothing", "tables/data/nothing/x"):
        with pytest.raises(PathNotFound):
            files.info(path)
        with pytest.raises(FileNotFoundError):
            files.open(path)
    with pytest.raises(DatasetNotFound):
        files.ls("etc://nothing")


def test_reading(config: etc.Config, root: Path) -> None:
    """Whole files, pieces of them, text, and several at once."""
    content = (root / "data/train/0.parquet").read_bytes()
    files = fsspec.filesystem("etc")
    path = "tables/data/train/0.parquet"
    assert files.cat_file(path) == content
    assert files.cat_file(path, 10, 20) == content[10:20]
    assert files.cat_file(path, -20, -10) == content[-20:-10]
    assert files.cat_file(path, start=-9) == content[-9:]
    assert files.cat_file(path, end=5) == content[:5]
    assert files.head(path, 7) == content[:7]
    assert files.tail(path, 7) == content[-7:]
    with fsspec.open("etc://tables/README.md", "rt") as text:
        assert text.read() == "# Tables\n"
    with files.open(path) as file:
        assert isinstance(file, io.BufferedReader)
        file.seek(1000)
        assert file.read(10) == content[1000:1010]


def test_ranges_are_coalesced(config: etc.Config, root: Path) -> None:
    """Ranges near each other cost one request, and each gets its own bytes."""
    content = (root / "data/train/0.parquet").read_bytes()
    files = fsspec.filesystem("etc")
    path = "tables/data/train/0.parquet"
    files.cat_file(path, 0, 1)
    store = memory_store(str(config.url))
    before = store.calls["read"]
    starts = [5000, 0, 900, 2000]
    ends = [6000, 10, 1000, 2001]
    found = files.cat_ranges([path] * 4, starts, ends)
    assert found == [content[start:end] for start, end in zip(starts, ends, strict=True)]
    assert store.calls["read"] - before == 1
    missing, present = files.cat_ranges(["tables/nothing", path], 0, 4)
    assert isinstance(missing, FileNotFoundError)
    assert present == content[:4]
    with pytest.raises(FileNotFoundError):
        files.cat_ranges(["tables/nothing"], 0, 4, on_error="raise")


@pytest.mark.parametrize(
    "write",
    [
        lambda files: files.open("etc://tables/new", "wb"),
        lambda files: files.rm("etc://tables/README.md"),
        lambda files: files.mkdir("etc://tables/new"),
        lambda files: files.pipe_file("etc://tables/new", b""),
        lambda files: files.mv("etc://tables/README.md", "etc://tables/new"),
        lambda files: files.touch("etc://tables/new"),
    ],
)
def test_read_only(write: object, config: etc.Config) -> None:
    """What would change something is refused, and says what does make a dataset."""
    assert callable(write)
    with pytest.raises(PermissionError, match="only be read"):
        write(fsspec.filesystem("etc"))


def test_another_version(config: etc.Config, root: Path, tmp_path: Path) -> None:
    """A dataset stays the version it was until the cache is invalidated."""
    files = fsspec.filesystem("etc")
    assert files.cat_file("tables/README.md") == b"# Tables\n"
    (tmp_path / "new" / "data" / "train").mkdir(parents=True)
    (tmp_path / "new" / "README.md").write_text("# New\n")
    etc.register(tmp_path / "new", "tables", force=True, config=config)
    etc.push("tables", force=True, config=config)
    files.invalidate_cache("etc://tables")
    assert files.cat_file("tables/README.md") == b"# New\n"
    files.invalidate_cache()


def test_pickled(config: etc.Config) -> None:
    """Workers get a file system of their own."""
    files = pickle.loads(pickle.dumps(EtceteraFileSystem(config)))  # noqa: S301
    assert files.cat_file("tables/README.md") == b"# Tables\n"


def test_links_that_lead_upwards(tmp_path: Path, config: etc.Config) -> None:
    """Walking a tree follows no links to directories, and ends."""
    root = tmp_path / "loop"
    for name in ("a", "b"):
        (root / "data" / "train" / name).mkdir(parents=True)
        (root / "data" / "train" / name / "up").symlink_to("..")
        (root / "data" / "train" / name / "x").write_text(name)
    etc.register(root, config=config)
    etc.push("loop", config=config)
    files = fsspec.filesystem("etc")
    assert files.find("loop") == ["loop/data/train/a/x", "loop/data/train/b/x"]
    assert files.info("loop/data/train/a/up/b/up")["type"] == "directory"
    assert files.cat("loop/data/train/a/up/b/x") == b"b"
