//! The `trilut` command.

mod cli;

use trilut_runtime::budget::BudgetAllocator;

/// Holds chat templates to their limits.
#[global_allocator]
static ALLOCATOR: BudgetAllocator = BudgetAllocator;

fn main() -> std::process::ExitCode {
    cli::main()
}
