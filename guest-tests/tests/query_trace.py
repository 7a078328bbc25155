"""Asks Perfetto's trace processor about a trace.

Usage: query_trace.py ENGINE TRACE < QUERIES. ENGINE is the directory of the trace processor's WebAssembly, QUERIES a
JSON list of SQL. Prints a JSON list that has for each query its rows, as maps from columns to values.
"""

import json
import pathlib
import subprocess
import sys

from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory
from perfetto.trace_processor.rpc import TraceProcessorRpc

# Bytes of a trace in a request.
CHUNK = 1 << 20


class Node:
    """The trace processor in a process of Node, as a transport."""

    def __init__(self, engine):
        script = pathlib.Path(__file__).with_name("trace_processor.js")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(["node", script, engine], stdin=pipe, stdout=pipe)

    def send(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self, length):
        data = self.process.stdout.read(length)
        if len(data) < length:
            raise ConnectionError("the trace processor has ended")
        return data

    def close(self):
        self.process.stdin.close()
        if self.process.wait() != 0:
            raise ConnectionError("the trace processor has failed")


class Client(TraceProcessorRpc):
    """Perfetto's client, with the requests that load a trace."""

    def parse(self, chunk):
        method = self.protos.TraceProcessorRpc.TPM_APPEND_TRACE_DATA
        result = self._call(request=method, append_trace_data=chunk).append_result
        if result.error:
            raise ValueError(result.error)

    def notify_eof(self):
        result = self._call(request=self.protos.TraceProcessorRpc.TPM_FINALIZE_TRACE_DATA).finalize_data_result
        if result.error:
            raise ValueError(result.error)

    def _call(self, **fields):
        stream = self.protos.TraceProcessorRpcStream()
        stream.msg.add(**fields)
        self.transport.send(stream.SerializeToString())
        answer = self.protos.TraceProcessorRpc.FromString(self._read_payload())
        self._check_envelope(answer)
        return answer


def rows(client, sql):
    result = client.execute_query(sql)
    if result.error:
        raise ValueError(f"{sql}: {result.error}")
    columns = result.column_names
    return [
        {column: getattr(row, column) for column in columns}
        for row in QueryResultIterator(columns, result.batch)
    ]


def main():
    engine, trace = sys.argv[1:]
    client = Client(Node(engine), ProtoFactory(PlatformDelegate()))
    with open(trace, "rb") as file:
        while chunk := file.read(CHUNK):
            client.parse(chunk)
    client.notify_eof()
    json.dump([rows(client, sql) for sql in json.load(sys.stdin)], sys.stdout)
    client.close()


main()
