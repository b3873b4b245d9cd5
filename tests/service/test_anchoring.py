"""Proves that a ledger of which nothing is anchored yet is not one whose anchors are gone."""

from pathlib import Path

import pytest
from tests.builders import row_of
from tests.fakes import PolicyHost
from tests.service.policy_calls import PLAN, decide, open_plan

from detent.adapters.ledger_anchors import AnchorFile, AnchorKey, make_key
from detent.adapters.sqlite_ledger import SqliteLedger
from detent.contracts.errors import LedgerUnavailable
from detent.servers.policy.upkeep import Anchoring


async def test_anchors_that_are_gone_are_an_error_and_none_yet_is_not(
    host: PolicyHost, tmp_path: Path
) -> None:
    make_key(tmp_path / "anchors.pem")
    file = tmp_path / "anchors.jsonl"
    key = AnchorKey.read(tmp_path / "anchors.pem")
    ledger = SqliteLedger(host.ledger_file)
    anchoring = Anchoring(ledger, AnchorFile(file), key, now_ms=lambda: 1)
    await anchoring.restore()
    before = await anchoring.anchored()
    await open_plan(host, PLAN, host.binding)
    await decide(host, row_of())
    await anchoring.anchor()
    after = await anchoring.anchored()

    assert before.last is None
    assert after.last is not None
    file.unlink()
    with pytest.raises(LedgerUnavailable, match=r"anchors\.jsonl"):
        await anchoring.anchored()
    await ledger.close()
