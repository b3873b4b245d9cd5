"""Proves that the parts add up to the cash, and that a bad window has one right cause."""

import random
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from tests.attributed import LONG, Bar, Played, plain_plan, play
from tests.builders import (
    OTHER_SYMBOL,
    SYMBOL,
    emergency,
)
from tests.trades import fill_of

from detent.contracts.errors import InvalidField
from detent.contracts.plan import RiskOverrides, TriggerState
from detent.core.ledger.attribution import LAYER_OF, MEASURED, Layer, Split, split_total
from detent.core.ledger.attribution_report import BookAttribution, attribute
from detent.core.ledger.attribution_steps import Part
from detent.core.ledger.verdict import Action, Confidence, judge

EXIT, NONE, SHORT = TriggerState.EXIT_ONLY, TriggerState.INACTIVE, TriggerState.SHORT_ALLOWED


@st.composite
def scripts(draw: st.DrawFn) -> list[Bar]:
    """Draw bars over which anything may happen, ended by one that flattens."""
    count = draw(st.integers(1, 12))
    has_model = draw(st.booleans())
    return [
        Bar(
            close=str(draw(st.integers(9_000, 11_000)) / Decimal(100)),
            trigger=draw(st.sampled_from(TriggerState)),
            proxy_bps=draw(st.integers(0, 10_000)),
            model_bps=draw(st.integers(0, 10_000)) if has_model else None,
            slip=str(draw(st.integers(-20, 20)) / Decimal(100)),
            row=draw(
                st.sampled_from(
                    [
                        {},
                        {"exit_intent": emergency()},
                        {"vol_hat_ppm": None},
                        {"vol_hat_ppm": 300_000},
                        {"risk_overrides": RiskOverrides(max_weight_ppm=10_000)},
                    ]
                )
            ),
        )
        for _ in range(count)
    ]


def split_of(*played: Played) -> Split:
    return split_total(
        [record for one in played for record in one.records],
        [fill for one in played for fill in one.fills],
        {one.bound.plan.plan_id: one.bound for one in played},
    )


def attributed(*played: Played, **options: Any) -> BookAttribution:
    report = attribute(
        [record for one in played for record in one.records],
        [fill for one in played for fill in one.fills],
        (),
        plans={one.bound.plan.plan_id: one.bound for one in played},
        **options,
    )
    assert report.profit is not None
    return report.profit


def marked(played: Played) -> Fraction:
    """Give cash and position at the last close by the plainest arithmetic there is."""
    total = Fraction(0)
    for fill in played.fills:
        quantity = Fraction(fill.signed_quantity)
        total += quantity * (
            Fraction(played.records[-1].row.bar_close) - Fraction(fill.price)
        ) - Fraction(fill.fee)
    return total


# Arithmetic


@pytest.mark.proves("R350")
@given(scripts(), st.integers(50_000, 1_000_000), st.sampled_from(["0", "0.35"]))
def test_parts_add_up_to_the_cash_to_the_last_digit(
    bars: list[Bar], alpha_ppm: int, fee: str
) -> None:
    played = play(bars, plan=plain_plan(alpha_ppm=alpha_ppm), fee=fee)
    split = split_of(played)
    parts = [amount for layer in split.layers for _, amount in layer.parts]

    assert split.residual == 0
    assert Fraction(split.total) == marked(played)
    assert sum(map(Fraction, parts), Fraction(0)) == marked(played)
    assert {layer.layer for layer in split.layers} == set(MEASURED)
    assert all(
        Fraction(layer.gain) + Fraction(layer.loss) == Fraction(layer.amount)
        for layer in split.layers
    )


@given(scripts(), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_order_of_the_inputs_changes_nothing(bars: list[Bar], chance: random.Random) -> None:
    one, other = play(bars), play(bars[::-1], plan=plain_plan("next", symbols=(OTHER_SYMBOL,)))
    other = play(bars[::-1], plan=plain_plan("next", symbols=(OTHER_SYMBOL,)), symbol=OTHER_SYMBOL)
    records = [*one.records, *other.records]
    fills = [*one.fills, *other.fills]
    plans = {played.bound.plan.plan_id: played.bound for played in (one, other)}
    straight = split_total(records, fills, plans)
    chance.shuffle(records)
    chance.shuffle(fills)

    assert split_total(records, fills, plans) == straight


@given(scripts(), scripts())
@settings(max_examples=30)
def test_names_of_the_symbols_change_no_amount(first: list[Bar], second: list[Bar]) -> None:
    """Whoever trades the other one's bars earns the other one's amounts."""
    plan = plain_plan(symbols=(SYMBOL, OTHER_SYMBOL))
    straight = split_of(
        play(first, plan=plan, symbol=SYMBOL), play(second, plan=plan, symbol=OTHER_SYMBOL)
    )
    swapped = split_of(
        play(first, plan=plan, symbol=OTHER_SYMBOL), play(second, plan=plan, symbol=SYMBOL)
    )

    assert [layer.parts for layer in straight.layers] == [layer.parts for layer in swapped.layers]
    assert straight.total == swapped.total


@given(scripts().filter(lambda bars: len(bars) > 1))
def test_a_close_that_was_forged_changes_who_did_it_but_not_the_sum(bars: list[Bar]) -> None:
    """The control of the residual: it is what the steps leave, and they leave nothing."""
    played = play(bars)
    forged = [
        structs.replace(record, row=structs.replace(record.row, bar_close=record.row.bar_close * 2))
        if number == 0
        else record
        for number, record in enumerate(played.records)
    ]
    honest = split_of(played)
    found = split_total(forged, played.fills, {"plan": played.bound})

    assert found.residual == 0
    assert found.total == honest.total
    if played.fills and played.fills[0].record_hash == played.records[0].record_hash:
        assert found != honest


def test_residual_finds_a_step_that_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with one part assigned to no layer the rest no longer adds up."""
    played = play([Bar(close="100"), Bar(close="101", slip="0.5"), Bar(close="99", trigger=NONE)])
    assert split_of(played).residual == 0

    monkeypatch.delitem(LAYER_OF, Part.TRIGGER)

    assert split_of(played).residual != 0


def test_fill_without_a_decision_counts_where_its_time_puts_it() -> None:
    played = play([Bar(close="100"), Bar(close="110"), Bar(close="110", trigger=NONE)])
    played.fills = [structs.replace(fill, record_hash=None) for fill in played.fills]

    split = split_of(played)

    assert split.unlinked_fill_ids == tuple(fill.fill_id for fill in played.fills)
    assert split.residual == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"plans": {}}, "plans", id="plan"),
        pytest.param({"fills": [fill_of("x", symbol="AUDUSD")]}, "fills", id="stranger"),
    ],
)
def test_inputs_that_do_not_belong_together_are_refused(change: dict[str, Any], field: str) -> None:
    played = play([Bar(close="100")])
    inputs = {"records": played.records, "fills": [], "plans": {"plan": played.bound}} | change

    with pytest.raises(InvalidField) as refused:
        split_total(**inputs)

    assert refused.value.field == field


def test_no_decision_is_no_attribution() -> None:
    with pytest.raises(InvalidField):
        attribute((), (), (), plans={})


# Causes


def falling(count: int = 40) -> list[Bar]:
    """Give a market that falls under a trigger that allows long; every fifth bar is flat."""
    return [
        Bar(close=str(Decimal(200) - number), trigger=NONE if number % 5 == 4 else LONG)
        for number in range(count)
    ]


def fickle(count: int = 40) -> list[Bar]:
    """Give a market that swings, and a model that is sure before every fall."""
    return [
        Bar(
            close="101" if number % 2 else "100",
            model_bps=9_900 if number % 2 else 5_100,
            trigger=NONE if number % 10 == 9 else LONG,
        )
        for number in range(count)
    ]


def lingering(count: int = 40) -> list[Bar]:
    """Give a trigger that is right, and an exit that stays while the price falls."""
    bars = []
    price = 200
    for number in range(count):
        rises = number % 10 < 3
        price += 2 if rises else -3
        bars.append(Bar(close=str(price), trigger=LONG if number % 10 < 2 else EXIT))
    bars[-1] = Bar(close=str(price), trigger=NONE)
    return bars


def slipping(count: int = 40) -> list[Bar]:
    """Give a market that stands still and a venue that takes half a point of each fill."""
    return [
        Bar(close="100", slip="0.5", trigger=LONG if number % 2 else NONE)
        for number in range(count)
    ]


@pytest.mark.proves("R248", "R350")
@pytest.mark.parametrize(
    ("bars", "plan", "primary", "actions"),
    [
        pytest.param(
            falling(), plain_plan(), Layer.TRIGGER, {Action.REPLAN, Action.STAND_DOWN}, id="trigger"
        ),
        pytest.param(
            lingering(),
            plain_plan(alpha_ppm=200_000),
            Layer.POLICY,
            {Action.POLICY_ADJUST},
            id="policy",
        ),
        pytest.param(
            fickle(), plain_plan(), Layer.SIGNAL_SOURCE, {Action.USE_PROXY}, id="signal source"
        ),
        pytest.param(
            slipping(),
            plain_plan(),
            Layer.EXECUTION,
            {Action.INVESTIGATE_EXECUTION},
            id="execution",
        ),
    ],
)
def test_bad_window_is_put_down_to_the_layer_that_made_it(
    bars: Sequence[Bar], plan: Any, primary: Layer, actions: set[Action]
) -> None:
    found = attributed(play(bars, plan=plan))

    assert found.split.total < 0
    assert found.verdict is not None
    assert found.verdict.primary is primary
    assert found.verdict.confidence is not Confidence.LOW
    assert found.verdict.action in actions
    hashes = {record.record_hash for record in play(bars, plan=plan).records}
    assert set(found.verdict.events) <= hashes


@pytest.mark.proves("R248", "R350")
def test_window_in_which_all_fail_has_one_primary_and_names_the_others() -> None:
    plan = plain_plan(alpha_ppm=500_000)
    bars = [
        structs.replace(bar, slip="0.5", model_bps=9_900 if number % 2 else 5_100)
        for number, bar in enumerate(falling())
    ]

    verdict = attributed(play(bars, plan=plan)).verdict

    assert verdict is not None
    assert verdict.primary in MEASURED
    assert verdict.secondary
    assert verdict.primary not in verdict.secondary


def test_model_that_knows_better_than_the_proxy_earns_the_difference() -> None:
    """The control of the fickle model: right where that one is wrong, it is what earned."""
    bars = [
        structs.replace(bar, model_bps=5_100 if bar.model_bps == 9_900 else 9_900)
        for bar in fickle()
    ]
    found = attributed(play(bars))

    assert found.split.total > 0
    assert found.verdict is not None
    assert (found.verdict.primary, found.verdict.action) == (Layer.SIGNAL_SOURCE, Action.HOLD)
    parts = dict(found.split.layers[1].parts)
    assert parts[Part.MODEL_SIGNAL] > 0


def test_emergencies_are_put_down_to_safety_and_hold() -> None:
    bars = [
        Bar(close="100", row={"exit_intent": emergency()} if number % 2 else {})
        for number in range(40)
    ]
    played = play(bars)
    verdict = attributed(played).verdict

    assert verdict is not None
    assert (verdict.primary, verdict.action) == (Layer.SAFETY, Action.HOLD)
    assert set(verdict.events) <= {record.record_hash for record in played.records[1::2]}


def test_emergencies_that_found_nothing_to_close_do_not_count() -> None:
    bars = [
        structs.replace(bar, row={"exit_intent": emergency()}) if bar.trigger is NONE else bar
        for bar in falling()
    ]
    flat = [Bar(close="200", trigger=NONE, row={"exit_intent": emergency()})] * 40
    found = attributed(play([*falling(), *flat]))

    assert found.metrics.emergencies == ()
    assert len(attributed(play(bars)).metrics.emergencies) == 8


def test_window_in_which_nothing_moved_still_names_its_decisions() -> None:
    played = play([Bar(close="100"), Bar(close="100", trigger=NONE)])
    verdict = attributed(played).verdict

    assert verdict is not None
    assert verdict.events == tuple(record.record_hash for record in played.records)


@pytest.mark.parametrize(
    ("score", "primary", "action"),
    [(39, Layer.PLAN, Action.REPLAN), (40, Layer.TRIGGER, None), (60, Layer.TRIGGER, Action.HOLD)],
)
def test_score_of_the_plan_is_heard(score: int, primary: Layer, action: Action | None) -> None:
    verdict = attributed(play(falling()), plan_score=score).verdict

    assert verdict is not None
    assert verdict.primary is primary
    assert action in (None, verdict.action)
    assert verdict.action is not (Action.HOLD if score == 40 else None)


@pytest.mark.proves("R350")
@pytest.mark.parametrize(
    ("changes", "primary", "action"),
    [
        pytest.param({"win_count": 6}, Layer.TRIGGER, Action.STAND_DOWN, id="30 % win"),
        pytest.param({"win_count": 7}, Layer.TRIGGER, Action.REPLAN, id="35 % win"),
        pytest.param(
            {"win_count": 6, "losses_in_a_row": 3}, Layer.TRIGGER, Action.REPLAN, id="3 in a row"
        ),
        pytest.param(
            {"win_count": 7, "emergencies": ("a" * 64,) * 6},
            Layer.TRIGGER,
            Action.REPLAN,
            id="30 % emergencies",
        ),
        pytest.param(
            {"win_count": 7, "emergencies": ("a" * 64,) * 7},
            Layer.SAFETY,
            Action.HOLD,
            id="35 % emergencies",
        ),
    ],
)
def test_each_share_counts_on_its_side_of_the_threshold(
    changes: dict[str, Any], primary: Layer, action: Action
) -> None:
    """Of twenty sets: fewer than 35 % won, and more than 30 % left in an emergency."""
    found = attributed(play(falling()))
    of_twenty = structs.replace(found.metrics, closed_count=20, losses_in_a_row=4)

    verdict = judge(found.split, found.sets, structs.replace(of_twenty, **changes))

    assert (verdict.primary, verdict.action) == (primary, action)


def with_amounts(split: Split, amounts: dict[Layer, int]) -> Split:
    """Give a split in which these layers did this, and the others nothing."""
    layers = tuple(
        structs.replace(one, amount=Decimal(amounts.get(one.layer, 0))) for one in split.layers
    )
    return structs.replace(split, total=Decimal(sum(amounts.values())), layers=layers)


WELL = {"win_count": 10, "losses_in_a_row": 3, "gross_win": Decimal(9), "gross_loss": Decimal(1)}
RARE = WELL | {"win_count": 6}
IN_A_ROW = WELL | {"losses_in_a_row": 4}
FAIR_BUT_POOR = WELL | {"win_count": 9, "gross_win": Decimal(1), "gross_loss": Decimal(2)}
LOW, MEDIUM, HIGH = Confidence


@pytest.mark.proves("R350")
@pytest.mark.parametrize(
    ("primary", "own", "other", "trades", "confidence"),
    [
        # Two thirds of the harm need no trades to agree; less than half is not helped by them.
        pytest.param(Layer.TRIGGER, 20, 10, WELL, HIGH, id="two thirds"),
        pytest.param(Layer.TRIGGER, 19, 10, WELL, MEDIUM, id="less"),
        pytest.param(Layer.TRIGGER, 19, 10, RARE, HIGH, id="less, and few sets won"),
        pytest.param(Layer.TRIGGER, 19, 10, IN_A_ROW, HIGH, id="less, and four lost in a row"),
        pytest.param(Layer.TRIGGER, 10, 10, WELL, MEDIUM, id="half"),
        pytest.param(Layer.POLICY, 19, 10, WELL, MEDIUM, id="policy"),
        pytest.param(Layer.POLICY, 19, 10, RARE, MEDIUM, id="policy, and few sets won"),
        pytest.param(Layer.POLICY, 19, 10, FAIR_BUT_POOR, HIGH, id="policy, many won too little"),
        pytest.param(
            Layer.POLICY, 19, 10, FAIR_BUT_POOR | {"win_count": 8}, MEDIUM, id="policy, 40 % won"
        ),
        pytest.param(Layer.EXECUTION, 19, 10, RARE | IN_A_ROW, MEDIUM, id="execution"),
    ],
)
def test_confidence_is_the_share_of_the_harm_and_what_the_trades_say(
    primary: Layer, own: int, other: int, trades: dict[str, Any], confidence: Confidence
) -> None:
    """Of twenty closed sets: fewer than 35 % won, at least 45 % won, gains below losses."""
    found = attributed(play(falling()))
    split = with_amounts(found.split, {Layer.SAFETY: -other, primary: -own})
    metrics = structs.replace(found.metrics, closed_count=20, **trades)

    verdict = judge(split, found.sets, metrics)

    assert (verdict.primary, verdict.confidence) == (primary, confidence)


def test_a_window_without_a_loss_in_sum_is_put_down_to_who_earned_most_and_holds() -> None:
    found = attributed(play(falling()))
    split = with_amounts(found.split, {Layer.TRIGGER: -10, Layer.SIGNAL_SOURCE: 10})

    verdict = judge(split, found.sets, found.metrics)

    assert (verdict.primary, verdict.action) == (Layer.SIGNAL_SOURCE, Action.HOLD)
    assert verdict.because == "nothing was lost in sum; it earned most"


@pytest.mark.proves("R350")
@pytest.mark.parametrize(
    ("decisions", "closed", "confidence"), [(30, 1, HIGH), (29, 1, LOW), (30, 0, LOW)]
)
def test_thirty_decisions_and_a_closed_set_are_the_least_evidence(
    decisions: int, closed: int, confidence: Confidence
) -> None:
    found = attributed(play(falling()))
    split = structs.replace(found.split, decision_count=decisions)
    metrics = structs.replace(found.metrics, closed_count=closed)

    assert judge(split, found.sets, metrics).confidence is confidence


def test_few_decisions_permit_nothing() -> None:
    """No data is not evidence: the same loss over fewer bars is no ground for an action."""
    verdict = attributed(play(falling(20))).verdict

    assert verdict is not None
    assert verdict.primary is Layer.TRIGGER
    assert (verdict.confidence, verdict.action) == (Confidence.LOW, Action.HOLD)
