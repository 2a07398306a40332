# SPDX-License-Identifier: ZPL-2.1
"""A command ends in order, whatever has become of its storage."""

from __future__ import annotations

from pathlib import Path

import pytest
import ZODB
from ZODB.mvccadapter import MVCCAdapterInstance

from lovely.remotetask.command.database import close_database


def test_a_database_is_closed_that_could_not_be_opened_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = ZODB.DB(str(tmp_path / "Data.fs"))

    def be_away(storage: MVCCAdapterInstance) -> None:
        raise OSError("away")

    with monkeypatch.context() as away:
        away.setattr(MVCCAdapterInstance, "poll_invalidations", be_away)
        with pytest.raises(OSError, match="away"):
            db.open()
    close_database(db)
    ZODB.DB(str(tmp_path / "Data.fs")).close()  # nobody has the file any more
