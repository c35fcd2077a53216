"""The peers that a pruner reads, compared with all trials that Optuna reads."""

from __future__ import annotations

import random

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.pruners.peers import PeerReader
from miiii_search.pruners.quantile import Quantile
from miiii_search.storage.database import Database
from miiii_search.study.create import create_study
from miiii_search.trial_queue.leases import Heartbeat
from tests.support import SECONDS, claim, end, make_spec, pruning_context, read_back

RUNGS = (4, 8, 12, 16, 24, 32, 48)


def test_the_rule_decides_as_on_all_that_optuna_reads(database: Database) -> None:
    """Trials of all states and lengths, read again and again as they go on."""
    chance = random.Random(0)
    study = create_study(database, "peers", make_spec())
    create_study(database, "another", make_spec())
    peers, rule = PeerReader(study.store), Quantile(0.5, 3)
    held, reached, decided = [claim(study) for _ in range(16)], dict.fromkeys(range(16), 0), 0
    for _ in range(40):
        lease = chance.choice(held)
        step = reached[lease.number]
        if step < len(RUNGS) and chance.random() < 0.9:
            value = chance.choice([0.0, 0.25, 0.5, 1.0])
            study.queue.report([Heartbeat(lease, RUNGS[step], 1.0)], {lease: {RUNGS[step]: value}}, SECONDS)
            reached[lease.number] += 1
        else:
            end(study, lease, chance.choice([TrialState.COMPLETE, TrialState.PRUNED]), 0.5)
            held.remove(lease)
        whole = {t._trial_id: t for t in read_back(study).trials}
        for rung in RUNGS:
            read = {peer.trial_id: peer for peer in peers.read({rung})}
            known = {i for i, t in whole.items() if t.state.is_finished() or rung in t.intermediate_values}
            assert read.keys() == known
            for trial_id, trial in ((i, whole[i]) for i in known):
                expected = rule.should_prune(pruning_context(trial, list(whole.values()), rung))
                assert rule.should_prune(pruning_context(read[trial_id], list(read.values()), rung)) == expected
                decided += expected is not None
    assert decided > 100


def test_as_many_statements_for_many_trials_as_for_few(database: Database) -> None:
    counts = []
    for trials in (3, 24):
        study = create_study(database, f"of {trials}", make_spec(budget={"trials": trials}))
        for _ in range(trials):
            lease = claim(study)
            study.queue.report([Heartbeat(lease, 4, 1.0)], {lease: {4: 0.5}}, SECONDS)
            end(study, lease)
        statements: list[str] = []

        def count(_c: object, _d: object, statement: str, *_: object, seen: list[str] = statements) -> None:
            seen.append(statement)

        sa.event.listen(database.engine, "before_cursor_execute", count)
        assert len(PeerReader(study.store).read({4})) == trials
        sa.event.remove(database.engine, "before_cursor_execute", count)
        counts.append(len([s for s in statements if s.startswith("SELECT")]))
    assert counts == [3, 3]
