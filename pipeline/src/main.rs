//! The `tidemark` program. Errors end here, as one line of text and an exit status.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match tidemark::cli::run(tidemark::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Logging may not have been set up when this is called, so it writes by itself.
#[expect(clippy::print_stderr, reason = "the last word of the program")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
