"""Reads a trace with Perfetto's own descriptors, and reports what is in it as JSON."""

import json
import sys

from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2


def unknown(message):
    """Counts the fields that the descriptors do not have, at every level."""
    count = len(UnknownFieldSet(message))
    for field, value in message.ListFields():
        if field.message_type:
            values = [value] if hasattr(value, "ListFields") else value
            count += sum(unknown(each) for each in values)
    return count


trace = perfetto_trace_pb2.Trace()
with open(sys.argv[1], "rb") as file:
    trace.ParseFromString(file.read())
tracks = set()
begins, ends, open_slices = {}, {}, 0
for packet in trace.packet:
    if packet.HasField("track_descriptor"):
        tracks.add(packet.track_descriptor.uuid)
    if packet.HasField("track_event"):
        event = packet.track_event
        assert event.track_uuid in tracks, "an event is ahead of its track"
        open_slices += {event.TYPE_SLICE_BEGIN: 1, event.TYPE_SLICE_END: -1}.get(event.type, 0)
        for flow in event.flow_ids:
            assert flow not in begins, "two events begin one flow"
            begins[flow] = packet.timestamp
        for flow in event.terminating_flow_ids:
            assert flow not in ends, "two events end one flow"
            ends[flow] = packet.timestamp
json.dump(
    {
        "unknown_fields": unknown(trace),
        "open_slices": open_slices,
        "loose_flows": len(set(begins) ^ set(ends)),
    },
    sys.stdout,
)
