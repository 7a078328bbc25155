#!/usr/bin/python3
"""Starts programs in another guest for mpirun, in place of ssh.

usage: launch.py
       launch.py HOST COMMAND...

The first prints "ready" and runs the commands that the second sends, which copies their output and ends with their
status.
"""
import socket
import socketserver
import subprocess
import sys

PORT = 7000


class Command(socketserver.StreamRequestHandler):
    def handle(self):
        command = self.rfile.readline().decode()
        run = subprocess.Popen(
            ["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for line in run.stdout:
            self.wfile.write(b" " + line.rstrip(b"\n") + b"\n")
        self.wfile.write(b"%d\n" % run.wait())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


if len(sys.argv) == 1:
    with Server(("", PORT), Command) as server:
        print("ready", flush=True)
        server.serve_forever()
with socket.create_connection((sys.argv[1], PORT)) as peer:
    peer.sendall(" ".join(sys.argv[2:]).encode() + b"\n")
    for line in peer.makefile("rb"):
        if line[:1] != b" ":
            sys.exit(int(line))
        sys.stdout.buffer.write(line[1:])
        sys.stdout.flush()
sys.exit("the launcher of the other guest has ended")
