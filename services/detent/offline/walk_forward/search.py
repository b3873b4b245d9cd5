"""Search parameters of a candidate on the oldest rows, with a sampler that is seeded.

The search sees the training rows of the first fold and nothing else, so that every test row of
every fold is later than all that the parameters were chosen on.

Source: row R154; seed 003, section 12.9.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from detent.contracts.units import PPM_ONE
from detent.core.evaluation.scores import brier_score
from detent.offline.walk_forward.candidate import Candidate, Params, Rows
from detent.offline.walk_forward.trees import early_stopped_rounds, lightgbm_params

SAMPLER = "TPE"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Records one trial.

    Attributes:
        number: Place in the search, from 0.
        params: What was tried.
        brier_ppm: Mean squared error on the rows that judged it.
    """

    number: int
    params: dict[str, int]
    brier_ppm: int


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """Records one search.

    Attributes:
        architecture_id: What was searched.
        sampler: How parameters were drawn.
        seed: Seed of the sampler and of every fit.
        trials: All of them, in order.
        params: What the candidate is fitted with from then on: the best trial's, and for boosted
            trees as many as early stopping kept.
    """

    architecture_id: str
    sampler: str
    seed: int
    trials: tuple[Trial, ...]
    params: dict[str, int]


def search(
    candidate: Candidate,
    fitted_on: Rows,
    judged_on: Rows,
    *,
    trial_count: int,
    seed: int,
    told: Callable[[], None],
) -> Study | None:
    """Search the parameters of a candidate; None where it has no space, or nobody asked.

    Args:
        candidate: What to fit.
        fitted_on: Rows that every trial is fitted on.
        judged_on: Later rows, apart from those.
        trial_count: How many to try.
        seed: Seed of the sampler and of every fit.
        told: Called after each trial.
    """
    if candidate.space is None or trial_count == 0:
        return None
    import optuna  # noqa: PLC0415  It takes a second that other work need not wait for.

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = candidate.space

    def objective(trial: Any) -> float:
        params = space(trial)
        fitted = candidate.fit(fitted_on, params, seed=seed)
        told()
        return brier_score(fitted.native(judged_on.values), judged_on.labels)

    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=trial_count)
    best = dict(study.best_params)
    return Study(
        architecture_id=candidate.architecture_id,
        sampler=SAMPLER,
        seed=seed,
        trials=tuple(
            Trial(
                number=trial.number,
                params=dict(trial.params),
                brier_ppm=round((trial.value or 0.0) * PPM_ONE),
            )
            for trial in study.trials
        ),
        params=_stopped_early(candidate, fitted_on, judged_on, best, seed=seed),
    )


def params_of(candidate: Candidate, studies: Mapping[str, Study]) -> Params:
    """Give what a candidate is fitted with: what a search found, or its own."""
    study = studies.get(candidate.architecture_id)
    return candidate.params if study is None else study.params


def _stopped_early(
    candidate: Candidate, fitted_on: Rows, judged_on: Rows, best: dict[str, int], *, seed: int
) -> dict[str, int]:
    if candidate.framework != "lightgbm":
        return best
    kept = early_stopped_rounds(
        fitted_on.values,
        fitted_on.labels.astype(np.float64),
        (judged_on.values, judged_on.labels.astype(np.float64)),
        lightgbm_params(best, seed=seed),
    )
    return best | {"n_estimators": max(1, kept)}
