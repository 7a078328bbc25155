//! The devices of the guests and their daemons: options, control sockets, faults, traces, findings.

use std::path::Path;

use anyhow::Result;
use guest_harness::{Builder, DaemonControl, IsmOptions, NicOptions, NicSetup, Testbed};
use serde_json::Value;

use crate::args::Arguments;
use crate::results;

/// A daemon of the run.
#[derive(Debug)]
pub struct DeviceDaemon {
    /// Name in file names.
    pub name: &'static str,
    /// Control socket of the daemon.
    pub control: DaemonControl,
}

/// Adds the devices of the command line to a testbed. The control sockets are below `scratch`.
pub fn add(
    arguments: &Arguments,
    mut builder: Builder,
    scratch: &Path,
    results: &Path,
) -> Result<(Builder, Vec<DeviceDaemon>)> {
    let mut daemons = Vec::new();
    let mut daemon = |name, program| {
        let control = scratch.join(name);
        let mut args = vec!["--control-socket".to_owned(), control.display().to_string()];
        if arguments.trace {
            args.push("--flight-recorder".to_owned());
        }
        if let Some(kinds) = &arguments.fail_on {
            args.extend(["--fail-on".to_owned(), kinds.clone()]);
        }
        let control = DaemonControl::new(program, control);
        daemons.push(DeviceDaemon { name, control });
        args
    };
    if arguments.has_nic() {
        let (guest_settings, root_port) = arguments.nic_settings();
        let mut args = daemon("vhost-nic", NicOptions::program()?);
        if arguments.capture {
            let capture = results.join("capture.pcapng").display().to_string();
            args.extend(["--capture".to_owned(), capture, "--capture-commands".to_owned()]);
        }
        builder = builder.nic(NicOptions {
            args,
            guest_settings,
            root_port,
            ..NicOptions::default()
        });
    }
    if arguments.ism {
        let args = daemon("vhost-ism", IsmOptions::program()?);
        builder = builder.ism(IsmOptions::default().args(args)).mesh();
    }
    Ok((builder, daemons))
}

/// Loads the drivers and configures the interfaces and SMC in every guest.
pub fn set_up(arguments: &Arguments, testbed: &Testbed) -> Result<()> {
    if arguments.has_nic() {
        let setup = NicSetup::default();
        testbed.each(|guest| {
            guest.nic_load(setup.rdma)?;
            guest.nic_configure(setup.mtu)
        })?;
    }
    if arguments.ism {
        testbed.smc_up()?;
    }
    Ok(())
}

impl DeviceDaemon {
    /// Puts a plan of faults in force.
    pub fn apply_faults(&self, plan: &Path) -> Result<()> {
        let plan = plan.display().to_string();
        Ok(self.control.ctl(&["faults", "--plan", &plan]).map(drop)?)
    }

    /// Leaves findings, faults and, if asked for, the trace in the results; returns the numbers of findings by name.
    pub fn collect(&self, trace: bool, folder: &Path) -> Result<Vec<(String, usize)>> {
        let findings = self.control.ctl(&["findings"])?;
        results::write(folder, &format!("findings-{}.json", self.name), format!("{findings:#}"))?;
        let faults = self.control.ctl(&["faults"])?;
        if faults.as_array().is_some_and(|rules| !rules.is_empty()) {
            results::write(folder, &format!("faults-{}.json", self.name), format!("{faults:#}"))?;
        }
        if trace {
            let path = folder
                .join(format!("trace-{}.pftrace", self.name))
                .display()
                .to_string();
            let times = self
                .control
                .run("trace", &["--recent", "--seconds", "0", "--output", &path])?;
            results::write(folder, &format!("trace-{}.txt", self.name), times)?;
        }
        Ok(count(&findings))
    }
}

/// Counts the records of each kind of finding, in their order.
fn count(findings: &Value) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for record in findings.as_array().into_iter().flatten() {
        let name = record["finding"].as_str().unwrap_or_default();
        match counts.iter_mut().find(|(other, _)| other == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name.to_owned(), 1)),
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn findings_are_counted_by_kind() {
        let findings = json!([{"finding": "stale_key"}, {"finding": "bad_ring"}, {"finding": "stale_key"}]);
        let counts = vec![("stale_key".to_owned(), 2), ("bad_ring".to_owned(), 1)];
        assert_eq!(count(&findings), counts);
        assert_eq!(count(&json!([])), []);
    }
}
