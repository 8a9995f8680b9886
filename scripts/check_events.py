#!/usr/bin/env python3
"""Reads TensorBoard event files with the real tensorboard package, checksums included, and prints what is in them.

    python3 -m venv venv && venv/bin/pip install tensorboard
    venv/bin/python scripts/check_events.py FILE...
"""
import sys

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

for path in sys.argv[1:]:
    events = [Event.FromString(raw) for raw in RawEventFileLoader(path).Load()]
    assert events and events[0].file_version == "brain.Event:2", f"{path}: no event file"
    for event in events[1:]:
        values = ", ".join(f"{v.tag}={v.simple_value:.8g}" for v in event.summary.value)
        print(f"{path}: step {event.step} at {event.wall_time:.3f}: {values}")
    print(f"{path}: {len(events)} records read")
