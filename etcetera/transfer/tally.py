"""What an archive holds, added up and checked; and what of it is taken."""

from collections.abc import Container, Iterable

from etcetera.errors import CorruptArchive, NothingSelected, UnsafeArchive
from etcetera.transfer.digest import DatasetDigest, digest_row, kind_code
from etcetera.transfer.extract import Writer
from etcetera.transfer.index import Footer, Root, Segment
from etcetera.transfer.options import MiB
from etcetera.transfer.paths import order_key, partition_of
from etcetera.transfer.rows import Rows
from etcetera.transfer.scan import Fingerprint, Totals
from etcetera.transfer.selection import Selection, Unmatched, wanted_by
from etcetera.transfer.tar import Entry

Plain = tuple[list[bytes], int, tuple[int, int], dict[str, tuple[int, int]]]
"""A tally as plain values: rows, the sum of the fingerprint, totals, and those by partition."""


MOST_EXCESS = 64 * MiB
"""Of rows, for what is longer in them than ordinary paths: 4 KiB of one compress to a few bytes."""


class Tally:
    """What an archive holds: sums and digest; and what of it was taken."""

    def __init__(self, *, ordered: bool) -> None:
        self.total = Totals()
        self.partitions: dict[str, Totals] = {}
        self.taken = Totals()
        self.fingerprint = Fingerprint()
        """Of what was taken."""
        self.rows = Rows()
        """What the archive holds, unless it came in order."""
        self._digest = DatasetDigest()
        self._ordered = ordered

    @classmethod
    def of(cls, root: Root) -> "Tally":
        """For an index: rows are only collected if its segments overlap."""
        return cls(ordered=root.ordered)

    def add_segment(self, segment: Segment, taken: Container[int] | None = None) -> None:
        """Add the members of the next segment.

        Args:
            segment: The next one.
            taken: Where the members begin in the tar stream that are taken; by default all are.
        """
        members = segment.members
        if self._ordered:
            members = sorted(members, key=lambda member: order_key(member.entry.path))
        for member in members:
            self.add(member.entry, member.sha256, taken=taken is None or member.start in taken)

    def add(self, entry: Entry, sha256: str, *, taken: bool = True) -> None:
        """Add one member."""
        if taken:
            self.take(entry)
        if partition := partition_of(entry.path):
            totals = self.partitions.get(partition)
            if totals is None:
                totals = self.partitions[partition] = Totals()
            if entry.kind == "f":
                totals.add(entry.size)
        if entry.kind == "f":
            self.total.add(entry.size)
        if self._ordered:
            self._digest.add(entry.path, digest_row(entry, sha256))
        else:
            self.rows.add(entry, sha256)
            self._check_excess()

    def take(self, entry: Entry) -> None:
        """Count a member among what was taken."""
        kind = kind_code(entry)
        if kind in "fx":
            self.taken.add(entry.size)
        mtime = 0 if kind == "d" else entry.mtime * 1_000_000_000
        self.fingerprint.add(entry.path, kind, entry.size, mtime, entry.target)

    def plain(self) -> Plain:
        """What was added, all of it taken and in any order, for :meth:`merge`."""
        partitions = {name: (one.files, one.bytes) for name, one in self.partitions.items()}
        total = self.total.files, self.total.bytes
        return self.rows.packed(), self.fingerprint.sum, total, partitions

    def merge(self, plain: Plain) -> None:
        """Add what another tally, perhaps of another process, has added up."""
        rows, fingerprint, total, partitions = plain
        self.rows.add_packed(rows)
        self._check_excess()
        self.fingerprint.sum += fingerprint
        self.total.merge(*total)
        self.taken.merge(*total)
        for name, sums in partitions.items():
            self.partitions.setdefault(name, Totals()).merge(*sums)

    def _check_excess(self) -> None:
        if self.rows.excess > MOST_EXCESS:
            raise UnsafeArchive(
                f"archive refused: so many of its paths are so long that they take more than "
                f"{MOST_EXCESS // MiB} MiB of memory"
            )

    def digest(self) -> str:
        """Of the dataset, once everything was added.

        Raises:
            CorruptArchive: A path occurs twice.
        """
        for entry, sha256 in self.rows.take():
            self._digest.add(entry.path, digest_row(entry, sha256))
        return self._digest.value()


class Part:
    """What is taken of an archive that is not taken whole: the files, and the directories around.

    Directories come last, from what the archive said of them.
    """

    def __init__(self, *selections: Selection) -> None:
        """Take what any of *selections* wants; each pattern of the last must fit something."""
        self._selections = selections
        self._unmatched = Unmatched(selections[-1] if selections else Selection())
        self._named: dict[str, Entry] = {}
        self._needed: set[str] = set()

    def wants(self, entry: Entry) -> bool:
        """Look at the next entry of the archive; return whether it is wanted."""
        self._unmatched.see(entry.path)
        wanted = self.wanted(entry.path)
        if entry.kind == "d":
            self._named[entry.path] = entry
        if wanted:
            path = entry.path if entry.kind == "d" else entry.path.rpartition("/")[0]
            while path and path not in self._needed:
                self._needed.add(path)
                path = path.rpartition("/")[0]
        return wanted

    def wanted(self, path: str) -> bool:
        """Whether *path* is wanted."""
        return wanted_by(self._selections, path)

    def check(self, partitions: Iterable[str]) -> None:
        """Say whether there is such a part, once every entry has been seen.

        Args:
            partitions: Of the whole dataset.

        Raises:
            NothingSelected: A partition or pattern has fitted nothing, or no partition is left.
        """
        self._unmatched.refuse(partitions)
        if not any(path.startswith("data/") for path in self._needed):
            raise NothingSelected(
                "A dataset has at least one partition, and nothing below data/ was asked for; "
                f"there is {', '.join(sorted(partitions))}"
            )

    def finish(self, writer: Writer, tally: Tally) -> None:
        """Make the directories, once every entry has been seen.

        Raises:
            NothingSelected: As :meth:`check` says.
        """
        self.check(tally.partitions)
        for path in sorted(self._needed):
            entry = self._named[path]
            writer.directory(entry)
            tally.take(entry)


def check_claims(footer: Footer, root: Root, tally: Tally, digest: str) -> None:
    """Raise CorruptArchive unless digest and sums of the index are those of what was unpacked."""
    claimed = [footer.digest, (footer.files, footer.bytes), _sums(root.partitions)]
    if claimed != [digest, (tally.total.files, tally.total.bytes), _sums(tally.partitions)]:
        raise CorruptArchive("archive is corrupt: its index does not fit it (the digest or a sum)")


def _sums(partitions: dict[str, Totals]) -> dict[str, tuple[int, int]]:
    return {name: (totals.files, totals.bytes) for name, totals in partitions.items()}
