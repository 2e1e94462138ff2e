"""Traces and flame graphs, read by others: a trace by the schema that the Perfetto project publishes, stacks by splitting lines.

What they hold is compared, exactly, to the tables that they were made from.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from conftest import sandscope
from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as published
from sandscope_analysis import Results

Event = published.TrackEvent


class Trace:
    """A trace as tracks with slices, instants and counts, by the path of their names."""

    def __init__(self, content: bytes) -> None:
        self.packets = published.Trace.FromString(content).packet
        self.tracks = {
            packet.track_descriptor.uuid: packet.track_descriptor
            for packet in self.packets
            if packet.HasField("track_descriptor")
        }
        events = defaultdict(list)
        for packet in self.packets:
            if packet.HasField("track_event"):
                events[packet.track_event.track_uuid].append((packet.timestamp, packet.track_event))
        assert set(events) <= set(self.tracks), "an event is on no track"
        self.events = events

    def path(self, uuid: int) -> tuple[str, ...]:
        track = self.tracks[uuid]
        above = self.path(track.parent_uuid) if track.HasField("parent_uuid") else ()
        return (*above, track.name)

    def below(self, instance: str, name: str):
        """Tracks of an instance whose name begins so."""
        paths = ((uuid, self.path(uuid)) for uuid in self.tracks)
        return [uuid for uuid, path in paths if path[0] == instance and len(path) > 1 and path[-1].startswith(name)]

    def slices(self, uuid: int) -> list[tuple[int, int, Event]]:
        """Beginning, end and first event of each slice of a track; fails unless they follow each other."""
        slices, begun, reached = [], None, 0
        for at_ns, event in self.events[uuid]:
            if event.type == Event.TYPE_SLICE_BEGIN:
                assert begun is None and at_ns >= reached, f"slices overlap on {self.path(uuid)}"
                begun = (at_ns, event)
            elif event.type == Event.TYPE_SLICE_END:
                assert begun is not None and at_ns >= begun[0], f"a negative slice on {self.path(uuid)}"
                slices.append((begun[0], at_ns, begun[1]))
                begun, reached = None, at_ns
        assert begun is None, f"a slice does not end on {self.path(uuid)}"
        return slices

    def times(self, uuids: list[int]) -> Counter:
        """Nanoseconds by category over some tracks."""
        times: Counter = Counter()
        for uuid in uuids:
            for start, end, event in self.slices(uuid):
                times[event.categories[0]] += end - start
        return times


@pytest.fixture(scope="session")
def trace(probed: Path, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    out = tmp_path_factory.mktemp("trace") / "trace.pftrace"
    sandscope("export", "perfetto", str(probed), "--out", str(out))
    return Trace(out.read_bytes())


def instances(results: Results) -> list[tuple[str, dict]]:
    """Each instance that was launched, with the name of its track."""
    rows = results.table("instances").collect().to_dicts()
    without = {True: "", False: ", without probes"}
    return [(f"{row['sandbox']} {row['workload']} #{row['position']}{without[row['probes']]}", row) for row in rows]


def of(results: Results, table: str, instance: dict) -> pl.DataFrame:
    return results.table(table).filter(pl.col("instance_id") == instance["instance_id"]).collect()


def sums(frame: pl.DataFrame, by: str) -> dict[str, int]:
    """Lengths of the rows by a column."""
    frame = frame.with_columns(time_ns=(pl.col("end_ns") - pl.col("start_ns")).cast(pl.Int64))
    return {key: time for key, time in frame.group_by(by).agg(pl.col("time_ns").sum()).iter_rows() if time}


def test_the_published_schema_knows_every_field(trace: Trace) -> None:
    def known(message) -> None:
        assert len(UnknownFieldSet(message)) == 0, f"unknown fields in {type(message).__name__}: {message}"
        for field, value in message.ListFields():
            if field.message_type is not None:
                for part in value if field.is_repeated else [value]:
                    known(part)

    assert len(trace.packets) > 1000
    for packet in trace.packets:
        known(packet)


def test_times_are_the_monotonic_clock_and_tied_to_the_calendar(probed: Path, trace: Trace) -> None:
    snapshot = trace.packets[0].clock_snapshot
    assert snapshot.primary_trace_clock == published.BUILTIN_CLOCK_MONOTONIC
    clocks = {clock.clock_id: clock.timestamp for clock in snapshot.clocks}
    rows = [row for _, row in instances(Results(probed)) if row["position"] == 0]
    assert clocks[published.BUILTIN_CLOCK_MONOTONIC] == rows[0]["launched_at_monotonic_ns"]
    # Python's dates have microseconds.
    launched = (rows[0]["launched_at_unix_ns"] - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    assert clocks[published.BUILTIN_CLOCK_REALTIME] // 1000 == launched
    for packet in trace.packets:
        if packet.HasField("track_event"):
            assert packet.timestamp_clock_id == published.BUILTIN_CLOCK_MONOTONIC


def test_phases_and_account_are_those_of_the_tables_to_the_nanosecond(probed: Path, trace: Trace) -> None:
    results = Results(probed)
    for name, row in instances(results):
        launch = row["launched_at_monotonic_ns"]
        [track] = trace.below(name, "phases")
        seen = [(event.name, start - launch, end - launch) for start, end, event in trace.slices(track)]
        assert seen == of(results, "phases", row).select("phase", "start_ns", "end_ns").rows()
        account = trace.below(name, "critical path")
        assert len(account) == row["probes"]
        if account:
            by_category = of(results, "attribution", row).group_by("category").agg(pl.col("time_ns").sum())
            assert trace.times(account) == Counter({key: time for key, time in by_category.iter_rows() if time})
            assert trace.times(account).total() == row["wall_ns"]


def test_threads_and_vcpus_are_those_of_the_tables_to_the_nanosecond(probed: Path, trace: Trace) -> None:
    results = Results(probed)
    # Role, name and number; no other track is called like this.
    thread_name = re.compile(r".+: .* \d+", re.DOTALL)
    for name, row in instances(results):
        threads = [uuid for uuid in trace.below(name, "") if thread_name.fullmatch(trace.path(uuid)[-1])]
        slices = of(results, "thread_slices", row)
        assert len(threads) == slices["thread"].n_unique()
        assert trace.times(threads) == Counter(sums(slices, "category"))
        # The tables of sums were made from the same events by another way.
        sched = of(results, "sched", row)
        for column in ("user", "kernel", "runnable", "blocked", "kvm_run"):
            assert trace.times(threads)[column] == sched[f"{column}_ns"].sum()
        vcpus = trace.below(name, "vCPU")
        assert trace.times(vcpus) == Counter(sums(of(results, "vcpu_slices", row), "state"))
        assert bool(vcpus) == (row["sandbox"] == "kvm-floor" and row["probes"])


def test_exits_are_those_of_the_tables_one_by_one(probed: Path, trace: Trace) -> None:
    results = Results(probed)
    total = 0
    for name, row in instances(results):
        seen = Counter(
            (event.categories[0], event.name)
            for uuid in trace.below(name, "exits of vCPU")
            for _, event in trace.events[uuid]
        )
        counts = of(results, "exits", row).group_by("source", "reason").agg(pl.col("count").sum())
        assert seen == Counter({(source, reason): count for source, reason, count in counts.iter_rows()})
        total += seen.total()
    if any(row["sandbox"] == "kvm-floor" for _, row in instances(results)):
        assert total > 0


def test_every_arrow_has_both_ends_and_points_forward(probed: Path, trace: Trace) -> None:
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    for events in trace.events.values():
        for at_ns, event in events:
            for flow in event.flow_ids:
                assert flow not in begins
                begins[flow] = at_ns
            for flow in event.terminating_flow_ids:
                assert flow not in ends and event.type == Event.TYPE_SLICE_BEGIN
                ends[flow] = at_ns
    assert begins == ends, "an arrow takes no time: who is woken is ready at once"
    results = Results(probed)
    flows = results.table("wakeup_flows").collect()
    known = flows.filter(pl.col("waker_thread").is_not_null() & pl.col("waited_ns").is_not_null())
    # All but those whose thread got a CPU in the very same nanosecond.
    assert 0.99 * known.height <= len(begins) <= known.height
    assert begins


def test_markers_console_and_counters_are_those_of_the_tables(probed: Path, trace: Trace) -> None:
    results = Results(probed)
    for name, row in instances(results):
        launch = row["launched_at_monotonic_ns"]
        [track] = trace.below(name, "markers")
        seen = [(event.name, at_ns - launch) for at_ns, event in trace.events[track]]
        markers = of(results, "markers", row).filter(pl.col("marker") != "console_line")
        assert seen == markers.select("marker", "at_ns").rows()
        lines = Counter(event.name for uuid in trace.below(name, "console, by") for _, event in trace.events[uuid])
        assert lines == Counter(of(results, "console_lines", row)["line"])
        faults = [event.counter_value for uuid in trace.below(name, "user_page_faults") for _, event in trace.events[uuid]]
        counters = of(results, "counters", row).filter(pl.col("counter") == "user_page_faults")
        assert faults == counters["value"].to_list() == sorted(faults)


def test_one_instance_can_be_exported_alone(probed: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.pftrace"
    sandscope("export", "perfetto", str(probed), "--instance", "0", "--out", str(out))
    [name] = {Trace(out.read_bytes()).path(uuid)[0] for uuid in Trace(out.read_bytes()).tracks}
    assert [name] == [name for name, row in instances(Results(probed)) if row["position"] == 0]


@pytest.mark.parametrize(("view", "table"), [("account", "attribution"), ("threads", "thread_slices")])
def test_stacks_add_up_to_the_table(probed: Path, tmp_path: Path, view: str, table: str) -> None:
    text = sandscope("export", "flamegraph", str(probed), "--view", view)
    stacks = [line.rsplit(" ", 1) for line in text.splitlines()]
    results = Results(probed)
    frame = results.table(table).collect().join(
        results.table("instances").collect().select("instance_id", "sandbox"), on="instance_id"
    )
    if view == "threads":
        frame = frame.with_columns(time_ns=pl.col("end_ns") - pl.col("start_ns"))
    assert sum(int(time) for _, time in stacks) == frame["time_ns"].sum()
    of_sandbox: Counter = Counter()
    for stack, time in stacks:
        of_sandbox[stack.split(";")[0]] += int(time)
    assert of_sandbox == Counter(dict(frame.group_by("sandbox").agg(pl.col("time_ns").sum()).iter_rows()))
    on_cpu = {"guest", "exit", "kvm_run", "user", "fault", "interrupt", "kernel"}
    seen = sum(int(time) for stack, time in stacks if "on CPU" in stack.split(";"))
    assert seen == frame.filter(pl.col("category").is_in(on_cpu))["time_ns"].sum()
    drawing = tmp_path / "flames.svg"
    sandscope("export", "flamegraph", str(probed), "--view", view, "--out", str(drawing))
    titles = [title.text or "" for title in ElementTree.parse(drawing).iter("{http://www.w3.org/2000/svg}title")]
    whole = f"{frame['time_ns'].sum():,}"
    assert any(title.startswith(f"all ({whole} ns") for title in titles), titles[:3]


def test_what_was_not_recorded_is_said(directory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bare.pftrace"
    sandscope("export", "perfetto", str(directory), "--out", str(out))
    assert "0 of them with their single events" in capfd.readouterr().err
    bare = Trace(out.read_bytes())
    assert {bare.path(uuid)[-1] for uuid in bare.tracks} >= {"phases", "markers"}
