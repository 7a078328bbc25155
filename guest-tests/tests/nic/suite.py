"""Runs one file of rdma-core's test suite; prints a line of JSON as each test ends.

usage: suite.py FILE DEVICE
"""

import importlib
import json
import os
import signal
import sys
import time
import traceback
import unittest

FOLDER = "/usr/share/doc/rdma-core"
# Seconds per test; none needs a tenth of that under software emulation.
LIMIT = 60


class Report(unittest.TestResult):
    def startTest(self, test):
        super().startTest(test)
        self.begin = time.monotonic()
        self.outcome, self.why = "pass", ""
        signal.alarm(LIMIT)

    def addSkip(self, test, reason):
        self.outcome, self.why = "skip", reason

    def addError(self, test, error):
        self.outcome = "fail"
        self.why = "".join(traceback.format_exception(*error)[-2:])

    addFailure = addError

    def stopTest(self, test):
        signal.alarm(0)
        report_result(test.id(), self.outcome, self.begin, self.why)


def report_result(name, outcome, begin, why):
    seconds = round(time.monotonic() - begin, 2)
    line = json.dumps({"name": name, "outcome": outcome, "seconds": seconds, "why": why})
    os.write(report, line.encode() + b"\n")


def overdue(_signal, _frame):
    raise TimeoutError(f"timed out after {LIMIT} s")


# Results go to a copy of standard output, as tests also write to it.
report = os.dup(1)
os.dup2(2, 1)
signal.signal(signal.SIGALRM, overdue)
name, device = sys.argv[1:]
sys.path[:0] = [FOLDER, FOLDER + "/tests"]
sys.argv[1:] = ["--dev", device, "--port", "1", "--gid", "1"]

begin = time.monotonic()
import args_parser

args_parser.parser.parse_args()
try:
    tests = unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module("tests." + name))
except Exception:
    report_result(f"tests.{name}", "fail", begin, traceback.format_exc())
else:
    tests.run(Report())
# Without cleanup: some tests leave objects that crash Python when collected.
os._exit(0)
