"""Results that sandscope itself has just written, shared by all tests."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

INSTANCES = 2
#: Kinds whose starts look differently: a process, a container, a sandbox with a kernel of its own, a virtual machine.
KINDS = ("process", "runc", "gvisor", "kvm-floor")


def sandscope(*arguments: str) -> str:
    """Runs the program under test and gives what it prints."""
    program = os.environ["SANDSCOPE_PROGRAM"]
    return subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def skip(test: str, feature: str, reason: str) -> None:
    """Skips aloud: the test command counts these lines, and fails when the host has the feature."""
    line = f"SKIP {test} [{feature}]: {reason}"
    print(line)
    if log := os.environ.get("SANDSCOPE_SKIP_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    pytest.skip(line)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a run that needs no privileges."""
    out = tmp_path_factory.mktemp("results") / "results"
    options = ["--sandbox", "process", "--network", "host", "--no-probes", "-n", str(INSTANCES), "--out", str(out)]
    sandscope("run", "cold-start", *options)
    return out


@pytest.fixture(scope="session")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a run with probes, with the single events of every instance that has them."""
    features = json.loads(
        subprocess.run(
            [os.environ["SANDSCOPE_PROGRAM"], "doctor", "--json"], stdout=subprocess.PIPE, text=True, check=False
        ).stdout
    )["features"]
    usable = {feature["name"]: feature["verdict"] == "ok" for feature in features}
    # Without these nothing is explained; where none can be loaded at all, `probes` stands for them.
    if not all(usable.get(f"probe {name}") for name in ("scope", "sched", "wakeup")):
        skip("analysis", "probes", "no probes can be loaded here, so that no start is explained")
    kinds = [kind for kind in KINDS if usable.get(f"sandbox {kind}")]
    out = tmp_path_factory.mktemp("probed") / "results"
    sandscope(
        "run", "cold-start", "--sandbox", ",".join(kinds), "-n", str(INSTANCES), "--timeline", "all", "--out", str(out)
    )
    return out
