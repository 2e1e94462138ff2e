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


#: Every experiment in small, of a sandbox that every host can run; the memory experiment with the content of pages.
SUITE = """
seed = 3
repetitions = 1
probes = "with"

[experiment.burst]
instances = [2]

[experiment.idle]
settle-s = 0.1
window-s = 0.3

[experiment.memory]
instances = 2
settle-s = 0.1
pages = true

[experiment.warm]
requests = 3
window-s = 0.1

[experiment.cpu]
fib = 1_000_000
fft = 4096
matrix = 32
requests = 2

[experiment.alloc]
mib = 8
more = 1

[experiment.network]
connections = [1, 16]
rates = [200.0]
rate-connections = 4
file-connections = 2
fetches = 2
window-s = 0.1

[[matrix]]
experiments = ["cold-start", "burst", "idle", "memory", "warm", "cpu", "alloc", "read", "unzip", "network"]
sandboxes = ["process"]
workloads = ["rust"]
"""


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory, probed: Path) -> Path:
    """Results of a suite that has every experiment; where no probes can be loaded, `probed` skips."""
    home = tmp_path_factory.mktemp("suite")
    (home / "suite.toml").write_text(SUITE, encoding="utf-8")
    sandscope("run", str(home / "suite.toml"), "--out", str(home / "results"))
    return home / "results"
