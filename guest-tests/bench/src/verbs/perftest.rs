//! The perftest programs and their reports.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::device::Device;
use crate::interleaved::Goal;

/// The quantity a program measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// Average bandwidth in MB/s.
    Bandwidth,
    /// Median of half a round trip, in microseconds.
    Latency,
}

/// A program with a message size.
#[derive(Clone, Copy)]
pub struct Perftest {
    program: &'static str,
    figure: Figure,
    size: u32,
    /// Iterations on software RoCE, which is slow under emulation, and on the NIC.
    iterations: [u32; 2],
    /// Required ratio of the NIC to software RoCE.
    pub goal: Goal,
}

impl Perftest {
    const fn bandwidth(program: &'static str, goal: Goal) -> Self {
        Self {
            program,
            figure: Figure::Bandwidth,
            size: 64 << 10,
            iterations: [100, 5000],
            goal,
        }
    }

    const fn latency(program: &'static str, goal: Goal) -> Self {
        Self {
            program,
            figure: Figure::Latency,
            size: 2,
            iterations: [300, 2000],
            goal,
        }
    }
}

/// The programs of the benchmark, in the order of the table.
pub const PERFTESTS: [Perftest; 4] = [
    Perftest::bandwidth("ib_write_bw", Goal::AtLeast(200.0)),
    Perftest::bandwidth("ib_read_bw", Goal::None),
    Perftest::latency("ib_write_lat", Goal::AtMost(0.2)),
    Perftest::latency("ib_send_lat", Goal::None),
];

/// Returns the payload bytes moved by all runs of a program of [`PERFTESTS`].
pub fn bytes(program: &str, device: Device) -> u64 {
    let perftests = PERFTESTS.iter().filter(|perftest| perftest.program == program);
    perftests
        .map(|perftest| u64::from(perftest.size) * u64::from(perftest.iterations[device as usize]))
        .sum()
}

/// A report as written by `--out_json`.
#[derive(Deserialize)]
struct Report {
    test_info: Info,
    results: Results,
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "Device")]
    device: String,
}

#[derive(Deserialize)]
struct Results {
    #[serde(rename = "MsgSize")]
    size: u32,
    n_iterations: u32,
    /// Gbit/s.
    #[serde(rename = "BW_average")]
    bandwidth: Option<f64>,
    /// Microseconds, the median.
    #[serde(rename = "t_typical")]
    latency: Option<f64>,
}

impl Perftest {
    /// Returns the unit of the figure.
    pub fn unit(&self) -> &'static str {
        match self.figure {
            Figure::Bandwidth => "MB/s",
            Figure::Latency => "us",
        }
    }

    /// Returns the command line without the server's address.
    pub fn command(&self, device: Device, gid: u32, port: u16) -> String {
        // Peak bandwidth would read the clock for every message.
        let options = match self.figure {
            Figure::Bandwidth => "--report_gbits --noPeak",
            Figure::Latency => "",
        };
        format!(
            "{} -d {} -x {gid} -F -s {} -n {} -p {port} {options}",
            self.program,
            device.name(),
            self.size,
            self.iterations[device as usize],
        )
    }

    /// Parses a report and checks that it belongs to this program on `device`.
    pub fn read(&self, device: Device, report: &str) -> Result<f64> {
        let Report { test_info, results } =
            serde_json::from_str(report).with_context(|| format!("not a perftest report: {report}"))?;
        ensure!(
            test_info.device == device.name(),
            "perftest ran on {}",
            test_info.device
        );
        ensure!(
            results.size == self.size && results.n_iterations == self.iterations[device as usize],
            "the report has another size or iteration count: {report}"
        );
        let figure = match self.figure {
            Figure::Bandwidth => results.bandwidth.map(|gigabits| gigabits * 1e3 / 8.0),
            Figure::Latency => results.latency,
        };
        // perftest reports zero when it cannot determine the processor's clock rate.
        figure
            .filter(|figure| *figure > 0.0)
            .with_context(|| format!("no figure in {report}"))
    }
}

impl fmt::Display for Perftest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rxe, nic] = self.iterations;
        match self.size {
            size if size % 1024 == 0 => write!(f, "{} {} KiB", self.program, size / 1024)?,
            size => write!(f, "{} {size} B", self.program)?,
        }
        write!(f, ", {rxe} and {nic} times")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE_BW: Perftest = Perftest::bandwidth("ib_write_bw", Goal::None);
    const WRITE_LAT: Perftest = Perftest::latency("ib_write_lat", Goal::None);

    fn report(device: &str, results: &str) -> String {
        format!(r#"{{"test_info": {{"test": "RDMA_Write_BW_Test", "Device": "{device}"}}, "results": {{{results}}}}}"#)
    }

    #[test]
    fn gigabits_become_megabytes() {
        let results = concat!(
            r#""MsgSize": 65536, "n_iterations": 100, "BW_peak": 0.000000, "#,
            r#""BW_average": 0.037143, "MsgRate": 0.000071"#
        );
        let figure = WRITE_BW.read(Device::Rxe, &report("rxe0", results)).unwrap();
        assert!((figure - 4.642875).abs() < 1e-9, "{figure}");
    }

    #[test]
    fn the_latency_is_the_median() {
        let results = concat!(
            r#""MsgSize": 2, "n_iterations": 2000, "t_min": 12.66, "t_max": 2834.37, "#,
            r#""t_typical": 29.18, "t_avg": 70.67"#
        );
        let figure = WRITE_LAT.read(Device::Nic, &report("mlx5_0", results)).unwrap();
        assert_eq!(figure, 29.18);
    }

    #[test]
    fn a_report_of_something_else_is_refused() {
        let results = |size: u32, iterations: u32, bandwidth: f64| {
            format!(r#""MsgSize": {size}, "n_iterations": {iterations}, "BW_average": {bandwidth}"#)
        };
        let read = |device: &str, results: String| WRITE_BW.read(Device::Nic, &report(device, &results));
        assert!(read("mlx5_0", results(65536, 5000, 1.0)).is_ok());
        assert!(read("rxe0", results(65536, 5000, 1.0)).is_err());
        assert!(read("mlx5_0", results(4096, 5000, 1.0)).is_err());
        assert!(read("mlx5_0", results(65536, 100, 1.0)).is_err());
        assert!(read("mlx5_0", results(65536, 5000, 0.0)).is_err());
        assert!(WRITE_BW.read(Device::Nic, "Couldn't connect").is_err());
    }
}
