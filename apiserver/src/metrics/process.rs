//! What the process takes of its machine, under the names that every Prometheus client library has. Read from
//! `/proc` when asked for; what is not there is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The unit of times in `/proc`: Linux shows them in hundredths of a second on every machine that Rust runs on.
const TICKS: f64 = 100.0;

/// Reads the process' own figures at every scrape.
#[derive(Debug)]
pub(super) struct Process;

#[derive(Debug, Default, PartialEq)]
struct Figures {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    resident: Option<i64>,
    virtual_size: Option<i64>,
    open_files: Option<i64>,
    max_files: Option<i64>,
}

impl Figures {
    fn of_self() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let open_files = fs::read_dir("/proc/self/fd").ok();
        let figures = Figures::read(
            &read("/proc/self/stat"),
            &read("/proc/self/status"),
            &read("/proc/self/limits"),
            &read("/proc/stat"),
        );
        let open_files = open_files.and_then(|files| i64::try_from(files.count()).ok());
        Figures { open_files, ..figures }
    }

    /// The figures in the texts of `/proc/self/stat`, `…/status`, `…/limits` and `/proc/stat`.
    fn read(stat: &str, status: &str, limits: &str, system: &str) -> Self {
        // The name of the program may hold anything; what follows its last parenthesis is the third field.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().collect())
            .unwrap_or_default();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let kibibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().next()?.parse::<i64>().ok()? * 1024)
        };
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let boot = system.lines().find_map(|line| line.strip_prefix("btime "));
        let boot = boot.and_then(|seconds| seconds.trim().parse::<f64>().ok());
        Figures {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS),
            start_seconds: boot.zip(ticks(22)).map(|(boot, start)| boot + start / TICKS),
            resident: kibibytes("VmRSS:"),
            virtual_size: kibibytes("VmSize:"),
            open_files: None,
            max_files: limit.and_then(|limit| limit.split_whitespace().next()?.parse().ok()),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = Figures::of_self();
        if let Some(seconds) = figures.cpu_seconds {
            let counter = ConstCounter::new(seconds);
            let help = "CPU time of the process";
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        if let Some(seconds) = figures.start_seconds {
            let gauge = ConstGauge::new(seconds);
            let (name, help) =
                ("process_start_time_seconds", "When the process began, in seconds since 1970");
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, figure) in [
            ("process_resident_memory_bytes", "Memory that is in use", figures.resident),
            ("process_virtual_memory_bytes", "Memory that is mapped", figures.virtual_size),
            ("process_open_fds", "Open files and connections", figures.open_files),
            ("process_max_fds", "How many may be open", figures.max_files),
        ] {
            let Some(figure) = figure else { continue };
            let gauge = ConstGauge::new(figure);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_texts_of_the_kernel() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 4 0 12345 1000 200";
        let status = "Name:\ta\nVmSize:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files   20000   30000   files\n";
        let found = Figures::read(stat, status, limits, "cpu 1 2\nbtime 1700000000\n");
        let wanted = Figures {
            cpu_seconds: Some(3.0),
            start_seconds: Some(1_700_000_123.45),
            resident: Some(1024 * 1024),
            virtual_size: Some(2048 * 1024),
            open_files: None,
            max_files: Some(20_000),
        };
        assert_eq!(found, wanted);
        assert_eq!(Figures::read("", "", "", ""), Figures::default());
    }
}
