"""Say who earned and who lost: `detent attribution`."""

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from detent.contracts.canonical import JsonValue
from detent.contracts.decimals import format_decimal
from detent_cli.output import (
    EXIT_NEGATIVE,
    JsonFlag,
    bad,
    console,
    errors,
    good,
    money_text,
    print_json,
    print_rows,
    print_sheet,
    reported,
)

if TYPE_CHECKING:
    from detent.core.ledger.attribution import LayerAmount
    from detent.core.ledger.attribution_report import AttributionReport, BookAttribution
    from detent.core.ledger.trade_sets import TradeSet


def attribution(
    *,
    ledger: Annotated[
        str,
        typer.Option(
            help="postgresql://, the policy service's ledger file, or a back-test's folder."
        ),
    ],
    fills: Annotated[
        Path | None, typer.Option(help="More fills: .jsonl or .parquet, one per row.")
    ] = None,
    outcomes: Annotated[Path | None, typer.Option(help="More outcomes, in the same forms.")] = None,
    plan_id: Annotated[
        str, typer.Option(help="Only this plan; it has to have begun without a position.")
    ] = "",
    plan_score: Annotated[
        int | None, typer.Option(help="What a judge gave the plan, 0 to 100.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with pictures here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Split what was earned into trigger, signal source, policy, safety and execution.

    The parts add up to the cash, to the last digit. Learning books stand for themselves and
    are in no number of the profit part. Exit 1 when a trade's tags were lost or changed.
    """
    # Imported here: a strategist's installation has neither a ledger nor pictures.
    from detent.offline.attributing import attribute_ledger  # noqa: PLC0415

    with reported(as_json=as_json), errors.status("attributing", spinner="dots"):
        found = attribute_ledger(
            ledger, fills=fills, outcomes=outcomes, plan_id=plan_id, plan_score=plan_score
        )
    if report is not None:
        from detent_cli.attribution_page import write_page  # noqa: PLC0415

        with reported(as_json=as_json):
            write_page(report, found)
    if as_json:
        print_json(document_of(found))
    else:
        _print(found)
        if report is not None:
            console.print(f"page: {report}")
    if found.breaches:
        raise typer.Exit(EXIT_NEGATIVE)


def document_of(report: "AttributionReport") -> dict[str, JsonValue]:
    """Give the whole report as JSON; amounts are decimal strings."""
    return {
        "profit": _book_json(report.profit) if report.profit is not None else None,
        "learning": [_book_json(book) for book in report.learning],
        "experiments": [
            {
                "experiment_id": one.tags.experiment_id,
                "experiment_variant": one.tags.experiment_variant,
                "set_count": one.set_count,
                "net": format_decimal(one.net),
            }
            for one in report.experiments
        ],
        "breaches": list(report.breaches),
    }


def _book_json(book: "BookAttribution") -> dict[str, JsonValue]:
    verdict = book.verdict
    source = book.source
    return {
        "name": book.name,
        "total": format_decimal(book.split.total),
        "residual": format_decimal(book.split.residual),
        "decision_count": book.split.decision_count,
        "unlinked_fill_ids": list(book.split.unlinked_fill_ids),
        "layers": [_layer_json(layer) for layer in book.split.layers],
        "source": {
            "outcome_count": source.outcome_count,
            "model_error_sum": source.model_error_sum,
            "proxy_error_sum": source.proxy_error_sum,
            "model_count": source.model_count,
            "fallbacks": {reason.value: count for reason, count in source.fallbacks},
        },
        "trade_sets": [_set_json(item) for item in book.sets],
        "verdict": None
        if verdict is None
        else {
            "primary": verdict.primary.value,
            "secondary": [layer.value for layer in verdict.secondary],
            "confidence": verdict.confidence.value,
            "action": verdict.action.value,
            "because": verdict.because,
            "metrics": dict(verdict.metrics),
            "trade_sets": list(verdict.trade_sets),
            "events": list(verdict.events),
        },
    }


def _layer_json(layer: "LayerAmount") -> dict[str, JsonValue]:
    return {
        "layer": layer.layer.value,
        "amount": format_decimal(layer.amount),
        "parts": {part.value: format_decimal(amount) for part, amount in layer.parts},
        "gain": format_decimal(layer.gain),
        "loss": format_decimal(layer.loss),
        "decision_count": layer.decision_count,
        "evidence": [
            {
                "record_hash": one.record_hash,
                "symbol": one.symbol,
                "ts_ms": one.ts_ms,
                "amount": format_decimal(one.amount),
            }
            for one in layer.evidence
        ],
    }


def _set_json(item: "TradeSet") -> dict[str, JsonValue]:
    return {
        "trade_set_id": item.trade_set_id,
        "closed": item.closed,
        "open_quantity": format_decimal(item.open_quantity),
        "realised": format_decimal(item.realised),
        "fees": format_decimal(item.fees),
        "net": format_decimal(item.net),
        "fill_ids": [leg.fill.fill_id for leg in item.legs],
        "record_hashes": list(item.record_hashes),
    }


def _print(report: "AttributionReport") -> None:
    for book in (report.profit, *report.learning):
        if book is not None:
            _print_book(book)
    if report.experiments:
        columns = ("experiment", "variant", "sets", "net")
        rows: list[tuple[Any, ...]] = []
        for one in report.experiments:
            variant = one.tags.experiment_variant or ""
            rows.append((one.tags.experiment_id, variant, one.set_count, money(one.net)))
        numbers = ("sets", "net")
        print_rows("Experiments (no part of profit)", columns, rows, numbers=numbers)
    for breach in report.breaches:
        console.print(bad("TAGS LOST"), Text(breach))


def _print_book(book: "BookAttribution") -> None:
    split = book.split
    rows: list[tuple[Any, ...]] = []
    for layer in split.layers:
        own = (layer.layer, money(layer.amount), money(layer.gain), money(layer.loss))
        rows.append((*own, layer.decision_count))
        if len(layer.parts) > 1:
            rows.extend(
                (Text(f"  {part}", style="dim"), money(amount), "", "", "")
                for part, amount in layer.parts
            )
    rows.append(("total", money(split.total), "", "", split.decision_count))
    residual = format_decimal(split.residual)
    rows.append(("residual", good(residual) if not split.residual else bad(residual), "", "", ""))
    columns = ("layer", "amount", "gains", "losses", "decisions")
    print_rows(f"Attribution: {book.name}", columns, rows, numbers=columns[1:])
    print_sheet(_facts(book))


def _facts(book: "BookAttribution") -> list[tuple[str, object]]:
    metrics, source, verdict = book.metrics, book.source, book.verdict
    sets = f"{len(book.sets)}, {metrics.closed_count} closed, {metrics.win_count} won"
    facts: list[tuple[str, object]] = [("trade sets", sets)]
    if source.outcome_count:
        scores = (source.model_error_sum, source.proxy_error_sum)
        model, proxy = (sum_ / source.outcome_count / 10**8 for sum_ in scores)
        text = f"model {model:.4f}, proxy {proxy:.4f} on {source.outcome_count} outcomes"
        facts.append(("Brier score", text))
    if source.fallbacks:
        text = ", ".join(f"{reason} {count}" for reason, count in source.fallbacks)
        facts.append(("fallbacks", text))
    if book.split.unlinked_fill_ids:
        facts.append(("unlinked fills", len(book.split.unlinked_fill_ids)))
    if verdict is None:
        return [*facts, ("primary", "none: nothing was traded")]
    style = good if book.split.total >= 0 else bad
    return [
        *facts,
        ("primary", style(f"{verdict.primary} ({verdict.confidence} confidence)")),
        ("because", verdict.because),
        ("secondary", ", ".join(verdict.secondary) or "none"),
        ("action", verdict.action),
        ("worst set", verdict.trade_sets[0]),
        ("decisions", "\n".join(event[:16] for event in verdict.events)),
    ]


def money(amount: Decimal) -> Text:
    """Write an amount to the cent, a loss in red; JSON has all of it."""
    text = money_text(amount)
    return Text(text, style="red" if text.startswith("-") else "")
