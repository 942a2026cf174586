//! Writes the licences of everything that is linked into the program to standard output: `make
//! notices`.

use std::path::Path;
use std::process::ExitCode;

use tidemark_tests::notices::notices;

#[expect(clippy::print_stderr, reason = "the last word of the program")]
fn main() -> ExitCode {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match notices(&project) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
