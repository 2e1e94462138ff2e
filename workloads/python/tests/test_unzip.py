from __future__ import annotations

import os
import tempfile
import unittest
import zipfile

from unzip import Limits, UnzipError, extract


class UnzipTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.archive = os.path.join(directory.name, "archive")
        self.scratch = os.path.join(directory.name, "scratch")

    def write(self, content: bytes, claimed: int | None = None) -> None:
        """Writes an archive with one stored file that claims some length."""
        with zipfile.ZipFile(self.archive, "w") as archive:
            archive.writestr("name", content)
            if claimed is not None:
                archive.filelist[0].file_size = claimed

    def refused(self, limits: Limits, reason: str) -> None:
        with self.assertRaisesRegex(UnzipError, reason):
            extract(self.archive, self.scratch, limits)

    def test_limits_hold_to_byte_and_to_entry(self) -> None:
        self.write(b"7 bytes")
        done = extract(self.archive, self.scratch, Limits(7, 1))
        self.assertEqual((done.files, done.bytes), (1, 7))
        self.refused(Limits(6, 1), "more than 6 bytes")
        self.refused(Limits(7, 0), "1 entries, more than 0")

    def test_lying_about_length_is_no_way_around_limit(self) -> None:
        self.write(bytes(1_000_000), claimed=10)
        self.refused(Limits(1000, 1), "length or checksum")
        self.assertLessEqual(os.path.getsize(os.path.join(self.scratch, "name")), 1000)
        self.write(bytes(9), claimed=10)
        self.refused(Limits(1000, 1), "")


if __name__ == "__main__":
    unittest.main()
