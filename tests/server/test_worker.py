"""The figures of several workers in one answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collab.metrics import Metrics
from collab.server.worker import Figures, Worker, join


def made(updates: int) -> str:
    return (
        "# HELP collab_updates_total Updates.\n"
        "# TYPE collab_updates_total counter\n"
        f"collab_updates_total {updates}.0\n"
        "# HELP collab_closes_total Closed.\n"
        "# TYPE collab_closes_total counter\n"
        f'collab_closes_total{{code="silent"}} {updates}.0\n'
    )


def test_each_family_stands_once_with_a_sample_for_each_worker() -> None:
    joined = join({2: made(20), 10: made(100)})

    assert joined.count("# HELP") == 2
    assert joined.splitlines()[2:4] == [
        'collab_updates_total{worker="2"} 20.0',
        'collab_updates_total{worker="10"} 100.0',
    ]
    assert 'collab_closes_total{worker="2",code="silent"} 20.0' in joined


def test_a_worker_that_does_not_answer_is_down() -> None:
    own = "# HELP collab_worker_up 1; 0 for one that is down.\n# TYPE collab_worker_up gauge\ncollab_worker_up 1.0\n"

    joined = join({1: None, 2: own})

    assert joined == own.replace(
        "collab_worker_up 1.0\n",
        'collab_worker_up{worker="1"} 0.0\ncollab_worker_up{worker="2"} 1.0\n',
    )


@pytest.mark.anyio
async def test_workers_hand_each_other_their_figures(tmp_path: Path) -> None:
    first, second = Metrics(), Metrics()
    first.updates, second.updates = 3, 4
    first.closes["silent"] += 1
    one, two, gone = (
        Worker(n, None, tmp_path)  # type: ignore[arg-type]  # nobody listens here
        for n in (1, 2, 3)
    )
    async with Figures(Metrics().registry(), gone):
        pass
    (tmp_path / "3.sock").touch()

    async with (
        Figures(first.registry(), one) as figures,
        Figures(second.registry(), two),
    ):
        text = (await figures.gather()).decode()

    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["collab_updates_total", ("worker", "1")] == 3
    assert samples["collab_updates_total", ("worker", "2")] == 4
    assert samples["collab_closes_total", ("code", "silent"), ("worker", "1")] == 1
    assert [samples["collab_worker_up", ("worker", n)] for n in "123"] == [1, 1, 0]


@pytest.mark.anyio
async def test_a_single_process_has_no_label() -> None:
    text = (await Figures(Metrics().registry(), None).gather()).decode()

    assert "worker=" not in text
    assert "\ncollab_worker_up 1.0\n" in text
