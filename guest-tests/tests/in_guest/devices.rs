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
fn smc_d_runs_between_two_guests() {
    let folder = Folder::new();
    let server = "b=/host/smc-tool serve --port 5000 --proto smc";
    let client = "/host/smc-tool rtt --to $ADDRESS_B:5000 --count 10 --expect-mode smcd";
    let run = folder.run(&["--guests", "2", "--ism", "--on", server, "--", client], "");
    assert_eq!(run.status, Some(0));
    assert!(folder.result("vhost-ism.log").contains("ism-1"));
    assert!(!folder.has_result("vhost-nic.log"));
}
