//! What the numbers were measured on, and the measuring of processes. Linux: proc(5).

use std::fs;

/// Clock ticks a second in `/proc`: 100 on every architecture that Linux still runs on.
const TICKS: f64 = 100.0;

/// Processor, cores, memory and kernel, as far as `/proc` tells.
pub(crate) fn describe() -> Vec<(&'static str, String)> {
    let model = field("/proc/cpuinfo", "model name");
    let cores = std::thread::available_parallelism().map(|cores| cores.to_string()).ok();
    let memory = field("/proc/meminfo", "MemTotal");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).ok();
    let facts = [("processor", model), ("cores", cores), ("memory", memory), ("linux", kernel)];
    facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Processor time of a process since it started, in its own code and in the kernel.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs");
    // The second field, the program's name in brackets, may have spaces in it. utime and stime are
    // the 14th and 15th.
    let after_name = stat.rsplit_once(") ").expect("a name in brackets").1;
    let ticks = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / TICKS
}

/// The most memory that a process has had resident so far.
pub(crate) fn peak_bytes(process: u32) -> Option<u64> {
    let value = field(&format!("/proc/{process}/status"), "VmHWM")?;
    let kilobytes: u64 = value.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The value of the first line `name: value`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}
