//! How much memory the process takes, as the system counts it.

use std::fs;

/// Memory of this process that is resident now and has been at most, as Linux counts it; none
/// elsewhere.
pub(super) fn resident_bytes() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kilobytes << 10)
    };
    Some((field("VmRSS")?, field("VmHWM")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_resident() {
        let (now, most) = resident_bytes().expect("tests run on Linux");
        assert!(now > 1 << 20 && most >= now);
    }
}
