"""Look after the ledger beside the decisions: anchor it, ship it, forget what is over."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from detent.adapters.ledger_anchors import (
    AnchorFile,
    AnchorKey,
    SignedAnchor,
    draft_anchor,
    trusted_anchors,
)
from detent.adapters.ledger_shipping import LedgerShipper, ShippingState
from detent.adapters.sqlite_ledger import SqliteLedger
from detent.contracts import events
from detent.contracts.errors import LedgerUnavailable
from detent.core.ledger.anchor import Anchor, Anchored

log = logging.getLogger(__name__)
SHIPPING_HEALTH = "detent.api.v1.LedgerService/shipping"
WATCH_S = 1.0
# More than a crash can leave between the file and the table.
RESTORED = 16
LAG_LOGGED_EVERY = 60
FORGET_EVERY = 3_600
SetServing = Callable[[Mapping[str, bool]], None]


class Anchoring:
    """Owns the anchors of one ledger: the file first, the table after it."""

    def __init__(
        self, ledger: SqliteLedger, file: AnchorFile, key: AnchorKey, *, now_ms: Callable[[], int]
    ) -> None:
        """Read nothing yet."""
        self._ledger = ledger
        self._file = file
        self._key = key
        self._now_ms = now_ms
        self._last: Anchor | None = None

    async def restore(self) -> None:
        """Take up where the anchors of earlier runs end.

        Raises:
            LedgerUnavailable: The newest anchor is damaged, of another ledger, or not ours:
                what is anchored after it would hide that.
        """
        newest = await asyncio.to_thread(self._file.last, RESTORED)
        folded = trusted_anchors(newest[-1:], self._key)
        last = folded.last
        if newest and last is None:
            raise _not_held(folded.breaks[0])
        if last is not None and last.ledger_id != await self._ledger.ledger_id():
            raise _not_held(f"they are of ledger {last.ledger_id}")
        self._last = last
        known = await self._ledger.anchor_count()
        for one in newest:
            # What was signed before a crash and not noted in the table.
            anchor = one.anchor
            if anchor.anchor_index >= known:
                await self._ledger.add_anchor(anchor, one)

    async def anchored(self) -> Anchored:
        """Read what all anchors say together; before the first, nothing.

        Raises:
            LedgerUnavailable: The file is damaged, or no longer there.
        """

        def joined() -> Anchored:
            signed = self._file.read() if self._last is not None else ()
            return trusted_anchors(signed, self._key)

        return await asyncio.to_thread(joined)

    async def anchor(self) -> Anchor | None:
        """Anchor what became durable since the last time; None when nothing did.

        What goes wrong here is said and tried again: no decision depends on it.
        """
        try:
            draft = await asyncio.to_thread(
                draft_anchor, self._ledger.path, self._last, at_ms=self._now_ms()
            )
            if draft is None:
                return None
            text = draft.canonical
            signed = SignedAnchor(
                canonical=text.decode("ascii"),
                key_id=self._key.key_id,
                signature=self._key.sign(text),
            )
            await asyncio.to_thread(self._file.append, signed)
            self._last = draft
            await self._ledger.add_anchor(draft, signed)
        except (OSError, LedgerUnavailable) as error:
            log.warning(events.LEDGER_ANCHOR_FAILED, extra={"error": type(error).__name__})
            return None
        facts = {"anchor_index": draft.anchor_index, "chains": len(draft.heads)}
        log.info(events.LEDGER_ANCHORED, extra=facts)
        return draft


def _not_held(found: str) -> LedgerUnavailable:
    cause = f"the file of anchors does not hold: {found}"
    return LedgerUnavailable(f"the ledger cannot be used: {cause}", cause=cause)


class Upkeep:
    """Owns the tasks beside the decisions, from `start` to `close`."""

    def __init__(
        self,
        ledger: SqliteLedger,
        *,
        anchoring: Anchoring | None,
        anchor_interval_s: float,
        shipper: LedgerShipper | None,
        drain_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        """Take what there is to look after."""
        self._ledger = ledger
        self._anchoring = anchoring
        self._anchor_interval_s = anchor_interval_s
        self._shipper = shipper
        self._drain_s = drain_s
        self._now_ms = now_ms
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def shipping(self) -> ShippingState | None:
        """Say how far behind PostgreSQL is; None when nothing is shipped."""
        return self._shipper.state if self._shipper is not None else None

    async def start(self, set_serving: SetServing | None = None) -> None:
        """Start what runs beside the decisions.

        Args:
            set_serving: Told per health name whether it serves.
        """
        if self._anchoring is not None:
            await self._anchoring.restore()
            self._tasks.append(asyncio.create_task(self._anchor_on(self._anchoring)))
        if self._shipper is not None:
            self._shipper.start()
        self._tasks.append(asyncio.create_task(self._watch(set_serving)))

    async def close(self) -> None:
        """Anchor and ship what is left, as far as there is time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._anchoring is not None:
            await self._anchoring.anchor()
        if self._shipper is not None:
            shipped = await asyncio.to_thread(self._shipper.stop, self._drain_s)
            if not shipped:
                log.warning(events.LEDGER_LAG, extra={"lag_rows": self._shipper.state.lag_rows})

    async def _anchor_on(self, anchoring: Anchoring) -> None:
        while True:
            await asyncio.sleep(self._anchor_interval_s)
            await anchoring.anchor()

    async def _watch(self, set_serving: SetServing | None) -> None:
        seconds = 0
        while True:
            await asyncio.sleep(WATCH_S)
            seconds += 1
            if self._shipper is not None:
                # A thread that ended by a defect of ours is started again, and its end is logged.
                self._shipper.start()
                state = self._shipper.state
                if set_serving is not None:
                    set_serving({SHIPPING_HEALTH: state.is_connected})
                if state.lag_rows and seconds % LAG_LOGGED_EVERY == 0:
                    facts = {"lag_rows": state.lag_rows, "behind_s": round(state.behind_s)}
                    log.warning(events.LEDGER_LAG, extra=facts)
            if seconds % FORGET_EVERY == 0:
                with contextlib.suppress(LedgerUnavailable):
                    await self._ledger.forget_inputs(now_ms=self._now_ms())
