"""Gangs over machines: what they say goes through the daemons' ports, also where one machine lets nobody in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import eventually
from tests.gangs.kind import Plan, answer
from tests.gangs.nodes import install
from tests.netns.test_cluster import NOBODY_CAN_DIAL, Machine, everybody, form, machines

__all__ = ["machines"]

pytestmark = [pytest.mark.netns, pytest.mark.slow]


def run(machine: Machine, directory: Path, plan: Plan) -> dict[str, list[dict[str, str]]]:
    """Run a job; its answer is right."""
    given = [f"--option={name}={getattr(plan, name)}" for name in plan.__struct_fields__]
    out = directory / "out"
    shape = machine.ask("run", "--kind", "sums", str(directory / "job.py"), "-o", str(out), "--overwrite", *given)
    assert [int(part.read_text()) for part in sorted(out.glob("part-*"))] == answer(plan)
    return shape


def test_machines_talk_also_where_one_lets_nobody_in(machines, tmp_path):
    place = install(tmp_path)
    for machine in machines:
        machine.environment |= place
    machines[2].lab.nft(NOBODY_CAN_DIAL, node=machines[2].number)
    form(machines)
    eventually(lambda: everybody(machines))
    signs = tmp_path / "signs"
    signs.mkdir()
    shape = run(machines[0], tmp_path, Plan(12, epochs=2, size=200_000, exchanges=20, signs=str(signs)))
    seats = {tuple(sorted(sign.name.split(".")[1] for sign in signs.glob(f"{name}.*"))) for name in names(signs)}
    assert {node["name"] for node in shape["nodes"]} == {"n1", "n2", "n3"}
    assert len(names(signs)) == 2
    assert len(seats) == 1, "as many processes in the second epoch"


def names(signs: Path) -> set[str]:
    """Of meetings."""
    return {sign.name.partition(".")[0] for sign in signs.iterdir()}
