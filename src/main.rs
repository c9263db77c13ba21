//! The program.

use std::process::ExitCode;

/// The C library's allocator keeps what many threads have freed, so that a server grows for hours.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    daraji::platform::tls::install();
    daraji::cli::run().await
}
