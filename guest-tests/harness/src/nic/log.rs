//! Messages of the kernel log.

/// Log level of warnings (linux/kern_levels.h); more severe levels are smaller.
const WARNING: u8 = 4;

/// A message of the kernel log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelMessage {
    /// Log level, from 0 (emergency) to 7 (debug) (linux/kern_levels.h).
    pub level: u8,
    /// Text with its time stamp.
    pub text: String,
}

impl KernelMessage {
    /// Parses the output of `dmesg --raw`, which prefixes every line with its level.
    pub(crate) fn parse(log: &str) -> Vec<Self> {
        log.lines()
            .filter_map(|line| {
                let (priority, text) = line.strip_prefix('<')?.split_once('>')?;
                // The upper bits are the facility.
                let level = (priority.parse::<u32>().ok()? & 7) as u8;
                let text = text.to_owned();
                Some(Self { level, text })
            })
            .collect()
    }

    /// Returns whether this is a warning or worse.
    pub fn is_complaint(&self) -> bool {
        self.level <= WARNING
    }

    /// Returns whether the message is from the drivers of the NIC or from the RDMA core.
    pub fn is_of_mlx5(&self) -> bool {
        // SMC logs each device it finds, at warning level.
        if self.text.contains("] smc: ") {
            return false;
        }
        ["mlx5", "infiniband", "ib_core", "ib_cm", "ib_mad", "NETDEV WATCHDOG"]
            .iter()
            .any(|word| self.text.contains(word))
            || (self.text.contains(super::options::NIC) && self.text.contains("hw csum"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_senders_are_told_apart() {
        let log = "\
<6>[    1.000000] mlx5_core 0000:00:08.0: firmware version: 16.35.0
<4>[    1.100000] mlx5_core 0000:00:08.0: mlx5_pcie_print_link_status: something
<30>[    1.200000] a daemon: a facility and level 6
<3>[    1.300000] e1000: not ours
no message at all
";
        let messages = KernelMessage::parse(log);
        let levels: Vec<u8> = messages.iter().map(|message| message.level).collect();
        assert_eq!(levels, [6, 4, 6, 3]);
        let complaints: Vec<bool> = messages.iter().map(KernelMessage::is_complaint).collect();
        assert_eq!(complaints, [false, true, false, true]);
        let ours: Vec<bool> = messages.iter().map(KernelMessage::is_of_mlx5).collect();
        assert_eq!(ours, [true, true, false, false]);
    }
}
