"""What a row tells for commands alone makes it no other row."""

from fastsample.results.commands import GIVEN, SHAPE
from fastsample.results.storage.merging import merge
from fastsample.results.store import Store

from ..rows import row_of


def test_rows_with_and_without_the_words_of_commands_are_merged(tmp_path):
    said = {"noise": "philox"}
    for name, more in (("old", {}), ("new", {GIVEN: "mine.py:model", SHAPE: "2", "real psnr": "1"})):
        Store(tmp_path / name).finish(row_of("a" * 16, protocol=said | more), {})
    merge([tmp_path / "old", tmp_path / "new"], tmp_path / "both")
    assert len(Store(tmp_path / "both").rows()) == 1
