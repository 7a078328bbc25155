//! Devices with faults, findings and SMC-D.

use crate::fixture::Folder;

#[test]
fn a_plan_of_faults_makes_the_command_fail() {
    let folder = Folder::new();
    let plan = "[[fault]]\nkind = \"command_refused\"\nopcode = \"ALLOC_PD\"\nstatus = 0xf\ncount = 1\n";
    folder.write("plan.toml", plan);
    let command = "ibv_rc_pingpong -d $RDMA_DEVICE -g $GID_INDEX";
    let run = folder.run(&["--faults", "plan.toml", "--", command], "");
    assert_eq!(run.status, Some(1));
    assert!(run.stderr.contains("Couldn't allocate PD"), "{}", run.stderr);
    assert_eq!(folder.json("faults-vhost-nic.json")[0]["strikes"], 1);
}

#[test]
#[ignore = "long: two runs for each firmware command"]
fn a_sweep_refuses_each_command_once() {
    let folder = Folder::new();
    let words = ["--kernel", "own", "--sweep", "command", "--", "ibv_devinfo > /dev/null"];
    let run = folder.run(&words, "");
    assert_eq!(run.status, Some(0));
    let (table, summary) = run.stdout.split_once("\n\n").expect("a table and a summary");
    for command in ["ALLOC_TRANSPORT_DOMAIN", "ALLOC_UAR", "QUERY_ADAPTER", "DEALLOC_UAR"] {
        assert!(table.contains(&format!("\n| `{command}` | ")), "{table}");
    }
    let adapter = table.lines().find(|row| row.starts_with("| `QUERY_ADAPTER` |"));
    assert_eq!(adapter, Some("| `QUERY_ADAPTER` | 3 | 8 |  |"));
    assert_eq!(summary, "12 steps: 9 recovered, 3 failed cleanly\n");
    assert_eq!(folder.result("sweep.md"), run.stdout);
    assert!(
        folder
            .result("junit.xml")
            .contains("tests=\"12\" skipped=\"0\" failures=\"0\"")
    );
}

/// A write of one byte, where there is no register.
#[test]
fn a_finding_of_a_kind_that_fails_the_run_does() {
    let folder = Folder::new();
    folder.write(
        "stray.py",
        "import mmap, os\n\
         f = os.open('/sys/class/net/nic0/device/resource0', os.O_RDWR | os.O_SYNC)\n\
         mmap.mmap(f, 4096)[0x801] = 1\nprint('written')\n",
    );
    let words = [
        "--kernel-arg",
        "iomem=relaxed",
        "--fail-on",
        "stray_access",
        "--",
        "python3 stray.py",
    ];
    let run = folder.run(&words, "");
    assert_eq!((run.status, run.stdout.as_str()), (Some(1), "written\n"));
    assert!(
        run.stderr.contains("error: vhost-nic has ended with exit status: 1"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("vhost-nic: finding stray_access, 1 recorded"),
        "{}",
        run.stderr
    );
}

#[test]
fn smc_d_runs_between_two_guests() {
    let folder = Folder::new();
    let server = "b=/host/smc-tool serve --port 5000 --proto smc";
    let client = "/host/smc-tool rtt --to $ADDRESS_B:5000 --count 10 --expect-mode smcd";
    let run = folder.run(&["--guests", "2", "--ism", "--on", server, "--", client], "");
    assert_eq!(run.status, Some(0));
    assert!(folder.result("vhost-ism.log").contains("ism-1"));
    assert!(!folder.has_result("vhost-nic.log"));
}
