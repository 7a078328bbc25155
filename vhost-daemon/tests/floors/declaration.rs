//! The floors of each package, from the ground up. A file imports from lower floors, and from its own room.

/// Floors of a package, or of a room in it.
#[derive(Debug)]
pub struct Plan {
    pub package: &'static str,
    /// Module whose children this plan places; empty for the package.
    pub room: &'static str,
    /// Rooms of each floor, lowest floor first; `*` stands for all that no other entry names. Rooms of one floor do not
    /// import each other.
    pub floors: &'static [&'static [&'static str]],
}

const fn package(package: &'static str, floors: &'static [&'static [&'static str]]) -> Plan {
    room(package, "", floors)
}

const fn room(package: &'static str, room: &'static str, floors: &'static [&'static [&'static str]]) -> Plan {
    Plan { package, room, floors }
}

pub const PLANS: &[Plan] = &[
    package(
        "vhost-nic",
        &[
            &["frame"],
            &["dma", "roce"],
            &["net"],
            &["external_port", "pci"],
            &["hca"],
            &["engine", "firmware", "timeline"],
            &["nic"],
            &["fault", "record"],
            &["doors", "replay"],
            &["control_command"],
            &["args"],
            &["capture_command", "daemon", "top_command", "trace_command"],
            &["replay_command"],
            &["main"],
        ],
    ),
    room(
        "vhost-nic",
        "hca",
        &[
            &["memory_budget", "pcie_account", "pcie_latency", "priority", "tape"],
            &["clock"],
            &[
                "blue_flame",
                "buffer",
                "entry_door",
                "entry_ring",
                "event",
                "inspect",
                "limits",
                "nic_event",
                "object_table",
                "refcount",
                "vport",
            ],
            &["domain", "nic_finding", "port_counters", "queue_counter"],
            &["eq", "mkey", "scheduler", "wq"],
            &["cq", "port"],
            &["rq", "srq"],
            &["qp", "sq", "tis_tir_rqt"],
            &["revocation", "send_opcodes", "steering"],
        ],
    ),
    room(
        "vhost-nic",
        "nic",
        &[&["bar", "doorbell_check", "init_segment", "snapshot"], &["uar"]],
    ),
    package(
        "pci-function",
        &[
            &["bus_master", "device", "dma", "msix", "spec", "stats"],
            &["config_layout", "turn"],
            &["config_space"],
            &["function"],
            &["attachment"],
        ],
    ),
    package(
        "mlx5-test-driver",
        &[
            &["cqe_session", "interrupts", "memory", "request", "wait"],
            &["buffer", "device"],
            &["machine"],
            &["event_ring"],
            &["command"],
            &["eq"],
            &["hca"],
            &["cq", "domain", "mkey", "steering", "tis_tir_rqt"],
            &["region", "rq", "sq", "srq"],
            &["netdev"],
            &["node", "vfio_user"],
            &["qp"],
            &["fuzz"],
        ],
    ),
    package("mlx5-prm", &[&["layout"], &["steering"], &["*"]]),
    package(
        "vhost-ism",
        &[
            &["abi", "buddy", "inspect", "ism_finding", "tape"],
            &["door", "ism_event", "slab_view"],
            &["slab", "stats"],
            &["event"],
            &["doorbell", "fabric"],
            &["window"],
            &["guest"],
            &["control", "fault"],
            &["mover"],
            &["connection"],
            &["backend", "record"],
            &["replay"],
            &["control_command"],
            &["args"],
            &["daemon", "top_command", "trace_command"],
            &["replay_command"],
            &["main"],
        ],
    ),
    package(
        "vhost-daemon",
        &[
            &["panic", "sandbox"],
            &[
                "completion",
                "counter",
                "display",
                "foreign_eventfd",
                "heartbeat",
                "limited_log",
                "log_queue",
                "lost_memory",
                "metrics",
                "output",
                "program",
                "record",
                "service_manager",
                "size",
                "sockets",
            ],
            &["args", "guarded_ram", "vring"],
            &["fault", "finding", "replay", "server", "socket_server", "trace"],
            &["control_command", "fail_on", "trace_dump", "vhost_user"],
            &["control_client", "controlled", "testing"],
            &[
                "control_socket",
                "metrics_socket",
                "replay_command",
                "stats_socket",
                "top_command",
                "trace_command",
            ],
            &["main_loop"],
        ],
    ),
    package(
        "guest-harness",
        &[
            &["error", "noise", "splat"],
            &["daemon_control", "deadline", "locate"],
            &["budget", "image", "perfetto", "sync"],
            &["control", "interrupt", "qmp", "serial_port"],
            &["artefacts", "process"],
            &["console", "daemon", "vm"],
            &["device", "diagnostics", "qemu", "uml"],
            &["command", "ism", "link", "machine"],
            &["guest"],
            &["nic", "sweep"],
            &["testbed"],
            &["smc"],
        ],
    ),
    package(
        "guest-agent",
        &[
            &["frame", "lib"],
            &["message", "port"],
            &["channel"],
            &["reaper", "transfer"],
            &["job"],
            &["session"],
            &["main"],
        ],
    ),
    package(
        "guest-bench",
        &[
            &["history", "shell", "table", "workload"],
            &["comparison", "interleaved", "web"],
            &["ethernet", "smc_bench", "smc_demo", "smc_r_bench", "uml", "verbs"],
            &["nic"],
            &["main"],
        ],
    ),
    package(
        "in-guest",
        &[
            &["args", "report", "results", "share"],
            &["devices", "environment", "junit", "kernel", "module", "program"],
            &["evidence"],
            &["sweep"],
            &["session"],
            &["main"],
        ],
    ),
    package(
        "smc-tool",
        &[
            &[
                "bar_scan",
                "byte_size",
                "data",
                "dibs",
                "fallback_reason",
                "monotonic",
                "preload",
            ],
            &["netlink", "wire"],
            &["stream"],
            &["messages"],
            &["client", "server"],
            &["cli"],
            &["main"],
        ],
    ),
    package("smc-preload", &[&["*"]]),
];
