"""What Slurm's variables say of a process: its rank, its node, and the first host."""

import os

import pytest
from pytorch_lightning.plugins.environments import SLURMEnvironment

from clockwork.errors import UserError
from clockwork.io import slurm

NODES = {
    "gpu7": "gpu7",
    "gpu[01-03]": "gpu01",
    "gpu[03,07-09],login": "gpu03",
    "alpha,beta[1-2]": "alpha",
    "host0 host1": "host0",
    "gpu[5]": "gpu5",
    "a-b[10-12]": "a-b10",
}
STEP = {"JOB_ID": "41", "STEP_ID": "2", "STEP_NUM_TASKS": "5", "STEP_TASKS_PER_NODE": "2(x2),1", "PROCID": "3"}
STEP |= {"LOCALID": "1", "NODEID": "1", "STEP_NODELIST": "gpu[2-4]", "NTASKS": "9"}
EXPECTED = {"RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "5", "LOCAL_WORLD_SIZE": "2"}
EXPECTED |= {"MASTER_ADDR": "gpu2", "MASTER_PORT": "15289"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The step's variables alone."""
    variables = {f"SLURM_{name}": value for name, value in STEP.items()}
    monkeypatch.setattr(os, "environ", variables)
    return variables


@pytest.mark.parametrize("nodes", NODES)
def test_the_first_node_is_that_of_lightning(nodes: str) -> None:
    assert slurm.first_node(nodes) == NODES[nodes] == SLURMEnvironment.resolve_root_node_address(nodes)


def test_the_first_node_of_several_ranges() -> None:
    assert slurm.first_node("rack[1-2]node[03-04],b") == "rack1node03"
    assert slurm.first_node("gpu[01-03]-ib") == "gpu01-ib"


def test_a_task_is_described_as_torchrun_does(environment: dict[str, str]) -> None:
    slurm.join_step()
    assert {name: environment.get(name) for name in EXPECTED} == EXPECTED
    slurm.join_step()
    assert {name: environment.get(name) for name in EXPECTED} == EXPECTED


def test_a_task_that_sees_its_own_gpu_alone_uses_that(environment: dict[str, str]) -> None:
    environment["CUDA_VISIBLE_DEVICES"] = "1"
    slurm.join_step()
    alone = {"RANK": "3", "LOCAL_RANK": "0", "GROUP_RANK": "3", "WORLD_SIZE": "5", "LOCAL_WORLD_SIZE": "1"}
    assert {name: environment.get(name) for name in alone} == alone


ALONE = [{"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_PTY_PORT": "80"}, {"RANK": "0"}]


@pytest.mark.parametrize("change", ALONE)
def test_other_processes_are_left_alone(change: dict[str, str], environment: dict[str, str]) -> None:
    environment |= change
    unchanged = dict(environment)
    slurm.join_step()
    assert environment == unchanged


def test_only_equal_nodes_train(environment: dict[str, str]) -> None:
    assert slurm.tasks_per_node() == [2, 2, 1]
    with pytest.raises(UserError, match="2, 2, 1 tasks on the nodes"):
        slurm.check_equal_nodes()
    environment["SLURM_STEP_TASKS_PER_NODE"] = "2(x2)"
    slurm.check_equal_nodes()
