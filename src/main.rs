//! The program.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    daraji::platform::tls::install();
    daraji::cli::run().await
}
