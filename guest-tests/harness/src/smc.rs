//! Setup of SMC-D over virtio-ism.

use crate::error::Result;
use crate::guest::Guest;
use crate::testbed::Testbed;

/// Options of the setup.
#[derive(Debug, Clone)]
pub struct SmcOptions {
    /// User-defined enterprise id of all guests. SMC-D version 2 peers need a common one, and a kernel starts without
    /// any (SMC_NETLINK_ADD_UEID in Linux' `include/uapi/linux/smc.h`).
    pub ueid: Option<String>,
    /// Whether to load the virtio-ism driver.
    pub driver: bool,
    /// Module parameters of the driver.
    pub driver_args: Vec<String>,
    /// Sysctl settings, such as `net.smc.rmem`.
    pub sysctls: Vec<(String, String)>,
}

impl Default for SmcOptions {
    fn default() -> Self {
        Self {
            ueid: Some("VHOST-ISM.TEST".to_owned()),
            driver: true,
            driver_args: Vec::new(),
            sysctls: Vec::new(),
        }
    }
}

impl SmcOptions {
    fn script(&self) -> String {
        let mut script = "set -e\nmodprobe smc\nmodprobe smc_diag\n".to_owned();
        if self.driver {
            let args = self.driver_args.join(" ");
            script.push_str(&format!("insmod /host/virtio_ism.ko {args}\n"));
        }
        if let Some(ueid) = &self.ueid {
            script.push_str(&format!("/host/smc-tool ueid add {ueid}\n"));
        }
        for (name, value) in &self.sysctls {
            script.push_str(&format!("sysctl -q -w '{name}={value}'\n"));
        }
        script
    }
}

impl Guest {
    /// Sets up SMC in this guest; must be repeated after each reboot.
    pub fn smc_up(&self, options: &SmcOptions) -> Result<()> {
        self.shell(&options.script())
            .called("set up SMC")
            .run()?
            .check()
            .map(drop)
    }
}

impl Testbed {
    /// Sets up SMC in every guest with default options.
    pub fn smc_up(&self) -> Result<()> {
        self.smc_up_with(&SmcOptions::default())
    }

    /// Sets up SMC in every guest.
    pub fn smc_up_with(&self, options: &SmcOptions) -> Result<()> {
        if options.driver {
            self.require_shared("virtio_ism.ko")?;
        }
        if options.ueid.is_some() {
            self.require_shared("smc-tool")?;
        }
        self.each(|guest| guest.smc_up(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_does_what_the_options_say() {
        let options = SmcOptions {
            driver_args: vec!["debug=1".into()],
            sysctls: vec![("net.smc.rmem".into(), "65536".into())],
            ..SmcOptions::default()
        };
        assert_eq!(
            options.script(),
            "set -e\nmodprobe smc\nmodprobe smc_diag\ninsmod /host/virtio_ism.ko debug=1\n\
             /host/smc-tool ueid add VHOST-ISM.TEST\nsysctl -q -w 'net.smc.rmem=65536'\n"
        );
    }
}
