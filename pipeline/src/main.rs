//! The `tidemark` program. Errors end here, as one line of text and an exit status.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match tidemark::cli::run(tidemark::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            tidemark::cli::report(&error);
            ExitCode::FAILURE
        }
    }
}
