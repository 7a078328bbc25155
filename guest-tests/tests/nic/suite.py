"""One file of rdma-core's test suite, named by the argument: a line of JSON for each test, as it ends."""

import importlib
import json
import os
import signal
import sys
import time
import traceback
import unittest

FOLDER = "/usr/share/doc/rdma-core"
# For one test; none needs a tenth of it under software emulation.
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
        tell(test.id(), self.outcome, self.begin, self.why)


def tell(name, outcome, begin, why):
    seconds = round(time.monotonic() - begin, 2)
    line = json.dumps({"name": name, "outcome": outcome, "seconds": seconds, "why": why})
    os.write(report, line.encode() + b"\n")


def overdue(_signal, _frame):
    raise TimeoutError(f"it takes longer than {LIMIT} s")


# Tests write to standard output, too.
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
    tell(f"tests.{name}", "fail", begin, traceback.format_exc())
else:
    tests.run(Report())
# Some leave behind what Python cannot collect without a crash.
os._exit(0)
