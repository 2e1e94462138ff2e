"""Every notebook runs from top to bottom on results that were made for it, and says what the tables say."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.font_manager
import nbformat
import numpy as np
import polars as pl
import pytest
from nbclient import NotebookClient
from sandscope_analysis import Results

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
#: Figures that each draws of cold starts alone, and what it says of tables that such results do not have.
FIGURES = {"cold_start": 4, "idle": 1, "memory_dedup": 0, "network_io": 2, "paper": 3}
#: Figures that each draws of every experiment.
FIGURES_OF_SUITE = {"cold_start": 3, "idle": 3, "memory_dedup": 3, "network_io": 3, "paper": 20}
SAYS = {
    "cold_start": [],
    "idle": ["`sandscope run idle` writes it"],
    "memory_dedup": ["no table 'memory_host': `sandscope run memory` writes it"],
    "network_io": ["`sandscope run network`"],
    "paper": ["run `sandscope run burst`", "run `sandscope run cpu`", "`sandscope run memory` writes it"],
}

#: What the test asks a notebook for after its last cell.
QUESTION = {
    "cold_start": "walls.to_dicts()",
    "network_io": "loads.select('name', 'step_name', 'rate').to_dicts() if 'rate' in globals().get('loads', []) else []",
    "paper": "cold_start.drop('workload').to_dicts()",
}


def run(name: str, directory: Path) -> nbformat.NotebookNode:
    """A notebook with its outputs, and as its last output the answer to the question."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    if name in QUESTION:
        question = f"import json; print(json.dumps({QUESTION[name]}))"
        notebook.cells.append(nbformat.v4.new_code_cell(question))
    environment = f"import os; os.environ['SANDSCOPE_RESULTS'] = {str(directory)!r}"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(environment))
    # The working directory must not matter.
    client = NotebookClient(
        notebook, timeout=300, startup_timeout=300, kernel_name="python3", resources={"metadata": {"path": "/"}}
    )
    client.execute()
    return notebook


def run_all(directory: Path) -> dict[str, nbformat.NotebookNode]:
    """All notebooks, two at a time: most of each is loading libraries.

    The first that asks for fonts on a machine makes a list of them, and says so on standard error if that takes a while: it is
    made here, not by a notebook.
    """
    assert matplotlib.font_manager.fontManager.ttflist
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(NAMES, pool.map(lambda name: run(name, directory), NAMES), strict=True))


@pytest.fixture(scope="session")
def executed(probed: Path) -> dict[str, nbformat.NotebookNode]:
    """The notebooks on cold starts alone."""
    return run_all(probed)


@pytest.fixture(scope="session")
def executed_on_suite(suite: Path) -> dict[str, nbformat.NotebookNode]:
    """The notebooks on every experiment."""
    return run_all(suite)


def texts(notebook: nbformat.NotebookNode) -> str:
    """Everything that a notebook printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_notebooks_are_committed_without_outputs() -> None:
    assert set(NAMES) == set(FIGURES)
    for name in NAMES:
        for cell in nbformat.read(FOLDER / f"{name}.ipynb", 4).cells:
            assert not cell.get("outputs") and not cell.get("execution_count"), f"{name}: clear its outputs"


def figures(notebook: nbformat.NotebookNode) -> int:
    """How many figures a notebook has drawn, none of them with an error or a warning."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output["text"] for output in outputs if output.get("name") == "stderr"], "a notebook warns of nothing"
    return len([output for output in outputs if "image/png" in output.get("data", {})])


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_draws(name: str, executed: dict[str, nbformat.NotebookNode]) -> None:
    assert figures(executed[name]) >= FIGURES[name]
    for words in SAYS[name]:
        assert words in texts(executed[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_draws_more_of_a_suite(name: str, executed_on_suite: dict[str, nbformat.NotebookNode]) -> None:
    notebook = executed_on_suite[name]
    assert figures(notebook) >= FIGURES_OF_SUITE[name]
    # No virtual machine was started; everything else is there.
    asked_for = [line for line in texts(notebook).splitlines() if "run `sandscope" in line]
    assert [line for line in asked_for if "virtual machine" not in line] == []


def test_the_notebooks_on_a_suite_show_what_the_tables_say(
    suite: Path, executed_on_suite: dict[str, nbformat.NotebookNode]
) -> None:
    steps = Results(suite).table("steps").filter(pl.col("name") == "closed-16").collect()
    rate = (steps["good_count"] / ((steps["end_ns"] - steps["start_ns"]) / 1e9)).median()
    shown = [row for row in answer(executed_on_suite["network_io"]) if row["step_name"] == "closed-16"]
    assert [(row["name"], row["rate"]) for row in shown] == [("process / rust", pytest.approx(rate))]


def answer(notebook: nbformat.NotebookNode) -> list[dict]:
    return json.loads(notebook.cells[-1].outputs[-1]["text"])


def test_the_medians_of_cold_starts_are_those_of_the_tables(probed: Path, executed: dict[str, nbformat.NotebookNode]) -> None:
    instances = Results(probed).table("instances").collect()
    seen = {(row["name"], row["probes"]): row for row in answer(executed["cold_start"])}
    assert len(seen) == instances.n_unique(["sandbox", "probes"])
    for (sandbox, workload, probes), group in instances.group_by(["sandbox", "workload", "probes"]):
        row = seen[f"{sandbox} / {workload}", probes]
        walls = group.filter(pl.col("ok"))["wall_ns"].to_numpy() / 1e6
        assert row["median"] == pytest.approx(np.median(walls)) and row["count"] == len(walls)
        assert np.isnan(row["low"]) or row["low"] <= row["median"] <= row["high"]


def test_the_paper_notebook_shows_our_times_without_probes(probed: Path, executed: dict[str, nbformat.NotebookNode]) -> None:
    instances = Results(probed).table("instances").filter(pl.col("ok") & ~pl.col("probes")).collect()
    for row in answer(executed["paper"]):
        walls = instances.filter(pl.col("sandbox") == row["sandbox"])["wall_ns"].to_numpy() / 1e6
        assert row["median"] == pytest.approx(np.median(walls))
    assert len(answer(executed["paper"])) == instances["sandbox"].n_unique()
