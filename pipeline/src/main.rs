//! The `tidemark` program. Errors end here, as one line of text and an exit status.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = tidemark::cli::Cli::parse();
    let format = cli.log_format();
    match tidemark::cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            tidemark::cli::report(&error, format);
            ExitCode::FAILURE
        }
    }
}
