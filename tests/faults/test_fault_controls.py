"""Negative controls: builds that are broken on purpose. If one passes unnoticed, the harness is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from controls import CONTROLS

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

PATCHED = str(Path(__file__).parent / "patched.py")


@pytest.mark.parametrize("build", CONTROLS)
async def test_a_broken_build_is_found_out(tmp_path: Path, build: str) -> None:
    scenario, checks = CONTROLS[build]

    result = await scenario.run(tmp_path, seed=1, program=(PATCHED, build))

    assert {violation.check for violation in result.violations} & checks


@pytest.mark.parametrize("build", CONTROLS)
async def test_the_real_server_passes_the_same_play(tmp_path: Path, build: str) -> None:
    scenario, _ = CONTROLS[build]

    result = await scenario.run(tmp_path, seed=1, patience_seconds=60)

    assert result.violations == []
