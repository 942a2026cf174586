//! Operation: loading files, configuration, the HTTP port, secrets, signals, terminals.

mod deploy;
mod ends;
mod http;
mod kafka;
mod load;
mod secrets;

use std::process::{Command, Output};

use libtest_mimic::Trial;
use tidemark_tests::tidemark::Tidemark;

use crate::real::Servers;

pub(crate) fn trials() -> Vec<Trial> {
    [http::trials(), secrets::trials(), ends::trials(), kafka::trials(), load::trials(), deploy::trials()]
        .into_iter()
        .flatten()
        .collect()
}

/// A trial that needs no server.
fn trial(name: &str, body: fn()) -> Trial {
    Trial::test(format!("faults::operation::{name}"), move || {
        body();
        Ok(())
    })
}

/// A trial on real servers.
fn real(name: &str, body: fn(&Servers)) -> Trial {
    crate::real::trial(&format!("faults::operation::{name}"), body)
}

/// A rollup, so that the program has something to do.
const SQL: &str = "CREATE MATERIALIZED VIEW cpu AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, avg(value) AS avg FROM points GROUP BY 1, 2";

/// A program with this configuration, and with a rollup.
pub(super) fn program(config: &str) -> Tidemark {
    let tidemark = Tidemark::new(config).expect("the program was built with the tests");
    tidemark.write("sql/cpu.sql", SQL);
    tidemark
}

/// What a command that ends by itself leaves.
struct Ended {
    success: bool,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn ended(mut command: Command, arguments: &[&str]) -> Ended {
    let Output { status, stdout, stderr } = command.args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { success: status.success(), code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}
